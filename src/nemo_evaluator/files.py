"""Files that are written whole or not at all, and read by others while we write."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

# Asking for the umask means setting it, for all threads at once: done once, before there are any.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def write_atomically(path: Path, text: str | bytes, *, mode: int = 0o644) -> None:
    """Write `path` so that a reader, a crash or a full disk never sees a part of it.

    The text goes to a temporary file in the same folder, is synced, and renamed over `path`.
    """
    data = text.encode() if isinstance(text, str) else text
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode & ~_UMASK)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file that others may have put there, and never wait for whoever is at the other end of it.

    Args:
        path: the file; a named pipe, a device or a folder in its place is refused.
        flags: as of `os.open`, such as `os.O_NOFOLLOW` beside the access.

    Returns:
        A descriptor, to be closed.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power loss, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    # Some network file systems refuse to sync folders; the rename itself is still atomic there.
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)

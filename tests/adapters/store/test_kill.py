"""A process that is killed at random moments, and what it had acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.adapters.store.conftest import start_of_run

WRITER = textwrap.dedent("""
    import itertools, sys
    from pathlib import Path
    from tests.adapters.store.conftest import entry_of, start_of_run
    with start_of_run(Path(sys.argv[1])) as session:
        for number in itertools.count():
            names = [f"{sys.argv[2]} {number} {index}" for index in range(1 + number % 5)]
            assert all(session.put(*(entry_of(name, name + "x" * (number * 997 % 9000)) for name in names)))
            print(*names, sep="\\n", flush=True)
""")


def test_nothing_acknowledged_is_lost_by_kill_9(path: Path) -> None:
    chance = random.Random(3)
    acknowledged: list[str] = []
    for life in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(life)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.25))
        child.kill()
        rest = child.stdout.read()
        child.stdout.close()
        child.wait()
        # The last line may be cut: it was not read by anybody.
        acknowledged += (first + rest).split("\n")[:-1]
        with start_of_run(path) as session:
            found = {name: session.find(name) for name in acknowledged}
        assert [name for name, text in found.items() if text is None or not text.startswith(name)] == []
    assert len(acknowledged) >= 6

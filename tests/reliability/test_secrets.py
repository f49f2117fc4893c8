"""Keys appear nowhere, folders are private, and no connection is made but to the endpoint."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.core.conftest import Request, Response, Script, ScriptedServer
from tests.core.conftest import serve as serve  # noqa: PLC0414  a fixture, shared
from tests.reliability.conftest import Case, tree

from nemo_evaluator.testing import ModelRequest

KEY = "sk-canary-4f1c9a7e2b8d6035"
HIDDEN = (KEY, base64.b64encode(KEY.encode()).decode().rstrip("="), KEY[3:], KEY.removeprefix("sk-canary-"))
LOOPBACK = ("127.0.0.1", "::1", "localhost")

# Python reads this module at every start: it notes whom each process of the run talks to.
_NOTE_CONNECTIONS = """
import os, sys

def note(event, arguments):
    address = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        address = arguments[1][0]
    elif event == "socket.getaddrinfo":
        address = arguments[0]
    if address is not None:
        text = address.decode() if isinstance(address, bytes) else str(address)
        descriptor = os.open(os.environ["NOTED_CONNECTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        program = os.path.basename(getattr(sys, "argv", [""])[0])
        os.write(descriptor, f"{program} {text}\\n".encode())
        os.close(descriptor)

sys.addaudithook(note)
"""


def echoing(case: Case) -> Script:
    """A server that repeats the key wherever servers repeat what they got."""
    failed: set[str] = set()

    def script(request: Request) -> Response:
        key = request.headers.get("authorization", "")
        headers = (
            ("Content-Type", "application/json"),
            ("X-Echo", key),
            ("Set-Cookie", f"session={KEY}"),
            ("X-Request-Id", KEY),
        )
        if key != f"Bearer {KEY}":
            return Response(status=401, body={"error": {"message": f"wrong key {key}"}}, headers=headers)
        prompt = request.body.get("messages", [{"content": ""}])[-1]["content"] if request.body else ""
        number = prompt.partition("Which is letter ")[2][:4]
        if number.endswith("3") and number not in failed:
            failed.add(number)
            text = f"the upstream refused {key} (key {KEY})"
            return Response(status=500, body={"error": {"message": text, "type": "server_error"}}, headers=headers)
        # The published harness ends at the first refusal.
        if number.endswith("5") and case.name == "mmlu_pro":
            return Response(status=400, body={"error": {"message": f"{key} is not allowed this"}}, headers=headers)
        text = case.questions.answer(ModelRequest(index=0, route="chat", prompt=prompt, body=request.body))
        message = {"role": "assistant", "content": text}
        return Response(body={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, headers=headers)

    return script


def test_a_key_is_nowhere_and_nobody_else_is_talked_to(
    case: Case, tmp_path: Path, serve: Callable[[Script], ScriptedServer]
) -> None:
    hooks, noted, output_dir = tmp_path / "hooks", tmp_path / "noted", tmp_path / "out"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(_NOTE_CONNECTIONS)
    adapter = "target.api_endpoint.adapter_config"
    case = case.having(
        "target.api_endpoint.api_key_name=MODEL_KEY",
        "config.params.extra.max_failed_fraction=0.2" if case.name == "mmlu_pro" else "config.params.max_retries=1",
        f"{adapter}.use_request_logging=true",
        f"{adapter}.use_response_logging=true",
        f"{adapter}.log_failed_requests=true",
        f"{adapter}.retry.base_seconds=0.02",
        MODEL_KEY=KEY,
        PYTHONPATH=str(hooks),
        NOTED_CONNECTIONS=str(noted),
    )
    server = serve(echoing(case))

    # A careless user's umask.
    words = case.words(f"{server.url}/v1/chat/completions", output_dir)
    case = Case(**{**vars(case), "command": ["bash", "-c", 'umask 000; exec "$@"', "bash", *case.command]})
    process = case.start(f"{server.url}/v1/chat/completions", output_dir)
    seen = ""
    while process.poll() is None:
        for one in tree(process.pid):
            seen += _command_line(one.pid)
        time.sleep(0.05)

    said = case.log(output_dir)
    assert process.returncode == 0, said
    assert any(word in seen for word in words[-3:])
    files = [path for path in output_dir.rglob("*") if path.is_file()]
    texts = {str(path): path.read_bytes().decode("latin-1") for path in files}
    texts |= {"the terminal": said, "the command lines": seen, "the store": _stored(output_dir)}
    assert "Which is letter" in texts["the store"]
    assert [(where, part) for where, text in texts.items() for part in HIDDEN if part in text] == []
    assert output_dir.stat().st_mode & 0o777 == 0o700
    assert [path for path in output_dir.rglob("*") if path.stat().st_mode & 0o022] == []
    assert (output_dir / "cache" / "requests.db").stat().st_mode & 0o777 == 0o600
    # The published harness's library for data looks for its makers' servers; what is ours does not.
    talked_to = {tuple(line.split(" ")) for line in noted.read_text().splitlines()}
    assert {address for program, address in talked_to if program != "simple_evals"} <= {*LOOPBACK, "None"}
    assert len(talked_to) > 1


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _stored(output_dir: Path) -> str:
    """Everything that the store holds, unpacked: as listed, as shown, and as exported."""
    command = [sys.executable, "-m", "nemo_evaluator", "requests", str(output_dir)]

    def printed(*words: str) -> str:
        return subprocess.run([*command, *words], capture_output=True, text=True, check=True).stdout

    listed = printed("--json")
    shown = printed("show", str(json.loads(listed)[0]["id"]))
    return "\n".join([listed, shown, printed("export"), printed("--failed")])

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("nemo-evaluator")


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", *arguments],
        cwd=ROOT,
        env={**os.environ, "NEMO_EVALUATOR_HARNESS_PATH": str(ROOT / "harnesses"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def data_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_cli_start_measures_each_command() -> None:
    data = data_of(run("cli_start", "--runs", "1", "--program", str(PROGRAM), "--task", "mmlu_pro", "--json"))

    assert [(row["command"], row["of"]) for row in data["rows"]] == [("ls", "ours"), ("dry_run", "ours")]
    assert all(0 < row["cpu_s"] < 60 for row in data["rows"])


def test_cli_start_fails_when_a_command_fails() -> None:
    result = run("cli_start", "--runs", "1", "--program", str(PROGRAM), "--task", "no_such_task")

    assert result.returncode == 1
    assert "Unknown evaluation no_such_task" in result.stderr


def test_engine_loop_asks_every_sample_of_every_program() -> None:
    data = data_of(
        run(
            "engine_loop",
            *("--samples", "8", "--parallelism", "4", "--latency", "0", "--latency", "0.01"),
            *("--rounds", "1", "--json"),
        )
    )

    assert [(row["program"], row["latency_s"], row["requests"]) for row in data["rows"]] == [
        ("bare aiohttp", 0, 8),
        ("ours", 0, 8),
        ("bare aiohttp", 0.01, 8),
        ("ours", 0.01, 8),
    ]
    assert data["rows"][-1]["in_flight"] == 4
    assert 0 < data["rows"][-1]["efficiency"] <= 1
    assert len(data["notes"]) == 2


def test_engine_loop_prints_a_table() -> None:
    result = run("engine_loop", "--samples", "4", "--latency", "0", "--rounds", "1")

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["program", "latency_s", "cpu_s_per_1000"]
    assert lines[2].startswith("ours")
    assert lines[3].startswith("CPU at 0 ms, ours / bare aiohttp: ")


def test_image_sizes_says_that_no_engine_answers() -> None:
    result = run("image_sizes", DOCKER_HOST="unix:///nonexistent/docker.sock")

    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_proxy_measures_each_chain() -> None:
    data = data_of(run("proxy", "--requests", "100", "--rounds", "1", "--nginx", "", "--json"))

    assert [(row["target"], row["not_200"]) for row in data["rows"]] == [
        ("direct", 0),
        ("ours, endpoint only", 0),
        ("ours, default chain", 0),
        ("ours, all from the store", 0),
    ]


def test_proxy_answers_all_that_is_outstanding() -> None:
    data = data_of(run("proxy", "--slow", "--outstanding", "20", "--requests", "20", "--nginx", "", "--json"))

    assert [(row["answered"], row["of"]) for row in data["rows"]] == [(40, 40)] * 3


def test_store_measures_each_step() -> None:
    (row,) = data_of(run("store", "--answers", "200", "--hits", "50", "--json"))["rows"]

    assert row["answers"] == 200
    assert 0 < row["size / raw"] < 1
    assert all(row[name] >= 0 for name in ("write, CPU us", "hit, CPU us", "open, s", "first answer, ms"))

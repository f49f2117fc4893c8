"""What takes minutes, or a machine of one's own: collected by `make soak` only. Needs root and libfaketime."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.reliability.conftest import PARALLELISM, PREFLIGHT_REQUESTS, Case, Questions, tree, wait_for

from nemo_evaluator.testing import Answer, FakeEndpoint, ModelRequest

DAY = 86_400
MEBIBYTE = 2**20


def stored(output_dir: Path) -> list[dict[str, Any]]:
    """What the store's reader finds."""
    done = subprocess.run(
        [sys.executable, "-m", "nemo_evaluator", "requests", str(output_dir), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a document, with their dotted keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{path}.{key}")
    elif isinstance(value, int | float):
        yield path, value


@pytest.mark.parametrize("name", ["ours", "published"])
@pytest.mark.parametrize("jumps", [(DAY, -DAY), (-DAY, DAY), (-3600, -3600)], ids=["forth", "back", "twice back"])
def test_a_clock_that_is_set_changes_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, jumps: tuple[int, int]
) -> None:
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    offset, output_dir = tmp_path / "offset", tmp_path / "out"
    offset.write_text("+0\n")
    case: Case = request.getfixturevalue(name)
    case = case.having(
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(offset),
        FAKETIME_NO_CACHE="1",
        # What a set clock changes is the time of day; the kernel's monotonic clock goes on.
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    questions, at = case.questions, 0
    with FakeEndpoint(questions.answer, model_id="m", latency=0.3) as endpoint:
        process = case.start(endpoint.chat_url, output_dir)
        for jump, share in zip(jumps, (0.3, 0.6), strict=True):
            wait_for(lambda share=share: endpoint.count > PREFLIGHT_REQUESTS + share * questions.count)  # type: ignore[misc]  # the loop's value
            at += jump
            offset.write_text(f"{at:+d}\n")
        assert process.wait(120) == 0, case.log(output_dir)
        assert endpoint.count <= questions.count + PREFLIGHT_REQUESTS
        # The next start finds a folder from another day, and everything in it.
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        assert endpoint.count <= questions.count + 2 * PREFLIGHT_REQUESTS

    assert case.score(output_dir) == pytest.approx(questions.score)
    metrics = json.loads((output_dir / "eval_factory_metrics.json").read_text())
    seconds = [(key, value) for key, value in numbers(metrics) if "seconds" in key or "latency" in key]
    assert seconds
    assert [found for found in seconds if not 0 <= found[1] < 120_000] == []
    records = stored(output_dir)
    assert len({record["time"] // 1800 for record in records}) > 1, "the clock was never set"
    assert all(0 <= record["seconds"] < 60 for record in records)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder for a run, on a small file system of its own."""
    folder = tmp_path / "out"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=210m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all room that is left, but for the little that the run takes meanwhile."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.parametrize("name", ["ours", "published", "probe"])
def test_a_disk_that_fills_up_loses_no_score(request: pytest.FixtureRequest, small_disk: Path, name: str) -> None:
    case: Case = request.getfixturevalue(name)
    case = case.asking(40) if name != "probe" else case
    filler, output_dir = os.urandom(10_000).hex(), small_disk

    def answer(request: ModelRequest) -> Answer:
        text = "yes" if name == "probe" else case.questions.answer(request)
        return Answer(text, reasoning=f"{request.prompt[-4:]} {filler}")

    with FakeEndpoint(answer, model_id="m", latency=0.3) as endpoint:
        process = case.start(endpoint.chat_url, output_dir)
        wait_for(lambda: endpoint.count > PREFLIGHT_REQUESTS + 10)
        fill(small_disk)
        code = process.wait(120)
        (small_disk / "filler").unlink()
        said = case.log(output_dir)
        assert "database or disk is full" in said, said
        if code:
            assert f"the disk of {output_dir} is full" in said or "the harness " in said, said
            assert "start the same command again" in said
        assert (output_dir / "results.yml").exists() == (code == 0), said
        kept = len({record["sample"] for record in stored(output_dir) if record["is_usable"]})
        asked = endpoint.count

        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)

        assert endpoint.count - asked <= 40 - kept + PARALLELISM + PREFLIGHT_REQUESTS
    assert case.score(output_dir) == pytest.approx(1.0 if name == "probe" else case.questions.score)


@pytest.fixture
def memory_group() -> Iterator[tuple[Path, Path]]:
    """A memory control group, and the file that limits it."""
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    group = (root if unified else root / "memory") / f"nemo-evaluator-soak-{os.getpid()}"
    group.mkdir()
    yield group, group / ("memory.max" if unified else "memory.limit_in_bytes")
    wait_for(lambda: not (group / "cgroup.procs").read_text().strip(), 30)
    group.rmdir()


def test_a_harness_that_takes_too_much_memory_is_named_and_the_run_goes_on(
    probe: Case, tmp_path: Path, memory_group: tuple[Path, Path]
) -> None:
    group, limit = memory_group
    limit.write_text(str(300 * MEBIBYTE))
    output_dir = tmp_path / "out"
    # It asks all its questions, then takes more memory than there is.
    greedy = tmp_path / "greedy.py"
    greedy.write_text(
        f"import os\nif os.environ.get('GREED'):\n    hoard = [bytearray({MEBIBYTE}) for _ in range(600)]\n"
    )
    definition = Path(probe.variables["NEMO_EVALUATOR_HARNESS_PATH"]) / "probe" / "framework.yml"
    definition.write_text(
        definition.read_text().replace(
            "--parallel {{config.params.parallelism}}", f"--parallel 8 && {sys.executable} {greedy}"
        )
    )
    case = replace(
        probe.having(GREED="1"),
        command=["bash", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "bash", *probe.command],
    )
    with FakeEndpoint("yes", model_id="m") as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 4, case.log(output_dir)
        said = case.log(output_dir)
        assert "ran out of memory: the kernel ended it" in said, said
        assert not (output_dir / "results.yml").exists()
        asked = endpoint.count
        assert case.having(GREED="").finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        assert endpoint.count - asked <= PREFLIGHT_REQUESTS
    assert case.score(output_dir) == 1.0


def test_ten_thousand_samples_at_once(ours: Case, tmp_path: Path) -> None:
    questions = Questions(10_000)
    file = tmp_path / "many.jsonl"
    file.write_text(questions.lines)
    case = replace(
        ours.having(f"config.params.extra.dataset={json.dumps(str(file))}", "config.params.parallelism=256"),
        questions=questions,
    )
    output_dir, memory = tmp_path / "out", [(0, 0)]
    with FakeEndpoint(questions.answer, model_id="m", latency=0.005) as endpoint:
        process = case.start(endpoint.chat_url, output_dir)
        while process.poll() is None:
            with_us = tree(process.pid)[:1]
            memory += [(endpoint.count, one.memory_info().rss) for one in with_us if one.is_running()]
            time.sleep(0.2)
        assert process.returncode == 0, case.log(output_dir)
        assert endpoint.count <= questions.count + PREFLIGHT_REQUESTS

    counted = case.coverage(output_dir)
    assert counted["scored"] == counted["requests"]["answered"] == questions.count
    assert case.score(output_dir) == pytest.approx(questions.score)
    # From the first thousand answers on.
    settled = [(count, size) for count, size in memory if 1_000 < count < 10_000]
    slope = (settled[-1][1] - settled[0][1]) / max(1, settled[-1][0] - settled[0][0])
    sys.stdout.write(f"memory grew by {slope * 1000 / MEBIBYTE:.2f} MiB per 1,000 samples\n")
    assert slope * 1000 < MEBIBYTE


def test_figures_of_the_last_run_are_whole(ours: Case, tmp_path: Path) -> None:
    """Readers that look at the result file all the time see none, or a whole one."""
    output_dir, seen = tmp_path / "out", 0
    with FakeEndpoint(ours.questions.answer, model_id="m") as endpoint:
        process = ours.start(endpoint.chat_url, output_dir)
        while process.poll() is None:
            try:
                text = (output_dir / "results.yml").read_text()
            except FileNotFoundError:
                continue
            seen += 1
            assert yaml.safe_load(text)["coverage"]["scored"] == ours.questions.count
        assert process.returncode == 0
    assert seen

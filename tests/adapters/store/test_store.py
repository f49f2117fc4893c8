from __future__ import annotations

import itertools
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from tests.adapters.store.conftest import entry_of, request_of, start_of_run

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.store.database import open_for_writing
from nemo_evaluator.adapters.store.identity import identify
from nemo_evaluator.adapters.store.packing import Content, Packer
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.adapters.store.record import Selection
from nemo_evaluator.adapters.store.shelf import Wanted
from nemo_evaluator.adapters.store.store import Store
from nemo_evaluator.adapters.store.writer import Writer, prepare
from nemo_evaluator.errors import MisconfigurationError


def test_a_later_start_finds_what_an_earlier_one_stored(path: Path) -> None:
    with start_of_run(path) as first:
        assert first.put(entry_of("a", "1"), entry_of("b", "2")) == [True, True]
        assert first.find("a") is None
    with start_of_run(path) as second:
        assert (first.store.start, second.store.start) == (1, 2)
        assert second.find("b") == "2"
        assert second.find("a") == "1"
        assert second.find("a") is None
        assert second.find("c") is None


def test_thirty_two_answers_of_one_prompt_come_once_each_in_order(path: Path) -> None:
    answers = [str(number) for number in range(32)]
    with start_of_run(path) as session:
        session.put(*(entry_of("same", answer) for answer in answers[:20]))
    with start_of_run(path) as session:
        assert [session.find("same") for _ in range(20)] == answers[:20]
        assert session.find("same") is None
        session.put(*(entry_of("same", answer) for answer in answers[20:]))
        assert session.find("same") is None
    with start_of_run(path) as session:
        assert [session.find("same") for _ in range(33)] == [*answers, None]


def test_only_usable_answers_are_given_again_and_all_are_kept(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "broken", is_usable=False), entry_of("a", "good"))
    with start_of_run(path) as session:
        assert [session.find("a"), session.find("a")] == ["good", None]
    with StoreReader(path) as reader:
        assert [record.problem for record in reader.records()] == ["status 500", None]
        assert "broken" in reader.texts(1).response.decode()


def test_an_answer_whose_text_was_not_kept_is_not_given_again(path: Path) -> None:
    entry = entry_of("a", "1")
    entry.response = None
    with start_of_run(path) as session:
        session.put(entry)
    with start_of_run(path) as session:
        assert session.find("a") is None


def test_seeds_that_are_drawn_at_each_start_do_not_defeat_resuming(path: Path) -> None:
    seeds = [1_000_003 * number for number in range(1, 9)]
    with start_of_run(path) as session:
        session.put(*(entry_of("same", str(seed), seed=seed) for seed in seeds))
    with start_of_run(path) as session:
        # What has no stored counterpart says nothing about the harness.
        assert [session.find("other", seed=seed + 17) for seed in seeds] == [None] * 8
        found = [session.find("same", seed=seed + 17) for seed in seeds]
        assert found[:3] == [None] * 3
        assert len(set(found[3:])) == 5
        assert [session.find("same", seed=99_999_999 + number) is None for number in range(4)] == [False] * 3 + [True]
        assert session.find("same") is None


def test_few_missing_answers_of_a_harness_that_repeats_its_seeds_are_asked_for(path: Path) -> None:
    seeds = [1_000_003 * number for number in range(1, 6)]
    with start_of_run(path) as session:
        session.put(*(entry_of("same", str(seed), seed=seed) for seed in seeds[2:]))
    with start_of_run(path) as session:
        assert [session.find("same", seed=seed) for seed in seeds] == [None, None, *map(str, seeds[2:])]


def test_a_judge_with_one_seed_does_not_defeat_resuming_a_model_whose_seeds_are_drawn(path: Path) -> None:
    seeds = [1_000_003 * number for number in range(1, 9)]
    with start_of_run(path) as session:
        session.put(*(entry_of("same", str(seed), seed=seed) for seed in seeds))
        session.put(*(entry_of(str(number), "judged", upstream="judge", seed=42) for number in range(20)))
    with start_of_run(path) as session:
        judge = session.store.shelf(Wanted(upstream="judge"))
        assert judge is not None
        assert len(judge) == 20
        assert judge.find(identify(request_of("3", upstream="judge", seed=42))) is not None
        assert judge.find(identify(request_of("3", upstream="judge", seed=99_999_999))) is None
        found = [session.find("same", seed=seed + 17) for seed in seeds]
        assert [text is None for text in found] == [True] * 3 + [False] * 5


def test_a_harness_that_repeats_its_seeds_gets_answers_of_its_very_seeds(path: Path) -> None:
    seeds = [1_000_003 * number for number in range(1, 5)]
    with start_of_run(path) as session:
        session.put(*(entry_of("same", str(seed), seed=seed) for seed in seeds))
    with start_of_run(path) as session:
        assert [session.find("same", seed=seed) for seed in reversed(seeds)] == [str(seed) for seed in reversed(seeds)]
    with start_of_run(path) as session:
        assert session.find("same", seed=seeds[0]) == str(seeds[0])
        assert session.find("same", seed=5) is None


@pytest.mark.parametrize("seeds", [[1, 2, 3, 4], [123_456_789] * 4])
def test_counted_and_constant_seeds_are_part_of_the_request(path: Path, seeds: list[int]) -> None:
    with start_of_run(path) as session:
        session.put(*(entry_of("same", str(seed), seed=seed) for seed in seeds))
    with start_of_run(path) as session:
        assert session.find("same", seed=77_777_777) is None
    with start_of_run(path, "ignore") as session:
        assert session.find("same", seed=77_777_777) is not None


def test_exact_seeds_never_take_another(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("same", "1", seed=1_000_003))
    with start_of_run(path, "exact") as session:
        assert session.find("same", seed=1_000_004) is None


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}
        assert path.name in modes
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_large_bodies_come_back_whole(path: Path) -> None:
    text = os.urandom(1_500_000).hex()
    entry = entry_of("large", text)
    with start_of_run(path) as session:
        assert session.run(lambda: session.store.put(entry))
        assert session.put(entry_of("large", text[::-1])) == [True]
    with start_of_run(path) as session:
        assert session.find("large") == text
        assert session.find("large") == text[::-1]


def test_two_stores_on_one_file_see_what_was_there_before_they_opened(path: Path) -> None:
    with start_of_run(path) as one, start_of_run(path) as other:
        for number in range(10):
            assert one.put(entry_of("a", f"one {number}")) == [True]
            assert other.put(entry_of("a", f"other {number}")) == [True]
        assert one.find("a") is None
        with start_of_run(path) as third:
            assert {third.store.start, one.store.start, other.store.start} == {1, 2, 3}
            found = [third.find("a") for _ in range(21)]
    assert found == [f"{who} {number}" for number in range(10) for who in ("one", "other")] + [None]


def test_a_full_disk_stops_storing_and_nothing_else(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import logging, resource, sys
        from pathlib import Path
        from tests.adapters.store.conftest import entry_of, start_of_run
        logging.basicConfig(format="%(message)s")
        path = Path(sys.argv[1])
        with start_of_run(path) as session:
            assert session.put(entry_of("a", "1")) == [True]
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size, limits[1]))
            assert session.put(entry_of("b", "2"), entry_of("c", "3")) == [False, False]
            assert session.put(entry_of("d", "4")) == [False]
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            session.store._paused_until = 0.0
            assert session.put(entry_of("e", "5")) == [True]
    """)
    path = tmp_path / "requests.db"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("answers cannot be stored") == 1
    assert "answers are stored again" in done.stderr
    assert "3 answers were not stored" in done.stderr
    with start_of_run(path) as session:
        assert [session.find(name) for name in "abcde"] == ["1", None, None, None, "5"]


def test_where_nothing_can_be_written_answers_are_still_given_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    path = folder / "requests.db"
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.adapters.store.conftest import entry_of, start_of_run
        become_nobody()
        with start_of_run(Path(sys.argv[1])) as session:
            assert session.find("a") == "1"
            assert session.put(entry_of("b", "2")) == [False]
    """)
    done = _as_nobody(script, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("left", ["closed", "killed", "killed, without index"])
def test_a_reader_needs_no_right_to_write(tmp_path: Path, left: str) -> None:
    folder = tmp_path / "cache"
    path = folder / "requests.db"
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
        session.put(entry_of("b", "2"))
        if left != "closed":
            folder = tmp_path / "copy"
            folder.mkdir()
            for file in path.parent.iterdir():
                if not (file.name.endswith("-shm") and "without" in left):
                    (folder / file.name).write_bytes(file.read_bytes())
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from nemo_evaluator.adapters.store.reader import StoreReader
        become_nobody()
        with StoreReader(Path(sys.argv[1])) as reader:
            assert [record.sample for record in reader.records()] == ["sample a", "sample b"]
    """)
    done = _as_nobody(script, folder)
    assert done.returncode == 0, done.stderr


_BECOME_NOBODY = """
import os
def become_nobody():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
"""


def _as_nobody(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` on the store in `folder`, which it cannot write; root, who always can, becomes another user."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    ours = itertools.takewhile(lambda parent: parent != Path(tempfile.gettempdir()), folder.parents)
    for parent in ours:
        parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    # Not from the start: the interpreter itself may lie where only root can read.
    return subprocess.run(
        [sys.executable, "-c", _BECOME_NOBODY + script, str(folder / "requests.db")],
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(MisconfigurationError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_a_later_versions_store_is_refused(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(MisconfigurationError, match="later version"):
        Store(path)


def test_a_long_log_is_moved_into_the_database(path: Path) -> None:
    text = os.urandom(400_000).hex()
    log = path.with_name(f"{path.name}-wal")
    sizes = []
    with start_of_run(path) as session:
        for number in range(180):
            assert session.put(entry_of(str(number), text + str(number))) == [True]
            sizes.append(log.stat().st_size)
    assert max(sizes) < 110_000_000
    assert not log.exists()
    with StoreReader(path) as reader:
        assert reader.count() == 180


def test_it_works_without_a_log(path: Path) -> None:
    opened = open_for_writing(path, has_log=False)
    writer = Writer(path, opened)
    packed = Packer().pack(Content(headers=[], facts=AnswerFacts(), request=b"", response=b"1"))
    writer.write([prepare(entry_of("a", "1"), packed)], start=writer.begin_start())
    assert not opened.has_log
    with StoreReader(path) as reader:
        assert reader.count() == 1
        writer.write([prepare(entry_of("b", "2"), packed)], start=1)
        assert reader.count() == 2
    writer.close()
    assert not path.with_name(f"{path.name}-wal").exists()


def test_text_that_is_no_text_is_stored_all_the_same(path: Path) -> None:
    entry = entry_of("a", "1")
    entry.headers, entry.sample, entry.problem = [("X", "\udcff")], "\ud800", "\ud800"
    entry.facts = AnswerFacts(prompt_tokens=10**40, finish_reasons=["\ud800"])
    with start_of_run(path) as session:
        assert session.put(entry) == [True]
    with StoreReader(path) as reader:
        (record,) = reader.records()
        assert (record.sample, record.finish_reason, record.prompt_tokens) == ("?", "?", None)
        assert reader.texts(1).response_headers == (("X", "\udcff"),)
    with start_of_run(path) as session:
        assert session.find("a") == "1"


def test_after_its_end_nothing_is_stored(path: Path) -> None:
    with start_of_run(path) as session:
        session.store.close()
        assert session.put(entry_of("a", "1")) == [False]


def test_records_are_counted_by_start(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
    with start_of_run(path) as session:
        session.put(entry_of("b", "2"), entry_of("c", "3"))
    with StoreReader(path) as reader:
        assert [start.number for start in reader.starts()] == [1, 2]
        assert [reader.count(Selection(start=start.number)) for start in reader.starts()] == [1, 2]

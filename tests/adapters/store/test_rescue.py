from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.adapters.store.conftest import entry_of, start_of_run

from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.errors import DataError

COUNT = 120
PAGE = 16384


def answer(number: int) -> str:
    """Of many lengths; some longer than a page, and few that pack well."""
    chance = random.Random(number)
    return f"{number} " + chance.randbytes(40_000 if number % 40 == 7 else 500 + number % 100).hex()


def fill(path: Path, count: int = COUNT) -> None:
    with start_of_run(path) as session:
        for number in range(count):
            session.put(entry_of(str(number), answer(number)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "requests.db"
    fill(path)
    return path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose process was killed: most of it is in the log."""
    folder = tmp_path_factory.mktemp("logged")
    path = folder / "killed" / "requests.db"
    path.parent.mkdir()
    with start_of_run(folder / "requests.db") as session:
        for number in range(COUNT):
            session.put(entry_of(str(number), answer(number)))
        for end in ("", "-wal"):
            shutil.copyfile(folder / f"requests.db{end}", f"{path}{end}")
    return path


def found_in(path: Path) -> list[int]:
    """The numbers whose answers a new start gets; each is right."""
    found = []
    with start_of_run(path) as session:
        for number in range(COUNT):
            text = session.find(str(number))
            if text is not None:
                assert text == answer(number)
                found.append(number)
        assert session.put(entry_of("new", "after")) == [True]
    with start_of_run(path) as session:
        assert session.find("new") == "after"
    return found


def damaged(whole: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "requests.db"
    for end in ("", "-wal"):
        source = Path(f"{whole}{end}")
        if source.exists():
            shutil.copyfile(source, f"{path}{end}")
    return path


def flip(path: Path, chance: random.Random, bits: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(bits):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def test_a_whole_file_stays_where_it_is(whole: Path, tmp_path: Path) -> None:
    path = damaged(whole, tmp_path)
    assert found_in(path) == list(range(COUNT))
    assert [file.name for file in tmp_path.iterdir()] == ["requests.db"]


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_are_never_served(whole: Path, tmp_path: Path, seed: int) -> None:
    path = damaged(whole, tmp_path)
    flip(path, random.Random(seed), 1 + 3 * seed)
    assert len(found_in(path)) >= COUNT - 30 - 12 * seed


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_of_the_log_are_never_served(logged: Path, tmp_path: Path, seed: int) -> None:
    path = damaged(logged, tmp_path)
    flip(Path(f"{path}-wal"), random.Random(seed), 1)
    found = found_in(path)
    assert found == list(range(len(found)))


@pytest.mark.parametrize("part", [0.001, 0.05, 0.3, 0.5, 0.77, 0.95])
def test_a_file_that_was_cut_gives_what_is_left_of_it(
    tmp_path: Path, part: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requests.db"
    with start_of_run(path) as session:
        for first in range(0, 800, 20):
            session.put(*(entry_of(str(number), answer(number)) for number in range(first, first + 20)))
    os.truncate(path, int(path.stat().st_size * part))
    with start_of_run(path) as session:
        found = [session.find(str(number)) for number in range(800)]
    assert all(text in (None, answer(number)) for number, text in enumerate(found))
    assert 800 - found.count(None) >= 800 * (part - 0.2)
    assert "was damaged" in caplog.text
    assert len(caplog.records) == 1
    assert (tmp_path / "requests.db.corrupt-1").exists()


def test_a_cut_within_the_last_page_costs_no_more_than_its_answers(whole: Path, tmp_path: Path) -> None:
    path = damaged(whole, tmp_path)
    os.truncate(path, path.stat().st_size - 100)
    assert len(found_in(path)) >= COUNT - 20


@pytest.mark.parametrize("place", [0, 16, 18, 60, 68, 100, 103, PAGE, 2 * PAGE])
def test_a_page_of_zeros_anywhere_costs_no_more_than_that_page(whole: Path, tmp_path: Path, place: int) -> None:
    path = damaged(whole, tmp_path)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(200))
    assert len(found_in(path)) >= COUNT - 60


@pytest.mark.parametrize("text", [b"this is no database", os.urandom(40_000), b"SQLite format 3\0" + bytes(5000)])
def test_what_is_no_database_is_set_aside(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "requests.db"
    path.write_bytes(text)
    with pytest.raises(DataError):
        StoreReader(path)
    assert found_in(path) == []
    assert (tmp_path / "requests.db.corrupt-1").read_bytes() == text


@pytest.mark.parametrize("place", [18, 19])
def test_a_form_that_sqlite_does_not_know_is_damage(whole: Path, tmp_path: Path, place: int) -> None:
    path = damaged(whole, tmp_path)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\x0a")
    assert found_in(path) == list(range(COUNT))


def test_many_kinds_of_damage_are_survived(whole: Path, tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(60):
        path = damaged(whole, tmp_path / str(number))
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice((1, 3, 30))):
            # The heads of pages say where everything is.
            data[chance.randrange(len(data) // PAGE) * PAGE + chance.randrange(120)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        found_in(path)


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.touch()
    assert found_in(path) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_each_rescue_keeps_the_former_ones(whole: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        path = damaged(whole, tmp_path)
        os.truncate(path, path.stat().st_size // 2)
        found_in(path)
        assert (tmp_path / f"requests.db.corrupt-{number}").exists()


def test_damage_that_is_met_while_a_run_goes_on_is_repaired_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    fill(path)
    with start_of_run(path) as session:
        session.put(entry_of("before", "damage"))
        assert session.find("0") == answer(0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            # So that nobody goes on with what it remembers of the file.
            other.execute("INSERT INTO start VALUES (NULL, 0)")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with path.open("r+b") as file:
            file.write(bytes(PAGE))

        states = []

        async def work() -> list[bool]:
            waiting = [session.store.add(entry_of(name, "damage")) for name in ("after", "later")]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            states.append(session.store.is_repaired_now)
            await session.store.readable()
            states.append(session.store.is_repaired_now)
            assert session.find("1") == answer(1)
            return [await one for one in waiting]

        assert session.run(work) == [True, True]
        assert states == [True, False]
        assert [session.find(str(number)) for number in range(2, COUNT)] == [answer(n) for n in range(2, COUNT)]
        assert (tmp_path / "requests.db.corrupt-1").exists()
    with start_of_run(path) as session:
        assert [session.find(name) for name in ("before", "after", "later")] == ["damage"] * 3


def test_a_rescue_reads_the_log_too(logged: Path, tmp_path: Path) -> None:
    path = damaged(logged, tmp_path)
    path.write_bytes(os.urandom(path.stat().st_size))
    with Path(f"{path}-wal").open("r+b") as log:
        log.write(bytes(32))
    assert found_in(path) == list(range(COUNT))
    assert (tmp_path / "requests.db.corrupt-1-wal").exists()
    with StoreReader(path) as reader:
        assert {record.address for record in reader.records()} == {"http://127.0.0.1:8000/v1/chat/completions"}


def test_a_log_cut_at_any_place_gives_all_that_was_committed_before(logged: Path, tmp_path: Path) -> None:
    size = Path(f"{logged}-wal").stat().st_size
    chance = random.Random(1)
    frame = PAGE + 24
    ends = [32 + frame * number + off for number in (40, 41, 300) for off in (-1, 0, 1, 23, 24, 25)]
    last = -1
    for cut in sorted([*ends, *(chance.randrange(size) for _ in range(20)), size]):
        path = damaged(logged, tmp_path)
        os.truncate(f"{path}-wal", cut)
        found = found_in(path)
        assert found == list(range(len(found)))
        assert len(found) >= last
        last = len(found)
        for file in tmp_path.iterdir():
            file.unlink()
    assert last == COUNT

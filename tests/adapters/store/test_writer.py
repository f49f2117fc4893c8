from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from tests.adapters.store.conftest import entry_of, start_of_run


def test_while_another_process_holds_the_file_answers_wait_and_the_loop_goes_on(path: Path) -> None:
    with start_of_run(path) as session, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def work() -> tuple[list[bool], int]:
            stored = [session.store.add(entry_of(name, "1")) for name in "ab"]
            turns = 0
            for turns in range(1, 200):
                await asyncio.sleep(0.005)
                if turns == 20:
                    stored.append(session.store.add(entry_of("c", "1")))
                if turns == 50:
                    assert not any(one.done() for one in stored)
                    other.execute("ROLLBACK")
                if all(one.done() for one in stored):
                    break
            return [await one for one in stored], turns

        stored, turns = session.run(work)
        assert stored == [True] * 3
        assert turns >= 50
    with start_of_run(path) as session:
        assert [session.find(name) for name in "abc"] == ["1"] * 3


def test_answers_do_not_wait_for_another_process_for_long(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with start_of_run(path) as session, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert session.put(entry_of("a", "1"), entry_of("b", "1")) == [False, False]
        other.execute("ROLLBACK")
        session.store._paused_until = 0.0
        assert session.put(entry_of("c", "1")) == [True]
    assert "database is locked" in caplog.text
    assert "2 were not" in caplog.text


def test_what_waits_at_the_end_is_written(path: Path) -> None:
    with start_of_run(path) as session, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def work() -> bool:
            waiting = session.store.add(entry_of("a", "1"))
            await asyncio.sleep(0.1)
            other.execute("ROLLBACK")
            session.store.close()
            return await waiting

        assert session.run(work)
    with start_of_run(path) as session:
        assert session.find("a") == "1"


def test_a_failed_write_costs_no_stored_answer(tmp_path: Path) -> None:
    # The limit on sizes of files stands for a device that fails.
    script = textwrap.dedent("""
        import logging, resource, sys
        from pathlib import Path
        from tests.adapters.store.conftest import entry_of, start_of_run
        path = Path(sys.argv[1])
        with start_of_run(path) as session:
            session.put(*(entry_of("same", str(number)) for number in range(6)))
        with start_of_run(path) as session:
            assert session.find("same") == "0"
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            assert session.put(entry_of("b", "2")) == [False]
            assert session.find("same") == "1"
            session.store._must_reopen, session.store._paused_until = True, 0.0
            assert session.put(entry_of("b", "2")) == [False]
            assert session.find("same") == "2"
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            session.store._paused_until = 0.0
            assert session.put(entry_of("b", "2")) == [True]
            assert [session.find("same") for _ in range(4)] == ["3", "4", "5", None]
            assert session.shelf.damaged == 0
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "requests.db")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path.cwd(),
    )
    assert done.returncode == 0, done.stderr


def test_a_read_that_fails_leaves_the_answer_where_it_is(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
    with start_of_run(path) as session:
        assert session.shelf is not None
        connection = session.shelf.connection
        session.shelf.connection = sqlite3.connect(":memory:")
        with closing(session.shelf.connection), pytest.raises(sqlite3.OperationalError, match="no such table"):
            session.find("a")
        session.shelf.connection.close()
        with pytest.raises(sqlite3.ProgrammingError):
            session.find("a")
        session.shelf.connection = connection
        assert session.shelf.damaged == 0
        assert session.find("a") == "1"

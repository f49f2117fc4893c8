from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from tests.adapters.store.conftest import entry_of, start_of_run

from nemo_evaluator.adapters.store.database import network_kind
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.adapters.store.record import Record, Selection
from nemo_evaluator.errors import DataError


def ids(records: object) -> list[int]:
    assert hasattr(records, "__iter__")
    return [record.id for record in records]


def test_a_record_has_what_is_known(path: Path) -> None:
    entry = entry_of("a", "1")
    with start_of_run(path) as session:
        session.put(entry)
        with StoreReader(path) as reader:
            assert list(reader.records()) == [
                Record(
                    id=1,
                    start=1,
                    time=1_700_000_000.5,
                    upstream="model",
                    address="http://127.0.0.1:8000/v1/chat/completions",
                    request_id="r",
                    attempt=1,
                    sample="sample a",
                    status=200,
                    is_usable=True,
                    problem=None,
                    source="endpoint",
                    seconds=1.5,
                    first_byte_seconds=0.5,
                    prompt_tokens=3,
                    completion_tokens=4,
                    reasoning_tokens=None,
                    cached_tokens=None,
                    cost=None,
                    finish_reason="stop",
                    request_bytes=entry.request_bytes,
                    response_bytes=entry.response_bytes,
                )
            ]
            texts = reader.texts(1)
    assert (texts.request, texts.response) == (entry.request, entry.response)
    assert texts.response_headers == (("Content-Type", "application/json"),)


def test_selections(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "Grüße"), entry_of("b", 'say "hi"\nthere'), entry_of("a", "x", is_usable=False))
    with start_of_run(path) as session:
        session.put(entry_of("c", "10 % off_all"))
    with StoreReader(path) as reader:
        chosen = {
            "sample": Selection(sample="sample a"),
            "upstream": Selection(upstream="judge"),
            "status": Selection(status=500),
            "usable": Selection(usable=True),
            "failed": Selection(usable=False),
            "reason": Selection(finish_reason="stop", start=1),
            "after": Selection(after=2),
            "text": Selection(text="GRÜSSE"),
            "umlaut": Selection(text="grüße"),
            "quoted": Selection(text='"HI"\nthere'),
            "wildcards": Selection(text="% OFF_"),
            "asked": Selection(text="messages", sample="sample c"),
        }
        found = {name: ids(reader.records(selection)) for name, selection in chosen.items()}
        assert all(reader.count(chosen[name]) == len(found[name]) for name in chosen)
        assert ids(reader.records(limit=2)) == [1, 2]
        assert ids(reader.records(limit=3, newest_first=True)) == [4, 3, 2]
        assert ids(reader.records(limit=0)) == []
        assert reader.count() == 4
    assert found == {
        "sample": [1, 3],
        "upstream": [],
        "status": [3],
        "usable": [1, 2, 4],
        "failed": [3],
        "reason": [1, 2, 3],
        "after": [3, 4],
        "text": [1],
        "umlaut": [1],
        "quoted": [2],
        "wildcards": [4],
        "asked": [4],
    }


def test_many_records_are_read_in_pages_both_ways(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(*(entry_of(str(number), "x") for number in range(1203)))
    with StoreReader(path) as reader:
        assert ids(reader.records()) == list(range(1, 1204))
        assert ids(reader.records(newest_first=True)) == list(range(1203, 0, -1))


def test_a_packed_answer_is_unpacked_and_a_broken_one_is_left(path: Path) -> None:
    good, broken = entry_of("a", "1"), entry_of("b", "2")
    good.response, broken.response = gzip.compress(b"text"), b"no gzip"
    for entry in (good, broken):
        entry.headers = [("Content-Encoding", "gzip")]
    with start_of_run(path) as session:
        session.put(good, broken)
    with StoreReader(path) as reader:
        assert [reader.texts(id_).response for id_ in (1, 2)] == [b"text", b"no gzip"]


def test_what_is_not_there_is_said(path: Path) -> None:
    with pytest.raises(DataError, match="no store"):
        StoreReader(path)
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
    with StoreReader(path) as reader:
        for read in (reader.texts, reader.record):
            with pytest.raises(DataError, match="no request 7"):
                read(7)


def test_another_process_reads_while_a_run_writes(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from nemo_evaluator.adapters.store.reader import StoreReader\n"
        "reader = StoreReader(Path(sys.argv[1]))\n"
        "for _ in sys.stdin: print(reader.count(), len(list(reader.records())), flush=True)"
    )
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            for number in range(2, 30):
                session.put(entry_of("a", str(number)))
                reader.stdin.write("\n")
                reader.stdin.flush()
                assert reader.stdout.readline() == f"{number} {number}\n"
            reader.stdin.close()


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /home nfs4 rw 0 0
/dev/sdb1 /home/me/local ext4 rw 0 0
//server/share /mnt/with\\040space cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/x", None),
        ("/home/me/run/requests.db", "nfs4"),
        ("/homely/x", None),
        ("/home/me/local/x", None),
        ("/mnt/with space/x", "cifs"),
    ],
)
def test_network_file_systems_are_known(path: str, kind: str | None) -> None:
    assert network_kind(Path(path), MOUNTS) == kind


def test_a_reader_leaves_nothing_behind(path: Path) -> None:
    with start_of_run(path) as session:
        session.put(entry_of("a", "1"))
    before = path.read_bytes()
    with StoreReader(path) as first, StoreReader(path) as second:
        assert first.count() == second.count() == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_reader_leaves_the_log_of_a_run_that_goes_on(path: Path) -> None:
    with start_of_run(path) as session:
        for name in "ab":
            with StoreReader(path) as reader:
                assert reader.count() == (name == "b")
            session.put(entry_of(name, "1"))
        assert path.with_name(f"{path.name}-wal").stat().st_size
    with StoreReader(path) as reader:
        assert reader.count() == 2
    with start_of_run(path) as session:
        assert [session.find(name) for name in "ab"] == ["1", "1"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]

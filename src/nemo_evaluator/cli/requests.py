"""`nemo-evaluator requests`: what a run asked its endpoints, and what they said."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemo_evaluator.cli.ending import OnlyPrinted
from nemo_evaluator.cli.terminal_text import harmless, harmless_line
from nemo_evaluator.errors import DataError

if TYPE_CHECKING:
    from nemo_evaluator.adapters.store.reader import StoreReader
    from nemo_evaluator.adapters.store.record import Record, Selection, Texts

_SHOWN_ON_TERMINALS = 50
_LONGEST_PROBLEM = 80
_HEADS = ("id", "time", "endpoint", "sample", "status", "tokens", "seconds", "outcome")

EXAMPLES = """\b
Examples:
  nemo-evaluator requests results/mmlu_pro --failed
  nemo-evaluator requests results/mmlu_pro show 17
  nemo-evaluator requests results/mmlu_pro export --output requests.jsonl"""


@click.command("requests", epilog=EXAMPLES)
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, metavar="[show ID | export]")
@click.option("--failed", is_flag=True, help="Only those without a usable answer.")
@click.option("--status", type=int, help="Only those with this status; 0 when no answer came.")
@click.option("--sample", help="Only those about this sample.")
@click.option("--finish-reason", help="Only those that ended for this reason, such as 'length'.")
@click.option("--upstream", help="Only those to this endpoint: 'model', or the name of a judge.")
@click.option("--grep", "text", help="Only those with this text in request or answer, whatever its case.")
@click.option("--limit", type=click.IntRange(min=0), help="Only the last N; 0 for all.")
@click.option("--all", "of_all", is_flag=True, help="Those of other runs that share the store, too.")
@click.option("--id", "id_", type=int, help="Show this one; as `show ID`.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the export to this file instead.")
@click.option("--json", "as_json", is_flag=True, help="Everything about each, for scripts.")
def requests(
    *,
    output_dir: Path,
    words: tuple[str, ...],
    failed: bool,
    status: int | None,
    sample: str | None,
    finish_reason: str | None,
    upstream: str | None,
    text: str | None,
    limit: int | None,
    of_all: bool,
    id_: int | None,
    output: Path | None,
    as_json: bool,
) -> int:
    """List, show or export the requests of a run and their answers.

    OUTPUT_DIR is the folder of the run, or the one that `caching_dir` named. The run may still be going on.
    """
    from nemo_evaluator.adapters.store.reader import StoreReader  # noqa: PLC0415
    from nemo_evaluator.adapters.store.record import Selection  # noqa: PLC0415
    from nemo_evaluator.core.run_store import store_of_run  # noqa: PLC0415  `ls` must not pay for it

    action, shown_id = _action(words, id_)
    if output is not None and action != "export":
        raise click.UsageError("--output goes with `export`")
    store = store_of_run(output_dir)
    selection = Selection(
        sample=sample,
        upstream=upstream,
        status=status,
        usable=False if failed else None,
        finish_reason=finish_reason,
        text=text,
        starts=None if of_all else store.starts,
    )
    with StoreReader(store.path) as reader:
        if shown_id is not None:
            _show(reader, shown_id, as_json=as_json)
        elif action == "export":
            _export(reader, selection, limit, output)
        elif as_json:
            _print_json(asdict(record) for record in _chosen(reader, selection, limit))
        elif sys.stdout.isatty():
            _table(reader, selection, limit)
        else:
            for record in _chosen(reader, selection, limit):
                click.echo("\t".join(_cells(record)))
    return OnlyPrinted()


def _action(words: tuple[str, ...], id_: int | None) -> tuple[str, int | None]:
    """What is to be done, and with which record."""
    if not words:
        return ("list", None) if id_ is None else ("show", id_)
    if words == ("export",) and id_ is None:
        return "export", None
    if words[0] == "show" and len(words) == 2 and words[1].isdecimal() and id_ is None:  # noqa: PLR2004  the word and its id
        return "show", int(words[1])
    raise click.UsageError("after the folder stands nothing (to list), `show ID` with one number, or `export`")


def _chosen(reader: StoreReader, selection: Selection, limit: int | None) -> Iterator[Record]:
    """The last `limit` records, the oldest first."""
    if not limit:
        return reader.records(selection)
    return iter(list(reader.records(selection, limit=limit, newest_first=True))[::-1])


def _cells(record: Record) -> tuple[str, ...]:
    tokens = [record.prompt_tokens, record.completion_tokens]
    outcome = record.problem if record.problem is not None else record.finish_reason or "answered"
    cells = (
        str(record.id),
        _moment(record.time),
        record.upstream,
        record.sample,
        str(record.status) if record.status else "-",
        "/".join("-" if count is None else str(count) for count in tokens),
        f"{record.seconds:.2f}",
        outcome[:_LONGEST_PROBLEM],
    )
    return tuple(harmless_line(cell) for cell in cells)


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().replace(tzinfo=None).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        # A damaged row may have any number, and no calendar all of them.
        return "-"


def _table(reader: StoreReader, selection: Selection, limit: int | None) -> None:
    from rich.console import Console  # noqa: PLC0415  only for tables on a terminal
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    most = _SHOWN_ON_TERMINALS if limit is None else limit
    table = Table(*_HEADS, box=None, header_style="bold")
    for record in _chosen(reader, selection, most):
        table.add_row(*map(Text, _cells(record)))
    Console().print(table)
    if limit is None and table.row_count == most and (count := reader.count(selection)) > most:
        click.echo(f"The last {most} of {count:,}; --limit 0 shows all.")


def _print_json(items: Iterator[dict[str, Any]]) -> None:
    click.echo("[", nl=False)
    for index, item in enumerate(items):
        click.echo(f"{',' if index else ''}\n  {json.dumps(item)}", nl=False)
    click.echo("\n]")


def _show(reader: StoreReader, id_: int, *, as_json: bool) -> None:
    record, texts = reader.record(id_), reader.texts(id_)
    if as_json:
        click.echo(json.dumps(_exported(record, texts), indent=2))
        return
    for name, value in asdict(record).items():
        if value is not None:
            click.echo(f"{name + ':':<22} {harmless(str(value))}")
    click.echo(f"\nRequest:\n{_pretty(texts.request)}\n\nHeaders of the answer:")
    for name, value in texts.response_headers:
        click.echo(harmless(f"{name}: {value}"))
    click.echo(f"\nAnswer:\n{_pretty(texts.response)}")


def _pretty(body: bytes) -> str:
    if not body:
        return "(empty, or not kept)"
    try:
        return harmless(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return harmless(body.decode(errors="replace"))


def _export(reader: StoreReader, selection: Selection, limit: int | None, output: Path | None) -> None:
    lines = (json.dumps(_whole(reader, record)) + "\n" for record in _chosen(reader, selection, limit))
    if output is None:
        for line in lines:
            click.echo(line, nl=False)
        return
    _write_lines(output, lines)


def _whole(reader: StoreReader, record: Record) -> dict[str, Any]:
    try:
        return _exported(record, reader.texts(record.id))
    except DataError as error:
        # One damaged row is no reason to withhold the others.
        return {**asdict(record), "damaged": str(error)}


def _exported(record: Record, texts: Texts) -> dict[str, Any]:
    return {
        **asdict(record),
        **_body("request", texts.request),
        "response_headers": [list(pair) for pair in texts.response_headers],
        **_body("response", texts.response),
    }


def _body(name: str, body: bytes) -> dict[str, Any]:
    """A body as JSON where it is JSON, else as text, else as Base64."""
    try:
        return {name: json.loads(body)}
    except (ValueError, RecursionError):
        pass
    try:
        return {f"{name}_text": body.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(body).decode()}


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    """Write `path` line by line so that it is there whole or not at all; only its owner may read it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise

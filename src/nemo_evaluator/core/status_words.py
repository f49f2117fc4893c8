"""A run's status in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_BAR_CELLS = 16
_RED, _YELLOW, _RESET = "\x1b[31m", "\x1b[33m", "\x1b[0m"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SMALL_RATE = 10
_ODD_STATES = ("paused", "stopping")


def duration(seconds: float) -> str:
    """`seconds` in the two largest units that matter, such as `1h 05m`."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02}h"


def per_second(value: float) -> str:
    """A rate without more digits than it can have."""
    return f"{value:.1f}/s" if value < _SMALL_RATE else f"{value:,.0f}/s"


def money(cost: float, currency: str | None) -> str:
    """An amount in the currency of the price table, small ones with the digits that count."""
    amount = f"{cost:,.2f}" if cost >= 1 or cost == 0 else f"{cost:.4f}"
    if currency == "USD":
        return f"${amount}"
    return f"{amount} {currency}" if currency else amount


def samples(status: Mapping[str, Any]) -> str | None:
    """`512 of 12,032 samples (4%)`; None where nothing is known of samples."""
    found = status["samples"]
    if found["planned"] is not None:
        return f"{found['done']:,} of {found['planned']:,} samples ({_percent(found)})"
    return f"{found['done']:,} samples" if found["done"] else None


def time_left(status: Mapping[str, Any]) -> str | None:
    """`1h 05m left`; None where no plan is known or nothing is left."""
    found = status["samples"]
    if found["planned"] is None or found["done"] >= found["planned"]:
        return None
    eta = found["eta_seconds"]
    return "time left unknown" if eta is None else f"{duration(eta)} left"


def progress_parts(status: Mapping[str, Any]) -> list[str]:
    """How far a run is, most important part first."""
    totals = status["totals"]
    rates = totals["rates"]
    parts = [samples(status), f"{totals['requests']:,} requests" if totals["requests"] else None]
    if totals["failed"]:
        parts.append(f"{totals['failed']:,} failed")
    parts.append(time_left(status))
    if rates["tokens_per_second"]:
        parts.append(f"{rates['tokens_per_second']:,.0f} tokens/s")
    elif rates["requests_per_second"]:
        parts.append(f"{per_second(rates['requests_per_second'])} requests")
    if totals["cost"] is not None:
        parts.append(money(totals["cost"], totals["currency"]))
    parts += [f"{name} {value:.3f} so far" for name, value in list(status["samples"]["mean_scores"].items())[:1]]
    if totals["cached"]:
        parts.append(f"{totals['cached']:,} from the store")
    return [part for part in parts if part]


def progress_line(
    status: Mapping[str, Any], *, width: int | None = None, plain: bool = False, colour: bool = False
) -> str:
    """How far a run is, in one line.

    Args:
        status: the document of `status.json`.
        width: most characters; parts at the end are left out, and the rest is cut.
        plain: ASCII only, without a bar.
        colour: with ANSI colours where something is wrong.
    """
    parts = progress_parts(status)
    if status["state"] in _ODD_STATES:
        parts.insert(0, status["state"])
    if not parts:
        parts = ["the harness runs, no requests yet"]
    planned = status["samples"]["planned"]
    bar = "" if plain or not planned else f"{_bar(status['samples'])} "
    line = bar + parts[0]
    for part in parts[1:]:
        longer = f"{line}, {part}"
        if width is not None and len(longer) > width:
            break
        line = longer
    line = line if width is None else line[:width]
    return _coloured(line, status) if colour else line


def state_line(status: Mapping[str, Any]) -> str:
    """The run's new state, with its reason or how far the run is."""
    if status["state"] in _ODD_STATES or not status["totals"]["requests"]:
        return progress_line(status, plain=True)
    return ", ".join((f"{status['state']} again", *progress_parts(status)))


def errors(counts: Mapping[str, int]) -> Iterator[str]:
    """`3 x HTTP 429` for each kind of failure, the commonest first."""
    for kind, count in sorted(counts.items(), key=lambda item: -item[1]):
        yield f"{count:,} x {kind.replace('http_', 'HTTP ').replace('_', ' ')}"


def _percent(found: Mapping[str, Any]) -> str:
    return "100%" if not found["planned"] else f"{int(100 * found['done'] / found['planned'])}%"


def _bar(found: Mapping[str, Any]) -> str:
    filled = int(_BAR_CELLS * min(1.0, found["done"] / found["planned"]))
    return "█" * filled + "░" * (_BAR_CELLS - filled)


def _coloured(line: str, status: Mapping[str, Any]) -> str:
    failed = status["totals"]["failed"]
    marks = {f"{failed:,} failed": _RED} if failed else {}
    marks |= dict.fromkeys(_ODD_STATES, _YELLOW)
    for text, code in marks.items():
        line = line.replace(text, f"{code}{text}{_RESET}", 1)
    return line

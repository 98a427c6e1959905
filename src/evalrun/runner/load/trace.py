"""Recorded arrivals: the time stamps of a file, as seconds after its first."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from evalrun.errors import UserError

_COLUMNS = ("timestamp", "time", "arrival", "arrived_at", "start_time")
_FORMS = "Give CSV with a column TIMESTAMP, JSONL with a key timestamp, or a number of seconds on each line."


def trace_offsets(path: Path) -> Iterator[float]:
    """Seconds after the first arrival, ascending. Raises UserError with the line of what cannot be read or
    is earlier than the line before, and for a file without any."""
    first = last = -math.inf
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, at in _stamps(file, path):
                if at < last:
                    raise UserError(
                        f"an arrival at {at:.6g} s comes after one at {last:.6g} s: the trace is not sorted",
                        where=f"{path}:{number}",
                        remedy="Sort it by its time stamps.",
                    )
                last = at
                if first == -math.inf:
                    first = at
                yield at - first
    except OSError as error:
        raise UserError(f"the trace cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("the trace is not UTF-8", where=str(path), remedy=_FORMS) from None
    if first == -math.inf:
        raise UserError("the trace holds no arrivals", where=str(path), remedy=_FORMS)


def _stamps(file: TextIO, path: Path) -> Iterator[tuple[int, float]]:
    """Line numbers and seconds since whenever."""
    if path.suffix in (".jsonl", ".ndjson"):
        return _of_jsonl(file, path)
    return _of_csv(file, path)


def _of_jsonl(file: TextIO, path: Path) -> Iterator[tuple[int, float]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise _unread(path, number, line) from None
        value = (
            next((record[key] for key in _COLUMNS if key in record), None)
            if isinstance(record, dict)
            else record
        )
        # Mooncake's and its kind count milliseconds, and give lengths beside them.
        scale = 1000 if isinstance(record, dict) and "input_length" in record else 1
        yield number, _seconds(value, path, number) / scale


def _of_csv(file: TextIO, path: Path) -> Iterator[tuple[int, float]]:
    lines = csv.reader(file)
    column = 0
    for at, cells in enumerate(lines):
        if not cells or not any(cell.strip() for cell in cells):
            continue
        names = [cell.strip().casefold() for cell in cells]
        if (
            at == 0
            and (found := next((names.index(name) for name in _COLUMNS if name in names), None)) is not None
        ):
            column = found
            continue
        if column >= len(cells):
            raise _unread(path, lines.line_num, ",".join(cells))
        yield lines.line_num, _seconds(cells[column], path, lines.line_num)


def _seconds(value: object, path: Path, number: int) -> float:
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            try:  # more digits of a second than Python reads: Azure writes seven
                head, dot, tail = text.partition(".")
                digits = len(tail) - len(tail.lstrip("0123456789"))
                shorter = f"{head}{dot}{tail[: min(6, digits)]}{tail[digits:]}" if dot else text
                stamp = datetime.fromisoformat(shorter)
                value = (stamp.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
            except ValueError:
                raise _unread(path, number, text) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _unread(path, number, str(value))
    return float(value)


def _unread(path: Path, number: int, text: str) -> UserError:
    return UserError(f"no time stamp: '{text.strip()[:60]}'", where=f"{path}:{number}", remedy=_FORMS)

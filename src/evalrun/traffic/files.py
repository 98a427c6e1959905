"""Files of production records, line by line, compressed or not; what is torn is counted."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from evalrun.errors import UserError
from evalrun.traffic.calls import TORN, Call, Tally
from evalrun.traffic.exports import calls, source_of
from evalrun.traffic.otlp import Events, Last, Mine, is_otlp, last_of_traces, log_events, spans

_WHOLE = 512 << 20
"""A file that is one JSON value is read up to this size."""

_LOGS = (b'"resourceLogs"', b'"resource_logs"')


def expand(patterns: Sequence[str | Path]) -> list[Path]:
    """Files by name or pattern, folders with all that is in them. Raises UserError where there is none."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        some = [path] if path.exists() else _matching(path)
        some = [f for p in some for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
        some = [f for f in some if f.is_file()]
        if not some:
            raise UserError("there is no such file", where=str(pattern))
        found += some
    for path in found:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise UserError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    return list(dict.fromkeys(found))


def _matching(pattern: Path) -> list[Path]:
    try:
        return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError:  # no pattern
        return []


def read_calls(
    files: Sequence[Path], source: str, mapped: dict[str, str], tally: Tally, last: Last | None = None,
    mine: Mine | None = None,
) -> Iterator[Call]:  # fmt: skip
    """Every span and call of the files; of traces that are in `last` the last generation only, of OTLP those
    of traces that are `mine` (other records are those of the empty trace). Raises UserError for a file that
    cannot be read."""
    events = _events(files)
    for path in files:
        for where, row in records(path, tally):
            kind = source if source not in ("auto", "jsonl", "parquet") else source_of(row)
            if kind == "otlp" or (kind == "openinference" and source_of(row) == "otlp"):
                if isinstance(row, dict):
                    yield from spans(row, events, tally, where, last, mine)
            elif mine is None or mine(""):
                for call in calls(row, kind, mapped, tally, where):
                    if not (last and call.span) or last.get(call.trace, (0, call.span))[1] == call.span:
                        yield call
    if events:
        from evalrun.traffic.calls import EVENTS

        tally.wrong[EVENTS] += len(events)


def last_generations(
    files: Sequence[Path], source: str, mapped: dict[str, str], tally: Tally, mine: Mine | None = None
) -> Last:
    """When the last generation of each trace began, and its span. Counts the generations in `tally`."""
    last: Last = {}
    scratch = Tally()
    for path in files:
        for where, row in records(path, scratch):
            kind = source if source not in ("auto", "jsonl", "parquet") else source_of(row)
            if isinstance(row, dict) and is_otlp(row):
                tally.calls += last_of_traces(row, last, mine)
                continue
            for call in calls(row, kind, mapped, scratch, where) if mine is None or mine("") else ():
                tally.calls += call.generation
                place = (call.begin_ns or 0, call.span)
                if call.generation and call.span and place > last.get(call.trace, (-1, "")):
                    last[call.trace] = place
    return last


def _events(files: Sequence[Path]) -> Events:
    """The events that log records hold, by trace and span: they may stand before or after their span."""
    events: Events = {}
    for path in files:
        if path.suffix == ".parquet":
            continue
        for _, line in _lines(path):
            if any(name in line for name in _LOGS):
                try:
                    document = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                for each in document if isinstance(document, list) else [document]:
                    if isinstance(each, dict):
                        log_events(each, events)
    return events


def records(path: Path, tally: Tally) -> Iterator[tuple[str, Any]]:
    """Each JSON value of a file with its place; a file that is one value or a list of them too."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    first = True
    for number, line in _lines(path):
        if not line.strip():
            continue
        if (first and number == 1 and line.strip() in (b"[", b"{")) or (first and line.lstrip()[:1] == b"["):
            yield from _whole(path)
            return
        first = False
        try:
            yield f"{path}:{number}", orjson.loads(line)
        except orjson.JSONDecodeError:
            tally.note(TORN, f"{path}:{number}")


def _whole(path: Path) -> Iterator[tuple[str, Any]]:
    with _open(path) as file:
        text = file.read(_WHOLE + 1)
    if len(text) > _WHOLE:
        raise UserError(
            "one JSON value this large is not read", where=str(path), remedy="Export it as JSON lines."
        )
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UserError(f"is no JSON: {error}", where=f"{path}:{error.lineno}") from error
    if isinstance(value, dict):
        inner = value.get("data") or value.get("traces") or value.get("generations")
        value = inner if isinstance(inner, list) else [value]
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield f"{path}: record {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"the Parquet file cannot be read: {str(error).splitlines()[0]}", where=str(path)
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except OSError as error:
        raise UserError(f"the file cannot be read: {error}", where=f"{path}:{number + 1}") from error


def _open(path: Path) -> IO[bytes]:
    """The bytes of a file, whatever it is compressed with (gzip, zstd, bz2, lz4)."""
    if path.suffix in (".gz", ".zst", ".bz2", ".lz4"):
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="detect"), 1 << 20)
    return path.open("rb", buffering=1 << 20)

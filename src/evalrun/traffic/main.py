"""Files of production records into one Parquet file of rows that a suite scores."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.traffic.calls import (
    CUT_OFF,
    EVENTS,
    FUTURE,
    NO_CONTENT,
    NO_TIME,
    TORN,
    TWICE,
    UNSORTED,
    Call,
    Tally,
    labelled,
    messages_of,
    number,
    text_of,
    value_at,
    whole,
)
from evalrun.traffic.files import expand, last_generations, read_calls
from evalrun.traffic.otlp import Mine
from evalrun.traffic.parts import Part, parts_of, read_parts
from evalrun.traffic.sample import Row, Sampling, Stratum
from evalrun.traffic.writer import BATCH, NUMBERS, TEXTS, Writer

if TYPE_CHECKING:
    from evalrun.templates import Compiled

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_EARLY = timedelta(minutes=1)
"""Clocks may differ by so much before a time is called one of the future."""


@dataclass(frozen=True)
class Wanted:
    """What of which files is taken: the keys of `traffic:` in a suite's dataset."""

    path: Sequence[str | Path]
    source: str = "auto"
    where: str = ""
    since: str = ""
    until: str = ""
    late: str = ""
    unit: str = "last_generation"
    n: int | None = None
    rate: float | None = None
    strata: Sequence[str] = ()
    always: str = ""
    seed: str = "0"
    kept: float | None = None
    map: Mapping[str, str] = field(default_factory=dict)
    columns: Sequence[str] = ()
    redact: str = "standard"
    store: Path | None = Path(".evalrun")
    base_dir: Path = Path()
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Taken:
    """What was taken: `rows` with weights that are worth `effective` equal ones, from `files`."""

    path: Path
    files: tuple[str, ...]
    rows: int
    effective: float
    strata: tuple[Stratum, ...]
    read: Mapping[str, int]
    left_out: Mapping[str, int]
    noticed: Mapping[str, int]
    first: Mapping[str, str]
    unknown_attributes: Mapping[str, int]
    notes: tuple[str, ...]

    def sentences(self) -> Iterator[str]:
        """What was left out or noticed, with the first place of each, unknown attributes, and notes."""
        for how, counted in (("left out", self.left_out), ("noticed", self.noticed)):
            for what, n in counted.items():
                first = f" (the first: {self.first[what]})" if what in self.first else ""
                yield f"{how}: {n:,} {what}{first}"
        if self.unknown_attributes:
            listed = [f"{name} ({n:,})" for name, n in list(self.unknown_attributes.items())[:5]]
            yield f"unknown attributes: {', '.join(listed)}"
        for note in self.notes:
            yield f"note: {note}"


def take(wanted: Wanted, out: Path) -> Taken:
    """Read, filter, sample and redact; the rows go to `out`, a Parquet file.

    Raises UserError for files that cannot be read, settings that cannot be applied, and where nothing is
    left.
    """
    files = expand(wanted.path)
    tally = Tally()
    with _uncollected(), Writer(out, wanted) as writer:
        sampling = Sampling(writer.write, wanted.n, wanted.rate, wanted.seed, wanted.strata)
        _offer(wanted, files, tally, sampling)
        strata = sampling.finish()
    notes = [*tally.notes, *writer.notes]
    effective = writer.total**2 / writer.squares if writer.squares else 0.0
    gone = (NO_CONTENT, CUT_OFF, TWICE)
    torn = {
        what: n for what, n in tally.wrong.items() if what.startswith(("lines", "records of an", "events"))
    }
    return Taken(
        path=out,
        files=tuple(map(str, files)),
        rows=writer.rows,
        effective=effective,
        strata=strata,
        read={"records": tally.records, "calls": tally.calls, "matching": tally.matching},
        left_out={**torn, **{what: tally.wrong[what] for what in gone if tally.wrong[what]}},
        noticed={what: n for what, n in tally.wrong.items() if what not in gone and what not in torn},
        first=tally.first,
        unknown_attributes=dict(tally.unknown.most_common(20)),
        notes=tuple(notes),
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cyclic collector, which would look at every record several times: JSON has no cycles."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _look(
    wanted: Wanted, files: Sequence[Path], tally: Tally, sampling: Sampling, mine: Mine | None = None
) -> bool:
    """Offer every call to the sample; whether any says what share of its like was kept."""
    pick = Pick(wanted, tally)
    last, mapped = None, dict(wanted.map)
    if wanted.unit == "last_generation":
        last = last_generations(files, wanted.source, mapped, tally, mine)
    for call in read_calls(files, wanted.source, mapped, tally, last, mine):
        if pick.is_unit(call):
            tally.calls += last is None
            pick.offer(call, sampling)
    return pick.weighed


def part_of(wanted: Wanted, files: Sequence[Path], at: int, count: int) -> Part:
    """What one of `count` processes sees: traces whose id's CRC leaves the rest `at`."""
    tally, rows = Tally(), list[Row]()
    sampling = Sampling(rows.append, wanted.n, wanted.rate, wanted.seed, wanted.strata)
    with _uncollected():
        weighed = _look(wanted, files, tally, sampling, lambda trace: crc32(trace.encode()) % count == at)
    if at:  # lines that belong to no trace are seen by all
        for what in (TORN, EVENTS):
            tally.wrong.pop(what, None)
            tally.first.pop(what, None)
    return Part(tally, sampling, rows, weighed)


def _offer(wanted: Wanted, files: Sequence[Path], tally: Tally, sampling: Sampling) -> None:
    count = parts_of(wanted.n, wanted.source, files)
    if count == 1:
        weighed = _look(wanted, files, tally, sampling)
    else:
        weighed = False
        Pick(wanted, Tally())  # what is wrong with a condition is said once
        for part in read_parts(wanted, files, count):
            tally.absorb(part.tally)
            sampling.absorb(part.sampling)
            weighed |= part.weighed
            for row in part.rows:
                sampling.keep(row)
    if tally.records == 0 and tally.wrong:
        what, where = next(iter(tally.first.items()))
        raise UserError(f"holds no record that can be read: {what}", where=where)
    if not tally.matching:
        raise UserError(
            f"no record is left of {tally.records:,} that were read ({_said(tally)})",
            where=str(files[0]),
            remedy="See source, unit, where and the window of time.",
        )
    if not weighed and wanted.kept is None:
        tally.notes.append("nothing says what share of the traces was kept: weights are of those that were")


def _said(tally: Tally) -> str:
    wrong = [f"{n:,} {what}" for what, n in tally.wrong.items()]
    return ", ".join([f"{tally.calls:,} calls of the unit", *wrong])


class Pick:
    """Applies unit, window and condition to calls."""

    def __init__(self, wanted: Wanted, tally: Tally) -> None:
        from evalrun.templates import compile_condition

        self._wanted, self._tally = wanted, tally
        self._unit, _, self._name = wanted.unit.partition(":")
        if self._unit not in ("each_generation", "last_generation", "root", "named"):
            raise UserError(
                f"'{wanted.unit}' is no unit", remedy="each_generation, last_generation, root or named:NAME."
            )
        self._where = _compiled(compile_condition, wanted.where, "where")
        self._always = _compiled(compile_condition, wanted.always, "always")
        self._since, self._until = window(wanted, tally)
        self._late = int((wanted.now + _EARLY).timestamp() * 1e9)
        self._seen: set[int] = set()
        self._before = 0
        self.weighed = False

    def is_unit(self, call: Call) -> bool:
        """Whether a span is one of those that are taken."""
        if self._unit == "root":
            return call.root
        if self._unit == "named":
            return call.name == self._name.strip()
        return call.generation

    def _within(self, at: int | None) -> bool:
        """Whether a time is in the window."""
        if self._since is None and self._until is None:
            return True
        return (
            at is not None
            and at <= self._late
            and (self._since is None or at >= self._since)
            and (self._until is None or at < self._until)
        )

    def offer(self, call: Call, sampling: Sampling) -> None:
        """Count what is wrong with a call; offer it where it can be scored."""
        tally, where, at = self._tally, call.request_id, call.begin_ns
        self._see_time(at, where)
        if not self._within(at) or (self._where is not None and not self._true(self._where, call)):
            return
        names = {hash(where), hash((call.trace, call.span))}
        if not self._seen.isdisjoint(names):
            tally.note(TWICE, where)
            return
        self._seen |= names
        if call.cut:
            tally.note(CUT_OFF, where)
            return
        if call.output is None and call.error is None:
            tally.note(NO_CONTENT, where)
            return
        tally.matching += 1
        self.weighed |= call.kept is not None
        stratum = ""
        if self._wanted.strata:
            row = self._mapped(call)
            stratum = " / ".join(labelled(row.get(n, call.attributes.get(n))) for n in self._wanted.strata)
        always = self._always is not None and self._true(self._always, call)
        sampling.offer(where, lambda: self._row(call), stratum, always)

    def _mapped(self, call: Call) -> Row:
        row = row_of(call)
        for name, path in () if call.plain else self._wanted.map.items():
            value = value_at({**call.attributes, **row, "attributes": call.attributes}, path)
            row[name] = _fitted(name, value)
        return row

    def _row(self, call: Call) -> Row:
        row = self._mapped(call)
        row["kept"] = call.kept or self._wanted.kept or 1.0
        for name in self._wanted.columns:
            row[name] = row[name] if name in row else call.attributes.get(name)
        return row

    def _see_time(self, at: int | None, where: str) -> None:
        if at is None:
            self._tally.note(NO_TIME, where)
            return
        if at > self._late:
            self._tally.note(FUTURE, where)
        elif at < self._before:
            self._tally.note(UNSORTED, where)
        self._before = max(self._before, min(at, self._late))

    def _true(self, condition: Compiled, call: Call) -> bool:
        from evalrun.templates import TemplateFailure

        try:
            return bool(
                condition.evaluate(
                    {**self._mapped(call), "attributes": _Lenient(call.attributes), "null": None}
                )
            )
        except TemplateFailure as failure:
            raise UserError(f"the condition cannot be applied: {failure}", where=call.request_id) from failure


class _Lenient(dict[str, Any]):
    """Attributes of a record: one that it lacks is null."""

    def __missing__(self, key: str) -> None:
        return None


def _compiled(compile_condition: Callable[[str, str], Compiled], source: str, what: str) -> Compiled | None:
    if not source:
        return None
    condition = compile_condition(source, what)
    known = (*TEXTS, *NUMBERS, "messages", "attributes", "null")
    for name in condition.variables.missing(known):
        near = nearest(name, known)
        raise UserError(
            f"there is no '{name}' in records",
            where=what,
            remedy=f"Did you mean '{near}'?" if near else f'An attribute is attributes["{name}"].',
        )
    return condition


def _fitted(name: str, value: Any) -> Any:
    """A value as the column of that name holds it."""
    if name == "messages":
        return messages_of(value)
    if name in NUMBERS:
        return whole(value) if name.endswith("tokens") else number(value)
    return text_of(value)


def moment(text: str, now: datetime) -> int | None:
    """`24h` before now, or an ISO 8601 time, as Unix nanoseconds. Raises UserError for anything else."""
    if not text:
        return None
    if seen := re.fullmatch(r"(\d+)([smhdw])", text.strip()):
        return int((now - timedelta(seconds=int(seen[1]) * _SECONDS[seen[2]])).timestamp() * 1e9)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            f"'{text}' is no time", remedy="Write 24h, 7d or 2026-01-31T12:00:00+00:00."
        ) from error
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e9)


def window(wanted: Wanted, tally: Tally) -> tuple[int | None, int | None]:
    """The window of time in Unix nanoseconds. With `late` it ends so long before now, unless its end is
    given: one that is open still is noted."""
    since, until = moment(wanted.since, wanted.now), moment(wanted.until, wanted.now)
    if wanted.late:
        closed = moment(wanted.late, wanted.now)
        if until is None:
            until = closed
        elif closed is not None and until > closed:
            tally.notes.append(f"the window is open still: spans may come until {wanted.late} after its end")
    if since is not None and until is not None and since >= until:
        raise UserError("the window of time ends before it begins", where="since and until")
    return since, until


def row_of(call: Call) -> Row:
    """The row of a call, as it is filtered; user and conversation as they stand."""
    took = None
    if call.end_ns is not None and call.begin_ns is not None and call.end_ns >= call.begin_ns:
        took = (call.end_ns - call.begin_ns) / 1e9
    asked = next(
        (m["content"] for m in reversed(call.messages or ()) if m["role"] in ("user", "human")), None
    )
    return {
        "request_id": call.request_id,
        "ts": iso(call.begin_ns),
        "model": call.model,
        "provider": call.provider,
        "operation": call.operation,
        "service": call.service,
        "prompt_version": call.prompt_version,
        "text": asked,
        "messages": call.messages,
        "output": call.output,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "ttft_s": call.ttft_s,
        "e2e_s": took,
        "finish_reason": call.finish_reason,
        "error": call.error,
        "user_key": call.user,
        "conversation": call.conversation,
        "trace_id": call.trace,
        "span_id": call.span or None,
        "arm": call.arm,
        "feedback": call.feedback if call.feedback is None else labelled(call.feedback),
    }


def iso(at_ns: int | None) -> str | None:
    """Unix nanoseconds as ISO 8601 in UTC, to the microsecond."""
    if at_ns is None:
        return None
    try:
        return (
            datetime.fromtimestamp(at_ns // 10**9, UTC) + timedelta(microseconds=at_ns % 10**9 // 1000)
        ).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file that `take` wrote."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()

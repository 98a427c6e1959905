"""What users said of answers, joined by request id to the samples of a run that scored the traffic."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.errors import UserError
from evalrun.traffic.calls import TORN, Tally, first_of, named

if TYPE_CHECKING:
    from evalrun.tracking.people import Label
    from evalrun.tracking.store import Store
    from evalrun.tracking.targets import Target

IDS = ("request_id", "response_id", "gen_ai.response.id", "trace_id", "sample_id", "id")
VALUES = ("feedback", "rating", "value", "score", "thumb", "label")
RESULT = "gen_ai.evaluation.result"
LEAST_KAPPA = 0.2
"""A scorer that agrees with users less than so is flagged."""
COLUMN = "feedback"


@dataclass(frozen=True, slots=True)
class Answered:
    """How many of some samples users said something of, with Wilson's interval; `positive` is the mean of
    what they said (good as 1, or the rating)."""

    group: str
    samples: int
    answered: int
    rate: float
    ci_low: float | None
    ci_high: float | None
    positive: float | None


@dataclass(frozen=True, slots=True)
class Brought:
    """What came of a file of feedback. `agreement` has an entry a score with the fields of `label`; `flagged`
    are the scores that hardly agree with users; `worst` is the file that the worst rows were written to."""

    sweep: str
    run: str
    kind: str
    records: int
    joined: int
    unmatched: int
    without_value: int
    torn: int
    first_unmatched: Sequence[str]
    overall: Answered
    by_arm: Sequence[Answered]
    by_score: Sequence[Answered]
    agreement: Sequence[Mapping[str, Any]]
    flagged: Sequence[str]
    worst: str | None = None
    worst_rows: int = 0
    alerts: Sequence[str] = ()
    """The suite's alerts on what users said that are open, each with what was seen."""
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Wanted:
    """How a file is read (columns by name; empty: the usual ones) and where the worst rows go."""

    id: str = ""
    value: str = ""
    worst: int = 50
    to: Path | None = None


def bring(store: Store, target: Target, path: Path, wanted: Wanted | None = None) -> Brought:
    """Join the feedback of a file (JSONL, CSV, OTLP logs) to a run's samples, and keep it as its labels.

    Raises UserError for a file that cannot be read, where nothing fits, and for words that are neither good
    nor bad nor numbers.
    """
    from evalrun.analysis.feedback import Worst, by_sample, label, worst_rows
    from evalrun.tracking.people import LabelColumns, as_number, load_labels

    wanted = wanted or Wanted()
    tally = Tally()
    samples = _samples(target)
    joined, strange, empty = [], [], 0
    for ids, value in _said(path, wanted, tally):
        sample = next((samples.by_id[each] for each in ids if each in samples.by_id), None)
        if value is None or value == "":
            empty += 1
        elif sample is None:
            strange.append(ids[0] if ids else "(no id)")
        else:
            joined.append({"sample_id": sample, COLUMN: value})
    if not joined:
        raise UserError(
            f"none of {len(strange) + empty:,} records fits a sample of {target.folder.ulid}/{target.run}",
            where=str(path),
            remedy=f"They are joined by {', '.join(IDS)} (--id names another column), the value by "
            f"{', '.join(VALUES)} (--value); a sample's id looks like '{next(iter(samples.by_id), 'none')}'.",
        )
    _check(joined, path)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{path.stem}.jsonl"
        made.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in joined))
        kept = label(store, target, made, LabelColumns(COLUMN))
    labels = load_labels(target.folder, _last(target))
    groups = _groups(samples, labels, target.run, kept.kind)
    _log(store, target, groups[0], kept.kind)
    said = [as_number(value) for value in by_sample(labels, target.run, kept.kind).values()]
    open_, warnings = _told(store, target, groups[0], said, kept.kind)
    done = None if wanted.to is None else worst_rows(store, target, Worst(wanted.worst, COLUMN), wanted.to)
    return Brought(
        sweep=target.folder.ulid, run=target.run, kind=kept.kind,
        records=len(joined) + len(strange) + empty + tally.wrong[TORN], joined=len(joined),
        unmatched=len(strange), without_value=empty, torn=tally.wrong[TORN],
        first_unmatched=tuple(strange[:5]), overall=groups[0], by_arm=groups[1], by_score=groups[2],
        agreement=kept.agreement, flagged=tuple(_flagged(kept.agreement)),
        worst=None if done is None else str(done.path), worst_rows=0 if done is None else done.rows,
        alerts=open_, warnings=warnings,
    )  # fmt: skip


def _said(path: Path, wanted: Wanted, tally: Tally) -> Iterator[tuple[list[str], Any]]:
    """The ids and the value of each record of a file."""
    from evalrun.traffic.files import expand, records
    from evalrun.traffic.otlp import is_otlp

    (file,) = expand([path])[:1]
    if file.suffix.lower() == ".csv":
        from evalrun.datasets.formats import CsvFile
        from evalrun.datasets.source import Findings

        findings = Findings()
        rows: Iterator[Any] = (row for _, _, row in CsvFile(file, str(file)).records(findings))
    else:
        rows = (row for _, row in records(file, tally))
    for row in rows:
        if is_otlp(row):
            yield from _evaluations(row)
            continue
        if not isinstance(row, dict):
            tally.note(TORN)
            continue
        ids = [row.get(wanted.id)] if wanted.id else [row.get(name) for name in IDS]
        value = row.get(wanted.value) if wanted.value else first_of(row, VALUES)
        yield [name for each in ids if (name := named(each))], value


def _evaluations(document: Mapping[str, Any]) -> Iterator[tuple[list[str], Any]]:
    """`gen_ai.evaluation.result` events called user_feedback."""
    from evalrun.traffic.otlp import Events, log_events

    events: Events = {}
    log_events(document, events)
    for key, heard in events.items():
        for name, attributes, _ in heard:
            if name == RESULT and "feedback" in str(attributes.get("gen_ai.evaluation.name")):
                value = first_of(
                    attributes, ("gen_ai.evaluation.score.value", "gen_ai.evaluation.score.label")
                )
                ids = (attributes.get("gen_ai.response.id"), f"{key[:32]}-{key[32:]}", key[:32])
                yield [str(each) for each in ids if each], value


@dataclass(frozen=True)
class _Samples:
    """The samples of a run: by every id under which feedback may know them, and what they are grouped by."""

    by_id: Mapping[str, str]
    arms: Mapping[str, str]
    scores: Mapping[str, float]
    score: str
    ids: Sequence[str]


def _samples(target: Target) -> _Samples:
    from evalrun.tracking.parquet import column_names, iter_samples

    path = target.folder.samples_path(target.run)
    present = column_names(path)
    score = next((name for name in present if name.startswith("score.")), "")
    columns = [
        n for n in ("vars.request_id", "vars.trace_id", "vars.span_id", "vars.arm", score) if n in present
    ]
    by_id: dict[str, str] = {}
    by_trace: dict[str, str] = {}
    arms: dict[str, str] = {}
    scores: dict[str, float] = {}
    ids = []
    for row in iter_samples(path, columns=["sample_id", *columns]):
        sample = str(row["sample_id"])
        ids.append(sample)
        trace, span = named(row.get("vars.trace_id")), named(row.get("vars.span_id"))
        for name in (sample, named(row.get("vars.request_id")), f"{trace}-{span}" if span else None):
            if name is not None:
                by_id.setdefault(name, sample)
        if trace is not None:
            by_trace.setdefault(trace, sample)
        if (arm := named(row.get("vars.arm"))) is not None:
            arms[sample] = arm
        if (value := row.get(score)) is not None and value == value:
            scores[sample] = float(value)
    return _Samples(
        {**by_trace, **by_id}, arms, scores, score.removeprefix("score."), list(dict.fromkeys(ids))
    )


def _check(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    from evalrun.tracking.people import BAD, GOOD

    for row in rows:
        value = row[COLUMN]
        if isinstance(value, bool | int | float) or str(value).strip().lower() in GOOD | BAD:
            continue
        try:
            float(str(value))
        except ValueError as error:
            raise UserError(
                f"'{str(value)[:60]}' of sample {row['sample_id']} is neither good nor bad nor a number",
                where=str(path),
                remedy=f"Known words: {', '.join(sorted(GOOD | BAD))}. --value names another column.",
            ) from error


def _last(target: Target) -> Any:
    from evalrun.tracking.changes import said

    return next(each for each in reversed(said(target.folder).labels) if each.column == COLUMN)


def _groups(
    samples: _Samples, labels: Sequence[Label], run: str, kind: str
) -> tuple[Answered, list[Answered], list[Answered]]:
    from evalrun.analysis.feedback import by_sample
    from evalrun.tracking.people import as_number

    given = {key: as_number(value) for key, value in by_sample(labels, run, kind).items()}
    arms = sorted(set(samples.arms.values()))
    values = sorted(samples.scores.values())
    middle = values[len(values) // 2] if values else 0.0
    below = [key for key, value in samples.scores.items() if value < middle]
    above = [key for key, value in samples.scores.items() if value >= middle]
    if not below and values:  # more than half have the least value
        below = [key for key in above if samples.scores[key] == middle]
        above = [key for key in above if samples.scores[key] > middle]
        names = (f"{samples.score} = {middle:g}", f"{samples.score} > {middle:g}")
    else:
        names = (f"{samples.score} < {middle:g}", f"{samples.score} >= {middle:g}")
    halves = [_answered(name, keys, given) for name, keys in zip(names, (below, above), strict=True) if keys]
    return (
        _answered("all", samples.ids, given),
        [_answered(arm, [key for key, own in samples.arms.items() if own == arm], given) for arm in arms],
        halves,
    )


def _answered(group: str, keys: Sequence[str], given: Mapping[str, float]) -> Answered:
    from evalrun.analysis.intervals import wilson

    told = [given[key] for key in keys if key in given]
    found = wilson(len(told), len(keys))
    mean = sum(told) / len(told) if told else None
    return Answered(group, len(keys), len(told), found.value or 0.0, found.low, found.high, mean)


def _log(store: Store, target: Target, overall: Answered, kind: str) -> None:
    """Figures that `find`, `trend`, gates and `whatis` know as the run's."""
    from evalrun.tracking.changes import log

    figures = {"feedback.response_rate": overall.rate}
    if overall.positive is not None:
        figures["feedback.positive" if kind == "binary" else "feedback.rating"] = overall.positive
        if kind == "binary":
            figures["feedback.down"] = 1 - overall.positive
    log(store, target, figures)


def _told(
    store: Store, target: Target, overall: Answered, said: Sequence[float], kind: str
) -> tuple[list[str], Sequence[str]]:
    """Open and close the suite's alerts on what users said. Few answer: a bound counts as passed where the
    one-sided 95 % interval of what they said lies beyond it."""
    import numpy as np

    from evalrun.analysis.intervals import mean_t, wilson
    from evalrun.gates import alarms
    from evalrun.gates.alerts import parse_alert
    from evalrun.gates.conditions import FEEDBACK, Gate

    how = alarms.alerts_of(target.folder)
    parsed = [parse_alert(text) for text in how.when] if how is not None else []
    good = [value > 0.5 for value in said]
    measured = {"response_rate": wilson(overall.answered, overall.samples, 0.9)}
    if kind == "binary":
        measured["positive"] = wilson(sum(good), len(good), 0.9)
        measured["down"] = wilson(len(good) - sum(good), len(good), 0.9)
    else:
        measured["rating"] = mean_t(np.asarray(said, np.float64), level=0.9)
    made = []
    for alert in parsed:
        gate = getattr(alert, "gate", None)
        found = measured.get(gate.metric.removeprefix(FEEDBACK)) if isinstance(gate, Gate) else None
        if gate is None or found is None or not gate.metric.startswith(FEEDBACK):
            continue
        end = found.low if gate.op in (">", ">=") else found.high
        on = end is not None and gate.holds(end)
        seen = f"{found.value or 0:.3g} of {found.n:,} who answered" if found.n else "nobody answered"
        made.append(alarms.Alarm(gate.text, target.run, on, seen))
    project = str(target.folder.read_manifest()["project"])
    left, warnings = alarms.tell(store, project, made, how, time.time())
    return [f"{each.name}: {each.why}" for each in left], warnings


def _flagged(agreement: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in agreement:
        if each["value"] is not None and each["value"] < LEAST_KAPPA:
            yield str(each["score"])

"""What people say of a sweep after it ended: name, tags, notes, labels, archived or not. Its events, folded.

The manifest of a finished sweep is never changed. What stands here is made from the events alone, so that
`evalrun reindex` loses nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import orjson

from evalrun.atomic import private_folder, write_private
from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.secrets import scrub_json
from evalrun.tracking.folder import SweepFolder, file_sha256
from evalrun.types import JSON

TAG, NOTE, ARCHIVE = "tag", "note", "archive"
RENAME, LABEL, LOG = "rename", "label", "log"
ANSWER, FEEDBACK = "answer", "feedback"
"""Actions of the events."""

MAX_NOTE = 10_000
MAX_NAME = 100
_MAX_TAG = 200


@frozen
class Note:
    """A note with who wrote it and when (ISO 8601, UTC). `target` is RUN or RUN/SAMPLE; empty: the sweep."""

    text: str
    actor: str
    ts: str
    target: str = ""


@frozen
class LabelSet:
    """Labels or ratings that people gave to samples, from one file; what was read lies in `file`.

    `target` is the run they are of, empty where the file says it or they are of rows whatever the run.
    """

    column: str
    kind: str
    n: int
    target: str
    file: str
    actor: str
    ts: str
    agreement: tuple[Mapping[str, Any], ...] = ()


@frozen
class Said:
    """All that people have said of a sweep. `tags` start from those of its suite.

    `name` is what it was renamed to, None where it was not; of `labels` the last set of a column counts.
    """

    tags: Mapping[str, str]
    notes: tuple[Note, ...]
    archived: bool
    name: str | None = None
    labels: tuple[LabelSet, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What was logged, by run and name."""

    def notes_of(self, target: str = "") -> tuple[Note, ...]:
        """The notes on the sweep itself, or on RUN or RUN/SAMPLE."""
        return tuple(note for note in self.notes if note.target == target)


def fold(suite_tags: Mapping[str, str], events: Iterable[Mapping[str, Any]]) -> Said:
    """From the events, oldest first, to how things stand. Events of an odd form are passed over."""
    events = list(events)
    tags, notes, archived = dict(suite_tags), list[Note](), False
    name: str | None = None
    labels: dict[tuple[str, str], LabelSet] = {}
    for event in events:
        detail = event.get("detail")
        if not isinstance(detail, Mapping):
            continue
        if event["action"] == TAG:
            given, removed = detail.get("set"), detail.get("removed")
            tags.update({str(k): str(v) for k, v in given.items()} if isinstance(given, Mapping) else {})
            for key in removed if isinstance(removed, list) else ():
                tags.pop(str(key), None)
        elif event["action"] == NOTE and isinstance(detail.get("text"), str):
            notes.append(Note(detail["text"], event["actor"], event["ts"], str(event.get("target", ""))))
        elif event["action"] == ARCHIVE:
            archived = bool(detail.get("archived"))
        elif event["action"] == RENAME and isinstance(detail.get("name"), str):
            name = detail["name"]
        elif event["action"] == LABEL:
            given_labels = _label_set(event, detail)
            labels.pop((given_labels.column, given_labels.target), None)
            labels[given_labels.column, given_labels.target] = given_labels
    return Said(tags, tuple(notes), archived, name, tuple(labels.values()), logged(events))


def _label_set(event: Mapping[str, Any], detail: Mapping[str, Any]) -> LabelSet:
    agreement = detail.get("agreement")
    n = detail.get("n")
    return LabelSet(
        column=str(detail.get("column")),
        kind=str(detail.get("kind")),
        n=n if isinstance(n, int) else 0,
        target=str(event.get("target", "")),
        file=str(detail.get("file")),
        actor=event["actor"],
        ts=event["ts"],
        agreement=tuple(each for each in agreement if isinstance(each, Mapping))
        if isinstance(agreement, list)
        else (),
    )


def read_tags(pairs: Iterable[str]) -> dict[str, str]:
    """`team=nlp` and the like. Raises UserError for each that is not of this form."""
    tags: dict[str, str] = {}
    wrong: list[Problem] = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key or max(len(key), len(value)) > _MAX_TAG or not (key + value).isprintable():
            wrong.append(
                Problem(
                    f"'{pair[:80]}' is not a tag",
                    remedy=f"Write NAME=VALUE in at most {_MAX_TAG} printable characters each.",
                )
            )
        tags[key] = value.strip()
    if wrong:
        raise UserError(wrong)
    return tags


def read_figures(pairs: Iterable[str]) -> dict[str, float]:
    """`energy_kwh=1.5` and the like. Raises UserError for each that is no name of a metric with a number."""
    figures: dict[str, float] = {}
    wrong: list[Problem] = []
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not _FIGURE.match(name) or not math.isfinite(value):
            remedy = "Write NAME=NUMBER; a name has letters, digits, '.' and '_', and begins with a letter."
            wrong.append(Problem(f"'{pair[:80]}' is not a figure", remedy=remedy))
        figures[name] = value
    if wrong:
        raise UserError(wrong)
    return figures


def logged(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The figures that people logged, by run and name; of each the last one counts."""
    found: dict[str, dict[str, float]] = {}
    for event in events:
        detail = event.get("detail")
        figures = detail.get("figures") if isinstance(detail, Mapping) else None
        if event["action"] == LOG and isinstance(figures, Mapping):
            numbers = {str(k): float(v) for k, v in figures.items() if isinstance(v, int | float)}
            found.setdefault(str(event["target"]), {}).update(numbers)
    return found


def as_figure(value: str) -> float | None:
    """A tag's value as the number that it is; None where it is none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


TAG_FIGURE = "tag."
"""What the names of metrics begin with that are numeric tags."""


def own_figures(told: Said, run: str) -> dict[str, float]:
    """What people say of a run in numbers, by name: figures that they logged, and numeric tags."""
    tags = {TAG_FIGURE + key: as_figure(value) for key, value in told.tags.items()}
    known = {name: number for name, number in tags.items() if number is not None}
    return {**known, **told.figures.get(run, {})}


def with_own_figures(told: Said, document: Mapping[str, Any]) -> dict[str, Any]:
    """A run's document with the figures of people's own among its metrics. A metric that it measured itself
    stays what it is."""
    known = {metric["name"] for metric in document["metrics"]}
    n = document["counts"]["samples"]
    own = [
        {"name": name, "slice": {}, "value": value, "n": n, "unit": "", "direction": "none", "note": "logged"}
        for name, value in own_figures(told, str(document["run"])).items()
        if name not in known
    ]
    return {**document, "metrics": [*document["metrics"], *own]}


_FIGURE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*\Z")

LABELS_FOLDER, LABELS_DIGEST = "labels", "sha256"

GOOD = frozenset({"1", "true", "yes", "good", "pass", "up", "positive", "correct", "right", "like", "👍"})
BAD = frozenset(
    {"0", "false", "no", "bad", "fail", "down", "negative", "incorrect", "wrong", "dislike", "👎"}
)


@frozen
class LabelColumns:
    """Which columns of the file hold what. `run` may be missing in it."""

    value: str
    sample: str = "sample_id"
    run: str = "run"


@frozen
class Label:
    """What one person said of one sample. `run` is empty where the file does not say."""

    sample_id: str
    value: str | float
    run: str = ""


def read_labels(path: Path, columns: LabelColumns) -> list[Label]:
    """The labels of a JSONL or CSV file, in its order; rows without a value are passed over.

    Raises UserError with every row that has no sample id or an odd value, and where there is no such column.
    """
    from evalrun.datasets.source import Findings

    findings = Findings()
    source = _source(path)
    labels: list[Label] = []
    seen: set[str] = set()
    for number, _, row in source.records(findings):
        seen |= row.keys()
        value, sample = row.get(columns.value), row.get(columns.sample)
        if value is None or value == "":
            continue
        if isinstance(value, list | dict):
            findings.add(f"'{columns.value}' holds no text and no number", source.place(number))
        elif sample is None or sample == "":
            findings.add(f"the row has no '{columns.sample}'", source.place(number))
        else:
            labels.append(Label(str(sample), _value(value), str(row.get(columns.run) or "")))
    findings.raise_if_any()
    missing = [each for each in (columns.value, columns.sample) if each not in seen]
    if missing or not labels:
        what = f"no row has a '{missing[0]}'" if missing else f"no row has a value for '{columns.value}'"
        option = "--column" if missing[:1] != [columns.sample] else "--id"
        listed = ", ".join(sorted(map(str, seen))[:20]) or "none"
        raise UserError(what, where=str(path), remedy=f"Columns: {listed}. Name one by {option}.")
    return labels


def kind_of(labels: Sequence[Label]) -> str:
    """ "binary" (good or bad), "number" (a rating), or "class" (the name of one, compared with answers)."""
    values = {str(label.value).lower() if isinstance(label.value, str) else label.value for label in labels}
    if all(str(value if isinstance(value, str) else f"{value:g}") in GOOD | BAD for value in values):
        return "binary"
    return "number" if all(isinstance(value, float) for value in values) else "class"


def as_number(value: str | float) -> float:
    """A rating as it is; of "good" and its like 1, of "bad" and its like 0."""
    return value if isinstance(value, float) else float(value.lower() in GOOD)


def keep_labels(folder: SweepFolder, column: str, labels: Sequence[Label]) -> Mapping[str, JSON]:
    """Write a set into the sweep folder, and give back what its event says of the file."""
    place = private_folder(folder.path / LABELS_FOLDER)
    last = folder.last_event()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", column)[:60].strip("-") or "labels"
    path = place / f"{stem}-{(last['seq'] if last else 0) + 1}.jsonl"
    rows = [
        {"sample_id": label.sample_id, "value": label.value, **({"run": label.run} if label.run else {})}
        for label in labels
    ]
    write_private(path, b"".join(orjson.dumps(scrub_json(row)) + b"\n" for row in rows))
    return {"file": f"{LABELS_FOLDER}/{path.name}", LABELS_DIGEST: file_sha256(path)}


def load_labels(folder: SweepFolder, label_set: LabelSet) -> list[Label]:
    """The labels of a set. Raises UserError where its file is gone or broken."""
    path = folder.path / LABELS_FOLDER / Path(label_set.file).name
    try:
        rows: list[dict[str, Any]] = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"the labels cannot be read: {error}", where=str(path)) from error
    return [Label(row["sample_id"], _value(row["value"]), row.get("run", "")) for row in rows]


def _value(value: JSON) -> str | float:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    try:
        number = float(text)  # CSV knows only texts
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _source(path: Path):  # type: ignore[no-untyped-def]
    from evalrun.datasets.formats import CsvFile, JsonLines

    if not path.is_file():
        raise UserError("there is no such file", where=str(path))
    return CsvFile(path, str(path)) if path.suffix.lower() == ".csv" else JsonLines(path, str(path))

"""What people think of answers, compared with the scores; and the rows that they, or a score, found worst."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from evalrun.analysis.influence import smooth_interval
from evalrun.analysis.measures import RunSamples, default_metrics
from evalrun.atomic import replacing
from evalrun.errors import UserError
from evalrun.scoring.figures import spearman_smooth
from evalrun.tracking.changes import said
from evalrun.tracking.folder import file_sha256
from evalrun.tracking.parquet import column_names, iter_samples
from evalrun.tracking.people import (
    LABEL,
    Label,
    LabelColumns,
    LabelSet,
    as_number,
    keep_labels,
    kind_of,
    load_labels,
    read_labels,
)
from evalrun.tracking.plain import plain
from evalrun.tracking.samples import find_samples
from evalrun.tracking.store import Store
from evalrun.tracking.targets import Target
from evalrun.types import JSON

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`value` by `measure` (kappa, spearman) over `n` samples; None where the data cannot give it (`note`).

    `share` is the fraction of samples on which both say the same (kappa only). The interval has level 0.95.
    """

    measure: str
    value: float | None
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    share: float | None = None
    note: str = ""


def kappa(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """Cohen's kappa of two columns of labels, each of shape (n,): agreement beyond that of chance.

    1 is full agreement, 0 that of chance. Interval: as for a judge's kappa, by influence on Fisher's scale
    with two samples added that are spread over all pairs of labels; the large-sample formula of Fleiss, Cohen
    and Everitt (1969) covers too rarely where nearly all labels are one and the same.
    """
    from evalrun.scoring.scorers.judge_agreement import kappa_smooth

    n = len(first)
    if n == 0:
        return Agreement("kappa", None, 0, note="no sample has both")
    labels, codes = np.unique(np.array([*map(str, first), *map(str, second)], object), return_inverse=True)
    one, other = codes[:n], codes[n:]
    share = float((one == other).mean())
    smooth = kappa_smooth(one, other, len(labels), quadratic=False)
    if math.isnan(smooth.value):
        return Agreement("kappa", None, n, share=share, note="both give one label only, and the same")
    found = smooth_interval(smooth, bounds=(-1.0, 1.0))
    return Agreement("kappa", smooth.value, n, found.low, found.high, share, found.note)


def rank_correlation(first: Floats, second: Floats) -> Agreement:
    """Spearman's rank correlation of two columns of numbers, each of shape (n,), without missing values.

    Interval by the influence of each sample on Fisher's scale, which holds for ties.
    """
    n = len(first)
    smooth = spearman_smooth(first, second) if n > 1 else None
    if smooth is None or math.isnan(smooth.value):
        note = "too few samples" if n < 2 else "one of the two is the same for every sample"
        return Agreement("spearman", None, n, note=note)
    found = smooth_interval(smooth, bounds=(-1.0, 1.0))
    if found.low is None:
        return Agreement(
            "spearman", smooth.value, n, note="too few samples, or all in the same order: no interval"
        )
    return Agreement("spearman", smooth.value, n, found.low, found.high, note=found.note)


@dataclass(frozen=True, slots=True)
class Labelled:
    """What came of labels: how many fitted a sample, those that did not, and how they agree with scores.

    `agreement` has one entry a run and score, with the fields of `Agreement`, `run` and `score`.
    """

    column: str
    kind: str
    n: int
    unknown: tuple[str, ...]
    agreement: tuple[Mapping[str, JSON], ...]


def label(store: Store, target: Target, path: Path, columns: LabelColumns) -> Labelled:
    """Keep the labels of a file with a sweep or run, and say how they agree with its scores.

    Ratings are of one run's answers; names of classes are of rows, whatever the run. Raises UserError where
    no label fits a sample, and for ratings that fit several runs.
    """
    labels = read_labels(path, columns)
    kind = kind_of(labels)
    runs = runs_of(target)
    known = {run.run.run: set(run.ids) for run in runs}
    _check_runs(labels, known, path)
    fitting = [label for label in labels if _fits(label, known)]
    if not fitting:
        example = next((ids for ids in known.values() if ids), {"none"})
        raise UserError(
            f"none of the {len(labels):,} labels has the id of a sample of {target.folder.path.name}",
            where=str(path),
            remedy=f"Sample ids look like '{min(example)}'; --id names the column that holds them.",
        )
    if kind != "class":
        _check_alone(fitting, known, target)
    agreement = tuple(agreement for run in runs for agreement in agreements(run, fitting, kind))
    with store.changing(target.folder):
        kept = keep_labels(target.folder, columns.value, fitting)
        detail = {"column": columns.value, "kind": kind, "n": len(fitting), "agreement": agreement, **kept}
        target.folder.append_event(LABEL, {**detail, "source": path.name}, target=target.run)
    unknown = tuple(dict.fromkeys(label.sample_id for label in labels if not _fits(label, known)))
    return Labelled(columns.value, kind, len(fitting), unknown, agreement)


def runs_of(target: Target) -> list[RunSamples]:
    """The finished runs of a sweep, or the one that is meant. Raises UserError where there is none."""
    sweep = target.folder.manifest()
    ids = [target.run] if target.run else target.folder.run_ids()
    if not ids:
        raise UserError("the sweep has no finished run", where=target.folder.path.name)
    return [RunSamples(target.folder, sweep, target.folder.run(run)) for run in ids]


def _fits(label: Label, known: Mapping[str, set[str]]) -> bool:
    if label.run:
        return label.sample_id in known.get(label.run, ())
    return any(label.sample_id in ids for ids in known.values())


def _check_runs(labels: Sequence[Label], known: Mapping[str, set[str]], path: Path) -> None:
    strange = sorted({label.run for label in labels if label.run} - known.keys())
    if strange:
        raise UserError(
            f"there is no run '{strange[0]}' here", where=str(path), remedy=f"Runs: {', '.join(known)}."
        )


def _check_alone(labels: Sequence[Label], known: Mapping[str, set[str]], target: Target) -> None:
    """A rating is of an answer, so it must be plain of which run's."""
    for label in labels:
        fitting = [run for run, ids in known.items() if label.sample_id in ids]
        if not label.run and len(fitting) > 1:
            raise UserError(
                f"a rating is of one answer, and {len(fitting)} runs have an answer to '{label.sample_id}'",
                where=target.folder.path.name,
                remedy=f"Name the run: evalrun label {target.folder.ulid}/{fitting[0]} …, or give the file "
                "a column 'run'.",
            )


def by_sample(labels: Sequence[Label], run: str, kind: str) -> dict[str, str | float]:
    """One value a sample of a run: the mean of its ratings, or the class that most gave (none where tied)."""
    given: dict[str, list[str | float]] = {}
    for label in labels:
        if label.run in ("", run):
            given.setdefault(label.sample_id, []).append(label.value)
    if kind != "class":
        return {key: sum(map(as_number, values)) / len(values) for key, values in given.items()}
    classes: dict[str, str | float] = {}
    for key, values in given.items():
        (first, times), *rest = Counter(map(str, values)).most_common(2)
        if not rest or times > rest[0][1]:
            classes[key] = first
    return classes


def agreements(run: RunSamples, labels: Sequence[Label], kind: str) -> list[dict[str, JSON]]:
    """How the labels agree with the run's answers (classes), or with each of its scores (all others).

    Good or bad against a score of 0 or 1: kappa. Anything else against a score: rank correlation.
    """
    given = by_sample(labels, run.run.run, kind)
    if not given:
        return []
    if kind == "class":
        return [_named(run, "answer", _with_answers(run, given))]
    compared = []
    for name in default_metrics([run]):
        scores = _scores(run, name)
        shared = [key for key in given if key in scores]
        ratings = np.array([as_number(given[key]) for key in shared], np.float64)
        values = np.array([scores[key] for key in shared], np.float64)
        if kind == "binary" and {*ratings, *values} <= {0.0, 1.0}:
            compared.append(_named(run, name, kappa([*map(str, ratings)], [*map(str, values)])))
        else:
            compared.append(_named(run, name, rank_correlation(ratings, values)))
    return compared


def _scores(run: RunSamples, name: str) -> dict[str, float]:
    """The score of each sample id that has one, averaged over repeats."""
    values = run.by_id(run.table.scores[name], np.ones(len(run.table), np.bool_))
    return {key: float(value) for key, value in zip(run.ids, values, strict=True) if not np.isnan(value)}


def _with_answers(run: RunSamples, given: Mapping[str, str | float]) -> Agreement:
    rows = find_samples(run.folder.samples_path(run.run.run), "answer != None").rows
    answers = {row["sample_id"]: str(row["answer"]).strip().lower() for row in reversed(rows)}
    shared = [key for key in given if key in answers]
    return kappa([str(given[key]).strip().lower() for key in shared], [answers[key] for key in shared])


def _named(run: RunSamples, score: str, agreement: Agreement) -> dict[str, JSON]:
    return {"run": run.run.run, "score": score, **asdict(agreement)}


EXPORT = "export"
_PREFIXES = ("vars.", "sensitive.")


@dataclass(frozen=True, slots=True)
class Worst:
    """Which rows: the `count` worst by labels of `column` (None: the last that were given), or by a score."""

    count: int
    column: str | None = None
    score: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: how many rows, out of how many that had a value, by what."""

    path: Path
    rows: int
    rated: int
    by: str


def worst_rows(store: Store, target: Target, worst: Worst, out: Path) -> Exported:
    """Write the rows of the worst samples of a sweep or run to a JSONL file, the worst first.

    A row holds the input columns as the samples keep them, `sample_id`, `target` and what it was rated (under
    the label's name). Lower is worse. Raises UserError where there is nothing to go by.
    """
    rated, by = _rated(target, worst)
    if not rated:
        raise UserError(f"no sample has a value of '{by}'", where=target.folder.path.name)
    order = sorted(rated, key=lambda key: (rated[key], key))[: worst.count]
    rows = _rows_of(target, set(order))
    written = [{**rows[key], "sample_id": key, by: rated[key]} for key in order if key in rows]
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in written))
    detail = {"what": "from-feedback", "rows": len(written), "by": by, "sha256": file_sha256(out)}
    with store.changing(target.folder):
        target.folder.append_event(EXPORT, detail, target=target.run)
    return Exported(out, len(written), len(rated), by)


def _rated(target: Target, worst: Worst) -> tuple[dict[str, float], str]:
    """A number a sample id: the mean over runs, where several were rated."""
    runs = runs_of(target)
    if worst.score is None:
        chosen = _choose_labels(target, worst.column)
        labels = load_labels(target.folder, chosen)
        by, rated = chosen.column, [by_sample(labels, run.run.run, chosen.kind) for run in runs]
    else:
        for run in runs:
            if worst.score not in run.table.scores:
                listed = ", ".join(run.table.scores) or "none"
                raise UserError(
                    f"run {run.run.run} has no score '{worst.score}'", remedy=f"Scores: {listed}."
                )
        by, rated = worst.score, [{**_scores(run, worst.score)} for run in runs]
    ratings: dict[str, list[float]] = {}
    for of_run in rated:
        for key, rating in of_run.items():
            ratings.setdefault(key, []).append(as_number(rating))
    return {key: sum(values) / len(values) for key, values in ratings.items()}, by


def _choose_labels(target: Target, column: str | None) -> LabelSet:
    sets = [
        labels
        for labels in said(target.folder).labels
        if labels.kind != "class"
        and column in (None, labels.column)
        and (not target.run or labels.target in ("", target.run))
    ]
    if not sets:
        raise UserError(
            "the sweep has no ratings" + (f" called '{column}'" if column else ""),
            where=target.folder.path.name,
            remedy="Bring some: evalrun label SWEEP --from FILE --column rating; or take a score: --score.",
        )
    return sets[-1]


def _rows_of(target: Target, wanted: set[str]) -> dict[str, dict[str, JSON]]:
    """The input columns and the target of these samples."""
    rows: dict[str, dict[str, JSON]] = {}
    for run in runs_of(target):
        path = run.folder.samples_path(run.run.run)
        columns = [
            name
            for name in column_names(path)
            if name.startswith(_PREFIXES) or name in ("target", "target_json", "cluster")
        ]
        for row in iter_samples(path, columns=["sample_id", *columns]):
            key = str(row["sample_id"])
            if key in wanted and key not in rows:
                rows[key] = _row(row, columns)
    return rows


def _row(sample: Mapping[str, Any], columns: list[str]) -> dict[str, JSON]:
    made: dict[str, JSON] = {}
    # Input columns last: what stood in the dataset is what stands in the new one.
    for name in sorted(columns, key=lambda name: name.startswith("vars.")):
        value = plain(sample[name])
        if value is not None and name != "cluster":
            # `target_json` is the target with its type, where it is no text; it stands behind `target`.
            shown = "target" if name == "target_json" else name
            made[shown.removeprefix("vars.").removeprefix("sensitive.")] = value
    return made

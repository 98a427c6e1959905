"""What people think of answers, held against the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalrun.analysis.agreement import Agreement, kappa, rank_correlation
from evalrun.analysis.measures import RunSamples, default_metrics
from evalrun.errors import UserError
from evalrun.tracking.labels import (
    Label,
    LabelColumns,
    as_number,
    keep_labels,
    kind_of,
    read_labels,
)
from evalrun.tracking.people import LABEL
from evalrun.tracking.samples import find_samples
from evalrun.tracking.store import Store
from evalrun.tracking.targets import Target
from evalrun.types import JSON


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
    fitting = [each for each in labels if _fits(each, known)]
    if not fitting:
        example = next((ids for ids in known.values() if ids), {"none"})
        raise UserError(
            f"none of the {len(labels):,} labels has the id of a sample of {target.folder.path.name}",
            where=str(path),
            remedy=f"Sample ids look like '{min(example)}'; --id names the column that holds them.",
        )
    if kind != "class":
        _check_alone(fitting, known, target)
    agreement = tuple(each for run in runs for each in agreements(run, fitting, kind))
    with store.changing(target.folder):
        kept = keep_labels(target.folder, columns.value, fitting)
        detail = {"column": columns.value, "kind": kind, "n": len(fitting), "agreement": agreement, **kept}
        target.folder.append_event(LABEL, {**detail, "source": path.name}, target=target.run)
    unknown = tuple(dict.fromkeys(each.sample_id for each in labels if not _fits(each, known)))
    return Labelled(columns.value, kind, len(fitting), unknown, agreement)


def runs_of(target: Target) -> list[RunSamples]:
    """The finished runs of a sweep, or the one that is meant. Raises UserError where there is none."""
    sweep = target.folder.manifest()
    ids = [target.run] if target.run else target.folder.run_ids()
    if not ids:
        raise UserError("the sweep has no finished run", where=target.folder.path.name)
    return [RunSamples(target.folder, sweep, target.folder.run(each)) for each in ids]


def _fits(each: Label, known: Mapping[str, set[str]]) -> bool:
    if each.run:
        return each.sample_id in known.get(each.run, ())
    return any(each.sample_id in ids for ids in known.values())


def _check_runs(labels: Sequence[Label], known: Mapping[str, set[str]], path: Path) -> None:
    strange = sorted({each.run for each in labels if each.run} - known.keys())
    if strange:
        raise UserError(
            f"there is no run '{strange[0]}' here", where=str(path), remedy=f"Runs: {', '.join(known)}."
        )


def _check_alone(labels: Sequence[Label], known: Mapping[str, set[str]], target: Target) -> None:
    """A rating is of an answer, so it must be plain of which run's."""
    for each in labels:
        fitting = [run for run, ids in known.items() if each.sample_id in ids]
        if not each.run and len(fitting) > 1:
            raise UserError(
                f"a rating is of one answer, and {len(fitting)} runs have an answer to '{each.sample_id}'",
                where=target.folder.path.name,
                remedy=f"Name the run: evalrun label {target.folder.ulid}/{fitting[0]} …, or give the file "
                "a column 'run'.",
            )


def by_sample(labels: Sequence[Label], run: str, kind: str) -> dict[str, str | float]:
    """One value a sample of a run: the mean of its ratings, or the class that most gave (none where tied)."""
    given: dict[str, list[str | float]] = {}
    for each in labels:
        if each.run in ("", run):
            given.setdefault(each.sample_id, []).append(each.value)
    if kind != "class":
        return {key: sum(map(as_number, values)) / len(values) for key, values in given.items()}
    found: dict[str, str | float] = {}
    for key, values in given.items():
        counts = sorted(((values.count(each), str(each)) for each in set(values)), reverse=True)
        if len(counts) == 1 or counts[0][0] > counts[1][0]:
            found[key] = counts[0][1]
    return found


def agreements(run: RunSamples, labels: Sequence[Label], kind: str) -> list[dict[str, JSON]]:
    """How the labels agree with the run's answers (classes), or with each of its scores (all others).

    Good or bad against a score of 0 or 1: kappa. Anything else against a score: rank correlation.
    """
    given = by_sample(labels, run.run.run, kind)
    if not given:
        return []
    if kind == "class":
        return [_named(run, "answer", _with_answers(run, given))]
    found = []
    for name in default_metrics([run]):
        values = dict(zip(run.ids, run.by_id(run.table.scores[name], every_sample(run)), strict=True))
        both = [
            (as_number(given[key]), values[key]) for key in given if not np.isnan(values.get(key, np.nan))
        ]
        mine, theirs = (
            np.array(column, np.float64) for column in (zip(*both, strict=True) if both else ([], []))
        )
        if kind == "binary" and {*mine, *theirs} <= {0.0, 1.0}:
            found.append(_named(run, name, kappa([*map(str, mine)], [*map(str, theirs)])))
        else:
            found.append(_named(run, name, rank_correlation(mine, theirs)))
    return found


def every_sample(run: RunSamples) -> Any:
    """The mask that leaves nothing out."""
    return np.ones(len(run.table), np.bool_)


def _with_answers(run: RunSamples, given: Mapping[str, str | float]) -> Agreement:
    rows = find_samples(run.folder.samples_path(run.run.run), "answer != None").rows
    answers = {row["sample_id"]: str(row["answer"]).strip().lower() for row in reversed(rows)}
    shared = [key for key in given if key in answers]
    return kappa([str(given[key]).strip().lower() for key in shared], [answers[key] for key in shared])


def _named(run: RunSamples, score: str, agreement: Agreement) -> dict[str, JSON]:
    return {"run": run.run.run, "score": score, **asdict(agreement)}

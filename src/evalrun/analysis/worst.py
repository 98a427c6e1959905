"""The rows whose answers people, or a score, found worst: written as a dataset to evaluate again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from evalrun.analysis.feedback import by_sample, every_sample, runs_of
from evalrun.atomic import replacing
from evalrun.errors import UserError
from evalrun.tracking.changes import said
from evalrun.tracking.folder import file_sha256
from evalrun.tracking.labels import as_number, load_labels
from evalrun.tracking.parquet import column_names, iter_samples
from evalrun.tracking.people import LabelSet
from evalrun.tracking.plain import plain
from evalrun.tracking.store import Store
from evalrun.tracking.targets import Target
from evalrun.types import JSON

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
    found: dict[str, list[float]] = {}
    runs = runs_of(target)
    if worst.score is not None:
        for run in runs:
            if worst.score not in run.table.scores:
                listed = ", ".join(run.table.scores) or "none"
                raise UserError(
                    f"run {run.run.run} has no score '{worst.score}'", remedy=f"Scores: {listed}."
                )
            values = run.by_id(run.table.scores[worst.score], every_sample(run))
            for key, value in zip(run.ids, values, strict=True):
                if not np.isnan(value):
                    found.setdefault(key, []).append(float(value))
        return {key: sum(each) / len(each) for key, each in found.items()}, worst.score
    chosen = _choose_labels(target, worst.column)
    labels = load_labels(target.folder, chosen)
    for run in runs:
        for key, rating in by_sample(labels, run.run.run, chosen.kind).items():
            found.setdefault(key, []).append(as_number(rating))
    return {key: sum(each) / len(each) for key, each in found.items()}, chosen.column


def _choose_labels(target: Target, column: str | None) -> LabelSet:
    sets = [
        each
        for each in said(target.folder).labels
        if each.kind != "class"
        and column in (None, each.column)
        and (not target.run or each.target in ("", target.run))
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
            each
            for each in column_names(path)
            if each.startswith(_PREFIXES) or each in ("target", "target_json", "cluster")
        ]
        for row in iter_samples(path, columns=["sample_id", *columns]):
            key = str(row["sample_id"])
            if key in wanted and key not in rows:
                rows[key] = _row(row, columns)
    return rows


def _row(sample: Mapping[str, Any], columns: list[str]) -> dict[str, JSON]:
    made: dict[str, JSON] = {}
    # Input columns last: what stood in the dataset is what stands in the new one.
    for name in sorted(columns, key=lambda each: each.startswith("vars.")):
        value = plain(sample[name])
        if value is not None and name != "cluster":
            # `target_json` is the target with its type, where it is no text; it stands behind `target`.
            shown = "target" if name == "target_json" else name
            made[shown.removeprefix("vars.").removeprefix("sensitive.")] = value
    return made

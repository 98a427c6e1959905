"""The grades that judges gave the samples of a run, as codes: places on the menu of the scorer.

They stand in `samples.parquet` as parts of the judge's score (scoring/scorers/judge.py): `grade` is what the
judges gave together, `by.<model>` what each gave, `human` a person's grade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.intervals import Estimate, bootstrap_kinds, mean, percentile_interval
from evalrun.reports.columns import floats, hashes
from evalrun.scoring.scorers import judge_agreement as agreement
from evalrun.types import Status

if TYPE_CHECKING:
    from evalrun.scoring.scorers.judge import JudgeOptions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NO_GRADE = -1
RESAMPLES = 1_000
"""Of the figures of single judges, of which a sweep may have many."""

_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Grades:
    """Arrays of equal length, one entry a judged sample and repeat. Codes are places on the menu or NO_GRADE.

    `between` marks samples with a value but no grade (judges who voted equally often for two), `asked` those
    that had a text to judge, `turned` pairs of which a judge said different things in the two orders. `rows`
    are places in the file, `units` codes of what is independent: the cluster, or the sample id.
    """

    together: Ints
    person: Ints
    by: Mapping[str, Ints]
    between: Bools
    asked: Bools
    turned: Bools
    rows: Ints
    units: Ints

    def __len__(self) -> int:
        return len(self.together)

    def share(self, hits: Bools, of: Bools) -> Estimate:
        """The share of `hits` among `of`, with an interval over the independent units."""
        units = self.units[of]
        apart = len(np.unique(units)) == len(units)
        return mean(hits[of].astype(np.float64), None if apart else _codes(units), bounds=(0.0, 1.0))

    def kappa(self, first: Ints, second: Ints, size: int, *, quadratic: bool, seed: int) -> Estimate:
        """Cohen's kappa of two columns of codes over the samples that have both; interval by bootstrap over
        the independent units. `size` is the number of grades."""
        both = (first >= 0) & (second >= 0)
        n = int(both.sum())
        if n == 0:
            return Estimate(None, 0, note="no sample has both grades")
        cells = first[both] * size + second[both]
        kinds, counts = _kinds(cells, _codes(self.units[both]), size * size)

        def figure(sums: Floats) -> Floats:
            table = sums.reshape(*sums.shape[:-1], size, size)
            return agreement.kappa(table, quadratic=quadratic)[..., None]

        value = float(figure(counts.astype(np.float64) @ kinds)[0])
        draws = bootstrap_kinds(counts, kinds, figure, seed, RESAMPLES)[:, 0]
        return percentile_interval(value, n, draws, (-1.0, 1.0))


def _codes(units: Ints) -> Ints:
    return np.unique(units, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _kinds(cells: Ints, units: Ints, size: int) -> tuple[Floats, Ints]:
    """The distinct tables that units add, shape (K, size), and how many units add each. In the order of their
    content, so that resampling gives the same in every process."""
    present, at = np.unique(cells, return_inverse=True)
    if int(units.max()) + 1 == len(units):  # each unit adds one cell
        kinds: Floats = np.eye(len(present))
        counts = np.bincount(at, minlength=len(present))
    else:
        totals: Floats = np.zeros((int(units.max()) + 1, len(present)))
        np.add.at(totals, (units, at), 1.0)
        kinds, counts = np.unique(totals, axis=0, return_counts=True)
    whole: Floats = np.zeros((len(kinds), size))
    whole[:, present] = kinds
    return whole, counts.astype(np.int64)


def read_grades(path: Path, scorer: str, options: JudgeOptions, *, scored_only: bool = False) -> Grades:
    """The grades of a judge called `scorer` in a run's samples; those of failed samples are left out.

    `scored_only` leaves out unparsed and refused samples too (suite: `unparsed: exclude`).
    """
    import pyarrow.parquet as pq

    parts = ["unscored", "grade", "human", "inconsistent", *(f"by.{model}" for model in options.model)]
    names = {part: f"score.{scorer}.{part}" for part in parts} | {"value": f"score.{scorer}"}
    found: dict[str, list[Any]] = {name: [] for name in (*names, "sample_id", "cluster", "kept")}
    with pq.ParquetFile(path) as file:
        present = set(file.schema_arrow.names)
        wanted = [each for each in (*names.values(), "sample_id", "cluster", "status") if each in present]
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
            for part, name in names.items():
                found[part].append(floats(batch, name))
            for name in ("sample_id", "cluster"):
                found[name].append(hashes(batch, name))
            statuses = batch.column("status").to_pylist()
            found["kept"].append(np.array([not scored_only or each == Status.SCORED for each in statuses]))
    columns = {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in found.items()}
    return _grades(columns, options.model)


def _grades(columns: Mapping[str, Any], models: Sequence[str]) -> Grades:
    judged = ~np.isnan(columns["unscored"]) & columns["kept"].astype(bool)
    kept = {name: column[judged] for name, column in columns.items()}

    def codes(name: str) -> Ints:
        return np.where(np.isnan(kept[name]), NO_GRADE, kept[name]).astype(np.int64)

    together = codes("grade")
    by = {model: codes(f"by.{model}") for model in models} if len(models) > 1 else {models[0]: together}
    graded = kept["unscored"] == 0
    asked = np.ones(len(together), bool)
    if len(models) > 1:  # an answer without text got the lowest grade, and nobody was asked
        asked = ~graded | np.any([each >= 0 for each in by.values()], axis=0)
    clustered = bool((kept["cluster"] != 0).any())
    return Grades(
        together=together,
        person=codes("human"),
        by=by,
        between=graded & (together < 0),
        asked=asked,
        turned=np.nan_to_num(kept["inconsistent"]) > 0,
        rows=np.flatnonzero(judged).astype(np.int64),
        units=kept["cluster" if clustered else "sample_id"].astype(np.int64),
    )


def read_rows(path: Path, rows: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    """These columns of the rows at these places of a file, by place."""
    import pyarrow.parquet as pq

    wanted, found, start = set(rows), {}, 0
    with pq.ParquetFile(path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=_BATCH, columns=present):
            for at in sorted(wanted):
                if start <= at < start + batch.num_rows:
                    found[at] = batch.slice(at - start, 1).to_pylist()[0]
            start += batch.num_rows
            if len(found) == len(wanted):
                break
    return found

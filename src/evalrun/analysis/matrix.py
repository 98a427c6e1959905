"""Several runs over the samples that all of them have: one row a sample, one column a run or a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.intervals import Bounds, mean
from evalrun.analysis.measures import Measure, RunSamples
from evalrun.canonical import figure_seed
from evalrun.results import Estimate
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.analysis.figures import FigureMeasure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Values of several runs over the samples that all of them have: shape (n, k)."""

    values: Floats
    clusters: NDArray[np.int64] | None
    dropped: int

    def estimate(self, values: Floats, bounds: Bounds) -> Estimate:
        return mean(values, self.clusters, repeated=not _binary(values), bounds=bounds)


def _binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def joined(runs: Sequence[RunSamples], measure: Measure) -> Matrix:
    """The runs (of one dataset) joined by sample id; samples missing in any run are left out."""
    everything = np.unique(np.concatenate([run.table.keys for run in runs]))
    values = np.full((len(everything), len(runs)), np.nan)
    clusters: NDArray[np.int64] | None = None
    for at, run in enumerate(runs):
        rows = np.searchsorted(everything, run.table.keys)
        values[rows, at] = measure.values(run)
        if run.clusters is not None and at == 0:
            clusters = np.full(len(everything), -1, np.int64)
            clusters[rows] = run.clusters
    known = ~np.isnan(values).any(axis=1)
    return Matrix(values[known], None if clusters is None else clusters[known], int(len(known) - known.sum()))


def whole_prompts(runs: Sequence[RunSamples]) -> list[RunSamples]:
    """The runs whose prompt is one of the suite's own: without those that `ablate` made of them, which nobody
    means to use and which have an analysis of their own."""
    return [run for run in runs if run.ablates is None]


def runs_of(sweep: SweepFolder, columns: Sequence[str] | None = None) -> list[RunSamples]:
    """The finished runs of a sweep. Of their samples only `columns` are read, where these are named."""
    manifest = sweep.manifest()
    return [RunSamples(sweep, manifest, sweep.run(each), columns) for each in sweep.run_ids()]


def seed_of(measure: Measure | FigureMeasure, seed: int) -> int:
    """A seed of its own for every metric, whatever else is looked at."""
    return figure_seed(seed, measure.name)


def bounds_of(measure: Measure) -> Bounds:
    return (0.0, 1.0) if measure.unit == "fraction" else (None, None)


def by_dataset(runs: Sequence[RunSamples]) -> dict[str, list[RunSamples]]:
    """The runs of a sweep by dataset, in its order."""
    found: dict[str, list[RunSamples]] = {}
    for run in runs:
        found.setdefault(run.run.dataset, []).append(run)
    return found


def stacked(cells: Sequence[Mapping[str, RunSamples]], levels: Sequence[str], measure: Measure) -> Matrix:
    """One row a sample of any dataset, one column a level: the mean over the cells of its dataset."""
    grouped: dict[str, list[Mapping[str, RunSamples]]] = {}
    for cell in cells:
        grouped.setdefault(next(iter(cell.values())).run.dataset, []).append(cell)
    blocks, clusters, offset, dropped, any_clusters = [], [], 0, 0, False
    for group in grouped.values():
        data = joined([cell[level] for cell in group for level in levels], measure)
        blocks.append(data.values.reshape(len(data.values), len(group), len(levels)).mean(axis=1))
        any_clusters |= data.clusters is not None
        codes = np.arange(len(data.values)) if data.clusters is None else data.clusters
        clusters.append(codes + offset)
        offset += int(codes.max()) + 1 if len(codes) else 0
        dropped += data.dropped
    codes = np.concatenate(clusters).astype(np.int64)
    return Matrix(np.concatenate(blocks), codes if any_clusters else None, dropped)

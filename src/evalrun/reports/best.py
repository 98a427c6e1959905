"""The primary metric of a sweep's best run, for lists: read from the two documents that have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from evalrun.documents import read
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.tracking.folder import MANIFEST, RUN
from evalrun.tracking.plain import read_document
from evalrun.types import JSON


@frozen
class BestScore:
    """The metric that the sweep ranks its runs by, and its value in the run that comes first."""

    run: str
    metric: str
    value: float
    unit: str


@frozen
class _Ranked:
    run: str


@frozen
class _Primary:
    metric: str


@frozen
class _Results:
    primary: _Primary | None = None


@frozen
class _Manifest:
    """What is needed of `sweep.json`: a list of thousands of sweeps reads no more than that."""

    standings: tuple[_Ranked, ...] | None = ()
    results: _Results | None = None


@frozen
class _Figure:
    name: str
    value: float | None = None
    unit: str = ""
    slice: Mapping[str, JSON] = field(default_factory=dict)


@frozen
class _Run:
    """What is needed of `run.json`."""

    metrics: tuple[_Figure, ...] = ()


def best_score(folder: Path) -> BestScore | None:
    """That of the first dataset; None where nothing was ranked, or a document cannot be read."""
    try:
        manifest = read(_Manifest, read_document(folder / MANIFEST))
        if not manifest.standings or manifest.results is None or manifest.results.primary is None:
            return None
        first, name = manifest.standings[0].run, manifest.results.primary.metric
        run = read(_Run, read_document(folder / "runs" / first / RUN))
    except UserError:
        return None  # a list shows what can be read
    for metric in run.metrics:
        if metric.name == name and not metric.slice and metric.value is not None:
            return BestScore(first, name, metric.value, metric.unit)
    return None

"""What can be compared sample by sample, and the values of a run for it: one a sample id."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import RATES, Rate
from evalrun.analysis.conclude import scorer_names
from evalrun.analysis.definitions import definition
from evalrun.analysis.intervals import Bounds, mean
from evalrun.analysis.quality import counted, score_column, score_infos
from evalrun.analysis.samples import SampleTable
from evalrun.analysis.weighted import mean_weighted
from evalrun.canonical import figure_seed
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.results import Estimate, RunResults
from evalrun.scoring.info import MetricInfo
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.model import SweepManifest
from evalrun.tracking.parquet import read_columns
from evalrun.types import JSON, Direction, MetricValue

if TYPE_CHECKING:
    from evalrun.analysis.figures import FigureMeasure
    from evalrun.scoring.base import Scorer


Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LATENCIES = ("e2e_s", "ttft_s", "tpot_s", "client_queue_s", "response_s", "ttft_scheduled_s")
TOKENS = ("prompt_tokens", "completion_tokens")
COST = "cost_usd"

QUEUEING = (
    "answers that are under way together slow one another, so the interval of a latency, which takes samples "
    "as independent, is too narrow; several sweeps of each would tell more"
)


@frozen
class RunInfo:
    """Which run: enough to find it, and what makes it different from others."""

    sweep: str
    name: str
    run: str
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON]

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        return {each: getattr(self, each) for each in self.__match_args__} | {"params": dict(self.params)}


KeptTables: TypeAlias = "dict[tuple[str, int, int, tuple[str, ...] | None], SampleTable]"
"""Tables by their file, its time and size, and the columns that were read of it."""
_KEPT: KeptTables | None = None


@contextlib.contextmanager
def keeping_tables(tables: KeptTables) -> Iterator[None]:
    """Read each run's samples once while this holds, and for as long as `tables` is kept: for a sweep that is
    concluded again whenever it has grown by a run."""
    global _KEPT
    before, _KEPT = _KEPT, tables
    try:
        yield
    finally:
        _KEPT = before


class RunSamples:
    """The samples of one finished run, read when first needed: all that analysis can use, or `columns`."""

    def __init__(
        self,
        folder: SweepFolder,
        sweep: SweepManifest,
        run: RunResults,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self._columns = columns
        self.sweep = sweep
        self.run = run
        self.info = RunInfo(
            sweep.sweep, sweep.name, run.run, run.model, run.prompt, run.dataset, dict(run.params)
        )

    def __repr__(self) -> str:
        return f"RunSamples({self.info.sweep}/{self.info.run})"

    @property
    def seed(self) -> int:
        """The root seed of the sweep."""
        found = self.sweep.seeds.get("root")
        return found if isinstance(found, int) else 0

    @property
    def digest(self) -> str | None:
        """The digest of the dataset as this sweep read it, or None where the manifest has none."""
        found = self.sweep.datasets.get(self.run.dataset, {}).get("digest")
        return str(found) if found else None

    @property
    def prompt_digest(self) -> str | None:
        """The digest of the prompt, or None."""
        found = self.sweep.prompts.get(self.run.prompt, {}).get("digest")
        return str(found) if found else None

    @property
    def ablates(self) -> str | None:
        """The prompt of which this run's prompt leaves a part out (`ablate: true`), or None."""
        found = self.sweep.prompts.get(self.run.prompt, {}).get("ablates")
        return str(found) if found else None

    @property
    def left_out(self) -> str:
        """The part that it leaves out: "section rules", "example 2"; "" where it is no such prompt."""
        return str(self.sweep.prompts.get(self.run.prompt, {}).get("without") or "")

    @property
    def exclude_unparsed(self) -> bool:
        """Whether the suite leaves answers that no parser could read out of the scores."""
        return self.run.details.unparsed == "exclude"

    @cached_property
    def table(self) -> SampleTable:
        """The samples as columns. Raises UserError where the file is missing or broken."""
        path = self.folder.samples_path(self.run.run)
        if not path.exists():
            raise UserError("the run has no samples", where=str(path), remedy="Was the folder copied whole?")
        if _KEPT is None:
            return SampleTable.from_parquet(path, self._columns)
        status = path.stat()
        columns = None if self._columns is None else tuple(self._columns)
        key = (str(path), status.st_mtime_ns, status.st_size, columns)
        if key not in _KEPT:
            _KEPT[key] = SampleTable.from_parquet(path, self._columns)
        return _KEPT[key]

    @cached_property
    def has_samples(self) -> bool:
        """Whether the samples are there and can be read."""
        try:
            return self.table is not None
        except UserError:
            return False

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The distinct sample ids: entry i is the id with code i in the table."""
        column = read_columns(self.folder.samples_path(self.run.run), ["sample_id"]).column(0)
        names = np.array(column.to_pylist(), dtype=object)
        ids = np.empty(self.table.distinct, dtype=object)
        ids[self.table.ids] = names[self.table.order]
        return ids

    @cached_property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorers of the run's suite that are at hand. Code that a suite brings itself is not run."""
        from evalrun.scoring.base import Scorer
        from evalrun.suite.components import ScorerSpec

        resolved = self.sweep.suite.resolved
        entries = resolved.get("scorers") if isinstance(resolved, dict) else None
        found = []
        for entry in entries if isinstance(entries, list) else []:
            # One of another version, or of an extension that is not installed, cannot be made: do without.
            with contextlib.suppress(ValueError, UserError):
                if isinstance(entry, dict) and "python" not in entry:
                    found.append(ScorerSpec.model_validate(entry).build())
        return tuple(scorer for scorer in found if isinstance(scorer, Scorer))

    @cached_property
    def infos(self) -> Mapping[str, MetricInfo]:
        """What the score columns mean, by column."""
        return {column: info for scorer in self.scorers for column, info in score_infos(scorer)}

    @cached_property
    def clusters(self) -> NDArray[Any] | None:
        """The cluster code of each sample id, or None."""
        if self.table.clusters is None:
            return None
        first = np.zeros(self.table.distinct, np.int64)
        first[self.table.ids[::-1]] = np.arange(len(self.table))[::-1]
        return self.table.clusters[first].astype(np.int64)

    @cached_property
    def weights(self) -> Floats | None:
        """What each sample id stands for; None where all count alike."""
        resolved = self.sweep.suite.resolved
        entries = resolved.get("datasets") if isinstance(resolved, dict) else None
        names = [
            entry.get("weight")
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and entry.get("id") == self.run.dataset
        ]
        name = names[0] if names else None
        weighed = self.table.weighed(name, None).weights if isinstance(name, str) else None
        if weighed is None:
            return None
        found = np.empty(self.table.distinct)
        found[self.table.ids] = weighed
        return found

    def by_id(self, values: Floats, keep: Mask) -> Floats:
        """The mean over the kept repeats of each sample id, NaN where none is kept; in the order of `ids`."""
        keep = keep & ~np.isnan(values)
        ids, size = self.table.ids[keep], self.table.distinct
        count = np.bincount(ids, minlength=size)
        sums = np.bincount(ids, weights=values[keep], minlength=size)
        return np.asarray(np.divide(sums, count, out=np.full(size, np.nan), where=count > 0))


@frozen
class Measure:
    """A metric that is a mean over samples: `values` gives one value a sample id of a run, NaN if missing."""

    name: str
    unit: str
    direction: Direction
    values: Callable[[RunSamples], Floats]
    note: str = ""


def default_metrics(runs: Sequence[RunSamples]) -> list[str]:
    """The score of every scorer that all the runs have, without its parts, in the order of the first run.

    Of scores that are equal throughout (accuracy under two names) only the first.
    """
    shared = set.intersection(*(set(run.table.scores) for run in runs))
    ordered = [name for name in runs[0].table.scores if name in shared]
    resolved = runs[0].sweep.suite.resolved
    named = scorer_names(resolved if isinstance(resolved, dict) else {})
    ordered.sort(key=lambda name: named.index(name) if name in named else len(named))
    whole = [name for name in ordered if "." not in name] or ordered
    kept: list[str] = []
    for name in whole:
        if not any(_same(name, other, runs) for other in kept):
            kept.append(name)
    return kept


def _same(name: str, other: str, runs: Sequence[RunSamples]) -> bool:
    """Whether two scores are equal in every sample: testing both would correct for one test too many."""
    scores = [run.table.scores for run in runs]
    return all(np.array_equal(score[name], score[other], equal_nan=True) for score in scores)


def find_measure(name: str, runs: Sequence[RunSamples]) -> Measure:
    """The measure of that name: a score column, a rate, a latency, tokens, or cost.

    Latencies leave out cached, warm-up and failed samples, cost leaves out cached ones. Raises UserError
    where no run has such values.
    """
    plain = _plain_name(name)
    column = _score_column(plain, runs)
    if column is not None:
        return _score_measure(column, runs)
    for rate in RATES:
        if rate.info.name == plain:
            return Measure(plain, rate.info.unit, rate.info.direction, partial(_rate, rate))
    if plain in (*LATENCIES, *TOKENS, COST):
        return _number_measure(plain)
    raise unknown_metric(name, runs)


def score_measure(column: str, metric: MetricValue) -> Measure:
    """The measure of a metric that is the mean of a score column."""
    return Measure(metric.name, metric.unit, metric.direction, partial(_scores, column))


def is_mean(name: str, runs: Sequence[RunSamples]) -> bool:
    """Whether the metric is a mean over samples, so that `find_measure` finds it."""
    plain = _plain_name(name)
    others = {*LATENCIES, *TOKENS, COST, *(rate.info.name for rate in RATES)}
    return plain in others or _score_column(plain, runs) is not None


def _score_column(name: str, runs: Sequence[RunSamples]) -> str | None:
    """The column of a score by its own name, or by that of the metric that is its mean."""
    if any(name in run.table.scores for run in runs):
        return name
    found = (column for run in runs for column, info in run.infos.items() if info.name == name)
    return next((column for column in found if any(column in run.table.scores for run in runs)), None)


def score_column_of(name: str, run: RunSamples) -> str | None:
    """The score column that a metric of a run is the mean of; None where it is no such mean."""
    return _score_column(_plain_name(name), [run])


def unknown_metric(name: str, runs: Sequence[RunSamples]) -> UserError:
    """What there is to compare instead."""
    listed = [metric.name for run in runs for metric in run.run.metrics if not metric.slice]
    known = [
        *dict.fromkeys([*(score for run in runs for score in run.table.scores), *_numbers(runs), *listed])
    ]
    near = nearest(name, known)
    return UserError(
        f"there is no metric '{name}' to compare",
        where="--metric",
        remedy=(f"Did you mean '{near}'? " if near else "") + f"There are: {', '.join(known)}.",
    )


def _plain_name(name: str) -> str:
    """The column behind a metric's name: performance.e2e_s.mean is the mean of e2e_s. (cost.usd is a sum.)"""
    if name == "cost":
        return COST
    if name.startswith("performance.") and name.endswith(".mean"):
        return name.removeprefix("performance.").removesuffix(".mean")
    return name


def _numbers(runs: Sequence[RunSamples]) -> list[str]:
    names = (*LATENCIES, *TOKENS, COST)
    present = [name for name in names if any(not np.isnan(run.table.number(name)).all() for run in runs)]
    return present + [rate.info.name for rate in RATES]


def _score_measure(column: str, runs: Sequence[RunSamples]) -> Measure:
    values = partial(_scores, column)
    for run in runs:  # a scorer's first metric is the mean of its score: no scorer need be made to know that
        first = next((each for each in run.run.metrics if each.scorer == column and not each.slice), None)
        if first is not None:
            return score_measure(column, first)
    info = next((run.infos[column] for run in runs if column in run.infos), None)
    if info is not None:
        return Measure(info.name, info.unit, info.direction, values)
    for run in runs:
        for metric in run.run.metrics:
            if metric.name == column and not metric.slice:
                return score_measure(column, metric)
    info = definition(column)
    return Measure(column, info.unit, info.direction, values)


def _rate(rate: Rate, run: RunSamples) -> Floats:
    return run.by_id(rate.hits(run.table).astype(np.float64), rate.within(run.table))


def _scores(name: str, run: RunSamples) -> Floats:
    return run.by_id(score_column(run.table, name), counted(run.table, run.exclude_unparsed))


def _number_measure(name: str) -> Measure:
    if name == COST:
        return Measure(name, "usd", "lower", lambda run: _number(run, name, ~run.table.cached))
    if name in TOKENS:
        return Measure(
            f"performance.{name}.mean", "tokens", "none", lambda run: _number(run, name, run.table.answered)
        )
    return Measure(
        f"performance.{name}.mean",
        "s",
        "lower",
        lambda run: _number(run, name, run.table.answered & ~run.table.cached & ~run.table.warmup),
        QUEUEING,
    )


def _number(run: RunSamples, name: str, keep: Mask) -> Floats:
    return run.by_id(run.table.number(name), keep)


@frozen
class Matrix:
    """Values of several runs over the samples that all of them have: shape (n, k)."""

    values: Floats
    clusters: NDArray[np.int64] | None
    dropped: int
    weights: Floats | None = None

    def estimate(self, values: Floats, bounds: Bounds) -> Estimate:
        if self.weights is not None:
            return mean_weighted(values, self.weights, self.clusters, bounds=bounds)
        return mean(values, self.clusters, repeated=not _binary(values), bounds=bounds)


def _binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def joined(runs: Sequence[RunSamples], measure: Measure) -> Matrix:
    """The runs (of one dataset) joined by sample id; samples missing in any run are left out."""
    keys = np.sort(np.concatenate([run.table.keys for run in runs]))
    new = np.ones(len(keys), np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    everything = keys[new]  # np.unique imports numpy.ma, which takes 30 ms
    values = np.full((len(everything), len(runs)), np.nan)
    clusters: NDArray[np.int64] | None = None
    weights: Floats | None = None
    for at, run in enumerate(runs):
        rows = np.searchsorted(everything, run.table.keys)
        values[rows, at] = measure.values(run)
        if run.clusters is not None and at == 0:
            clusters = np.full(len(everything), -1, np.int64)
            clusters[rows] = run.clusters
        if at == 0 and run.weights is not None:
            weights = np.full(len(everything), np.nan)
            weights[rows] = run.weights
    known = ~np.isnan(values).any(axis=1)
    dropped = int(len(known) - known.sum())
    return Matrix(
        values[known], None if clusters is None else clusters[known], dropped,
        None if weights is None else weights[known],
    )  # fmt: skip


def whole_prompts(runs: Sequence[RunSamples]) -> list[RunSamples]:
    """The runs whose prompt is one of the suite's own: without those that `ablate` made of them, which nobody
    means to use and which have an analysis of their own."""
    return [run for run in runs if run.ablates is None]


def runs_of(sweep: SweepFolder, columns: Sequence[str] | None = None) -> list[RunSamples]:
    """The finished runs of a sweep. Of their samples only `columns` are read, where these are named."""
    manifest = sweep.manifest()
    return [RunSamples(sweep, manifest, sweep.run(id_), columns) for id_ in sweep.run_ids()]


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

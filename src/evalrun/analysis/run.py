"""From the samples of a finished run to its metrics. Nothing here calls a model or writes a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.analysis.bias import bias_findings
from evalrun.analysis.definitions import definition
from evalrun.analysis.performance import SystemSummary, performance_metrics
from evalrun.analysis.quality import rate_metrics, score_infos, score_metrics
from evalrun.analysis.samples import SampleTable, error_counts
from evalrun.analysis.shared_text import ROWS_ALIKE, shared_text
from evalrun.documents import read
from evalrun.frozen import frozen
from evalrun.results import Definition, RunDetails
from evalrun.scoring.base import MetricInfo, Scorer
from evalrun.scoring.pipeline import suite_scorers
from evalrun.suite.schema import LOST_TOLERATED
from evalrun.types import JSON, Counts, MetricValue

if TYPE_CHECKING:
    from evalrun.analysis.counterfactual import VersionPlan
    from evalrun.analysis.fairness_groups import FairnessPlan
    from evalrun.suite.dataset import DatasetSpec
    from evalrun.suite.levels import LoadSpec
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite

__all__ = ["AnalysisOptions", "RunAnalysis", "SystemSummary", "analyse", "analyse_run"]


@frozen
class AnalysisOptions:
    """What of a suite shapes the figures.

    `fairness` says which groups are compared, None where none are. `versions` says how the versions of
    samples are compared that `dataset` declares. `stream` is whether answers were streamed.
    `tolerate` is the share of its rows that a figure may have lost. Groups of fewer samples than
    `least_shown` are not shown. `load` says what is promised at levels.
    """

    fairness: FairnessPlan | None = None
    versions: VersionPlan | None = None
    dataset: DatasetSpec | None = None
    exclude_unparsed: bool = False
    stream: bool = False
    seed: int = 0
    tolerate: float = LOST_TOLERATED
    by: tuple[str, ...] = ()
    least_shown: int = 0
    own: Mapping[str, float | None] = field(default_factory=dict)
    load: LoadSpec | None = None


@frozen
class RunAnalysis:
    """The metrics of a run, and what stands behind them."""

    metrics: list[MetricValue]
    details: RunDetails
    counts: Counts
    warnings: tuple[str, ...] = ()
    """What a person should know of the figures before using any of them."""


def analyse_run(
    table: SampleTable,
    suite: Suite,
    spec: RunSpec | None = None,
    system: SystemSummary | None = None,
    scorers: Sequence[Scorer] | None = None,
) -> RunAnalysis:
    """All metrics of one run of a suite. `spec` is the run's cell of the matrix; `scorers` are the run's own
    in place of the suite's."""
    plan = None
    exclude_unparsed = suite.unparsed == "exclude"
    if suite.fairness is not None:
        from evalrun.analysis.fairness_groups import FairnessPlan

        plan = FairnessPlan.of(
            suite.fairness,
            exclude_unparsed=exclude_unparsed,
            seed=suite.seed,
            withheld=() if spec is None else spec.dataset.withheld,
            least_shown=_least_shown(suite),
        )
    options = AnalysisOptions(
        fairness=plan,
        versions=_version_plan(suite, spec),
        dataset=None if spec is None else spec.dataset,
        exclude_unparsed=exclude_unparsed,
        stream=suite.performance.stream,
        seed=suite.seed,
        tolerate=suite.errors.incomplete_above,
        by=tuple(suite.report.by) if suite.report is not None else (),
        least_shown=_least_shown(suite),
        own=suite.metrics,
        load=suite.load,
    )
    own = suite_scorers(suite) if scorers is None else scorers
    return analyse(table, own, system or SystemSummary(), options)


def _least_shown(suite: Suite) -> int:
    return 0 if suite.privacy is None else suite.privacy.min_group


def _version_plan(suite: Suite, spec: RunSpec | None) -> VersionPlan | None:
    """How versions of samples are compared, where the run's dataset has any."""
    if spec is None or not (spec.dataset.counterfactual or spec.dataset.perturb):
        return None
    from evalrun.analysis.counterfactual import VersionPlan

    return VersionPlan(
        reference={} if suite.fairness is None else suite.fairness.reference,
        draws=spec.params.get("temperature", 1) != 0,
        exclude_unparsed=suite.unparsed == "exclude",
        seed=suite.seed,
    )


def analyse(
    table: SampleTable,
    scorers: Sequence[Scorer],
    system: SystemSummary,
    options: AnalysisOptions | None = None,
) -> RunAnalysis:
    """All metrics of samples, without a suite."""
    options = options or AnalysisOptions()
    exclude_unparsed, seed = options.exclude_unparsed, options.seed
    if options.dataset is not None and options.dataset.weight is not None:
        table = table.weighed(options.dataset.weight, options.dataset.strata)
    metrics, scored = score_metrics(table, scorers, exclude_unparsed=exclude_unparsed, seed=seed)
    alike = _shared_text(table, options) if table.clusters is None and options.versions is None else ""
    if alike:
        metrics = [_noted(metric, ROWS_ALIKE) if metric.method else metric for metric in metrics]
    if table.distinct < len(table):
        from evalrun.analysis.repeats import repeat_metrics

        metrics += repeat_metrics(table, scorers, exclude_unparsed=exclude_unparsed, seed=seed)
    sliced: dict[str, MetricInfo] = {}
    if options.by:
        from evalrun.analysis.by_column import by_column

        by, sliced = by_column(
            table, scorers, options.by, exclude_unparsed=exclude_unparsed, least_shown=options.least_shown
        )
        metrics += by
    metrics += rate_metrics(table)
    speed, details = performance_metrics(table, system, stream=options.stream, seed=seed)
    metrics += speed
    warnings = [alike] if alike else []
    if system.load and options.load is not None:
        levels, details["load"], said = _load(table, scorers, system, options, speed)
        metrics += levels
        warnings += said
    for kind, key in (("confusion", "confusion"), ("signatures", "signature"), ("bbq", "bbq")):
        details[kind] = {name: detail[key] for name, detail in scored.items() if key in detail}
    details["bias"] = [asdict(finding) for finding in bias_findings(metrics, scorers)]
    details["unparsed"] = "exclude" if exclude_unparsed else "count"
    details["groups"] = {}
    if options.fairness is not None:
        from evalrun.analysis.fairness import fairness_metrics

        fair, groups = fairness_metrics(table, scorers, options.fairness)
        details["groups"] = {name: asdict(column) for name, column in groups.items()}
        metrics += fair
    details["versions"] = {}
    if options.versions is not None and options.dataset is not None:
        from evalrun.analysis.counterfactual import version_metrics

        found, versions = version_metrics(table, scorers, options.dataset, options.versions)
        details["versions"] = {axis: asdict(one) for axis, one in versions.items()}
        metrics += found
    measured = {metric.name for metric in metrics}
    metrics += [
        MetricValue(name, value, len(table), "", "none", note="given by the suite")
        for name, value in options.own.items()
        if value is not None and name not in measured
    ]
    of = {metric.name: metric.scorer for metric in metrics if metric.scorer}
    # The values by group of a scorer's metric are its own too.
    metrics = [
        replace(metric, scorer=of[metric.name]) if not metric.scorer and metric.name in of else metric
        for metric in metrics
    ]
    details["definitions"] = _definitions(metrics, scorers, _undeclared(table, scorers) | sliced)
    metrics = _without_lost(metrics, details, table, scorers, options)
    counts = table.counts()
    details["errors"] = {}
    if counts.failed + counts.unparsed:
        details["errors"] = error_counts(table.source)
    warnings += [system.beside] if system.beside else []
    return RunAnalysis(metrics, read(RunDetails, details), counts, tuple(warnings))


def _load(
    table: SampleTable,
    scorers: Sequence[Scorer],
    system: SystemSummary,
    options: AnalysisOptions,
    speed: Sequence[MetricValue],
) -> tuple[list[MetricValue], dict[str, JSON], list[str]]:
    """What a level of load came to."""
    from evalrun.analysis.load import Promise, load_metrics, prefix_warning

    assert options.load is not None
    first = scorers[0].name if scorers else ""
    promise = Promise.of(options.load, first, open_loop=bool(system.load.get("open_loop")))
    rate = next((each.value for each in speed if each.name == "performance.requests_per_s"), None)
    metrics, details, said = load_metrics(table, system.load, promise, rate, options.seed)
    if details["prefix_cache"]["hit_rate"] is None:  # no answer says it; the engine may
        details["prefix_cache"]["hit_rate"] = system.figures.get("engine.prefix_cache_hit_rate")
    if details["role"] == "search":  # its figures would be those of many loads together
        details |= {"probes": system.load.get("probes") or [], "attain": system.load.get("attain")}
        return [], {**details, "verdict": "undecided", "banners": []}, []
    warning = prefix_warning(details["prefix_cache"])
    return metrics, details, [*said, *([warning] if warning else [])]


_ALIKE: dict[tuple[Path, str, bytes], str] = {}


def _shared_text(table: SampleTable, options: AnalysisOptions) -> str:
    """Whether rows share a template, looked at once for all runs of a sweep that have the same rows."""
    if options.dataset is None:
        return shared_text(table.source)
    key = (table.source.parent.parent, options.dataset.id, sha256(table.keys.tobytes()).digest())
    said = _ALIKE.get(key)
    if said is None:
        said = shared_text(table.source)
        # Runs end side by side, in threads: what is gone over may not change meanwhile.
        if any(known[0] != key[0] for known in tuple(_ALIKE)):  # of a sweep before
            _ALIKE.clear()
        _ALIKE[key] = said
    return said


def _noted(metric: MetricValue, note: str) -> MetricValue:
    return replace(metric, note="; ".join(part for part in (metric.note, note) if part))


def _without_lost(
    metrics: list[MetricValue],
    details: dict[str, JSON],
    table: SampleTable,
    scorers: Sequence[Scorer],
    options: AnalysisOptions,
) -> list[MetricValue]:
    """The metrics, those that lost too many rows marked; and in `details` what was lost."""
    from evalrun.analysis.lost import Losses, mark_incomplete

    details["lost"] = []
    losses = Losses(table, scorers, exclude_unparsed=options.exclude_unparsed)
    if not losses.any:
        return metrics
    details["lost"] = [asdict(lost) for lost in losses.lost(options.tolerate)]
    definitions = details["definitions"]
    return mark_incomplete(
        metrics,
        table,
        losses,
        tolerate=options.tolerate,
        bounds_of=lambda name: tuple(definitions[name]["bounds"]),
        plan=options.fairness,
    )


def _undeclared(table: SampleTable, scorers: Sequence[Scorer]) -> dict[str, MetricInfo]:
    """What the numbers mean that scorers gave without having declared them."""
    infos = [info for scorer in scorers for _, info in score_infos(scorer, table.scores)]
    return {info.name: info for info in infos}


def _definitions(
    metrics: Sequence[MetricValue], scorers: Sequence[Scorer], more: Mapping[str, MetricInfo]
) -> dict[str, JSON]:
    """What every metric means, kept with its value: a later version may define it otherwise."""
    own = {info.name: info for scorer in scorers for info in scorer.metrics()} | dict(more)
    found: dict[str, JSON] = {}
    for name in dict.fromkeys(metric.name for metric in metrics):
        info = definition(name, own)
        found[name] = asdict(Definition.of(info))
    return found

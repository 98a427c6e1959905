"""From the samples of a finished run to its metrics. Nothing here calls a model or writes a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalrun.analysis.definitions import definition
from evalrun.analysis.performance import SystemSummary, performance_metrics
from evalrun.analysis.quality import rate_metrics, score_metrics
from evalrun.analysis.table import SampleTable
from evalrun.scoring.base import Scorer
from evalrun.scoring.pipeline import as_scorers
from evalrun.types import JSON, Counts, MetricValue

if TYPE_CHECKING:
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite

__all__ = ["RunAnalysis", "SystemSummary", "analyse", "analyse_run"]


@dataclass(frozen=True, slots=True)
class RunAnalysis:
    """The metrics of a run; `details` is what the report draws from, JSON-able throughout.

    details: `confusion` {scorer: matrix}, `groups` {column: scores by group, gaps}, `latency` {measure:
    distribution}, `throughput_window`, `over_time`, `timed` (what the latencies left out), `client_limited`
    (a sentence or ""), `unparsed` ("count" or "exclude"), `definitions` of the metrics that only this suite
    has {name: unit, direction, definition}.
    """

    metrics: list[MetricValue]
    details: dict[str, JSON]
    counts: Counts


def analyse_run(
    table: SampleTable, suite: Suite, spec: RunSpec | None = None, system: SystemSummary | None = None
) -> RunAnalysis:
    """All metrics of one run of a suite. `spec` is the run's cell of the matrix."""
    by = [] if suite.fairness is None else list(suite.fairness.by)
    return analyse(
        table,
        as_scorers(each.build() for each in suite.scorers),
        system or SystemSummary(),
        by=by,
        min_group=suite.fairness.min_group if suite.fairness is not None else 0,
        exclude_unparsed=suite.unparsed == "exclude",
        stream=suite.performance.stream,
        seed=suite.seed,
    )


def analyse(
    table: SampleTable,
    scorers: Sequence[Scorer],
    system: SystemSummary,
    *,
    by: Sequence[str] = (),
    min_group: int = 30,
    exclude_unparsed: bool = False,
    stream: bool = False,
    seed: int = 0,
) -> RunAnalysis:
    """The same from plain arguments: sensitive columns `by`, and what of the suite shapes the figures."""
    metrics, scored = score_metrics(table, scorers, exclude_unparsed=exclude_unparsed, seed=seed)
    metrics += rate_metrics(table)
    speed, details = performance_metrics(table, system, stream=stream)
    metrics += speed
    details["confusion"] = {
        name: detail["confusion"] for name, detail in scored.items() if "confusion" in detail
    }
    details["unparsed"] = "exclude" if exclude_unparsed else "count"
    details["groups"] = {}
    if by:
        from evalrun.analysis.fairness import fairness_metrics

        fair, details["groups"] = fairness_metrics(
            table, scorers, by, min_group=min_group, exclude_unparsed=exclude_unparsed, seed=seed
        )
        metrics += fair
    details["definitions"] = _definitions(metrics, scorers)
    return RunAnalysis(metrics, details, table.counts())


def _definitions(metrics: Sequence[MetricValue], scorers: Sequence[Scorer]) -> dict[str, JSON]:
    """What the metrics of scorers with names of their own mean, which `definition(name)` cannot know."""
    own = [f".{scorer.name}." for scorer in scorers if scorer.name != scorer.registered]
    found = {}
    for name in dict.fromkeys(metric.name for metric in metrics):
        if any(each in f".{name}." for each in own):
            info = definition(name, scorers)
            found[name] = {"unit": info.unit, "direction": info.direction, "definition": info.definition}
    return found

"""What stands beside the scores in a comparison: speed, cost, memory and gaps between groups of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evalrun.analysis.compare import Compared, CompareOptions, compare
from evalrun.analysis.pairing import Chosen
from evalrun.results import HEADLINES, RunResults, like_loads
from evalrun.sweep_results import Verdict

ENDINGS = ("error_rate", "unparsed_rate", "refused_rate")
FIGURES = (*ENDINGS, "performance.completion_tokens.mean", *HEADLINES)
"""What is looked at where runs have it, in this order."""

MANY = 5_000
MEANS = {
    "performance.ttft_s.p50": "performance.ttft_s.mean",
    "performance.e2e_s.p50": "performance.e2e_s.mean",
    "performance.e2e_s.p95": "",
}
"""Of more samples in a run percentiles are not drawn again thousands of times: means stand in for them."""


def compare_beside(
    chosen: Sequence[Chosen], options: CompareOptions, metrics: Sequence[str]
) -> tuple[Compared, ...]:
    """The same pairs of runs by what else they have: gaps of `metrics` between groups, then FIGURES.

    Corrected among themselves, so that they take nothing from the verdicts on the scores. Speeds under unlike
    loads get no verdict. Empty for a sweep within itself.
    """
    runs = [run.run for each in chosen for run in each.load()]
    measured = {metric.name for run in runs for metric in run.metrics if metric.value is not None}
    # The rates are of every run; one at which nothing ever happened says nothing.
    idle = {name for name in ENDINGS if not any(_value(run, name) for run in runs)}
    columns = dict.fromkeys(column for run in runs for column in run.details.groups)
    gaps = [f"fairness.{column}.{metric}.gap" for metric in metrics for column in columns]
    many = any(run.counts.samples > MANY for run in runs)
    figures = [MEANS[name] if many and name in MEANS else name for name in FIGURES]
    names = [name for name in (*gaps, *figures) if name in measured and name not in idle]
    if len(chosen) < 2 or not names:
        return ()
    found = compare(chosen, replace(options, metrics=tuple(names), margin=None)).compared
    loads = {(each.folder.ulid, run.run.run): run.run.load_words for each in chosen for run in each.load()}
    return tuple(_without_unlike(each, loads) for each in found)


def _value(run: RunResults, name: str) -> float | None:
    metric = run.metric(name)
    return metric.value if metric else None


def _without_unlike(each: Compared, loads: dict[tuple[str, str], str]) -> Compared:
    if not each.metric.startswith("performance.") or each.metric.endswith("tokens.mean"):
        return each
    a, b = (loads.get((run.sweep, run.run), "") for run in (each.a, each.b))
    if like_loads((a, b)):
        return each
    return replace(
        each, p_corrected=None, verdict=Verdict("inconclusive", f"asked {a} and {b}: not compared")
    )

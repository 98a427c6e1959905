"""How the runs of one dataset stand, as the sweep's results have it: their order, and a word for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evalrun.reports.view import Difference, RunView
from evalrun.results import Standing

E2E = "performance.e2e_s.p50"
TTFT = "performance.ttft_s.p50"
TOKENS = "performance.output_tokens_per_s"
REQUESTS = "performance.requests_per_s"
MEMORY = "memory.engine_peak_bytes"
CLIENT_MEMORY = "memory.client_peak_bytes"
COST = "cost.usd"


def lower_is_better(runs: Sequence[RunView]) -> bool:
    """Whether the primary metric gets better downwards."""
    return any(run.primary is not None and run.primary.direction == "lower" for run in runs)


def ranked(runs: Sequence[RunView], standings: Sequence[Standing]) -> list[RunView]:
    """The runs of one dataset from best to worst, each with its standing. Without standings (the samples are
    not there) they are in the order of their values."""
    by_run = {each.run: (at, each) for at, each in enumerate(standings)}
    if not any(run.run in by_run for run in runs):
        sign = 1 if lower_is_better(runs) else -1
        values = {run.run: run.primary.value if run.primary else None for run in runs}
        order = sorted(runs, key=lambda run: (values[run.run] is None, sign * (values[run.run] or 0.0)))
        best = bool(order) and values[order[0].run] is not None
        return [replace(run, standing="best") if best and not at else run for at, run in enumerate(order)]
    order = sorted(runs, key=lambda run: by_run.get(run.run, (len(standings), None))[0])
    return [_placed(run, by_run[run.run][1]) if run.run in by_run else run for run in order]


def _placed(run: RunView, standing: Standing) -> RunView:
    word = "unknown" if standing.verdict == "incomparable" else standing.verdict
    if standing.difference is None or standing.p is None:
        return replace(run, standing=word)
    difference = Difference(
        standing.difference, standing.n, standing.p, standing.ci_low, standing.ci_high, standing.method,
        standing.detectable,
    )  # fmt: skip
    return replace(run, standing=word, difference=difference)


def equal(runs: Sequence[RunView]) -> bool:
    """Whether ranked runs all have the same value, so that nobody is best."""
    return len(runs) > 1 and runs[0].standing == "tied"


def standing_word(run: RunView, runs: Sequence[RunView]) -> str:
    """What stands beside a run's name: "best" only where it is shown to be better than all others."""
    if run.standing == "tied":
        return "same" if equal(runs) else "tied"
    others = [
        each for each in runs if each.standing != "best" and each.primary and each.primary.value is not None
    ]
    if run.standing != "best" or not others:
        return ""
    if all(other.standing == "behind" for other in others):
        return "best"
    return "lowest" if lower_is_better(runs) else "highest"

"""Who is best, who cannot be told apart from the best, and by how much: for the runs of one dataset.

The statistics are those of `evalrun compare`: the paired difference of two runs, and for three and more the
tied set, whose tests and bounds hold for all pairs of runs at once (docs/statistics.md).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evalrun.reports.columns import RunColumns, joined
from evalrun.reports.view import Difference, RunView, Standing

if TYPE_CHECKING:
    from evalrun.analysis.paired import PairedResult
    from evalrun.analysis.simultaneous import AllPairs

E2E = "performance.e2e_s.p50"
TTFT = "performance.ttft_s.p50"
TOKENS = "performance.output_tokens_per_s"
REQUESTS = "performance.requests_per_s"
MEMORY = "memory.engine_peak_bytes"
CLIENT_MEMORY = "memory.client_peak_bytes"
COST = "cost.usd"

ALPHA = 0.05
ENOUGH_SHARED = 0.8
"""Where all runs share fewer of the best run's samples than this, each is paired with the best alone."""

UNITS = 5_000
"""With more samples than four times this, samples are resampled in so many random bunches: the variance is
the same and the time does not grow."""

PERMUTATIONS = 2_000
"""Sign flips a comparison: a page need not tell p = 0.001 from p = 0.0001."""


def lower_is_better(runs: Sequence[RunView]) -> bool:
    """Whether the primary metric gets better downwards."""
    return any(run.primary is not None and run.primary.direction == "lower" for run in runs)


def ranked(runs: Sequence[RunView], columns: Mapping[str, RunColumns]) -> list[RunView]:
    """The runs of one dataset from best to worst by the primary metric, each with its standing.

    The difference of each run is best - run, paired by sample id. Of equal values the faster comes first. A
    run without a value comes last; one that cannot be paired has no standing. Where all runs have the same
    value and nothing sets them apart, nobody is best: all are tied.
    """
    sign = 1 if lower_is_better(runs) else -1

    def key(run: RunView) -> tuple[bool, float, float]:
        value = run.primary.value if run.primary else None
        return (value is None, sign * (value or 0.0), run.value(E2E) or float("inf"))

    order = sorted(runs, key=key)
    if not order or order[0].primary is None or order[0].primary.value is None:
        return order
    best = order[0]
    found = _differences(best, order[1:], columns, sign)
    others = [_placed(run, found.get(run.run), sign) for run in order[1:]]
    alike = [run.standing == "tied" and _same(best, run) for run in others]
    standing: Standing = "tied" if others and all(alike) else "best"
    return [replace(best, standing=standing), *others]


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


def _same(best: RunView, run: RunView) -> bool:
    own, theirs = (each.primary.value if each.primary else None for each in (best, run))
    return own is not None and own == theirs


def _placed(run: RunView, difference: Difference | None, sign: int) -> RunView:
    if difference is None:
        return run
    # A better mean score than the best's (which is best by another metric) is no reason to be behind.
    apart = difference.p <= ALPHA and -sign * difference.mean > 0
    return replace(run, standing="behind" if apart else "tied", difference=difference)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Scores of the samples that runs share, (n, k), the best run first; `pairs` that there could be."""

    values: Any
    clusters: Any
    seed: int
    pairs: int

    def against(self, at: int, alpha: float) -> PairedResult:
        """best - the run in column `at`."""
        from evalrun.analysis.paired import paired_difference

        return paired_difference(
            self.values[:, at], self.values[:, 0], self.clusters, seed=self.seed, alpha=alpha,
            permutations=PERMUTATIONS,
        )  # fmt: skip


def _differences(
    best: RunView, others: Sequence[RunView], columns: Mapping[str, RunColumns], sign: int
) -> dict[str, Difference]:
    """best - run for every run that shares scored samples with the best."""
    if best.run not in columns or best.primary is None:
        return {}
    having = [run for run in others if run.primary and run.primary.value is not None and run.run in columns]
    if not having:
        return {}
    seed = zlib.crc32(best.primary.name.encode(), 0)
    count = len(having) * (len(having) + 1) // 2
    everything = [columns[best.run], *(columns[run.run] for run in having)]
    values, clusters = joined(everything)
    whole = len(everything[0].by_sample().ids)
    if len(having) > 1 and len(values) >= max(2, ENOUGH_SHARED * whole):
        return _at_once(_Compared(values, clusters, seed, count), having, sign)
    found = {}
    for run in having:
        pair = _Compared(*joined([columns[best.run], columns[run.run]]), seed, count)
        if len(pair.values):
            found[run.run] = _alone(pair)
    return found


def _alone(pair: _Compared) -> Difference:
    """One run against the best; p and interval corrected (Bonferroni) for the pairs that there could be."""
    result = pair.against(1, ALPHA / pair.pairs)
    p = 1.0 if result.p is None else min(1.0, result.p * pair.pairs)
    method = f"paired, {result.test or 'no test'}"
    if pair.pairs > 1:
        method += f", corrected for {pair.pairs} pairs of runs"
    return _difference(result, p, (result.ci_low, result.ci_high), method)


def _at_once(best: _Compared, runs: Sequence[RunView], sign: int) -> dict[str, Difference]:
    """Every run against the best, with tests and bounds that hold for all pairs at once."""
    from evalrun.analysis.simultaneous import tied_set

    clusters = best.clusters
    if clusters is None and len(best.values) > 4 * UNITS:
        import numpy as np

        clusters = np.arange(len(best.values)) % UNITS
    tied = tied_set(best.values, clusters, direction="lower" if sign > 0 else "higher", seed=best.seed)
    return {run.run: _within(best, tied.pairs, at) for at, run in enumerate(runs, start=1)}


def _within(best: _Compared, pairs: AllPairs, at: int) -> Difference:
    result = best.against(at, ALPHA)
    # Few samples that all differ alike have no spread to resample: then the exact test of the pair decides.
    p = max(pairs.p(0, at), 1.0 if result.p is None else result.p)
    bounds = pairs.interval(0, at, 1 - ALPHA) if pairs.se[0, at] > 0 else (result.ci_low, result.ci_high)
    return _difference(result, p, bounds or (None, None), "paired, for all pairs of runs at once")


def _difference(
    result: PairedResult, p: float, bounds: tuple[float | None, float | None], method: str
) -> Difference:
    return Difference(result.difference or 0.0, result.n, p, *bounds, method, result.mde)

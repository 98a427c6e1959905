"""Who is best, who cannot be told apart from the best, and by how much: for the runs of one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalrun.reports.columns import RunColumns
from evalrun.reports.paired import paired_difference
from evalrun.reports.view import RunView, Standing

E2E = "performance.e2e_s.p50"
TTFT = "performance.ttft_s.p50"
TOKENS = "performance.output_tokens_per_s"
MEMORY = "memory.engine_peak_bytes"
CLIENT_MEMORY = "memory.client_peak_bytes"
COST = "cost.usd"


def lower_is_better(runs: Sequence[RunView]) -> bool:
    """Whether the primary metric gets better downwards."""
    return any(run.primary is not None and run.primary.direction == "lower" for run in runs)


def ranked(runs: Sequence[RunView], columns: Mapping[str, RunColumns]) -> list[RunView]:
    """The runs of one dataset from best to worst by the primary metric, each with its standing.

    The difference of each run is best - run, paired by sample id. Of equal values the faster comes first. A
    run without a value comes last; one that cannot be paired has no standing.
    """
    sign = 1 if lower_is_better(runs) else -1

    def key(run: RunView) -> tuple[bool, float, float]:
        value = run.primary.value if run.primary else None
        return (value is None, sign * (value or 0.0), run.value(E2E) or float("inf"))

    order = sorted(runs, key=key)
    if not order or order[0].primary is None or order[0].primary.value is None:
        return order
    best = order[0]
    return [replace(best, standing="best")] + [_against(best, run, columns) for run in order[1:]]


def _against(best: RunView, run: RunView, columns: Mapping[str, RunColumns]) -> RunView:
    if run.primary is None or run.primary.value is None or best.run not in columns or run.run not in columns:
        return run
    difference = paired_difference(columns[best.run], columns[run.run])
    if difference is None:
        return run
    standing: Standing = "behind" if difference.distinguishable else "tied"
    return replace(run, standing=standing, difference=difference)

"""Gates as the report and the terminal show them: passed, failed, or inconclusive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalrun.reports.numbers import count, decimals_for, fixed, interval, quantity
from evalrun.reports.view import Figure, RunView
from evalrun.types import JSON


@dataclass(frozen=True, slots=True)
class GateView:
    """One gate on one run. `verdict` is "pass", "inconclusive" (the samples cannot tell) or "fail"."""

    gate: str
    run: str
    verdict: str
    value: str
    interval: str
    n: str
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the gate holds."""
        return self.verdict == "pass"


VERDICTS = ("fail", "inconclusive", "pass")


def tally(views: Sequence[GateView]) -> list[tuple[str, int]]:
    """How many gate checks ended how, the failed ones first; what did not occur is left out."""
    counts = [(verdict, sum(view.verdict == verdict for view in views)) for verdict in VERDICTS]
    return [(verdict, count) for verdict, count in counts if count]


def gates(results: Sequence[Mapping[str, JSON]], runs: Sequence[RunView]) -> list[GateView]:
    """The gates' verdicts, the failed ones first, with the figure each was held against."""
    by_id = {run.run: run for run in runs}
    views = []
    for result in results:
        run = by_id.get(result.get("run") or "")
        text = str(result.get("gate") or "")
        figure = run.figure(text.split(" ")[0]) if run else None
        value = result.get("value")
        verdict = str(result.get("verdict") or "")
        shown = quantity(value, figure.unit, figure.decimals) if figure else fixed(value, 3)
        views.append(
            GateView(
                gate=text,
                run=run.full if run else str(result.get("run") or "all runs"),
                verdict=verdict if verdict in VERDICTS else "fail",
                value=shown,
                interval=_gate_interval(result, figure),
                n=count(result.get("n") or figure.n) if figure else count(result.get("n")),
                reason=str(result.get("reason") or ""),
            )
        )
    return sorted(views, key=lambda view: VERDICTS.index(view.verdict))


def _gate_interval(result: Mapping[str, JSON], figure: Figure | None) -> str:
    """That of the difference to the baseline where the gate tested one, else the metric's own."""
    low, high = result.get("ci_low"), result.get("ci_high")
    if low is None or high is None:
        return figure.interval if figure else ""
    decimals = decimals_for((high - low) / 2)
    change = fixed(result.get("difference"), decimals, sign=True)
    return f"change {change} {interval(low, high, decimals, sign=True)}"

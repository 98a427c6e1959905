"""One bar a run: where its time went, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.view import RunView

MOST_BARS = 30
"""Runs, the best first, that get a bar."""
_LEAST = 0.002
"""A stage of a smaller share of the longest run is not drawn."""


@frozen
class Part:
    """One stage in a bar: where it begins and its width, in thousandths of the longest run's bar, and what is
    said of it."""

    stage: str
    start: float
    width: float
    said: str


@frozen
class Bar:
    """One run: its name, its stages in order, and what they took together."""

    run: str
    parts: Sequence[Part]
    total: str


@frozen
class Bars:
    """The bars, the stages that occur (in order), and how many runs have none here."""

    bars: Sequence[Bar]
    stages: Sequence[str]
    more: int


def stage_bars(runs: Sequence[RunView]) -> Bars:
    """The bars of all runs of which it is known where their time went."""
    known = [run for run in runs if run.details.stages]
    shown = known[:MOST_BARS]
    totals = [sum(stage.seconds for stage in run.details.stages) for run in shown]
    longest = max(totals, default=0.0) or 1.0
    bars = [
        Bar(run.full, _parts(run, longest), numbers.seconds(total))
        for run, total in zip(shown, totals, strict=True)
    ]
    order = dict.fromkeys(stage.stage for run in shown for stage in run.details.stages)
    return Bars(bars, [name for name in _ORDER if name in order], len(known) - len(shown))


def _parts(run: RunView, longest: float) -> list[Part]:
    parts, start = [], 0.0
    for stage in run.details.stages:
        width, said = 1000 * stage.seconds / longest, f"{stage.stage} {numbers.seconds(stage.seconds)}"
        if stage.requests_s is not None:
            said += f" (the requests' own seconds add up to {numbers.seconds(stage.requests_s)})"
        if stage.seconds >= _LEAST * longest:
            parts.append(Part(stage.stage, round(start, 1), round(width, 1), said))
        start += width
    return parts


_ORDER = ("load", "render", "queue", "prefill", "decode", "score", "write")

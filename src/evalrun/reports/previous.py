"""A sweep against the one before it, in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime

from evalrun.reports import numbers
from evalrun.reports.numbers import plural
from evalrun.sweep_results import Previous, RunBefore

TOLD = 3
"""So many runs are told one by one; those that moved for certain come first, then the farthest."""

_CERTAIN = ("better", "worse", "higher", "lower")


def previous_line(previous: Previous, started_at: str | None, labels: Mapping[str, str], *, now: bool) -> str:
    """`Against 2 h ago (11): rules +0.03 [+0.01, +0.05] (better), 9 better, 3 worse; changed: prompt rules`.

    `labels` name the runs. `now` says that the sweep has just ended: else it is "2 h before".
    """
    moved = [run for run in previous.runs if run.verdict != "unchanged"]
    moved.sort(key=lambda run: (run.verdict not in _CERTAIN, -abs(run.difference or 0.0)))
    parts = [_run(run, previous.unit, labels) for run in moved[:TOLD]]
    if len(moved) > TOLD:
        parts.append(f"{plural(len(moved) - TOLD, 'more run')}")
    same = len(previous.runs) - len(moved)
    if same:
        parts.append("the same answers" if not moved else f"{plural(same, 'run')} with the same answers")
    if previous.added:
        parts.append(f"{plural(len(previous.added), 'run')} without a partner")
    if not previous.runs:
        parts += [
            *previous.notes,
            f"`evalrun compare {previous.number or previous.sweep} latest` compares them",
        ]
    said = "; ".join(parts)
    changed = f"; changed: {', '.join(previous.changed)}" if previous.changed else ""
    which = f" ({previous.number})" if previous.number else ""
    when = f"{_age(previous.started_at, started_at)} {'ago' if now else 'before'}"
    return f"Against {when}{which}: {said}{changed}"


def _run(run: RunBefore, unit: str, labels: Mapping[str, str]) -> str:
    if run.difference is None:
        return f"{labels.get(run.run, run.run)} has no sample in common"
    moved = numbers.measured(run.difference, run.ci_low, run.ci_high, unit, sign=True)
    word = f" ({run.verdict})" if run.verdict in _CERTAIN else ""
    counts = "" if run.better is None else f", {run.better:,} better, {run.worse:,} worse"
    where = f", {numbers.where(run.where[:1])}" if run.where else ""
    return f"{labels.get(run.run, run.run)} {moved}{word}{counts}{where}"


def _age(before: str | None, after: str | None) -> str:
    """How long one moment was before another: `40 s`, `12 min`, `2 h`, `3 days`."""
    with contextlib.suppress(TypeError, ValueError):
        took = (datetime.fromisoformat(after or "") - datetime.fromisoformat(before or "")).total_seconds()
        for unit, size in (("day", 86400), ("h", 3600), ("min", 60)):
            if took >= 1.5 * size or (unit != "day" and took >= size):
                return plural(round(took / size), unit) if unit == "day" else f"{round(took / size)} {unit}"
        return f"{max(1, round(took))} s"
    return "a while"

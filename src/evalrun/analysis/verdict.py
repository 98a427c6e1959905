"""What a paired result amounts to, in one word and one sentence."""

from __future__ import annotations

import math

from evalrun.analysis.paired import equivalent, samples_needed
from evalrun.sweep_results import PairedResult, Verdict, Word
from evalrun.types import Direction

FRACTIONS = ("fraction", "score", "share")
"""Units whose differences are said in points (hundredths) where both means lie within 0 … 1."""


def verdict(
    result: PairedResult,
    direction: Direction = "higher",
    unit: str = "fraction",
    *,
    p: float | None = None,
) -> Verdict:
    """The verdict on b against a. `p` is the corrected p value; without it the result's own counts.

    Within the result's margin (if it has one): equivalent, even where a difference is certain but smaller
    than what matters. Otherwise better or worse where p <= alpha, else inconclusive, with what n could see.
    """
    p = result.p if p is None else p
    if result.difference is None or p is None:
        return Verdict("inconclusive", result.note or "nothing to compare")
    real = p <= result.alpha
    sized = _sized(result, unit)
    margin = result.margin
    if margin is not None and equivalent(result, margin):
        rest = f"; the difference of {sized} is certain (p = {p:.2g}) but smaller" if real else ""
        return Verdict("equivalent", f"within {amount(margin, result, unit)} of each other{rest}")
    if real:
        return Verdict(_word(result.difference, direction), f"{sized} (p = {p:.2g}, n = {result.n})")
    return Verdict("inconclusive", _inconclusive(result, unit))


def _word(difference: float, direction: Direction) -> Word:
    if direction == "none":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == (direction == "higher") else "worse"


def _inconclusive(result: PairedResult, unit: str) -> str:
    """The sentence of what n cannot see, and how many samples would see what is asked for."""
    n = f"n = {result.n}" + ("" if result.n_clusters is None else f" in {result.n_clusters} clusters")
    if result.mde is None:
        return f"{n} is too few, or too much alike, to say what could be seen"
    sight = f"{n} cannot see less than {amount(result.mde, result, unit)}{_assumed(result, unit)}"
    goal = result.margin
    if goal is None or goal >= result.mde:
        goal = _rounder(result.mde, points(result, unit))
    needed = samples_needed(result, goal)
    if needed is None or needed <= result.n:
        return sight
    return f"{sight}; about {_about(needed)} would see {amount(goal, result, unit, bare=True)}"


def _assumed(result: PairedResult, unit: str) -> str:
    """What is seen if the runs disagreed as independent ones do, and for how many tests at once."""
    said = []
    other, own = result.mde_independent, result.mde
    if other is not None and own is not None and amount(other, result, unit) != amount(own, result, unit):
        said.append(f"{amount(other, result, unit, bare=True)} if they answered independently")
    if result.tests > 1:
        said.append(f"{result.tests} tests at once")
    return f" ({'; '.join(said)})" if said else ""


def _rounder(mde: float, in_points: bool) -> float:
    """The largest of 1, 2, 5 x 10^k that is at most 0.6 of the detectable difference."""
    scaled = mde * (100 if in_points else 1) * 0.6
    power = 10.0 ** math.floor(math.log10(scaled))
    step = next(each for each in (5, 2, 1) if each * power <= scaled * (1 + 1e-9))
    return step * power / (100 if in_points else 1)


def _about(count: int) -> str:
    """A count to two digits, rounded up."""
    power = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // power) * power:,}"


def points(result: PairedResult, unit: str) -> bool:
    """Whether the metric's differences are said in points."""
    within = all(value is None or 0 <= value <= 1 for value in (result.mean_a, result.mean_b))
    return unit in FRACTIONS and within


def amount(value: float, result: PairedResult, unit: str, *, bare: bool = False) -> str:
    """A size of a difference in words: "9 points", "0.12 s"."""
    if points(result, unit):
        number = _number(100 * value)
        return number if bare else f"{number} point{'' if number == '1' else 's'}"
    number = _number(value)
    return number if bare or unit in FRACTIONS else f"{number} {unit}"


def _sized(result: PairedResult, unit: str) -> str:
    assert result.difference is not None
    sign = "+" if result.difference > 0 else "-" if result.difference < 0 else ""
    return sign + amount(abs(result.difference), result, unit)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 5 else f"{value:.2g}"

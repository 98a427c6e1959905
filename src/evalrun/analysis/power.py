"""What a number of samples can see: detectable differences, and the samples that one needs.

Of paired 0/1 scores only the pairs that disagree count, and a true difference makes more of them. With
`churn` the share of pairs that disagree evenly, both ways together, a difference of X makes psi = churn + X
disagree, and n pairs find it with power 1 - beta at the two-sided level alpha where

    X >= z(1 - alpha/2) sqrt(psi/n) + z(1 - beta) sqrt((psi - X^2)/n) + 1/n

(Connor 1987, Biometrics 43, 207; 1/n because the exact test is as one with a continuity correction). Leaving
out the X in psi promises too much: at the X so found the power is 60 to 70 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from evalrun.analysis.distributions import normal_quantile

POWER = 0.80


def even_churn(only_a: float, only_b: float, n: float) -> float:
    """The share of pairs that disagree both ways evenly: twice the smaller side."""
    return 2 * min(only_a, only_b) / n


def independent_churn(share: float) -> Callable[[float], float]:
    """The same for two runs that answer independently of each other, one right with `share`, the other with X
    less (or more, where there is no less)."""

    def churn(difference: float) -> float:
        other = share - difference if share >= difference else min(1.0, share + difference)
        return 2 * min(share * (1 - other), other * (1 - share))

    return churn


Churn: TypeAlias = "float | Callable[[float], float]"


def _finds(n: float, difference: float, churn: Churn, alpha: float, margin: float, exact: bool) -> bool:
    even = churn(difference) if callable(churn) else churn
    disagree = min(1.0, even + difference)
    spread = math.sqrt(max(0.0, disagree - difference**2) / n)
    needed = normal_quantile(1 - alpha / 2) * math.sqrt(disagree / n) + exact / n
    return difference >= max(needed, margin) + normal_quantile(POWER) * spread


def detectable_share(
    n: float, churn: Churn, alpha: float, *, margin: float = 0.0, exact: bool = True
) -> float | None:
    """The least difference of two paired shares that n pairs find with power 0.80; None where none is.

    With a `margin`, found means beyond it too: a gate fails where the drop is significant and larger than it.
    `exact` is for the exact test, else it is the score interval that decides.
    """
    if n <= 0 or not _finds(n, 1.0, churn, alpha, margin, exact):
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _finds(n, middle, churn, alpha, margin, exact) else (middle, high)
    return high


def pairs_needed(effect: float, churn: Churn, alpha: float) -> int | None:
    """So many pairs find a difference of `effect` between two paired shares with power 0.80."""
    if not 0 < effect <= 1:
        return None
    low, high = 0, 1
    while not _finds(high, effect, churn, alpha, 0.0, True):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _finds(middle, effect, churn, alpha, 0.0, True) else (middle, high)
    return high


def pairs_to_pass(margin: float, churn: float, alpha: float) -> int | None:
    """So many pairs show a run that has not changed to be no worse by `margin`, with power 0.80."""
    if margin <= 0:
        return None
    z = normal_quantile(1 - alpha / 2) + normal_quantile(POWER)
    # With no pair that disagrees the bound of the score interval is z^2 / (n + z^2).
    least = normal_quantile(1 - alpha / 2) ** 2 * (1 / margin - 1)
    return math.ceil(max(z**2 * churn / margin**2, least))


def rescaled(mde: float, alpha: float, tests: int) -> float:
    """A detectable difference of one test at `alpha`, as that of one of so many tests (Bonferroni)."""
    if tests <= 1:
        return mde
    power = normal_quantile(POWER)
    of_all, of_one = normal_quantile(1 - alpha / (2 * tests)), normal_quantile(1 - alpha / 2)
    return mde * (of_all + power) / (of_one + power)

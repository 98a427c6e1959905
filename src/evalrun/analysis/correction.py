"""p values of several tests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from evalrun.frozen import frozen

Correction: TypeAlias = Literal["holm", "bh", "none"]

ALPHA = 0.05


@frozen
class Testing:
    """How several differences of a sweep are tested together: the level, the correction over all of them, the
    difference below which runs count as equivalent, and the root seed."""

    alpha: float = ALPHA
    correction: Correction = "holm"
    margin: float | None = None
    seed: int = 0


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979): rejecting where it is <= alpha keeps the chance of any false
    finding among all tests at alpha, however they depend on one another. None stays None and is not counted.
    """
    known = _known(ps)
    adjusted: list[float | None] = [None] * len(ps)
    worst = 0.0
    for rank, (p, at) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * p))
        adjusted[at] = worst
    return adjusted


def benjamini_hochberg(ps: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's step-up adjustment (1995): rejecting where it is <= q keeps the expected share
    of false findings among the findings at q, for independent or positively dependent tests.
    """
    known = _known(ps)
    adjusted: list[float | None] = [None] * len(ps)
    least = 1.0
    for rank in range(len(known), 0, -1):
        p, at = known[rank - 1]
        least = min(least, p * len(known) / rank)
        adjusted[at] = least
    return adjusted


def corrected(ps: Sequence[float | None], how: Correction) -> list[float | None]:
    """The p values adjusted by the named method."""
    if how == "holm":
        return holm(ps)
    return benjamini_hochberg(ps) if how == "bh" else list(ps)


def _known(ps: Sequence[float | None]) -> list[tuple[float, int]]:
    return sorted((p, at) for at, p in enumerate(ps) if p is not None and not math.isnan(p))

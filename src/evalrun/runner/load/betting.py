"""A test that may be looked at after every block: does a share lie above a target, or below it?

Two bettors start with 1. One wins where blocks hold more than the target, the other where they hold less; if
the share were at the target neither could expect to win, so that either reaches 20 with a chance of at most
1 in 20, however often one looks (Ville's inequality; Waudby-Smith and Ramdas 2024, JRSS B 86, 1). A bettor
spreads its money over several stakes, since which would win most is not known beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

Decision: TypeAlias = Literal["pass", "fail", "undecided"]

WINS = 20.0
"""The money at which a bettor has shown its side: a false one gets there with a chance of 1 in 20."""
_STAKES = ((0.25, 0.2), (0.5, 0.3), (0.8, 0.5))
"""Stakes as shares of the greatest that cannot ruin, and how the money is spread over them."""


@dataclass(slots=True)
class Betting:
    """`target` lies between 0 and 1; values of blocks are shares."""

    target: float
    blocks: int = 0
    _above: list[float] = field(default_factory=lambda: [money for _, money in _STAKES])
    _below: list[float] = field(default_factory=lambda: [money for _, money in _STAKES])
    _said: Decision = "undecided"

    def add(self, share: float) -> None:
        """One block more."""
        self.blocks += 1
        ahead = share - self.target
        for at, (stake, _) in enumerate(_STAKES):
            self._above[at] *= 1 + stake / max(self.target, 1e-9) * ahead
            self._below[at] *= 1 - stake / max(1 - self.target, 1e-9) * ahead
        if self._said == "undecided":
            self._said = (
                "pass" if sum(self._above) >= WINS else "fail" if sum(self._below) >= WINS else self._said
            )

    @property
    def decision(self) -> Decision:
        """Which side was shown first."""
        return self._said


class AnyBracket(Protocol):
    """Which level comes next, by what came of those before."""

    @property
    def passed(self) -> float:
        """The highest that kept the promise; 0 where none did."""
        ...

    def next(self) -> float | None: ...
    def add(self, level: float, kept: bool) -> None: ...


@dataclass(slots=True)
class Bracket:
    """Which level of requests in flight is probed next: doubling from 4 (or down from it), then bisection on
    the log scale until the bracket is at most a tenth wide.

    A probe that was not decided counts, for where to go next, by the share it saw.
    """

    up_to: int
    start: int = 4
    passed: int = 0
    failed: int | None = None

    WIDTH = 1.10

    def next(self) -> int | None:
        """The next level; None where the capacity is known well enough."""
        if self.failed is None:
            if self.passed >= self.up_to:
                return None
            return min(self.up_to, self.passed * 2 if self.passed else self.start)
        if self.failed <= 1 or self.failed - self.passed <= 1:
            return None
        if self.passed == 0:
            return max(1, self.failed // 2)
        if self.failed / self.passed <= self.WIDTH:
            return None
        middle = round(math.sqrt(self.passed * self.failed))
        return min(self.failed - 1, max(self.passed + 1, middle))

    def add(self, level: float, kept: bool) -> None:
        """A probe ended."""
        level = int(level)
        if kept:
            self.passed = max(self.passed, level)
        else:
            self.failed = level if self.failed is None else min(self.failed, level)


@dataclass(slots=True)
class RateBracket:
    """The same for rates: from an eighth of the highest, or half as much again and again where that fails,
    doubled, then bisected. What fails at a 64th of the highest is not looked for below."""

    up_to: float
    passed: float = 0.0
    failed: float | None = None

    def next(self) -> float | None:
        """The next rate; None where the capacity is known well enough."""
        if self.failed is None:
            if self.passed >= self.up_to:
                return None
            return min(self.up_to, self.passed * 2 or self.up_to / 8)
        if not self.passed:
            return self.failed / 2 if self.failed > self.up_to / 64 else None
        if self.failed / self.passed <= Bracket.WIDTH:
            return None
        return float(f"{math.sqrt(self.passed * self.failed):.3g}")

    def add(self, level: float, kept: bool) -> None:
        """A probe ended."""
        if kept:
            self.passed = max(self.passed, level)
        else:
            self.failed = level if self.failed is None else min(self.failed, level)

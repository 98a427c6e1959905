"""How many requests may be in flight to one endpoint. Pure: no clock but the one handed in, no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol


class Limit(Protocol):
    """What the runner asks and tells. `current` is the number of requests allowed in flight."""

    @property
    def current(self) -> int: ...
    def started(self, in_flight: int) -> None: ...
    def succeeded(self, now_s: float) -> None: ...
    def rate_limited(self, now_s: float, retry_after_s: float | None) -> None: ...
    def disturbed(self) -> None: ...


@dataclass(slots=True)
class FixedLimit:
    """A number that the user chose."""

    current: int

    def started(self, in_flight: int) -> None:
        pass

    def succeeded(self, now_s: float) -> None:
        pass

    def rate_limited(self, now_s: float, retry_after_s: float | None) -> None:
        pass

    def disturbed(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class LimitChange:
    """One change of an adaptive limit, for the record. `at_s` is in the caller's clock."""

    at_s: float
    limit: int
    cause: str


class AdaptiveLimit:
    """Slow start, then additive increase and multiplicative decrease (as TCP does it).

    The limit doubles after each clean round until the first 429, then grows by 5 % a round; a 429 cuts it
    by a fifth, after which a cooldown (15 s, or the server's Retry-After if longer) ignores what was sent
    before the cut. A round is as many clean answers as the limit, and it counts only if the
    requests in flight reached 80 % of the limit: otherwise the limit was not what held us back. Server
    errors and time-outs pause growth without a cut.
    """

    COOLDOWN_S = 15.0

    def __init__(self, start: int = 20, minimum: int = 1, maximum: int = 256) -> None:
        self._limit = start
        self._minimum = minimum
        self._maximum = maximum
        self._slow_start = True
        self._clean = 0
        self._peak = 0
        self._cooldown_until_s = float("-inf")
        self.changes: deque[LimitChange] = deque(maxlen=200)

    @property
    def current(self) -> int:
        return self._limit

    def started(self, in_flight: int) -> None:
        """A request was sent; `in_flight` counts it."""
        self._peak = max(self._peak, in_flight)

    def succeeded(self, now_s: float) -> None:
        """A request was answered at its first attempt."""
        if now_s < self._cooldown_until_s:
            return
        self._clean += 1
        if self._clean < max(self._limit, 4):
            return
        saturated = self._peak >= 0.8 * self._limit
        self._new_round()
        if saturated and self._limit < self._maximum:
            grown = self._limit * 2 if self._slow_start else max(self._limit + 1, int(self._limit * 1.05))
            self._set(min(grown, self._maximum), now_s, "doubled" if self._slow_start else "grew")

    def rate_limited(self, now_s: float, retry_after_s: float | None) -> None:
        """The server answered 429."""
        self._slow_start = False
        self._new_round()
        if now_s < self._cooldown_until_s:
            return
        self._cooldown_until_s = now_s + max(self.COOLDOWN_S, retry_after_s or 0.0)
        self._set(max(self._minimum, int(self._limit * 0.8)), now_s, "rate limited")

    def disturbed(self) -> None:
        """A request failed for another reason: the round is not clean."""
        self._new_round()

    def _new_round(self) -> None:
        self._clean = 0
        self._peak = 0

    def _set(self, limit: int, now_s: float, cause: str) -> None:
        if limit != self._limit:
            self._limit = limit
            self.changes.append(LimitChange(now_s, limit, cause))

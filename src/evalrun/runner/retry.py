"""When to ask again, and after how long. Pure: no clock, no I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass

from evalrun.types import RETRYABLE, ErrorKind, ProviderError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter over its upper half; a server's Retry-After comes first.

    `retries` counts tries after the first one. All waiting happens inside the sample's deadline: a wait
    that would pass it is not begun.
    """

    retries: int = 4
    base_s: float = 0.5
    cap_s: float = 30.0

    def may_retry(self, error: ProviderError, failed_attempts: int) -> bool:
        """Whether the kind of error and the number of attempts allow another, the deadline apart."""
        return error.kind in RETRYABLE and failed_attempts <= self.retries

    def wait_s(
        self, error: ProviderError, failed_attempts: int, remaining_s: float, rng: random.Random
    ) -> float | None:
        """Seconds to wait before the next attempt, or None when this was the last.

        `failed_attempts` counts those made so far (1 after the first); `remaining_s` is what is left of
        the deadline.
        """
        if not self.may_retry(error, failed_attempts):
            return None
        backoff = min(self.cap_s, self.base_s * 2.0 ** (failed_attempts - 1))
        wait = backoff * (0.5 + 0.5 * rng.random())
        if error.retry_after_s is not None and error.retry_after_s >= 0:
            # A little jitter on top, so that requests refused together do not come back together.
            wait = error.retry_after_s + min(0.25, self.base_s) * rng.random()
        return wait if wait < remaining_s else None


@dataclass(slots=True)
class CircuitBreaker:
    """Trips after many identical failures in a row: going on would only fail more samples.

    A wrong key or a wrong address will not mend itself, so those trip sooner than a busy server; an engine
    of ours that has ended answers nothing more, so that trips at once.
    """

    threshold: int = 20
    hopeless_threshold: int = 5
    _last: tuple[ErrorKind, str] | None = None
    _count: int = 0

    def success(self) -> None:
        self._last, self._count = None, 0

    def failure(self, error: ProviderError) -> bool:
        """Record a sample that failed for good. True when the run should stop."""
        signature = (error.kind, error.message)
        self._count = self._count + 1 if signature == self._last else 1
        self._last = signature
        if error.kind is ErrorKind.ENGINE:
            return True
        hopeless = error.kind in (ErrorKind.AUTH, ErrorKind.NOT_FOUND)
        return self._count >= (self.hopeless_threshold if hopeless else self.threshold)

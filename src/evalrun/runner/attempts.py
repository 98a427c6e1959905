"""One sample on its way: its deadline, its failed attempts, when it is asked again and after how long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType

from evalrun.frozen import frozen
from evalrun.runner.limits import Ticket
from evalrun.runner.source import Prepared
from evalrun.types import RETRYABLE, Attempt, ErrorKind, ProviderError

LOOK_S = 0.2
"""How often what waits looks whether the run ends."""


async def sleep_unless(ends: Callable[[], bool], seconds: float) -> bool:
    """Wait so long, or until a run `ends`, whichever is first. Returns whether
    it was waited to the end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not ends():
        left = until - loop.time()
        if left <= 0:
            return True
        await asyncio.sleep(min(left, LOOK_S))
    return False


@frozen
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
    """Trips after many failures of one kind and status in a row: going on would only fail more samples.

    What a server says beside the status makes no difference: it may hold a request's number. A wrong key will
    not fix itself, and neither will a wrong address where nothing was ever answered, so those trip sooner
    than a busy server; an engine of ours that has ended, or an account without money, answers nothing more,
    so that trips at once. `patient` is for a user who said that all samples may fail: then only what cannot
    recover by itself trips. `answered` says whether anything was ever answered.
    """

    threshold: int = 20
    hopeless_threshold: int = 5
    patient: bool = False
    answered: bool = False
    count: int = 0
    """Failures alike in a row until now."""
    _last: tuple[ErrorKind, int | None] | None = None

    def success(self) -> None:
        self._last, self.count, self.answered = None, 0, True

    def failure(self, error: ProviderError, *, again: bool = False) -> bool:
        """Record a sample that failed for good. True when the run should stop.

        `again`: it failed in an earlier part of the run too. Those come last, so there is nothing behind them
        to be saved from failing, and a run whose rows fail by themselves must be able to end.
        """
        if error.kind is ErrorKind.MISSING:  # a gap in a recording: nobody is asked in vain
            return False
        signature = (error.kind, error.http_status)
        self.count = self.count + 1 if signature == self._last else 1
        self._last = signature
        if error.kind in (ErrorKind.ENGINE, ErrorKind.BILLING):
            return True
        if error.http_status == 401 or (
            error.kind in (ErrorKind.AUTH, ErrorKind.NOT_FOUND) and not self.answered
        ):
            return self.count >= self.hopeless_threshold
        return not (self.patient or again) and self.count >= self.threshold


STOOD_STILL_S = 1.0
"""An event loop that is later than that stood still; and what it then has to read what came meanwhile."""


class DeadlineError(Exception):
    """The time of a sample is up."""


class Deadlines:
    """Cancels what runs longer than `seconds`, at most a twentieth (and at most 0.1 s) late."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()

    def __enter__(self) -> None:
        """Everything in the block has `seconds`; then DeadlineError is raised here. Not to be nested."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._due[task] = asyncio.get_running_loop().time() + self._seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._due.pop(task, None)
        if task in self._expired:
            self._expired.discard(task)
            # Ours, and nobody else's as well: only then is it a deadline and not the end of everything.
            if kind is asyncio.CancelledError and task.uncancel() == 0:
                raise DeadlineError from None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop this task's clock in the block, where it runs; it goes on afterwards."""
        task = asyncio.current_task()
        assert task is not None
        due = self._due.pop(task, None)
        since = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            if due is not None:
                self._due[task] = due + asyncio.get_running_loop().time() - since

    def remaining_s(self) -> float:
        """Seconds that this task has left."""
        task = asyncio.current_task()
        assert task is not None
        return self._due.get(task, float("-inf")) - asyncio.get_running_loop().time()

    async def watch(self) -> None:
        """Cancel what is overdue, until cancelled.

        Where all of us stood still meanwhile (stopped, suspended, short of processor time), answers may have
        come that nobody had time to read: they are read before anything is cancelled.
        """
        pause = min(0.1, self._seconds / 20)
        loop = asyncio.get_running_loop()
        now = loop.time()
        while True:
            await asyncio.sleep(pause)
            before, now = now, loop.time()
            if now - before > pause + STOOD_STILL_S:
                grace = now + STOOD_STILL_S
                self._due = {task: max(due, grace) for task, due in self._due.items()}
            overdue = [task for task, due in self._due.items() if due <= now]
            for task in overdue:
                del self._due[task]
                self._expired.add(task)
                task.cancel()


@dataclass(slots=True)
class Asking:
    """`held_s` is how long the endpoint's budget held it back before its first attempt; `ticket` what the
    present attempt took out of that budget."""

    prepared: Prepared
    scheduled_ns: int
    warmup: bool
    held_s: float = 0.0
    ticket: Ticket | None = None
    log: list[Attempt] = field(default_factory=list)

    def held_back(self, seconds: float) -> None:
        """The budget made it wait: before the first attempt, or between two."""
        if self.log:
            self.log[-1] = replace(self.log[-1], wait_s=self.log[-1].wait_s + seconds)
        else:
            self.held_s = seconds

    def attempted(self, error: ProviderError | None, wait_s: float = 0.0) -> None:
        """An attempt ended just now; it is waited `wait_s` before the next."""
        last = self.log[-1] if self.log else None
        start = last.start_s + last.duration_s + last.wait_s if last else self.held_s
        end = (time.perf_counter_ns() - self.scheduled_ns) / 1e9
        self.log.append(
            Attempt(
                start_s=start,
                duration_s=max(0.0, end - start),
                error=str(error.kind) if error else None,
                message=error.message if error else None,
                wait_s=wait_s,
            )
        )

    def timeout_message(self, timeout_s: float) -> str:
        """What a sample failed with whose time is up: its attempts and waits are part of that time."""
        message = f"no answer within {timeout_s:g} s"
        if self.log:
            waited = sum(each.wait_s for each in self.log)
            message += f": {len(self.log) + 1} attempts, with {waited:.1f} s of waiting between them"
        return message

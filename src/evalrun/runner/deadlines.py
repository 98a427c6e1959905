"""One deadline for each sample, kept by one watcher instead of one timer a request.

`asyncio.timeout` costs a timer and its cancellation for every request; here a request costs one entry in a
dictionary, and a task looks through the entries now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


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
        """Cancel what is overdue, until cancelled."""
        pause = min(0.1, self._seconds / 20)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            overdue = [task for task, due in self._due.items() if due <= now]
            for task in overdue:
                del self._due[task]
                self._expired.add(task)
                task.cancel()

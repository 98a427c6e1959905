"""Threads for calls into other people's code, which may never return."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any


class DaemonThreads:
    """Threads that are made as needed and used again; daemons, unlike those of the standard pool:
    a function that never returns must not keep the process from ending."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._made = 0

    def run(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """The future of what `work` returns; cancelling it does not stop the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def task() -> None:
            value: Any = None
            fault: BaseException | None = None
            try:
                value = context.run(work)
            except BaseException as error:
                # A future refuses StopIteration; SystemExit would end this thread and nothing more.
                usual = isinstance(error, Exception) and not isinstance(error, StopIteration)
                fault = error if usual else RuntimeError(f"{type(error).__name__}: {error}")
            with self._lock:
                self._idle += 1
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver, future, value, fault)

        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._made += 1
                threading.Thread(target=self._work, name="evalrun-python", daemon=True).start()
        self._tasks.put(task)
        return future

    def close(self) -> None:
        """End each thread when its work is done; waits for none."""
        with self._lock:
            made, self._made, self._idle = self._made, 0, 0
        for _ in range(made):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


def _deliver(future: asyncio.Future[Any], value: Any, fault: BaseException | None) -> None:
    if future.done():  # given up: the deadline passed
        return
    if fault is None:
        future.set_result(value)
    else:
        future.set_exception(fault)

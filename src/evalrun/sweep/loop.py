"""The event loop of a sweep: uvloop where it is there, two steps of Ctrl-C, garbage collected rarely."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from evalrun.sweep.execute import execute
from evalrun.sweep.phase import Execution, Services


class Messages(Protocol):
    """Is told what the user should read."""

    def message(self, text: str) -> None: ...


async def interruptible(services: Services, display: Messages) -> tuple[Execution, bool]:
    """Execute; the first Ctrl-C (or SIGTERM) lets what is in flight finish, the second ends at once."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(execute(services))

    def interrupt() -> None:
        if services.stop.requested:
            task.cancel()
            return
        services.stop.requested = True
        display.message("Stopping: waiting for the requests in flight. Ctrl-C again to end at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, interrupt)
    try:
        execution = await task
    except asyncio.CancelledError:
        execution = Execution()
    return execution, services.stop.requested and services.stop.fault is None


def run_sweep_loop(services: Services, display: Messages) -> tuple[Execution, bool]:
    """Execute on an event loop of its own.

    A notebook runs one already in this thread, and no other can run beside it there: then the sweep's runs in
    a thread, and Ctrl-C lets what is in flight finish.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_loop(interruptible(services, display))
    return _in_a_thread(services, display)


def _in_a_thread(services: Services, display: Messages) -> tuple[Execution, bool]:
    done: Future[tuple[Execution, bool]] = Future()

    def work() -> None:
        try:
            done.set_result(_run_loop(interruptible(services, display)))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="evalrun-sweep", daemon=True).start()
    while True:
        try:
            return done.result()
        except KeyboardInterrupt:
            if done.done():
                raise
            services.stop.requested = True
            display.message("Stopping: waiting for the requests in flight.")


def _run_loop(main: Coroutine[Any, Any, tuple[Execution, bool]]) -> tuple[Execution, bool]:
    """Run on uvloop where it is installed: about a quarter less CPU for each request."""
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as make_loop
    try:
        with _rare_collection(), asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(main)
    finally:
        main.close()  # a Ctrl-C may come before it has begun


@contextlib.contextmanager
def _rare_collection() -> Iterator[None]:
    """Collect garbage rarely while requests are in flight, and never look at what was there before.

    Each collection stops the event loop, which is time that would be measured as the server's; hardly
    anything in the runner is part of a cycle, so there is little to find.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 3, 3)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

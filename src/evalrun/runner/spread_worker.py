"""A worker process: sends the requests that evalrun hands it, and hands back what came of each.

    python -m evalrun.runner.spread_worker        (its standard input is one end of a socket pair)

It makes the provider that its first message names, and asks. Retries, limits, deadlines, the cache and the
journal are evalrun's own: a worker knows nothing of them. It ends when the other end of the socket does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

from evalrun.errors import UserError
from evalrun.moment import READY_NS, about, until
from evalrun.providers.base import Provider, Punctual, create
from evalrun.providers.engine import end_with_parent
from evalrun.runner.spread_wire import Hello, Line, Parts, Tag, error_parts, request_of, response_parts
from evalrun.runner.watch import LagWatch
from evalrun.types import JSON, ProviderError, Request

_LAG_INTERVAL_S = 0.25


class Worker:
    """One end of the line, the provider, and what is in flight."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._line = Line(self._take, self._hung_up)
        self._ended = asyncio.Event()
        self._provider: Provider | None = None
        self._params: dict[str, JSON] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()

    async def run(self, end: socket.socket) -> None:
        """Work until the other end hangs up."""
        await self._loop.create_unix_connection(lambda: self._line, sock=end)
        await self._ended.wait()
        for task in [*self._tasks.values(), *self._others]:
            task.cancel()
        if self._provider is not None:
            await self._provider.close()

    def _hung_up(self) -> None:
        self._ended.set()

    def _take(self, message: Parts) -> None:
        tag = message[0]
        if tag == Tag.ASK:
            _, number, parts, params = message
            if params is not None:  # None: the same as those of the request before
                self._params = params
            self._tasks[number] = self._loop.create_task(
                self._answer(number, request_of(parts, self._params))
            )
        elif tag == Tag.DROP:
            task = self._tasks.pop(message[1], None)
            if task is not None:
                task.cancel()
        else:
            self._aside(self._begin(message[1]))

    def _aside(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _begin(self, hello: Hello) -> None:
        end_with_parent(hello.parent_pid)
        os.environ.update(hello.secrets)
        try:
            self._provider = create(hello.spec, hello.context)
            await self._provider.start()
        except UserError as error:
            self._line.send(Tag.REFUSED, error)
            return
        except Exception:
            traceback.print_exc()
            self._line.close()
            return
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 3, 3)  # rarely: a collection stops the loop while requests are timed
        self._line.send(Tag.READY)
        self._aside(self._report_lag())

    async def _answer(self, number: int, request: Request) -> None:
        assert self._provider is not None
        try:
            if request.due_ns is not None:
                if isinstance(self._provider, Punctual):
                    await about(request.due_ns - READY_NS)
                else:
                    await until(request.due_ns)
            response = await self._provider.generate(request)
        except ProviderError as error:
            self._line.send(Tag.ERROR, number, error_parts(error))
        except Exception as error:  # a fault of ours: evalrun itself shall fail with it
            fault = error if isinstance(error, UserError) else traceback.format_exc()
            self._line.send(Tag.FAULT, number, fault)
        else:
            self._line.send(Tag.ANSWER, number, response_parts(response))
        self._tasks.pop(number, None)

    async def _report_lag(self) -> None:
        """Say now and then how late this loop was: the times are taken here."""
        lag = LagWatch()
        self._aside(lag.run())
        while True:
            await asyncio.sleep(_LAG_INTERVAL_S)
            self._line.send(Tag.LAG, lag.take())


async def _work() -> None:
    with socket.socket(fileno=0) as end:
        end.setblocking(False)
        await Worker().run(end)


def main() -> None:
    """Work until standard input ends."""
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as make_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_work())


if __name__ == "__main__":
    main()

"""A provider whose requests are sent from several processes, for when one core cannot send them fast enough.

Everything that decides stays here: rendering, limits, rates, deadlines, retries, cache, journal and scoring
do not know that there are workers, so results are the same with any number of them. What a worker takes over
is the wire: writing the request, reading and parsing the answer, and its clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from evalrun.atomic import private_folder
from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import Cloneable, HasWorkers, Provider, capability
from evalrun.providers.engine import exit_reason, log_tail
from evalrun.runner.spread_wire import Hello, Line, Parts, Tag, error_of, request_parts, response_of
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response

if TYPE_CHECKING:
    pass

START_TIMEOUT_S = 120.0
"""LiteLLM alone takes five seconds to import, more where several do it on few cores."""
_STOP_PATIENCE_S = 3.0
_REASON_PATIENCE_S = 0.5
_POLL_S = 0.02


class Child:
    """One worker process, as seen from here."""

    def __init__(self, log_path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._log_path = log_path
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._params: Mapping[str, JSON] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._line = Line(self._take, self._hung_up)
        self._ended: asyncio.Task[None] | None = None
        self.lag: dict[int, int] = {}
        self.ready: asyncio.Future[None] = self._loop.create_future()

    @property
    def in_flight(self) -> int:
        """Requests that it has not answered yet."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether it can be given requests."""
        return self._ended is None

    async def start(self, hello: Hello) -> None:
        """Start the process and greet it. It is ready when `ready` is done."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._spawn(theirs)
        await self._loop.create_unix_connection(lambda: self._line, sock=ours)
        self._line.send(Tag.HELLO, hello)

    def _spawn(self, end: socket.socket) -> None:
        private_folder(self._log_path.parent)
        self._log_path.unlink(missing_ok=True)  # it may be another user's
        with self._log_path.open("wb") as log:
            # A process group of its own: Ctrl-C is ours to handle. The same session: it is part of evalrun
            # where memory and processor time are counted.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "evalrun.runner.spread_worker"],
                stdin=end.fileno(),
                stdout=log,
                stderr=log,
                process_group=0,
            )

    async def ask(self, number: int, request: Request) -> Response:
        """The answer of this worker. Raises ProviderError."""
        params = None if request.params is self._params else request.params
        self._params = request.params
        future: asyncio.Future[Response] = self._loop.create_future()
        self._waiting[number] = future
        self._line.send(Tag.ASK, number, request_parts(request), params)
        try:
            return await future
        finally:
            if self._waiting.pop(number, None) is not None:  # given up: the deadline passed
                self._line.send(Tag.DROP, number)

    async def stop(self) -> None:
        """Hang up, wait for its end, kill it where it does not come."""
        self._line.close()
        if self._process is not None and not await self._gone(self._process, _STOP_PATIENCE_S):
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._ended is not None:
            await self._ended

    def _take(self, message: Parts) -> None:
        tag = message[0]
        if tag == Tag.LAG:
            for step, count in message[1].items():
                self.lag[step] = self.lag.get(step, 0) + count
        elif tag in (Tag.READY, Tag.REFUSED):
            self._begun(message)
        else:
            _, number, what = message
            future = self._waiting.pop(number, None)
            if future is None or future.done():
                return
            if tag == Tag.ANSWER:
                future.set_result(response_of(what))
            elif tag == Tag.ERROR:
                future.set_exception(error_of(what))
            else:
                future.set_exception(what if isinstance(what, UserError) else RuntimeError(what))

    def _begun(self, message: Parts) -> None:
        if self.ready.done():
            return
        if message[0] == Tag.READY:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(message[1])

    def _hung_up(self) -> None:
        self._ended = self._loop.create_task(self._end())

    async def _end(self) -> None:
        """Fail what it was asked. The requests may be asked again: another worker does it, if one is left."""
        assert self._process is not None
        await self._gone(self._process, _REASON_PATIENCE_S)
        code = self._process.poll()
        reason = exit_reason(code) if code is not None else "it hung up"
        lines = log_tail(self._log_path, 1)
        text = f"a worker process of evalrun ended ({reason})" + (f": {lines[0]}" if lines else "")
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ProviderError(ErrorKind.CONNECTION, text))
        if not self.ready.done():
            self.ready.set_exception(_unstarted(text, self._log_path))

    async def _gone(self, process: subprocess.Popen[bytes], patience_s: float) -> bool:
        deadline = self._loop.time() + patience_s
        while process.poll() is None:
            if self._loop.time() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True


class Spread(Provider, HasWorkers):
    """Another provider, whose requests are sent by worker processes. What else that one can do is found by
    `capability`, which looks at `inner`."""

    summary: ClassVar[str] = "a provider whose requests are sent from several processes"

    def __init__(self, inner: Provider, cloneable: Cloneable, workers: int) -> None:
        super().__init__(inner.spec, inner.context)
        self.inner = inner
        self.supports = inner.supports
        self._cloneable = cloneable
        self._workers = workers
        self._children: list[Child] = []
        self._numbers = itertools.count()

    @property
    def endpoint(self) -> str:
        return self.inner.endpoint

    @property
    def default_concurrency(self) -> int | None:
        return self.inner.default_concurrency

    @property
    def workers(self) -> int:
        return self._workers

    def identity(self) -> dict[str, JSON]:
        return self.inner.identity()

    def take_lags(self) -> list[Mapping[int, int]]:
        lags: list[Mapping[int, int]] = [child.lag for child in self._children]
        for child in self._children:
            child.lag = {}
        return lags

    async def start(self) -> None:
        """Start the provider, then the workers. Raises what the provider raises, and UserError (exit 3) where
        a worker cannot be started."""
        await self.inner.start()
        if self._children:
            return
        spec, secrets = self._cloneable.clone()
        hello = Hello(spec, self.context, os.getpid(), secrets)
        folder = self.context.work_dir
        try:
            for number in range(1, self._workers + 1):
                child = Child(folder / f"worker-{self.spec.id}-{number}.log")
                self._children.append(child)
                await child.start(hello)
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.gather(*(child.ready for child in self._children))
        except (OSError, TimeoutError) as error:
            await self.close()
            raise _unstarted(f"a worker process did not start: {error or 'no sign of it'}", folder) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        children, self._children = self._children, []
        try:
            await asyncio.gather(*(child.stop() for child in children))
        finally:
            for child in children:
                with contextlib.suppress(BaseException):
                    child.ready.exception() if child.ready.done() else child.ready.cancel()
            await self.inner.close()

    async def generate(self, request: Request) -> Response:
        alive = [child for child in self._children if child.alive]
        if not alive:
            raise ProviderError(
                ErrorKind.ENGINE, f"the worker processes of model {self.spec.id} have all ended"
            )
        child = min(alive, key=_load)
        try:
            return await child.ask(next(self._numbers), request)
        except ProviderError as error:
            raise await self._cloneable.diagnose(error) from error


def _load(child: Child) -> int:
    return child.in_flight


def _unstarted(what: str, where: Path) -> UserError:
    return UserError(
        what,
        where=str(where),
        remedy="See its log, or leave performance.workers out.",
        exit_code=ExitCode.INCOMPLETE,
    )


def spread(provider: Provider, workers: int, where: str) -> Provider:
    """The provider with its requests sent by `workers` processes, or itself where that is 0.

    Raises UserError, naming provider and model, where it does not ask over a network; `where` is the
    suite's line.
    """
    if not workers:
        return provider
    what, cloneable = "", capability(provider, Cloneable)
    if cloneable is None:
        what = f"performance.workers: provider '{provider.spec.provider}' of model '{provider.spec.id}' " + (
            "sends no requests over a network that other processes could send"
        )
    elif not hasattr(socket, "AF_UNIX") or os.name != "posix":
        what = "performance.workers needs Linux or macOS"
    if what or cloneable is None:
        raise UserError(what, where=where, remedy="Leave performance.workers out for this model's suite.")
    return Spread(provider, cloneable, workers)

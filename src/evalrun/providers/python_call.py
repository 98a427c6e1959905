"""A user's function: found when the suite is checked, called while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import importlib
import importlib.machinery
import inspect
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from evalrun.errors import ExitCode, UserError
from evalrun.registry import importable_from
from evalrun.types import JSON, ErrorKind, ProviderError, Timing
from evalrun.usercode import code_digests, source_file

if TYPE_CHECKING:
    from evalrun.providers.python_function import PythonOptions


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


class UserFunction:
    """The user's code: found when the suite is checked, called while it runs."""

    def __init__(self, options: PythonOptions, where: str, base_dir: Path) -> None:
        """`where` names the model in errors. Raises UserError where there is no such function."""
        self._options, self._where, self._base_dir = options, where, base_dir
        self.name = self._options.function
        self._target = _find(self.name, base_dir, self._where)
        self._is_class = isinstance(self._target, type)
        _check_arguments(self._target, self._options.args, self._is_class, self._where)
        self._callable: Callable[..., Any] | None = None if self._is_class else self._target
        self._arguments = {} if self._is_class else self._options.args
        self._threads = DaemonThreads()

    async def start(self) -> None:
        if self._callable is not None:
            return
        try:
            self._callable = await self._threads.run(lambda: self._target(**self._options.args))
        except Exception as error:
            raise UserError(
                f"'{self.name}' could not be made: {named(error)}",
                where=self._where,
                remedy="Correct that code, or its args.",
                exit_code=ExitCode.INCOMPLETE,
            ) from error

    def close(self) -> None:
        self._threads.close()

    def identity(self) -> dict[str, JSON]:
        from evalrun.secrets import scrub_json

        return {
            "provider": "python",
            "function": self.name,
            **self.pins(),
            "args": scrub_json(self._options.args),
            "batch": self._options.batch,
            "api": self._options.api,
        }

    def pins(self) -> dict[str, JSON]:
        """The digests of the function's file, and of the modules in the suite's folder that it imports."""
        source = source_file(self._target)
        if source is None:
            return {"source_sha256": None}
        own = hashlib.sha256(source.read_bytes()).hexdigest()
        modules = {
            name: digest
            for name, digest in code_digests([self._target], self._base_dir).items()
            if digest != own
        }
        return {"source_sha256": own, **({"modules": modules} if modules else {})}

    async def call(self, argument: Any) -> tuple[Any, Timing]:
        """What the function returns, and when it was called and done. Raises ProviderError (application)."""
        function = self._callable
        if function is None:
            raise failure("the provider is not started")
        try:
            if _is_async(function):
                sent_ns = perf_counter_ns()
                value = await function(argument, **self._arguments)
                return value, Timing(sent_ns, perf_counter_ns())
            answer: tuple[Any, Timing] = await self._threads.run(
                lambda: _timed(function, argument, self._arguments)
            )
            return answer
        except ProviderError:
            raise
        except (Exception, SystemExit) as error:
            raise failure(named(error)) from error


def _timed(function: Callable[..., Any], argument: Any, keywords: dict[str, Any]) -> tuple[Any, Timing]:
    sent_ns = perf_counter_ns()
    value = function(argument, **keywords)
    return value, Timing(sent_ns, perf_counter_ns())


def _find(target: str, base_dir: Path, where: str) -> Any:
    """The object that `module:attribute` names, also in the suite's folder. Raises UserError."""
    module_name, _, attribute = target.partition(":")
    top = module_name.partition(".")[0]
    importable_from(base_dir)
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"importing '{target}' failed: {named(error)}",
            where=where,
            remedy="Correct that code, install what it needs, or name another function.",
        ) from error
    if _is_another(top, str(base_dir.resolve())):
        raise UserError(
            f"'{top}' in the suite's folder is hidden by another module of that name",
            where=where,
            remedy=f"Rename {top}.",
        )
    if not callable(found):
        raise UserError(f"'{target}' is {described(found)}, not a function", where=where)
    return found


def _is_another(top: str, folder: str) -> bool:
    """Whether the suite's folder holds a module of that name, and the imported one is a different one."""
    spec = importlib.machinery.PathFinder.find_spec(top, [folder])
    if spec is None or spec.origin is None:
        return False
    imported = getattr(sys.modules.get(top), "__file__", None)
    return imported is None or Path(imported).resolve() != Path(spec.origin).resolve()


def _check_arguments(target: Any, args: dict[str, Any], is_class: bool, where: str) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*(() if is_class else (None,)), **args)
    except TypeError as error:
        what = "be made with args" if is_class else "be called with one argument and args"
        raise UserError(f"the function cannot {what}: {error}", where=where) from error


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def failure(message: str) -> ProviderError:
    """The failure of a sample that the function did not answer."""
    return ProviderError(ErrorKind.APPLICATION, message)


def named(error: BaseException) -> str:
    """An exception in a line: its type and what it says."""
    from evalrun.providers.faults import shorten

    text = str(error)
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def described(value: Any) -> str:
    """A value that is not what was expected, by its type."""
    return "nothing" if value is None else f"a value of type {type(value).__name__}"

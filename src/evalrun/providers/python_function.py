"""A Python function in the model's place, so that an application can be evaluated and not only a model.

The function takes a `FunctionInput` (with `batch: N` a list of them) and returns for each the output as
text, or a mapping with `output` and what else is known (`RESULT_FIELDS`), or a `Response`. It may be
`async`; if not, it runs in threads. What it raises is a failed sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import difflib
import hashlib
import importlib
import importlib.machinery
import inspect
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import BatchProvider, Pinned, Provider, ProviderContext, ProviderOptions, provider
from evalrun.registry import importable_from
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Row, Timing
from evalrun.usercode import code_digests, source_file

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec


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
        target_object: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            target_object = getattr(target_object, name)
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
    if not callable(target_object):
        raise UserError(f"'{target}' is {described(target_object)}, not a function", where=where)
    return target_object


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


DEFAULT_CONCURRENCY = 16


RESULT_FIELDS = frozenset(field.name for field in fields(Response)) - {"timing"}
"""The keys of a mapping that a function may return; `output` is the one it must hold."""


@dataclass(frozen=True, slots=True)
class FunctionInput:
    """What the function is given for one sample.

    `messages` are chat messages as the OpenAI API has them; `prompt` is the raw text where the model entry
    says `api: completions`, else None. `row` is the dataset row. `repeat` counts from 0. `ask` is None, or
    says which likelihoods are wanted (see `evalrun.types.Ask`).
    """

    sample_id: str
    repeat: int
    messages: list[dict[str, JSON]]
    prompt: str | None
    params: Mapping[str, JSON]
    row: Row
    ask: Ask | None = None

    @property
    def text(self) -> str:
        """The question as text: the prompt, or the content of the last message."""
        if self.prompt is not None:
            return self.prompt
        content = self.messages[-1]["content"] if self.messages else ""
        return content if isinstance(content, str) else orjson.dumps(content).decode()


def function_input(request: Request) -> FunctionInput:
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    return FunctionInput(
        request.sample_id,
        request.repeat,
        messages,
        request.prompt,
        request.params,
        request.row,
        request.ask,
    )


def response_or_error(value: Any, timing: Timing, ask: Ask | None) -> Response | ProviderError:
    if isinstance(value, ProviderError):
        return value
    if isinstance(value, Exception):
        return failure(named(value))
    try:
        return response(value, timing, ask)
    except ProviderError as error:
        return error


def response(value: Any, timing: Timing, ask: Ask | None) -> Response:
    """What the function returned, as a Response. Raises ProviderError (application) for what is none."""
    if ask is None:
        return _answer(value, timing)
    from evalrun.providers.likelihood import given_likelihood

    if isinstance(value, Mapping):
        value = {"output": "", **value}
    answer = _answer(value, timing)
    return replace(answer, likelihood=given_likelihood(answer.likelihood, ask))


def _answer(value: Any, timing: Timing) -> Response:
    if isinstance(value, str):
        return Response(output=value, timing=timing)
    if isinstance(value, Response):
        return value if value.timing is not None else replace(value, timing=timing)
    if not isinstance(value, Mapping):
        raise failure(f"the function returned {described(value)}, neither text nor a mapping with 'output'")
    for key in value:
        if key not in RESULT_FIELDS:
            near = difflib.get_close_matches(str(key), RESULT_FIELDS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise failure(f"the function's result has an unknown key '{key}'{hint}")
    output = value.get("output")
    if output is None:
        raise failure("the function's result holds no 'output'")
    try:
        text = output if isinstance(output, str) else orjson.dumps(output).decode()
    except TypeError as error:
        raise failure(f"the function's output cannot be kept: {error}") from error
    return Response(**{**value, "output": text}, timing=timing)


class PythonOptions(ProviderOptions):
    """What a model entry with `provider: python` may say besides the common keys."""

    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
        description="What to call, as package.module:function. Modules in the suite's folder are found. "
        "A class is made once, with args, and its object called.",
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments that every call gets (of a class: its making)."
    )
    batch: int | None = Field(
        default=None, ge=1, description="Give the function lists of so many samples. Default: one at a time."
    )
    api: Literal["chat", "completions"] = Field(
        default="chat", description="chat gives messages, completions the raw text of a text prompt."
    )
    likelihood: bool = Field(
        default=False,
        description="Whether the function answers prompts that ask for likelihoods: its argument then has an "
        "`ask`, and its result the key `likelihood`.",
    )


class _CallsFunction(Provider[PythonOptions], Pinned):
    """The function, found when the suite is checked and called while it runs, with one or many samples."""

    shorthand: ClassVar[str | None] = "function"
    summary: ClassVar[str] = "a Python function of your own, so that an application can be evaluated"
    supports = frozenset({"chat", "completions"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        """Raises UserError where there is no such function."""
        super().__init__(spec, context)
        options, where = self.options, f"model {spec.id}"
        if options.likelihood:
            self.supports = self.supports | {"prompt_logprobs", "first_token"}
        self._target = _find(options.function, context.base_dir, where)
        is_class = isinstance(self._target, type)
        _check_arguments(self._target, options.args, is_class, where)
        self._callable: Callable[..., Any] | None = None if is_class else self._target
        self._arguments = {} if is_class else options.args
        self._threads = DaemonThreads()

    @property
    def endpoint(self) -> str:
        return f"python:{self.options.function}"

    async def start(self) -> None:
        """Make the object, where the suite names a class. Raises UserError (exit 3) when that fails."""
        if self._callable is not None:
            return
        try:
            self._callable = await self._threads.run(lambda: self._target(**self.options.args))
        except Exception as error:
            raise UserError(
                f"'{self.options.function}' could not be made: {named(error)}",
                where=f"model {self.spec.id}",
                remedy="Correct that code, or its args.",
                exit_code=ExitCode.INCOMPLETE,
            ) from error

    async def close(self) -> None:
        self._threads.close()

    def identity(self) -> dict[str, JSON]:
        from evalrun.secrets import scrub_json

        options = self.options
        return {
            "provider": "python",
            "function": options.function,
            **self.pins(),
            "args": scrub_json(options.args),
            "batch": options.batch,
            "api": options.api,
        }

    def pins(self) -> dict[str, JSON]:
        """The digests of the function's file, and of the modules in the suite's folder that it imports."""
        source = source_file(self._target)
        digests = code_digests([self._target], self.context.base_dir)
        if source is None:  # typed into a notebook, or built in
            return {"source_sha256": next(iter(digests.values()), None)}
        own = hashlib.sha256(source.read_bytes()).hexdigest()
        modules = {name: digest for name, digest in digests.items() if digest != own}
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


@provider("python")
class PythonFunction(_CallsFunction):
    """Calls a function for each sample. With `batch` a `PythonBatch` is made in its place."""

    def __new__(cls, spec: ModelSpec, context: ProviderContext) -> Any:
        """A provider that answers batches is another class; a suite knows one provider."""
        if cast(PythonOptions, spec.options).batch is not None:
            return PythonBatch(spec, context)
        return super().__new__(cls)

    @property
    def default_concurrency(self) -> int | None:
        return DEFAULT_CONCURRENCY

    async def generate(self, request: Request) -> Response:
        value, timing = await self.call(function_input(request))
        return response(value, timing, request.ask)


class PythonBatch(_CallsFunction, BatchProvider[PythonOptions]):
    """Calls a function with lists of samples. Each sample's latency is that of its whole batch."""

    @property
    def batch_size(self) -> int:
        return self.options.batch or 1

    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Response | ProviderError]:
        """Call the function once. An exception in its list fails that sample, one it raises fails all."""
        try:
            values, timing = await self.call([function_input(request) for request in requests])
            if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
                raise failure(f"the function returned {described(values)} for a batch, not a list")
            if len(values) != len(requests):
                raise failure(f"the function returned {len(values)} results for {len(requests)} samples")
        except ProviderError as error:
            return [error] * len(requests)
        return [
            response_or_error(value, timing, request.ask)
            for value, request in zip(values, requests, strict=True)
        ]

"""A Python function in the model's place, so that an application can be evaluated and not only a model.

The function takes a `FunctionInput` (with `batch: N` a list of them) and returns for each the output as
text, or a mapping with `output` and what else is known (`RESULT_FIELDS`), or a `Response`. It may be
`async`; if not, it runs in threads. What it raises is a failed sample.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.providers.base import BatchProvider, Provider, ProviderContext
from evalrun.providers.daemon_threads import DaemonThreads
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Row, Timing, Via

if TYPE_CHECKING:
    from evalrun.suite.schema import ModelSpec

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


class PythonOptions(BaseModel):
    """What a model entry with `provider: python` may say besides the common keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

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


class PythonFunction(Provider):
    """Calls a function for each sample. With `batch` a `PythonBatch` is made in its place."""

    Options: ClassVar[type[BaseModel]] = PythonOptions
    shorthand: ClassVar[str | None] = "function"
    summary: ClassVar[str] = "a Python function of your own, so that an application can be evaluated"
    supports: ClassVar[frozenset[str]] = frozenset({"chat", "completions"})

    def __new__(cls, spec: ModelSpec, context: ProviderContext) -> Any:
        """A provider that answers batches is another class; a suite knows one provider."""
        if cast(PythonOptions, spec.options).batch is not None:
            return PythonBatch(spec, context)
        return super().__new__(cls)

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._function = _Function(spec, context)

    def unfit(self, via: Via) -> Problem | None:
        """As `Provider.unfit`: the suite says whether the function gives likelihoods."""
        return _unfit_for_likelihood(self.spec)

    @property
    def endpoint(self) -> str:
        return f"python:{self._function.name}"

    @property
    def default_concurrency(self) -> int | None:
        return DEFAULT_CONCURRENCY

    async def start(self) -> None:
        """Make the object, where the suite names a class. Raises UserError (exit 3) when that fails."""
        await self._function.start()

    async def close(self) -> None:
        self._function.close()

    def identity(self) -> dict[str, JSON]:
        return self._function.identity()

    def pins(self) -> dict[str, JSON]:
        return {"source_sha256": self._function.identity()["source_sha256"]}

    async def generate(self, request: Request) -> Response:
        value, timing = await self._function.call(_input(request))
        return _response(value, timing, request.ask)


class PythonBatch(BatchProvider):
    """Calls a function with lists of samples. Each sample's latency is that of its whole batch."""

    Options: ClassVar[type[BaseModel]] = PythonOptions
    shorthand: ClassVar[str | None] = "function"
    summary: ClassVar[str] = PythonFunction.summary
    supports: ClassVar[frozenset[str]] = frozenset({"chat", "completions"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._function = _Function(spec, context)
        self._batch = cast(PythonOptions, spec.options).batch or 1

    def unfit(self, via: Via) -> Problem | None:
        """As `Provider.unfit`: the suite says whether the function gives likelihoods."""
        return _unfit_for_likelihood(self.spec)

    @property
    def endpoint(self) -> str:
        return f"python:{self._function.name}"

    @property
    def batch_size(self) -> int:
        return self._batch

    async def start(self) -> None:
        """As `PythonFunction.start`."""
        await self._function.start()

    async def close(self) -> None:
        self._function.close()

    def identity(self) -> dict[str, JSON]:
        return self._function.identity()

    def pins(self) -> dict[str, JSON]:
        return {"source_sha256": self._function.identity()["source_sha256"]}

    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Response | ProviderError]:
        """Call the function once. An exception in its list fails that sample, one it raises fails all."""
        try:
            values, timing = await self._function.call([_input(request) for request in requests])
            if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
                raise _unfit(f"the function returned {_described(values)} for a batch, not a list")
            if len(values) != len(requests):
                raise _unfit(f"the function returned {len(values)} results for {len(requests)} samples")
        except ProviderError as error:
            return [error] * len(requests)
        return [
            _response_or_error(value, timing, request.ask)
            for value, request in zip(values, requests, strict=True)
        ]


class _Function:
    """The user's code: found when the suite is checked, called while it runs."""

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        self._options = cast(PythonOptions, spec.options)
        self._where = f"model {spec.id}"
        self.name = self._options.function
        self._target = _find(self.name, context.base_dir, self._where)
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
                f"'{self.name}' could not be made: {_told(error)}",
                where=self._where,
                remedy="Mend that code, or its args.",
                exit_code=ExitCode.INCOMPLETE,
            ) from error

    def close(self) -> None:
        self._threads.close()

    def identity(self) -> dict[str, JSON]:
        from evalrun.providers.digests import computed_sha256
        from evalrun.secrets import scrub_json

        source = _source_file(self._target)
        return {
            "provider": "python",
            "function": self.name,
            "source_sha256": computed_sha256(source) if source is not None else None,
            "args": scrub_json(self._options.args),
            "batch": self._options.batch,
            "api": self._options.api,
        }

    async def call(self, argument: Any) -> tuple[Any, Timing]:
        """What the function returns, and when it was called and done. Raises ProviderError (application)."""
        function = self._callable
        if function is None:
            raise _unfit("the provider is not started")
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
            raise _unfit(_told(error)) from error


def _timed(function: Callable[..., Any], argument: Any, keywords: dict[str, Any]) -> tuple[Any, Timing]:
    sent_ns = perf_counter_ns()
    value = function(argument, **keywords)
    return value, Timing(sent_ns, perf_counter_ns())


def _find(target: str, base_dir: Path, where: str) -> Any:
    """The object that `module:attribute` names. The suite's folder comes last, so that its files never
    stand before installed packages. Raises UserError."""
    module_name, _, attribute = target.partition(":")
    top = module_name.partition(".")[0]
    folder = str(base_dir.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"importing '{target}' failed: {_told(error)}",
            where=where,
            remedy="Mend that code, install what it needs, or name another function.",
        ) from error
    if _is_another(top, folder):
        raise UserError(
            f"'{top}' in the suite's folder is hidden by another module of that name",
            where=where,
            remedy=f"Rename {top}.",
        )
    if not callable(found):
        raise UserError(f"'{target}' is {_described(found)}, not a function", where=where)
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


def _source_file(target: Any) -> Path | None:
    target = inspect.unwrap(target)
    code = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    try:
        found = inspect.getsourcefile(code)
    except TypeError:
        return None
    return Path(found) if found and Path(found).is_file() else None


def _input(request: Request) -> FunctionInput:
    messages = [{"role": each.role, "content": each.content} for each in request.messages]
    return FunctionInput(
        request.sample_id,
        request.repeat,
        messages,
        request.prompt,
        request.params,
        request.row,
        request.ask,
    )


def _response_or_error(value: Any, timing: Timing, ask: Ask | None) -> Response | ProviderError:
    if isinstance(value, ProviderError):
        return value
    if isinstance(value, Exception):
        return _unfit(_told(value))
    try:
        return _response(value, timing, ask)
    except ProviderError as error:
        return error


def _response(value: Any, timing: Timing, ask: Ask | None) -> Response:
    """What the function returned, as a Response. Raises ProviderError (application) for what is none."""
    if ask is None:
        return _answer(value, timing)
    from evalrun.providers.likelihood import given_likelihood

    if isinstance(value, Mapping):
        value = {"output": "", **value}
    answer = _answer(value, timing)
    return replace(answer, likelihood=given_likelihood(answer.likelihood, ask))


def _unfit_for_likelihood(spec: ModelSpec) -> Problem | None:
    if cast(PythonOptions, spec.options).likelihood:
        return None
    what = "the function does not say that it gives likelihoods"
    return Problem(what, f"model {spec.id}", "Set likelihood: true for the model if it does.")


def _answer(value: Any, timing: Timing) -> Response:
    if isinstance(value, str):
        return Response(output=value, timing=timing)
    if isinstance(value, Response):
        return value if value.timing is not None else replace(value, timing=timing)
    if not isinstance(value, Mapping):
        raise _unfit(f"the function returned {_described(value)}, neither text nor a mapping with 'output'")
    for key in value:
        if key not in RESULT_FIELDS:
            near = difflib.get_close_matches(str(key), RESULT_FIELDS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise _unfit(f"the function's result has an unknown key '{key}'{hint}")
    output = value.get("output")
    if output is None:
        raise _unfit("the function's result holds no 'output'")
    try:
        text = output if isinstance(output, str) else orjson.dumps(output).decode()
    except TypeError as error:
        raise _unfit(f"the function's output cannot be kept: {error}") from error
    return Response(**{**value, "output": text}, timing=timing)


def _unfit(message: str) -> ProviderError:
    return ProviderError(ErrorKind.APPLICATION, message)


def _told(error: BaseException) -> str:
    from evalrun.providers.http_faults import shorten

    text = str(error)
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _described(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"

"""A Python function in the model's place, so that an application can be evaluated and not only a model.

The function takes a `FunctionInput` (with `batch: N` a list of them) and returns for each the output as
text, or a mapping with `output` and what else is known (`RESULT_FIELDS`), or a `Response`. It may be
`async`; if not, it runs in threads. What it raises is a failed sample.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field

from evalrun.providers.base import BatchProvider, Pinned, Provider, ProviderContext, ProviderOptions
from evalrun.providers.python_call import UserFunction, described, failure, named
from evalrun.types import JSON, Ask, ProviderError, Request, Response, Row, Timing

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec

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
    """What a function's provider is, whether it is called with one sample or with many."""

    shorthand: ClassVar[str | None] = "function"
    summary: ClassVar[str] = "a Python function of your own, so that an application can be evaluated"
    supports = frozenset({"chat", "completions"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._function = UserFunction(self.options, f"model {spec.id}", context.base_dir)
        if self.options.likelihood:
            self.supports = self.supports | {"prompt_logprobs", "first_token"}

    @property
    def endpoint(self) -> str:
        return f"python:{self._function.name}"

    async def start(self) -> None:
        """Make the object, where the suite names a class. Raises UserError (exit 3) when that fails."""
        await self._function.start()

    async def close(self) -> None:
        self._function.close()

    def identity(self) -> dict[str, JSON]:
        return self._function.identity()

    def pins(self) -> dict[str, JSON]:
        return self._function.pins()


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
        value, timing = await self._function.call(function_input(request))
        return response(value, timing, request.ask)


class PythonBatch(_CallsFunction, BatchProvider[PythonOptions]):
    """Calls a function with lists of samples. Each sample's latency is that of its whole batch."""

    @property
    def batch_size(self) -> int:
        return self.options.batch or 1

    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Response | ProviderError]:
        """Call the function once. An exception in its list fails that sample, one it raises fails all."""
        try:
            values, timing = await self._function.call([function_input(request) for request in requests])
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

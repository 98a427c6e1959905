"""A Python function in the model's place, so that an application can be evaluated and not only a model.

The function takes a `FunctionInput` (with `batch: N` a list of them) and returns for each the output as
text, or a mapping with `output` and what else is known (`RESULT_FIELDS`), or a `Response`. It may be
`async`; if not, it runs in threads. What it raises is a failed sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from evalrun.errors import Problem
from evalrun.providers.base import BatchProvider, Provider, ProviderContext
from evalrun.providers.python_answer import described, function_input, response, response_or_error, unfit
from evalrun.providers.python_call import UserFunction
from evalrun.types import JSON, ProviderError, Request, Response, Via

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec

DEFAULT_CONCURRENCY = 16


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


class _CallsFunction(Provider):
    """What a function's provider is, whether it is called with one sample or with many."""

    Options: ClassVar[type[BaseModel]] = PythonOptions
    shorthand: ClassVar[str | None] = "function"
    summary: ClassVar[str] = "a Python function of your own, so that an application can be evaluated"
    supports: ClassVar[frozenset[str]] = frozenset({"chat", "completions"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._options = cast(PythonOptions, spec.options)
        self._function = UserFunction(self._options, f"model {spec.id}", context.base_dir)

    def unfit(self, via: Via) -> Problem | None:
        """As `Provider.unfit`: the suite says whether the function gives likelihoods."""
        if self._options.likelihood:
            return None
        what = "the function does not say that it gives likelihoods"
        return Problem(what, f"model {self.spec.id}", "Set likelihood: true for the model if it does.")

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


class PythonBatch(_CallsFunction, BatchProvider):
    """Calls a function with lists of samples. Each sample's latency is that of its whole batch."""

    @property
    def batch_size(self) -> int:
        return self._options.batch or 1

    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Response | ProviderError]:
        """Call the function once. An exception in its list fails that sample, one it raises fails all."""
        try:
            values, timing = await self._function.call([function_input(request) for request in requests])
            if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
                raise unfit(f"the function returned {described(values)} for a batch, not a list")
            if len(values) != len(requests):
                raise unfit(f"the function returned {len(values)} results for {len(requests)} samples")
        except ProviderError as error:
            return [error] * len(requests)
        return [
            response_or_error(value, timing, request.ask)
            for value, request in zip(values, requests, strict=True)
        ]

"""Asks a model how likely texts are after prompts: by the runner, with its retries, limits and cache."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from evalrun.datasets import Item
from evalrun.errors import ExitCode, UserError
from evalrun.explanations import GRADIENTS
from evalrun.prompts.rendering import Rendered
from evalrun.providers.base import (
    LooksInside,
    Provider,
    ProviderContext,
    RendersChat,
    capability,
    create,
    likelihood_problem,
)
from evalrun.scoring.pipeline import Scored
from evalrun.types import JSON, Ask, Message, ProviderError, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.runner.cache import ResponseCache
    from evalrun.suite.components import ModelSpec

T = TypeVar("T")
_SAME = (
    "provider", "model", "weights_sha256", "adapter_sha256", "tokenizer_sha256", "revision", "base_url",
    "endpoint", "target", "code",
)  # fmt: skip
"""What of a model's identity must be what it was in the sweep."""
_TIMEOUT_S = 600.0
_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What the model thinks of texts after one prompt: a sum for each, and for the first one its tokens."""

    logprobs: tuple[float, ...]
    spans: tuple[tuple[int, int], ...] = ()
    tokens: tuple[float, ...] = ()
    context: tuple[tuple[int, int], ...] = ()


@dataclass
class Asker:
    """One model, started, that texts are asked about. `asked` counts the prompts that were sent."""

    provider: Provider
    params: Mapping[str, JSON]
    cache: ResponseCache | None
    temporary: tempfile.TemporaryDirectory[str]
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    asked: int = 0
    _thread: ThreadPoolExecutor | None = None
    """Where an event loop runs here already, as in a notebook, another thread has the one for the model."""

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        context: ProviderContext,
        params: Mapping[str, JSON],
        cache: ResponseCache | None,
    ) -> Asker:
        """Make the provider, as one that is asked for likelihoods of texts. Raises UserError for one that
        gives none; nothing is started yet."""
        temporary = tempfile.TemporaryDirectory(prefix="evalrun-explain-")
        return cls(checked(model, context), params, cache, temporary)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return self.runner.run(work)
            self._thread = ThreadPoolExecutor(1, "evalrun-explain")
        return self._thread.submit(self.runner.run, work).result()

    def __enter__(self) -> Asker:
        try:
            self._run(self.provider.start())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self.provider.close())
        if self._thread is not None:
            self._thread.submit(self.runner.close).result()
            self._thread.shutdown()
        else:
            self.runner.close()
        self.temporary.cleanup()

    def check_same(self, known: Mapping[str, JSON], where: str) -> None:
        """Raise UserError where the model is not the one that the sweep asked."""
        now = self.provider.identity()
        for key in _SAME:
            if known.get(key) is not None and now.get(key) is not None and known[key] != now[key]:
                raise UserError(
                    f"the model is not the one that answered: its {key} was {known[key]} and is {now[key]}",
                    where=where,
                    remedy="An explanation by another model would be one of another answer. Bring back the "
                    "model of the sweep, or run the suite again.",
                )

    def chat_text(self, messages: Sequence[Message]) -> str:
        """What the model reads of messages. Raises UserError where nobody tells."""
        renders = capability(self.provider, RendersChat)
        try:
            if renders is None:
                what = f"provider '{self.provider.spec.provider}' does not tell what its chat template makes"
                raise UserError(what, where=f"model {self.provider.spec.id}", remedy=_BY_TEXT)
            return self._run(renders.chat_text(messages))
        except ProviderError as error:
            raise UserError(
                f"the prompt as the model reads it is not known: {error.message}",
                where=f"model {self.provider.spec.id}",
                remedy=_BY_TEXT,
            ) from error

    def look(self, what: str, **arguments: JSON) -> dict[str, JSON]:
        """What the model itself tells. Raises UserError (exit 3) where it cannot."""
        inside = capability(self.provider, LooksInside)
        assert inside is not None
        self.asked += 1
        try:
            return self._run(inside.look(what, arguments))
        except ProviderError as error:
            raise UserError(
                f"{what} cannot be had: {error.message}",
                where=f"model {self.provider.spec.id}",
                exit_code=ExitCode.INCOMPLETE,
            ) from error

    def likelihoods(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Likelihood]:
        """How likely each of the texts is after each prompt. Raises UserError (exit 3) where one cannot be
        had."""
        from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Stop
        from evalrun.runner.journal import Journal
        from evalrun.runner.limits import AdaptiveLimit, FixedLimit, Limit, Throttle

        self.asked += len(prompts)
        questions = _Questions(prompts, Ask("tokens", options=tuple(texts), answers=tuple(texts)))
        records: dict[str, SampleRecord] = {}

        async def ask() -> None:
            number = len(list(Path(self.temporary.name).iterdir()))
            journal = Journal(Path(self.temporary.name) / f"{number}.jsonl")
            spec = self.provider.spec
            fixed = spec.concurrency or self.provider.default_concurrency
            limit: Limit = FixedLimit(fixed) if fixed else AdaptiveLimit(start=8)
            cell = Cell("explain", questions, questions, self.provider, _Reader(), self.params)
            options = CellOptions(False, 0, spec.timeout_s or _TIMEOUT_S, _RETRIES, 0, 0.0)
            context = CellContext(journal, self.cache, Throttle(limit), _Collector(records), Stop())
            try:
                await CellRun(cell, options, context).run()
            finally:
                await journal.close()

        self._run(ask())
        return [self._read(records.get(str(at))) for at in range(len(prompts))]

    def _read(self, record: SampleRecord | None) -> Likelihood:
        if record is None or not record.likelihood:
            why = "it was not asked" if record is None else record.error
            raise UserError(
                f"the likelihood of the answer is not known: {why}",
                where=f"model {self.provider.spec.id}",
                exit_code=ExitCode.INCOMPLETE,
            )
        options = record.likelihood["options"]
        return Likelihood(
            tuple(_number(option.get("logprob"), self.provider.spec.id) for option in options),
            tuple((int(start), int(end)) for start, end in options[0].get("spans") or ()),
            tuple(options[0].get("logprobs") or ()),
            tuple((int(start), int(end)) for start, end in record.likelihood.get("context") or ()),
        )


_BY_TEXT = "A run with a text prompt and api: completions can be explained with any such server."


def checked(model: ModelSpec, context: ProviderContext) -> Provider:
    """The provider of a model, asked with raw texts. Raises UserError for one that gives no likelihoods."""
    provider = create(for_texts(model), context)
    problem = likelihood_problem(provider, "prompt_logprobs")
    if problem is not None:
        raise UserError(
            f"{problem.what}, so its answers cannot be explained",
            where=problem.where,
            remedy="Explain runs of a model with likelihoods: the embedded engine, transformers, or a "
            "completions server that echoes prompts (vLLM).",
        )
    return provider


def check_inside(provider: Provider, method: str, attention: int) -> None:
    """Raise UserError where the model is not at hand, and gradients or attention are wanted."""
    what = "gradients" if method in GRADIENTS else "attention" if attention else ""
    if what and capability(provider, LooksInside) is None:
        raise UserError(
            f"provider '{provider.spec.provider}' gives no {what}",
            where=f"model {provider.spec.id}",
            remedy="Gradients and attention need provider: transformers; occlusion, shapley, owen do not.",
        )


def for_texts(model: ModelSpec) -> ModelSpec:
    """The model, asked with raw texts."""
    if getattr(model.options, "api", None) != "chat":
        return model
    return model.model_copy(update={"options": model.options.model_copy(update={"api": "completions"})})


def _number(value: Any, model: str) -> float:
    if value is None:
        raise UserError(
            "the model does not tell how likely the text is",
            where=f"model {model}",
            exit_code=ExitCode.INCOMPLETE,
        )
    return float(value)


@dataclass(frozen=True)
class _Questions:
    """Texts to ask about: they stand for a dataset and for the renderer of its prompt."""

    prompts: Sequence[str]
    ask: Ask

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Item]:
        for at in range(len(self.prompts)):
            yield Item(str(at), at, {}, None)

    def render(self, item: Item) -> Rendered:
        return Rendered((), self.prompts[item.position], self.ask)


class _Reader:
    def evaluate(self, output: str, *_: object, **__: object) -> Scored:
        return Scored(Status.SCORED, None, None, {}, {})


class _Collector:
    def __init__(self, into: dict[str, SampleRecord]) -> None:
        self._into = into

    def sample(self, run_id: str, record: SampleRecord) -> None:
        """Keep it."""
        self._into[record.sample_id] = record

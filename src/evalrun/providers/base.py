"""What every provider is: one small protocol that HTTP servers, managed engines and batch engines fit.

A provider turns a request into a response. It never retries, never waits for a rate limit and sets no
deadline: those belong to the runner's one retry layer, which cancels `generate` when time is up.
To add one: a file in this folder with a subclass of `Provider`, and a line in `evalrun.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import BaseModel

from evalrun import registry
from evalrun.errors import Problem
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Via

if TYPE_CHECKING:
    from evalrun.providers.embeddings import Embedded
    from evalrun.suite.components import ModelSpec


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """Where and how a provider works.

    `base_dir` is the suite's folder (relative paths start there), `work_dir` takes logs,
    `deterministic` asks for the same answers whatever the concurrency, `seed` is the suite's root seed.
    """

    base_dir: Path
    work_dir: Path
    deterministic: bool = False
    seed: int = 0


class Provider(ABC):
    """The adapter between requests and one model.

    The life of one: made (checks what can be checked without sending anything), `start`, many
    `generate` at the same time in one event loop, `close`.
    """

    Options: ClassVar[type[BaseModel]]
    shorthand: ClassVar[str | None] = None
    summary: ClassVar[str]
    supports: ClassVar[frozenset[str]] = frozenset({"chat"})
    """Of "chat", "completions", "stream", "json_schema" (answers by a schema: response_format), "embeddings",
    and of what likelihoods may come from: "prompt_logprobs",
    "first_token"."""
    measured: ClassVar[bool] = True
    """False where answers are only looked up: no latency, no throughput, and nothing to cache."""
    batched: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    """Whether other processes may send its requests: it asks over a network, each request on its own."""

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        self.spec = spec
        self.context = context

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """The thing that limits are shared on: "http://host:port", "local:llamacpp"."""

    def unfit(self, via: Via) -> Problem | None:
        """Why it cannot answer requests for likelihoods that come from there; None where it can."""
        where = f"model {self.spec.id}"
        if via not in self.supports:
            what = f"provider '{self.spec.provider}' gives no log-probabilities of " + (
                "prompts" if via == "prompt_logprobs" else "first tokens"
            )
            remedy = "Use via: first_token, or leave the model out with 'exclude'."
            if via == "first_token" or "first_token" not in self.supports:
                remedy = "Ask in another way, or leave the model out with 'exclude'."
            return Problem(what, where, remedy)
        if via == "prompt_logprobs" and getattr(self.spec.options, "api", "completions") == "chat":
            what = "likelihoods of texts need api: completions; chat endpoints do not give them"
            return Problem(what, where, "Set api: completions for the model, or use via: first_token.")
        return None

    def check(self, columns: Collection[str], where: str) -> Problem | None:
        """What keeps it from answering about rows with these columns; `where` names the dataset."""
        return None

    @property
    def default_concurrency(self) -> int | None:
        """How many requests to keep in flight when the suite does not say. None: adaptive."""
        return None

    @property
    def engine_pid(self) -> int | None:
        """Root of the process tree whose memory is the engine's, where the engine is ours."""
        return None

    @property
    def workers(self) -> int:
        """How many other processes send its requests."""
        return 0

    def take_lags(self) -> list[Mapping[int, int]]:
        """How late the event loops of those processes were since this was last asked: for each, steps of
        `LagWatch` and how often."""
        return []

    def twin(self) -> tuple[ModelSpec, Mapping[str, str]]:
        """After `start`, where it `spreads`: a model entry with which another process asks the same server,
        and environment variables that it needs besides ours."""
        return self.spec, {}

    async def diagnose(self, error: ProviderError) -> ProviderError:
        """What a failed request truly was: an engine of ours that ended, where that is the reason."""
        return error

    def pins(self) -> dict[str, JSON]:
        """Digests of what will answer, told without starting or fetching it; empty where only the endpoint
        knows. May read large files once."""
        return {}

    def knows_price(self) -> bool:
        """Whether its responses say what they cost, so that the suite need not name prices."""
        return False

    @abstractmethod
    async def start(self) -> None:
        """Make it ready to answer. Raises UserError (exit 3) with a remedy when that cannot be."""

    @abstractmethod
    async def close(self) -> None:
        """Free everything. Safe at any time and any number of times."""

    @abstractmethod
    def identity(self) -> dict[str, JSON]:
        """After `start`: everything of endpoint, model, weights and engine that shapes an answer.

        It goes into the cache key and the manifest; it holds no secret.
        """

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """The embeddings of texts, where `supports` has "embeddings". Raises ProviderError; never retries."""
        raise ProviderError(ErrorKind.BAD_REQUEST, f"provider '{self.spec.provider}' makes no embeddings")

    async def engine_stats(self) -> dict[str, float]:
        """What the engine says of itself now (names as in `vllm_metrics.FIGURES`); empty where it says
        nothing. Asked about once a second while a run runs; may raise anything."""
        return {}

    @abstractmethod
    async def generate(self, request: Request) -> Response:
        """Answer one request. Raises ProviderError; never retries; may be cancelled at any await."""


class BatchProvider(Provider):
    """A provider that answers many requests in one call (offline engines)."""

    batched: ClassVar[bool] = True

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """The most requests one call takes."""

    @abstractmethod
    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Response | ProviderError]:
        """Answer all requests: one entry each, in their order; a failed one is its ProviderError."""

    async def generate(self, request: Request) -> Response:
        """Answer one request as a batch of one."""
        (answer,) = await self.generate_batch([request])
        if isinstance(answer, ProviderError):
            raise answer
        return answer


def create(spec: ModelSpec, context: ProviderContext) -> Provider:
    """The provider that a model of the suite names, not yet started.

    Raises UserError when the name is unknown or the model entry cannot work (an unset key variable).
    """
    provider_class = cast("type[Provider]", registry.load("provider", spec.provider))
    return provider_class(spec, context)

"""What every provider is: a small core, and what only some can do besides, each a small class of its own.

A provider turns a request into a response. It never retries, never waits for a rate limit and sets no
deadline: those belong to the runner's one retry layer, which cancels `generate` when time is up.
To add one: a file in this folder with a subclass of `Provider` (of `http_provider.ServerProvider` where it
asks a server), with `@provider("name")` above it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, cast, get_args

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from evalrun import registry
from evalrun.errors import Problem
from evalrun.frozen import frozen
from evalrun.types import JSON, Message, ProviderError, Request, Response, Via

if TYPE_CHECKING:
    from evalrun.providers.embeddings import Embedded
    from evalrun.suite.components import ModelSpec


@frozen
class ProviderContext:
    """Where and how a provider works.

    `base_dir` is the suite's folder (relative paths start there), `work_dir` takes logs,
    `deterministic` asks for the same answers whatever the concurrency, `seed` is the suite's root seed.
    """

    base_dir: Path
    work_dir: Path
    deterministic: bool = False
    seed: int = 0


class ProviderOptions(BaseModel):
    """The base of what a model entry may say besides the common keys: no unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


OptionsT = TypeVar("OptionsT", bound=BaseModel, default=BaseModel, covariant=True)


class Provider(ABC, Generic[OptionsT]):
    """The adapter between requests and one model: `class Mine(Provider[MyOptions])`.

    The life of one: made (checks what can be checked without sending anything), `start`, many
    `generate` at the same time in one event loop, `close`.
    """

    Options: ClassVar[type[BaseModel]] = ProviderOptions
    shorthand: ClassVar[str | None] = None
    summary: ClassVar[str]
    supports: frozenset[str] = frozenset({"chat"})
    """Of "chat", "completions", "stream", "json_schema" (answers by a schema: response_format), and of what
    likelihoods may come from: "prompt_logprobs", "first_token". An instance may differ from its class."""
    parameters: ClassVar[frozenset[str] | None] = None
    """Names of the generation parameters that what is asked knows; others are refused before anything is
    sent, unless the model entry allows them. None: any."""
    measured: bool = True
    """False where answers are only looked up, or come by a batch API: no latency, no throughput."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for argument in (
            argument for base in vars(cls).get("__orig_bases__", ()) for argument in get_args(base)
        ):
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                cls.Options = argument

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        self.spec = spec
        self.context = context
        self.options = cast("OptionsT", spec.options)

    @property
    def endpoint(self) -> str:
        """The thing that limits are shared on: "http://host:port"; "local:…" for engines on this machine."""
        return f"{self.spec.provider}:{self.spec.id}"

    @property
    def default_concurrency(self) -> int | None:
        """How many requests to keep in flight when the suite does not say. None: adaptive."""
        return None

    async def start(self) -> None:
        """Make it ready to answer. Raises UserError (exit 3) with a remedy when that cannot be."""

    async def close(self) -> None:
        """Free everything. Safe at any time and any number of times."""

    @abstractmethod
    def identity(self) -> dict[str, JSON]:
        """After `start`: everything of endpoint, model, weights and engine that shapes an answer.

        It goes into the cache key and the manifest; it holds no secret.
        """

    def credentials(self) -> dict[str, str]:
        """What is secret of how the model is asked, by where it stands: values of variables that the options
        name, and options that hold a secret (userinfo of an address, a token in `extra_body` or `args`).

        Two models that differ in it may be answered differently. It never reaches a disk: see
        `runner.cache.secret_digest`.
        """
        import os

        from evalrun.canonical import canonical_json
        from evalrun.secrets import scrub_json

        found: dict[str, str] = {}
        for name, value in self.options.model_dump(mode="json").items():
            if name.endswith("_env"):
                variables = value if isinstance(value, dict) else {"": value}
                for key, variable in variables.items():
                    if isinstance(variable, str):
                        place = f"{name}.{key}" if key else name
                        found[f"{place}={variable}"] = os.environ.get(variable, "")
            elif value and scrub_json(value) != value:
                found[name] = canonical_json(value).decode()
        return found

    @abstractmethod
    async def generate(self, request: Request) -> Response:
        """Answer one request. Raises ProviderError; never retries; may be cancelled at any await."""


class BatchProvider(Provider[OptionsT]):
    """A provider that answers many requests in one call (offline engines)."""

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


# --- capabilities: what only some providers can do ------------------------------------------------------


class Embeds:
    """Makes embeddings."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """The embeddings of texts. Raises ProviderError; never retries."""
        raise NotImplementedError


class RunsEngine:
    """Has an engine whose memory and figures can be read: one of our own, or one that speaks of itself."""

    @property
    def engine_pid(self) -> int | None:
        """Root of the process tree whose memory is the engine's, where the engine is ours."""
        return None

    async def engine_stats(self) -> dict[str, float]:
        """What the engine says of itself now (names as in `engine.FIGURES`); empty where it says
        nothing. Asked about once a second while a run runs; may raise anything."""
        return {}


class Cloneable:
    """Asks over a network, each request on its own: other processes may send its requests."""

    spec: ModelSpec

    def clone(self) -> tuple[ModelSpec, Mapping[str, str]]:
        """After `start`: a model entry with which another process asks the same server, and environment
        variables that it needs besides ours."""
        return self.spec, {}

    async def diagnose(self, error: ProviderError) -> ProviderError:
        """What a failed request truly was: an engine of ours that ended, where that is the reason."""
        return error


class Punctual:
    """Sends a request at its `due_ns` and makes it ready before, so that it may be handed over earlier."""


class HasWorkers:
    """Other processes send its requests."""

    @property
    def workers(self) -> int:
        """How many."""
        raise NotImplementedError

    def take_lags(self) -> list[Mapping[int, int]]:
        """How late the event loops of those processes were since this was last asked: for each, steps of
        `LagWatch` and how often."""
        raise NotImplementedError


class ReadsRows:
    """Answers from the rows of the dataset."""

    def check(self, columns: Collection[str], where: str) -> Problem | None:
        """What keeps it from answering about rows with these columns; `where` names the dataset."""
        raise NotImplementedError


class Pinned:
    """Knows what will answer before it is started."""

    def pins(self) -> dict[str, JSON]:
        """Digests of what will answer, known without starting or fetching it; empty where only the endpoint
        knows. May read large files once."""
        raise NotImplementedError


class Priced:
    """Says with its responses what they cost."""

    def knows_price(self) -> bool:
        """Whether it does for this model, so that the suite need not name prices."""
        raise NotImplementedError


class RendersChat:
    """Says what its chat template makes of messages: the text that the model reads."""

    async def chat_text(self, messages: Sequence[Message]) -> str:
        """After `start`: the whole text with the beginning of the answer, as `api: completions` takes it.
        Raises ProviderError where the server does not tell."""
        raise NotImplementedError


class LooksInside:
    """Has the model at hand: gradients and attention."""

    async def look(self, what: str, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        """After `start`: what `transformers_inside.Inside` tells of it. Raises ProviderError."""
        raise NotImplementedError


CapabilityT = TypeVar("CapabilityT")


def capability(provider: Provider, kind: type[CapabilityT]) -> CapabilityT | None:
    """The provider, or the one that it wraps as `inner`, where that is of the kind; None where none is."""
    seen: Provider | None = provider
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = getattr(seen, "inner", None)
    return None


def likelihood_problem(provider: Provider, via: Via) -> Problem | None:
    """Why it cannot answer requests for likelihoods that come from there; None where it can."""
    if via in provider.supports:
        return None
    provider = getattr(provider, "inner", provider)
    spec = provider.spec
    where, remedy = f"model {spec.id}", "Ask in another way, or leave the model out with 'exclude'."
    if via in type(provider).supports:
        what = "likelihoods of texts need api: completions; chat endpoints do not give them"
        return Problem(what, where, "Set api: completions for the model, or use via: first_token.")
    if getattr(spec.options, "likelihood", None) is False:
        what = "the function does not say that it gives likelihoods"
        return Problem(what, where, "Set likelihood: true for the model if it does.")
    if via == "prompt_logprobs" and "first_token" in provider.supports:
        remedy = "Use via: first_token, or leave the model out with 'exclude'."
    source = "prompts" if via == "prompt_logprobs" else "first tokens"
    return Problem(f"provider '{spec.provider}' gives no log-probabilities of {source}", where, remedy)


ProviderT = TypeVar("ProviderT", bound=Provider)


def provider(name: str) -> Callable[[type[ProviderT]], type[ProviderT]]:
    """Declares a class in this folder as the provider of that name: `registry` reads it from the file."""
    return lambda declared: declared


def create(spec: ModelSpec, context: ProviderContext) -> Provider:
    """The provider that a model of the suite names, not yet started.

    Raises UserError when the name is unknown or the model entry cannot work (an unset key variable).
    """
    provider_class = cast("type[Provider]", registry.load("provider", spec.provider))
    return provider_class(spec, context)

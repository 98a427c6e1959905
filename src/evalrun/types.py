"""The core values that flow from room to room: small, frozen, typed.

All times named `*_ns` are readings of `time.perf_counter_ns()`; all `*_s` are durations in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform

from evalrun.frozen import frozen

JSON: TypeAlias = Any
"""A value that JSON can hold: None, bool, int, float, str, list or dict of the same."""

Row: TypeAlias = Mapping[str, JSON]
"""One dataset row: column name to value."""

Direction: TypeAlias = Literal["higher", "lower", "none"]
"""Which way a metric gets better; "none" for figures that only describe."""


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def hot_value(cls: type[_T]) -> type[_T]:
    """A value that is made for every request: frozen to the type checker, and to every reader.

    At run time it is a plain dataclass without slots: a frozen one takes three times as long to make, and one
    with slots six times as long to write as JSON, which adds up to several per cent of the runner's time.
    """
    return dataclass(cls)


class Status(StrEnum):
    """What became of a sample. The four are counted apart everywhere."""

    SCORED = "scored"
    UNPARSED = "unparsed"
    REFUSED = "refused"
    FAILED = "failed"


class ErrorKind(StrEnum):
    """Why an attempt failed."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMIT = "rate_limit"
    SERVER = "server"
    BAD_REQUEST = "bad_request"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    BILLING = "billing"
    PROTOCOL = "protocol"
    TRUNCATED = "truncated"
    ENGINE = "engine"
    MISSING = "missing"
    APPLICATION = "application"


RETRYABLE: frozenset[ErrorKind] = frozenset(
    {
        ErrorKind.TIMEOUT,
        ErrorKind.CONNECTION,
        ErrorKind.RATE_LIMIT,
        ErrorKind.SERVER,
        ErrorKind.PROTOCOL,
        ErrorKind.TRUNCATED,
    }
)
"""Kinds that asking again may fix. 400, 401, 402, 403, 404 and 422, and a 429 that says that the account has
nothing left (`billing`), are never asked again."""


class ProviderError(Exception):
    """An attempt that gave no usable answer. Raised by providers, handled by the runner's retry layer.

    `retry_after_s` is what the server asked for, if it did. `message` holds no secret.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.message = message
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        super().__init__(f"{kind}: {message}")


@hot_value
class Message:
    """One chat message. `content` is text, or a list of parts as the chat API has them."""

    role: str
    content: JSON


Via: TypeAlias = Literal["prompt_logprobs", "first_token"]
"""Where the likelihood of a text comes from: its own log-probabilities as part of a prompt, or those of the
first generated token."""

By: TypeAlias = Literal["sum", "per_token", "per_byte"]
"""What decides between options: the log-likelihood, or that divided by its tokens or by its UTF-8 bytes."""


@hot_value
class Ask:
    """What is wanted of a request besides or in place of an answer in words.

    `choose`: which of `options` the model finds likeliest after the prompt, `separator` standing between the
    two; `answers` are what the options stand for. `perplexity`: how likely the text of the prompt is, after
    `context`, which is not counted. `top` is how many first tokens are looked at.

    For published tasks, as lm-evaluation-harness asks them (see `providers.token_ids`): `pairs`, how likely
    the second text of each is after the first; of the first ones `answers` says which are options.
    `rolling`, how likely the text of the prompt is, in windows of `max_length` tokens.

    `tokens`: as `choose`, with each option's log-probability token by token, to explain an answer by.
    """

    kind: Literal["choose", "perplexity", "pairs", "rolling", "tokens"]
    via: Via = "prompt_logprobs"
    by: By = "sum"
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    separator: str = ""
    context: str = ""
    top: int = 20
    pairs: tuple[tuple[str, str], ...] = ()
    max_length: int = 0

    @property
    def continuations(self) -> tuple[str, ...]:
        """What follows the prompt for each option."""
        return tuple(self.separator + option for option in self.options)


@hot_value
class Request:
    """One question to a model: either `messages`, or a raw text `prompt` (completion style).

    `params` are the generation parameters as sent (temperature, max_tokens, stop, seed, …).
    `row` is the dataset row it came from; only providers that look answers up read it. `ask` is None where
    an answer in words is wanted. `exact`, where it is not 0, says that it is asked as lm-evaluation-harness
    does: a text goes as token ids where the server has a tokenizer, cut on the left to so many tokens with
    the answer, and the answer is kept as it is, reasoning and all. `due_ns` is when it is to be sent (by
    `perf_counter_ns`); None: at once. Providers that are `Punctual` and worker processes keep to it.
    """

    sample_id: str
    repeat: int
    messages: tuple[Message, ...]
    prompt: str | None
    params: Mapping[str, JSON]
    row: Row
    stream: bool = False
    ask: Ask | None = None
    exact: int = 0
    due_ns: int | None = None


@hot_value
class Timing:
    """Clock readings around the wire for the attempt that succeeded.

    `first_ns` is the arrival of the first chunk with content (text, reasoning or tool call), `last_ns`
    of the last such chunk (whole body when not streaming). `first_chunk_tokens` is known only where
    the server says so. `gaps` are the microseconds between chunks, 0 for those of one read; None where
    nothing was measured: one chunk, or all at one moment.
    """

    sent_ns: int
    last_ns: int
    first_ns: int | None = None
    chunks: int = 0
    first_chunk_tokens: int | None = None
    gaps: list[int] | None = None


@hot_value
class Response:
    """What a model answered. `timing` is None where nothing was measured (recorded answers).

    `likelihood` is the answer to an `Ask`: for `choose` `{"options": [{"logprob", "tokens"}, …]}` in the
    order of the options, for `perplexity` `{"logprob", "tokens", "bytes", "words"}`; natural logarithms.
    For `tokens` options also have `spans` (from where to where each token reaches in the option) and
    `logprobs`, and beside them stands `context`, the spans of the prompt's tokens, where these are known.
    """

    output: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    timing: Timing | None = None
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: JSON = None
    logprobs: JSON = None
    model: str | None = None
    fingerprint: str | None = None
    cost_usd: float | None = None
    likelihood: JSON = None
    cached_prompt_tokens: int | None = None
    """Of the prompt's tokens, those that the provider had in its cache, where it says so."""


@hot_value
class Attempt:
    """One try at a request: when it began (seconds after the sample was scheduled), how long it took,
    how it ended (`error` is None for the one that succeeded), and how long we then waited."""

    start_s: float
    duration_s: float
    error: str | None = None
    message: str | None = None
    wait_s: float = 0.0


@hot_value
class Score:
    """One scorer's verdict on one sample.

    `value` is None where the scorer cannot say (a judge's grade off its menu): such a sample is unscored
    for this scorer, out of n, and counted. `parts` holds further named values of the same scorer.
    """

    value: float | None
    reason: str
    parts: Mapping[str, float | None] = field(default_factory=dict)


@hot_value
class SampleRecord:
    """Everything known about one sample: a journal line while running, a Parquet row afterwards.

    `sent_s` and `done_s` are seconds after the start of the run's measurement clock, for windows and
    rates; `scheduled_s` is when the request was due, for runs under load. `error` is "kind: message" for a
    failed sample and the parser's reason for an unparsed one.
    """

    sample_id: str
    repeat: int
    position: int
    vars: Mapping[str, JSON]
    target: JSON
    status: Status
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    output: str | None = None
    answer: JSON = None
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_s: float | None = None
    e2e_s: float | None = None
    tpot_s: float | None = None
    client_queue_s: float | None = None
    sent_s: float | None = None
    done_s: float | None = None
    scheduled_s: float | None = None
    attempts: int = 0
    attempt_log: tuple[Attempt, ...] = ()
    cached: bool = False
    warmup: bool = False
    cost_usd: float | None = None
    reasoning: str | None = None
    tool_calls: JSON = None
    model: str | None = None
    fingerprint: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    sensitive: Mapping[str, str | None] = field(default_factory=dict)
    cluster: str | None = None
    logprobs: JSON = None
    likelihood: JSON = None
    cached_prompt_tokens: int | None = None
    chunk_gaps: list[int] | None = None
    """Microseconds between the chunks of a streamed answer, in their order; see `Timing.gaps`."""


@frozen
class Clustering:
    """What clusters do to a figure.

    `count` clusters are by their sizes worth `effective` equal ones: (sum m)² / sum m². `df` are the degrees
    of freedom of its t interval. `design_effect` is the variance over that of as many independent samples,
    `icc` the intraclass correlation: the share of the variance that lies between clusters (by analysis of
    variance; below 0 where rows of a cluster differ more than those of different ones). None where they
    cannot be had.
    """

    count: int
    effective: float
    df: float | None = None
    design_effect: float | None = None
    icc: float | None = None


@frozen
class MetricValue:
    """An aggregate over samples, with all that is needed to defend it.

    `slice` says which samples it speaks of ({} for all, {"dialect": "aave"} for a group). `value` is None
    where the data cannot support the figure, and `note` then says why. `method` names how the interval was
    made (wilson, t, clustered-t, bootstrap, block-bootstrap, fisher-z, logit-t, log-t, order-statistic,
    woodruff, betting, or ""
    where there is none). `scorer` names the scorer whose metric it is; empty for evalrun's own (speed, cost,
    rates, gaps of them). `clusters` is None for figures of independent samples. `incomplete` says that more
    of its rows were lost than the suite tolerates; it then lies between `bound_low` and `bound_high` whatever
    the lost rows would have scored (None: no such bound).
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "ignore"}  # a later version may say more

    name: str
    value: float | None
    n: int
    unit: str
    direction: Direction
    slice: Mapping[str, str] = field(default_factory=dict)
    se: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    method: str = ""
    note: str = ""
    scorer: str = ""
    clusters: Clustering | None = None
    incomplete: bool = False
    bound_low: float | None = None
    bound_high: float | None = None

    def document(self) -> dict[str, JSON]:
        """As JSON; what only incomplete figures have is left out of the others."""
        # By hand, since `asdict` takes a hundred times as long, and a sweep of many runs has many of these.
        document: dict[str, JSON] = {key: getattr(self, key) for key in self.__match_args__}
        document["slice"] = dict(self.slice)
        document["clusters"] = None if self.clusters is None else asdict(self.clusters)
        if not self.incomplete:
            for key in ("incomplete", "bound_low", "bound_high"):
                del document[key]
        return document


@frozen
class Counts:
    """How the samples of a run ended. scored + unparsed + refused + failed = samples.

    `cached`, `warmup` and `retried` overlap with those.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "ignore"}

    samples: int = 0
    scored: int = 0
    unparsed: int = 0
    refused: int = 0
    failed: int = 0
    cached: int = 0
    warmup: int = 0
    retried: int = 0


PERTURB = "perturb"
"""The column of groups that says of a perturbed dataset's samples which version they are."""

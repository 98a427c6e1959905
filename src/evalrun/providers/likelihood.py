"""Log-likelihoods of texts from the token log-probabilities that servers give, and how these are asked for.

Where the context ends and an option begins is decided by characters, never by counting the tokens of the
context alone: a token may reach over the boundary ("Answer:" + " A" may be cut "Answer", ": A"). Then the
boundary is moved back, for all options alike, to the nearest place at which every option has a boundary
between tokens. All options are then scored from the same place, so that their log-likelihoods compare.
(lm-evaluation-harness, `TemplateLM._encode_pair`, moves trailing spaces to the option and cuts there by the
number of tokens of the context alone, which is off where a token reaches over.)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from evalrun.providers.http_provider import json_bytes
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.openai_api import OpenAIAPI

_HALF = "\ufffd"
"""What a token that holds only some bytes of a character is shown as."""
_RAW = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t"})
"""How vocabularies write white space; some servers show tokens so."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scored:
    """A text with its tokens: from where to where each reaches in it (a token that stands for no text, such
    as a begin-of-text token, is empty), and its log-probability, None where the server gives none."""

    text: str
    spans: Sequence[Span]
    logprobs: Sequence[float | None]
    greedy: Sequence[bool] = ()
    """Whether each token is the likeliest at its place; empty where the server does not say."""


@dataclass(frozen=True, slots=True)
class Part:
    """Log-likelihood of a part of a text: `tokens` were scored, `unscored` begin the text unconditionally.
    `start` is where the scored part begins."""

    logprob: float
    tokens: int
    unscored: int
    start: int


def scored(text: str, logprobs: JSON, generated: int = 0) -> Scored:
    """A prompt that a completions server echoed with log-probabilities.

    `logprobs` has `tokens`, `token_logprobs` and perhaps `text_offset`; its last `generated` tokens are no
    part of the prompt. Raises ProviderError where the server gives none, or tokens of another text.
    """
    try:
        tokens, values = list(logprobs["tokens"]), list(logprobs["token_logprobs"])
        offsets = logprobs.get("text_offset")
        known = len(tokens) == len(values) > generated and all(isinstance(token, str) for token in tokens)
    except (LookupError, TypeError, AttributeError):
        known = False
    if not known:
        raise ProviderError(
            ErrorKind.BAD_REQUEST,
            "the server gives no log-probabilities of prompts (echo with logprobs in completions)",
        )
    kept = len(tokens) - generated
    known_spans = spans(text, tokens[:kept]) or _by_offset(text, offsets, kept)
    if known_spans is None:
        raise ProviderError(
            ErrorKind.BAD_REQUEST,
            "the tokens that the server gives log-probabilities of do not add up to the prompt that was sent",
        )
    tops = (logprobs.get("top_logprobs") or ())[: len(known_spans)]
    greedy = [not top or value == max(top.values()) for value, top in zip(values, tops, strict=False)]
    return Scored(text, known_spans, values[: len(known_spans)], greedy)


def spans(text: str, tokens: Sequence[str]) -> list[Span] | None:
    """Where each token stands in the text; None where they do not add up to it.

    Tokens that hold parts of characters share the span of all of them. A token that is not in the text at
    its place (begin of text) is empty. What follows the end of the text is left out.
    """
    spanned: list[Span] = []
    place, at = 0, 0
    while at < len(tokens) and (place < len(text) or not tokens[at]):
        token = tokens[at]
        if _HALF not in token:
            end = _end(text, place, token)
            spanned.append((place, place if end is None else end))
            place, at = spanned[-1][1], at + 1
            continue
        run = at
        while at < len(tokens) and _HALF in tokens[at]:
            at += 1
        end = _after_halves(text, place, tokens, run, at)
        if end is None:
            return None
        spanned += [(place, end)] * (at - run)
        place = end
    return spanned if place == len(text) else None


def _end(text: str, place: int, token: str) -> int | None:
    """Where a token ends that stands at a place, or None where it does not stand there."""
    for shown in (token, token.translate(_RAW)):
        if text.startswith(shown, place):
            return place + len(shown)
        if place == 0 and shown[:1] == " " and text.startswith(shown[1:]):
            return len(shown) - 1  # SentencePiece puts a space before every text
        if shown and text[place : place + 1] == " " and text.startswith(shown, place + 1):
            return place + 1 + len(shown)  # a space that decoding a single token drops
    return None


def _after_halves(text: str, place: int, tokens: Sequence[str], run: int, after: int) -> int | None:
    """Where a run of tokens with parts of characters ends: where the next whole token stands.

    Every such token holds a byte at least, and a character has four at most.
    """
    first = place + len(tokens[run].partition(_HALF)[0]) + 1
    if after == len(tokens):
        return len(text)
    longest = place + sum(len(token) for token in tokens[run:after]) + 1
    for end in range(first, min(longest, len(text)) + 1):
        if text.startswith(tokens[after], end):
            return end
    return len(text) if longest >= len(text) else None


def _by_offset(text: str, offsets: JSON, count: int) -> list[Span] | None:
    """The spans by the server's own offsets, where these make sense."""
    if not isinstance(offsets, list) or len(offsets) < count or not offsets:
        return None
    starts = [offset for offset in offsets[:count] if isinstance(offset, int)]
    if len(starts) != count or starts[0] != 0 or sorted(starts) != starts or starts[-1] > len(text):
        return None
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def common_boundary(texts: Sequence[Scored], boundary: int) -> int:
    """The last place, not after `boundary`, at which no token of any of the texts reaches over."""
    while True:
        over = [start for text in texts for start, end in text.spans if start < boundary < end]
        if not over:
            return boundary
        boundary = min(over)


def part(text: Scored, boundary: int) -> Part:
    """The log-likelihood of what follows a boundary. Raises ProviderError where none of it is scored."""
    total, tokens, unscored, start = 0.0, 0, 0, len(text.text)
    for at, ((begin, _), value) in enumerate(zip(text.spans, text.logprobs, strict=True)):
        if begin < boundary:
            continue
        if value is None:
            if at:
                raise ProviderError(ErrorKind.PROTOCOL, "the server left a log-probability out")
            unscored += 1
            continue
        total += max(float(value), -9999.0)
        tokens += 1
        start = min(start, begin)
    if not tokens:
        raise ProviderError(
            ErrorKind.BAD_REQUEST,
            "nothing is known of the likelihood of a text that is one token with nothing before it: "
            "put something before it",
        )
    return Part(total, tokens, unscored, start)


def chosen_by_prompts(texts: Sequence[Scored], context: int) -> dict[str, JSON]:
    """The likelihood of each option. `context` is the number of characters that all texts begin with."""
    boundary = common_boundary(texts, context)
    parts = [part(text, boundary) for text in texts]
    likelihood: dict[str, JSON] = {
        "options": [{"logprob": scored_part.logprob, "tokens": scored_part.tokens} for scored_part in parts]
    }
    if boundary < context:
        likelihood["moved"] = context - boundary
    if unscored := max(scored_part.unscored for scored_part in parts):
        likelihood["unscored"] = unscored
    return likelihood


def tokens_by_prompts(texts: Sequence[Scored], context: int) -> dict[str, JSON]:
    """As `chosen_by_prompts`, with every token of each option and its log-probability. A span that begins
    below 0 belongs to a token that reaches back into the prompt."""
    likelihood = chosen_by_prompts(texts, context)
    boundary = common_boundary(texts, context)
    for text, option in zip(texts, likelihood["options"], strict=True):
        known = [
            ([begin - context, end - context], max(float(value), -9999.0))
            for (begin, end), value in zip(text.spans, text.logprobs, strict=True)
            if begin >= boundary and value is not None
        ]
        option |= {"spans": [span for span, _ in known], "logprobs": [value for _, value in known]}
    likelihood["context"] = [[begin, end] for begin, end in texts[0].spans if begin < boundary]
    return likelihood


def text_likelihood(text: Scored, context: int) -> dict[str, JSON]:
    """The likelihood of what follows the context, with its tokens, UTF-8 bytes and words.

    Where nothing stands before the text, its first token has no probability: it is left out of all counts.
    """
    boundary = common_boundary([text], context)
    scored_part = part(text, boundary)
    counted = text.text[scored_part.start :]
    return {
        "logprob": scored_part.logprob,
        "tokens": scored_part.tokens,
        "bytes": len(counted.encode("utf-8", "replace")),
        "words": len(counted.split()),
        "unscored": scored_part.unscored,
    }


def chosen_by_first_token(logprobs: JSON, ask: Ask) -> dict[str, JSON]:
    """The likelihood that the answer begins as each option does: null for those not among the top tokens.

    The probabilities of all first tokens that begin one option and no other are added up, whatever white
    space they begin with. Raises ProviderError where the answer has no log-probabilities.
    """
    options = [option.strip() for option in ask.options]
    masses: list[list[float]] = [[] for _ in options]
    for token, value in _top(logprobs).items():
        word = token.translate(_RAW).strip()
        begun = [at for at, option in enumerate(options) if word and option.startswith(word)]
        whole = [at for at in begun if options[at] == word]
        if len(whole or begun) == 1:
            masses[(whole or begun)[0]].append(value)
    return {"options": [{"logprob": _sum(mass), "tokens": 1} for mass in masses]}


def _sum(values: Sequence[float]) -> float | None:
    """The logarithm of the sum of probabilities."""
    if not values:
        return None
    highest = max(values)
    return min(0.0, highest + math.log(sum(math.exp(value - highest) for value in values)))


def _top(logprobs: JSON) -> Mapping[str, float]:
    """The likeliest first tokens, in the form of chat or of completions."""
    try:
        if logprobs.get("content"):
            first = logprobs["content"][0]
            entries: list[Any] = [*(first.get("top_logprobs") or ()), first]
            return {entry["token"]: float(entry["logprob"]) for entry in entries}
        top = dict(logprobs["top_logprobs"][0])
        if logprobs.get("tokens"):
            top.setdefault(logprobs["tokens"][0], logprobs["token_logprobs"][0])
        return {token: float(value) for token, value in top.items()}
    except (LookupError, TypeError, AttributeError, ValueError):
        raise ProviderError(
            ErrorKind.BAD_REQUEST, "the server gives no log-probabilities of the first token (top_logprobs)"
        ) from None


def given_likelihood(value: JSON, ask: Ask) -> dict[str, JSON]:
    """What a function of the user's gave: for a choice a list with a log-likelihood for each option (a "
    "number,
    null, or a mapping with `logprob` and perhaps `tokens`); for a perplexity a mapping with `logprob`,
    `tokens`, `bytes` and `words`. Raises ProviderError (application) for anything else.
    """
    if ask.kind == "perplexity":
        wanted = ("logprob", "tokens", "bytes", "words")
        if not isinstance(value, Mapping) or not all(_is_number(value.get(name)) for name in wanted):
            raise _not_given(f"no mapping with the numbers {', '.join(wanted)}")
        return dict(value)
    if not isinstance(value, list | tuple) or len(value) != len(ask.options):
        raise _not_given(f"no list with one entry for each of the {len(ask.options)} options")
    options = [dict(entry) if isinstance(entry, Mapping) else {"logprob": entry} for entry in value]
    if not all(option.get("logprob") is None or _is_number(option["logprob"]) for option in options):
        raise _not_given("something else than log-probabilities")
    return {
        "options": [{"logprob": option.get("logprob"), "tokens": option.get("tokens")} for option in options]
    }


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _not_given(what: str) -> ProviderError:
    return ProviderError(ErrorKind.APPLICATION, f"the function's 'likelihood' is {what}")


# --- asking servers -------------------------------------------------------------------------------------

_Way = tuple[bool, int]
_WAYS: tuple[_Way, ...] = ((True, 0), (False, 0), (True, 1), (False, 1))
"""(texts in one list, tokens to generate): the OpenAI API lets both be; some servers generate one token."""


class TextLikelihoods(Protocol):
    """Asks a server for the likelihoods of texts."""

    async def answer(self, request: Request, ask: Ask) -> Response:
        """Answer one request. Raises ProviderError."""
        ...


class EchoLikelihoods:
    """Likelihoods of given texts from completions that echo their prompt with log-probabilities.

    All texts of one sample go in one request, as a list of prompts; servers that take no lists get them side
    by side. What a server takes is found out at the first samples and kept to.
    """

    def __init__(self, api: OpenAIAPI) -> None:
        self._api = api
        self._ways = _WAYS

    async def answer(self, request: Request, ask: Ask) -> Response:
        """Answer one request. Raises ProviderError; a server that gives no such thing is a bad request."""
        context, texts = asked_texts(request.prompt or "", ask)
        response, known = await self.by_a_way(request.params, texts)
        return replace(response, likelihood=likelihood_of(ask, known, context))

    async def by_a_way(
        self, params: Mapping[str, JSON], texts: Sequence[str]
    ) -> tuple[Response, list[Scored]]:
        """The texts with the log-probabilities of their tokens, by the first way that the server takes; what
        it refuses for another reason fails every way."""
        refused: ProviderError | None = None
        several = len(texts) > 1
        for way in self._ways if several else dict.fromkeys((False, tokens) for _, tokens in self._ways):
            try:
                answered = await self._ask(params, texts, way)
            except ProviderError as error:
                if error.kind is not ErrorKind.BAD_REQUEST:
                    raise
                refused = refused or error
            else:
                # One text alone tells how many tokens must be generated, and nothing of lists.
                self._ways = (way,) if several else tuple(other for other in self._ways if other[1] == way[1])
                return answered
        raise refused or ProviderError(ErrorKind.BAD_REQUEST, "there is nothing to ask")

    async def _ask(
        self, params: Mapping[str, JSON], texts: Sequence[str], way: _Way
    ) -> tuple[Response, list[Scored]]:
        together, generate = way
        batches = [list(texts)] if together else [[text] for text in texts]
        tasks = [asyncio.ensure_future(self._one(params, batch, together, generate)) for batch in batches]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return joined([response for response, _ in answers]), [text for _, texts in answers for text in texts]

    async def _one(
        self, params: Mapping[str, JSON], texts: list[str], together: bool, generate: int
    ) -> tuple[Response, list[Scored]]:
        body = {**self._api.common(params, stream=False), "echo": True, "logprobs": 1, "max_tokens": generate}
        body |= {"stream": False, "prompt": texts if together else texts[0]}
        body.pop("stream_options", None)
        return await self._api.post(
            None, json_bytes(body), lambda document, timing: read_echo(document, texts, generate, timing)
        )


def read_echo(
    document: JSON, texts: Sequence[str], generated: int, timing: Timing
) -> tuple[Response, list[Scored]]:
    """What a server said of the prompts that it echoed. Raises ProviderError; for what is not of the expected
    form LookupError, TypeError or AttributeError."""
    choices, response = read_choices(document, len(texts), timing)
    known = [
        scored(text, choice.get("logprobs"), generated) for text, choice in zip(texts, choices, strict=True)
    ]
    return response, known


def read_choices(document: JSON, prompts: int, timing: Timing) -> tuple[list[JSON], Response]:
    """The choices of a completion in the order of so many prompts, and an answer without text for all of
    them. Raises ProviderError where there is not one for each."""
    choices = sorted(document["choices"], key=lambda choice: choice.get("index") or 0)
    if len(choices) != prompts:
        what = f"the server gave {len(choices)} answers to {prompts} prompts"
        raise ProviderError(ErrorKind.BAD_REQUEST, what)
    usage = document.get("usage") or {}
    response = Response(
        output="",
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        timing=timing,
        model=document.get("model"),
        fingerprint=document.get("system_fingerprint"),
    )
    return choices, response


async def by_first_token(
    send: Callable[[Request], Awaitable[Response]], request: Request, *, chat: bool
) -> Response:
    """Answer a request for a choice by the first token, with whatever answers plain requests."""
    ask = request.ask
    if ask is None or ask.via != "first_token":
        raise ProviderError(ErrorKind.BAD_REQUEST, "only the likelihoods of first tokens are given here")
    response = await send(first_token_request(request, ask, chat=chat))
    return replace(response, likelihood=chosen_by_first_token(response.logprobs, ask), logprobs=None)


def first_token_request(request: Request, ask: Ask, *, chat: bool) -> Request:
    """A request for one token and the likeliest alternatives to it, in the form of chat or of completions."""
    top: dict[str, JSON] = {"logprobs": True, "top_logprobs": ask.top} if chat else {"logprobs": ask.top}
    params = {**request.params, "max_tokens": 1, "temperature": 0, **top}
    return replace(request, params=params, stream=False, ask=None)


def asked_texts(prompt: str, ask: Ask) -> tuple[int, list[str]]:
    """The whole texts to score, and with how many characters of context they all begin."""
    if ask.kind == "perplexity":
        return len(ask.context), [ask.context + prompt]
    return len(prompt), [prompt + continuation for continuation in ask.continuations]


def likelihood_of(ask: Ask, texts: Sequence[Scored], context: int) -> dict[str, JSON]:
    """What `Response.likelihood` holds."""
    if ask.kind == "tokens":
        return tokens_by_prompts(texts, context)
    return (
        text_likelihood(texts[0], context) if ask.kind == "perplexity" else chosen_by_prompts(texts, context)
    )


def joined(responses: Sequence[Response]) -> Response:
    """Several answers as one: from the first request sent to the last answer, with the tokens of all."""
    first = responses[0]
    if len(responses) == 1:
        return first
    timings = [response.timing for response in responses if response.timing is not None]
    timing = None
    if len(timings) == len(responses):
        timing = Timing(min(timing.sent_ns for timing in timings), max(timing.last_ns for timing in timings))
    return replace(
        first,
        prompt_tokens=_total([response.prompt_tokens for response in responses]),
        completion_tokens=_total([response.completion_tokens for response in responses]),
        timing=timing,
    )


def _total(counts: Sequence[int | None]) -> int | None:
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)

"""Asks a server of the OpenAI API for likelihoods: of given texts (completions that echo their prompt with
log-probabilities), or of the first token of an answer (top_logprobs).

All texts of one sample go in one request, as a list of prompts; servers that take no lists get them side by
side. What a server takes is found out at the first samples and kept to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.providers.faults import error_of_payload, shorten
from evalrun.providers.likelihood import (
    Scored,
    chosen_by_first_token,
    chosen_by_prompts,
    scored,
    text_likelihood,
)
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.chat_client import ChatClient

_Way = tuple[bool, int]
_WAYS: tuple[_Way, ...] = ((True, 0), (False, 0), (True, 1), (False, 1))
"""(texts in one list, tokens to generate): the OpenAI API lets both be; some servers generate one token."""


class LikelihoodClient:
    """Answers requests that carry an `Ask`, over the connections of a ChatClient."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._ways = _WAYS

    async def send(self, request: Request, ask: Ask) -> Response:
        """Answer one request. Raises ProviderError; a server that gives no such thing is a bad request."""
        chat = self._client.target.api == "chat"
        if ask.via == "first_token":
            return await by_first_token(self._client.send, request, chat=chat)
        if chat or request.prompt is None:
            raise ProviderError(ErrorKind.BAD_REQUEST, "likelihoods of texts need api: completions")
        context, texts = asked_texts(request.prompt, ask)
        response, found = await self._by_a_way(request.params, texts)
        return replace(response, likelihood=likelihood_of(ask, found, context))

    async def _by_a_way(
        self, params: Mapping[str, JSON], texts: Sequence[str]
    ) -> tuple[Response, list[Scored]]:
        """By the first way that the server takes; what it refuses for another reason fails every way."""
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
                self._ways = (way,) if several else tuple(each for each in self._ways if each[1] == way[1])
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
        return joined([response for response, _ in answers]), [each for _, found in answers for each in found]

    async def _one(
        self, params: Mapping[str, JSON], texts: list[str], together: bool, generate: int
    ) -> tuple[Response, list[Scored]]:
        target = self._client.target
        body: dict[str, JSON] = {} if target.model is None else {"model": target.model}
        body |= {**params, **target.extra_body}
        body |= {"echo": True, "logprobs": 1, "max_tokens": generate, "stream": False}
        body["prompt"] = texts if together else texts[0]
        body.pop("stream_options", None)
        try:
            data = orjson.dumps(body)
        except TypeError as error:
            what = f"the prompt cannot be written as JSON: {error}"
            raise ProviderError(ErrorKind.BAD_REQUEST, what) from error
        answer, sent_ns, done_ns = await self._client.post(data)
        return read_echo(answer, texts, generate, Timing(sent_ns, done_ns))


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
    return (
        text_likelihood(texts[0], context) if ask.kind == "perplexity" else chosen_by_prompts(texts, context)
    )


def read_echo(
    body: bytes, texts: Sequence[str], generated: int, timing: Timing
) -> tuple[Response, list[Scored]]:
    """What a server said of the prompts that it echoed. Raises ProviderError."""
    try:
        value: Any = orjson.loads(body)
        if isinstance(value, dict) and value.get("error"):
            raise error_of_payload(value["error"], 200)
        choices = sorted(value["choices"], key=lambda choice: choice.get("index") or 0)
        usage = value.get("usage") or {}
        model, fingerprint = value.get("model"), value.get("system_fingerprint")
    except orjson.JSONDecodeError:
        shown = shorten(body[:2000].decode("utf-8", "replace"))
        raise ProviderError(ErrorKind.PROTOCOL, f"the answer is not JSON: {shown}") from None
    except (LookupError, TypeError, AttributeError):
        raise ProviderError(ErrorKind.PROTOCOL, "the answer has no usable choices") from None
    if len(choices) != len(texts):
        what = f"the server gave {len(choices)} answers to {len(texts)} prompts"
        raise ProviderError(ErrorKind.BAD_REQUEST, what)
    found = [
        scored(text, choice.get("logprobs"), generated) for text, choice in zip(texts, choices, strict=True)
    ]
    response = Response(
        output="",
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        timing=timing,
        model=model,
        fingerprint=fingerprint,
    )
    return response, found


def joined(responses: Sequence[Response]) -> Response:
    """Several answers as one: from the first request sent to the last answer, with the tokens of all."""
    first = responses[0]
    if len(responses) == 1:
        return first
    timings = [each.timing for each in responses if each.timing is not None]
    timing = None
    if len(timings) == len(responses):
        timing = Timing(min(each.sent_ns for each in timings), max(each.last_ns for each in timings))
    return replace(
        first,
        prompt_tokens=_total([each.prompt_tokens for each in responses]),
        completion_tokens=_total([each.completion_tokens for each in responses]),
        timing=timing,
    )


def _total(counts: Sequence[int | None]) -> int | None:
    return None if any(each is None for each in counts) else sum(each or 0 for each in counts)

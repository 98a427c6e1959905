"""Engines of ours that are given whole batches: what is sent to their child process, and what comes back.

The child answers `POST /batch` (a JSON object with `api` and `requests`) with one JSON line for each request
as it finishes: see `vllm_child`, whose wire this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import orjson

from evalrun.providers.base import BatchProvider, OptionsT
from evalrun.providers.faults import shorten
from evalrun.providers.http_provider import ManagedEngine
from evalrun.providers.likelihood import (
    asked_texts,
    chosen_by_first_token,
    first_token_request,
    joined,
    likelihood_of,
    scored,
)
from evalrun.providers.openai_api import Api, has_form, wrong_form
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.answers import Event

_DEATH_PATIENCE_S = 15.0
_MOST_BYTES = 1 << 40
"""A batch is as large as the suite says; its answers come from a process of ours."""
Answer = Response | ProviderError


class BatchEngine(ManagedEngine, BatchProvider[OptionsT]):
    """Hands batches to an engine in a child process of ours."""

    @property
    def api(self) -> Api:
        """Whether messages or raw texts are sent."""
        raise NotImplementedError

    @property
    def default_concurrency(self) -> int | None:
        return 1

    async def death(self, patience_s: float) -> ProviderError | None:
        """The ENGINE error for an engine that is gone; None while it runs."""
        raise NotImplementedError

    def listen_to(self, port: int, key: str) -> None:
        """Speak to the engine at a port of this machine."""
        from evalrun.providers.http_client import HTTPClient

        headers = {"Authorization": f"Bearer {key}"}
        self.client = HTTPClient(f"http://127.0.0.1:{port}", headers, most_bytes=_MOST_BYTES)

    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer all requests. What was finished before an engine's death is kept."""
        client, api = self.client, self.api
        if client is None:
            return [ProviderError(ErrorKind.ENGINE, "the engine is not running")] * len(requests)
        batch = EntriesBatch([request for request in requests if has_form(request, api)], api, self.spec.id)
        fault = ""
        if batch.entries:
            body = orjson.dumps({"api": api, "requests": batch.entries})
            try:
                await client.post(client.below("batch"), body, _no_document, batch.begin, asked=True)
            except (ProviderError, orjson.JSONDecodeError, LookupError) as error:
                fault = error.message if isinstance(error, ProviderError) else str(error)
        lost = await self._lost(fault) if None in batch.answers else None
        answers = iter(batch.answers)
        return [
            next(answers) or cast("Answer", lost) if has_form(request, api) else wrong_form(api)
            for request in requests
        ]

    async def _lost(self, fault: str) -> ProviderError:
        reason = f": {fault}" if fault else ""
        cut = ProviderError(ErrorKind.TRUNCATED, f"the engine's answer broke off{reason}")
        return await self.death(_DEATH_PATIENCE_S) or cut


def _no_document(document: JSON, timing: Timing) -> None:
    raise LookupError("lines were asked for")


class EntriesBatch:
    """Requests as the engine is given them, and their answers while these come, a line for each entry.

    A request for likelihoods of texts has one entry a text, every other request one.
    """

    done = False

    def __init__(self, requests: Sequence[Request], api: Api, model: str) -> None:
        self._requests, self._api, self._model = requests, api, model
        self._sent_ns = 0
        self.entries: list[dict[str, JSON]] = []
        self.answers: list[Answer | None] = [None] * len(requests)
        self._owners: list[tuple[int, int]] = []  # of each entry: its request, and which part of it it is
        self._parts: list[list[dict[str, Any] | None]] = []
        for owner, request in enumerate(requests):
            entries = self._entries_of(request)
            self._owners += [(owner, number) for number in range(len(entries))]
            self._parts.append([None] * len(entries))
            self.entries += entries

    def begin(self, sent_ns: int) -> EntriesBatch:
        """The engine has been sent it."""
        self._sent_ns = sent_ns
        return self

    def feed(self, events: list[Event], now_ns: int) -> None:
        """Take the lines that arrived."""
        for line, _ in events:
            value = orjson.loads(line)
            owner, number = self._owners[value["index"]]
            parts = self._parts[owner]
            parts[number] = value
            if None not in parts:
                self.answers[owner] = self._whole(self._requests[owner], cast("list[dict[str, Any]]", parts))

    def feed_last(self, events: list[Event], now_ns: int) -> None:
        """A line that was cut short is no answer."""

    def response(self) -> None:
        """The answers stand in `answers`."""

    def _entries_of(self, request: Request) -> list[dict[str, JSON]]:
        ask, chat = request.ask, self._api == "chat"
        if ask is not None and ask.via == "prompt_logprobs":
            params = {**request.params, "max_tokens": 1, "prompt_logprobs": 0}
            _, texts = asked_texts(request.prompt or "", ask)
            return [{"prompt": text, "params": params} for text in texts]
        if ask is not None:
            request = first_token_request(request, ask, chat=chat)
        asked = {"messages": request.messages} if chat else {"prompt": request.prompt}
        return [{**asked, "params": request.params}]

    def _whole(self, request: Request, parts: Sequence[dict[str, Any]]) -> Answer:
        """The answer to a request from those to its entries."""
        answers = [self._response(part) for part in parts]
        for answer in answers:
            if isinstance(answer, ProviderError):
                return answer
        ask, first = request.ask, cast(Response, answers[0])
        if ask is None:
            return first
        try:
            if ask.via == "first_token":
                likelihood = chosen_by_first_token(first.logprobs, ask)
                return replace(first, likelihood=likelihood, logprobs=None)
            context, texts = asked_texts(request.prompt or "", ask)
            known = [
                scored(text, part.get("prompt_logprobs")) for text, part in zip(texts, parts, strict=True)
            ]
            whole = replace(joined(cast("list[Response]", answers)), output="", finish_reason=None)
            return replace(whole, likelihood=likelihood_of(ask, known, context))
        except ProviderError as error:
            return error

    def _response(self, value: dict[str, Any]) -> Answer:
        if "error" in value:
            return ProviderError(ErrorKind.BAD_REQUEST, shorten(str(value["message"])))
        return Response(
            output=value["output"],
            finish_reason=value["finish_reason"],
            prompt_tokens=value["prompt_tokens"],
            completion_tokens=value["completion_tokens"],
            timing=_timing(value.get("times"), self._sent_ns),
            logprobs=value.get("logprobs"),
            model=self._model,
        )


def _timing(times: Sequence[float | None] | None, sent_ns: int) -> Timing | None:
    """The engine's times, seconds after the batch reached it, on our clock: they begin where we sent it.

    The few milliseconds of the way there shift all three alike; the durations are the engine's.
    """
    if times is None:
        return None
    queued, first, last = (None if time is None else sent_ns + int(time * 1e9) for time in times)
    if queued is None or last is None:
        return None
    return Timing(queued, last, first, first_chunk_tokens=1 if first is not None else None)

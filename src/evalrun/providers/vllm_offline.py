"""vLLM without a server: whole batches to `vllm.LLM` in a child process, with the engine's own timings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, cast

import aiohttp
import orjson
from pydantic import BaseModel

from evalrun.errors import UserError
from evalrun.providers.base import BatchProvider, ProviderContext
from evalrun.providers.faults import shorten
from evalrun.providers.forms import has_form, wrong_form
from evalrun.providers.likelihood import chosen_by_first_token, scored
from evalrun.providers.likelihood_client import asked_texts, first_token_request, joined, likelihood_of
from evalrun.providers.vllm_child import KEY_VARIABLE
from evalrun.providers.vllm_options import (
    VLLMOptions,
    effective_engine_args,
    engine_environment,
    interpreter,
    model_argument,
    weights_identity,
)
from evalrun.providers.vllm_server import death_of, made_engine, started
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.engine import Engine
    from evalrun.suite.components import ModelSpec

_DEATH_PATIENCE_S = 15.0
_STATS_TIMEOUT = aiohttp.ClientTimeout(total=2)
_NO_DEADLINE = aiohttp.ClientTimeout(total=None)


class VLLMOffline(BatchProvider):
    """Hands batches to `vllm.LLM`. Made by `VLLM` where the suite says `mode: offline`.

    Timings are those of the engine core: time to first token runs from the moment the request stood in
    the engine's queue, so in a large batch it contains the wait for the requests before it.
    """

    Options: ClassVar[type[BaseModel]] = VLLMOptions
    shorthand: ClassVar[str | None] = None
    summary: ClassVar[str] = "vLLM offline, on whole batches"
    supports: ClassVar[frozenset[str]] = frozenset({"chat", "completions", "prompt_logprobs", "first_token"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.options = cast(VLLMOptions, spec.options)
        self._engine_args = effective_engine_args(self.options, context.deterministic)
        self._engine: Engine | None = None
        self._session: aiohttp.ClientSession | None = None
        self._address = ""
        self._identity: dict[str, JSON] = {}
        model_argument(spec, context)
        if "tools" in spec.params:
            raise UserError(
                "vLLM offline does not read tool calls",
                where=f"model {spec.id}",
                remedy="Use mode: server with engine_args enable_auto_tool_choice and tool_call_parser.",
            )

    @property
    def endpoint(self) -> str:
        return f"local:vllm:{self.spec.id}"

    @property
    def batch_size(self) -> int:
        return self.options.batch

    @property
    def default_concurrency(self) -> int | None:
        return 1

    @property
    def engine_pid(self) -> int | None:
        return self._engine.pid if self._engine is not None else None

    async def start(self) -> None:
        """Load the model in a child process. Raises UserError (exit 3) with the cause from its log."""
        if self._engine is not None:
            return
        options = self.options
        python = interpreter(options, self.spec, self.context.base_dir, os.environ)
        key = secrets.token_urlsafe(24)
        model = model_argument(self.spec, self.context)
        config: dict[str, JSON] = {
            "mode": "offline",
            "parent_pid": os.getpid(),
            "model": model,
            "engine_args": self._engine_args,
        }
        environment = {**engine_environment(options), KEY_VARIABLE: key}
        self._engine = made_engine(self.spec, self.context, options, python, config, environment)
        try:
            announced = await started(self._engine)
            self._identify(announced, model)
        except BaseException:
            await self.close()
            raise
        self._address = f"http://127.0.0.1:{announced['port']}"
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"}, timeout=_NO_DEADLINE, read_bufsize=2**24
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        engine, self._engine = self._engine, None
        try:
            if session is not None:
                await session.close()
        finally:
            if engine is not None:
                await engine.stop()

    def pins(self) -> dict[str, JSON]:
        if self.spec.model is None:
            return {}
        revision = self._engine_args.get("revision")
        return weights_identity(model_argument(self.spec, self.context), revision)

    def identity(self) -> dict[str, JSON]:
        return dict(self._identity)

    async def engine_stats(self) -> dict[str, float]:
        """What the engine says of itself now (see `vllm_metrics.FIGURES`); empty where it says nothing."""
        from evalrun.providers.engine_metrics import vllm_figures

        if self._session is None:
            return {}
        try:
            async with self._session.get(f"{self._address}/metrics", timeout=_STATS_TIMEOUT) as answer:
                return vllm_figures(await answer.text()) if answer.status == 200 else {}
        except (aiohttp.ClientError, OSError):
            return {}

    async def generate_batch(self, requests: Sequence[Request]) -> Sequence[Response | ProviderError]:
        """Answer all requests. What was finished before an engine's death is kept."""
        session, engine = self._session, self._engine
        if session is None or engine is None:
            return [ProviderError(ErrorKind.ENGINE, "the engine is not running")] * len(requests)
        answers: list[Response | ProviderError | None] = [None] * len(requests)
        places = [place for place, request in enumerate(requests) if self._fits(request, place, answers)]
        fault: Exception | None = None
        try:
            await self._ask(session, [requests[place] for place in places], places, answers)
        except (aiohttp.ClientError, OSError, orjson.JSONDecodeError, LookupError) as error:
            fault = error
        if None in answers:
            lost = await self._lost(engine, fault)
            return [lost if answer is None else answer for answer in answers]
        return cast("list[Response | ProviderError]", answers)

    def _fits(self, request: Request, place: int, answers: list[Response | ProviderError | None]) -> bool:
        if has_form(request, self.options.api):
            return True
        answers[place] = wrong_form(self.options.api)
        return False

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        requests: Sequence[Request],
        places: Sequence[int],
        answers: list[Response | ProviderError | None],
    ) -> None:
        if not requests:
            return
        entries, owners, parts = self._entries(requests)
        body = orjson.dumps({"api": self.options.api, "requests": entries})
        sent_ns = perf_counter_ns()
        async with session.post(f"{self._address}/batch", data=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                if not line.endswith(b"\n"):  # a line that was cut short is no answer
                    continue
                value = orjson.loads(line)
                owner, number = owners[value["index"]]
                parts[owner][number] = value
                if None not in parts[owner]:
                    found = cast("list[dict[str, Any]]", parts[owner])
                    answers[places[owner]] = self._whole(requests[owner], found, sent_ns)

    def _entries(
        self, requests: Sequence[Request]
    ) -> tuple[list[dict[str, JSON]], list[tuple[int, int]], list[list[dict[str, Any] | None]]]:
        """What the engine is given; of each entry the request and which part of it it is; room for the parts.

        A request for likelihoods of texts has one entry a text, every other request one.
        """
        entries: list[dict[str, JSON]] = []
        owners: list[tuple[int, int]] = []
        parts: list[list[dict[str, Any] | None]] = []
        for owner, request in enumerate(requests):
            found = self._entries_of(request)
            owners += [(owner, number) for number in range(len(found))]
            parts.append([None] * len(found))
            entries += found
        return entries, owners, parts

    def _entries_of(self, request: Request) -> list[dict[str, JSON]]:
        ask, chat = request.ask, self.options.api == "chat"
        if ask is not None and ask.via == "prompt_logprobs":
            params = {**request.params, "max_tokens": 1, "prompt_logprobs": 0}
            _, texts = asked_texts(request.prompt or "", ask)
            return [{"prompt": text, "params": params} for text in texts]
        if ask is not None:
            request = first_token_request(request, ask, chat=chat)
        asked = {"messages": request.messages} if chat else {"prompt": request.prompt}
        return [{**asked, "params": request.params}]

    def _whole(
        self, request: Request, parts: Sequence[dict[str, Any]], sent_ns: int
    ) -> Response | ProviderError:
        """The answer to a request from those to its entries."""
        answers = [self._response(each, sent_ns) for each in parts]
        for each in answers:
            if isinstance(each, ProviderError):
                return each
        ask, first = request.ask, cast(Response, answers[0])
        if ask is None:
            return first
        try:
            if ask.via == "first_token":
                found = chosen_by_first_token(first.logprobs, ask)
                return replace(first, likelihood=found, logprobs=None)
            context, texts = asked_texts(request.prompt or "", ask)
            known = [
                scored(text, each.get("prompt_logprobs")) for text, each in zip(texts, parts, strict=True)
            ]
            whole = replace(joined(cast("list[Response]", answers)), output="", finish_reason=None)
            return replace(whole, likelihood=likelihood_of(ask, known, context))
        except ProviderError as error:
            return error

    def _response(self, value: dict[str, Any], sent_ns: int) -> Response | ProviderError:
        if "error" in value:
            return ProviderError(ErrorKind.BAD_REQUEST, shorten(str(value["message"])))
        return Response(
            output=value["output"],
            finish_reason=value["finish_reason"],
            prompt_tokens=value["prompt_tokens"],
            completion_tokens=value["completion_tokens"],
            timing=_timing(value.get("times"), sent_ns),
            logprobs=value.get("logprobs"),
            model=self.spec.id,
        )

    async def _lost(self, engine: Engine, fault: Exception | None) -> ProviderError:
        death = await death_of(engine, _DEATH_PATIENCE_S)
        if death is not None:
            return death
        reason = f": {shorten(str(fault))}" if fault is not None and str(fault) else ""
        return ProviderError(ErrorKind.TRUNCATED, f"the engine's answer broke off{reason}")

    def _identify(self, announced: dict[str, Any], model: str) -> None:
        from evalrun.secrets import scrub_json

        self._identity = {
            "provider": "vllm",
            "mode": "offline",
            "api": self.options.api,
            "model": self.spec.model,
            **weights_identity(model, self._engine_args.get("revision")),
            "engine": {"vllm": announced.get("version")},
            "max_model_len": announced.get("max_model_len"),
            "engine_args": scrub_json(self._engine_args),
            "env": scrub_json(self.options.env),
        }


def _timing(times: Sequence[float | None] | None, sent_ns: int) -> Timing | None:
    """The engine's times, seconds after the batch reached it, on our clock: they begin where we sent it.

    The few milliseconds of the way there shift all three alike; the durations are the engine's.
    """
    if times is None:
        return None
    queued, first, last = (None if each is None else sent_ns + int(each * 1e9) for each in times)
    if queued is None or last is None:
        return None
    return Timing(queued, last, first, first_chunk_tokens=1 if first is not None else None)

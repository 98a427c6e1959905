"""inspect_ai asks through evalrun: `--model evalrun/MODEL@suite.yaml`.

Registered by an entry point of the group `inspect_ai`, which inspect_ai looks for when it meets the name.
Solvers and agents stay inspect's; each of their requests goes through evalrun's provider of the named model:
its address and key, its parameters, its cache, retries and deadline. Afterwards
`evalrun import inspect LOG` makes the log a sweep.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolChoice, ToolInfo

from evalrun.errors import UserError
from evalrun.paths import default_store
from evalrun.providers.base import ProviderContext, create
from evalrun.runner.attempts import RetryPolicy
from evalrun.runner.cache import KeyMaker, ResponseCache, secret_params
from evalrun.runner.limits import EndpointBudget
from evalrun.suite.load import load_suite
from evalrun.types import JSON, Message, ProviderError, Request, Response

if TYPE_CHECKING:
    from evalrun.providers.base import Provider
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.schema import Suite

_PARAMS = ("temperature", "max_tokens", "top_p", "seed", "frequency_penalty", "presence_penalty")
_STOPS = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


@modelapi(name="evalrun")  # type: ignore[untyped-decorator]
def evalrun() -> type[ModelAPI]:
    """The provider of `evalrun/MODEL@suite.yaml`."""
    return EvalrunAPI


class EvalrunAPI(ModelAPI):  # type: ignore[misc]
    """A model of a suite, for inspect_ai."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  (inspect's own signature)
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        name, at, file = model_name.partition("@")
        if not at:
            raise UserError(f"'{model_name}' names no suite", remedy="Write evalrun/MODEL@suite.yaml.")
        loaded = load_suite(Path(file))
        known = {model.id: model for model in loaded.suite.models}
        if name not in known:
            raise UserError(f"{file} has no model '{name}'", remedy=f"It has: {', '.join(known)}.")
        self._suite, self._spec = loaded.suite, known[name]
        store = Path(model_args.get("store") or os.environ.get("EVALRUN_STORE") or default_store())
        context = ProviderContext(
            loaded.base_dir, store / "engines", loaded.suite.deterministic, loaded.suite.seed
        )
        self._provider: Provider = create(self._spec, context)
        self._store, self._use_cache = store, bool(model_args.get("cache", True))
        self._cache: ResponseCache | None = None
        self._started: asyncio.Task[None] | None = None
        self._budget: EndpointBudget | None = None
        self._policy = RetryPolicy(retries=loaded.suite.performance.retries)

    def max_connections(self) -> int:
        """As many as the model or the suite says."""
        wanted = self._spec.concurrency or self._suite.performance.concurrency
        return wanted if isinstance(wanted, int) else 20

    async def aclose(self) -> None:
        """Close connections, end an engine."""
        await self._provider.close()
        if self._cache is not None:
            await self._cache.close()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Ask once; from the cache where the same was asked before."""
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        await asyncio.shield(self._started)
        params = self._params(tools, tool_choice, config)
        request = Request("", 0, tuple(_message(each) for each in input), None, params, {})
        response = await self._answered(request, config)
        return self._output(response)

    async def _start(self) -> None:
        await self._provider.start()
        self._budget = _budget_of(self._suite, self._spec, self._provider.endpoint)
        if self._use_cache and self._provider.measured:
            self._cache = ResponseCache(self._store / "cache" / "responses.db")

    async def _answered(self, request: Request, config: GenerateConfig) -> Response:
        if self._cache is None:
            return await self._asked(request)
        secrets = {**self._provider.credentials(), **secret_params(request.params)}
        keys = KeyMaker(self._provider.identity(), request.params, self._cache.credentials(secrets))
        self._cache.begin_run(keys)
        # Epochs ask the same again, and want another answer where the model draws; inspect gives no epoch
        # here, so only what is not drawn is looked up.
        drawn = request.params.get("temperature", 1) != 0 and request.params.get("seed") is None
        key = keys.key(request.messages, None, 0, None)
        if not drawn and (hit := self._cache.get_many([key]).get(key)) is not None:
            return hit
        response = await self._asked(request)
        if not drawn:
            self._cache.put(key, response, keys.parts(request))
            await self._cache.flush()
        return response

    async def _asked(self, request: Request) -> Response:
        """With evalrun's limits, retries and deadline; what the limits hold back does not count to it."""
        deadline_s = self._spec.timeout_s or self._suite.performance.timeout_s
        failed, left_s = 0, float(deadline_s)
        loop = asyncio.get_running_loop()
        while True:
            ticket = await self._budget.admit(request, lambda: False) if self._budget is not None else None
            begun_s, response = loop.time(), None
            try:
                async with asyncio.timeout(left_s):
                    response = await self._provider.generate(request)
                return response
            except ProviderError as error:
                failed += 1
                left_s -= loop.time() - begun_s
                wait = self._policy.wait_s(error, failed, left_s, random.Random(failed))
                if wait is None:
                    raise
            finally:
                if self._budget is not None and ticket is not None:
                    self._budget.settle(
                        ticket,
                        request,
                        None if response is None else response.prompt_tokens,
                        None if response is None else response.completion_tokens,
                    )
            await asyncio.sleep(wait)
            left_s -= wait

    def _params(
        self, tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> dict[str, JSON]:
        params: dict[str, JSON] = dict(self._spec.params)
        for name in _PARAMS:
            value = getattr(config, name, None)
            if value is not None:
                params[name] = value
        if config.stop_seqs:
            params["stop"] = config.stop_seqs
        if tools:
            params["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters.model_dump(exclude_none=True),
                    },
                }
                for tool in tools
            ]
            params["tool_choice"] = (
                tool_choice if isinstance(tool_choice, str) and tool_choice != "any" else "auto"
            )
        return params

    def _output(self, response: Response) -> ModelOutput:
        calls = [_call(each) for each in response.tool_calls or ()]
        message = ChatMessageAssistant(
            content=response.output or response.refusal or "", tool_calls=calls or None, model=response.model
        )
        choice = ChatCompletionChoice(
            message=message,
            stop_reason=_STOPS.get(response.finish_reason or "stop", "unknown"),
        )
        prompt, completion = response.prompt_tokens or 0, response.completion_tokens or 0
        usage = ModelUsage(input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion)
        timing = response.timing
        seconds = (timing.last_ns - timing.sent_ns) / 1e9 if timing is not None else None
        return ModelOutput(model=response.model or self._spec.id, choices=[choice], usage=usage, time=seconds)


_budgets: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, EndpointBudget | None]] = WeakKeyDictionary()
"""What an endpoint is sent a minute is one number for all who ask it: the evaluated model and a grader."""


def _budget_of(suite: Suite, asked: ModelSpec, endpoint: str) -> EndpointBudget | None:
    """The `limits:` of all models of the suite that are at this endpoint, together."""
    known = _budgets.setdefault(asyncio.get_running_loop(), {})
    if endpoint not in known:
        address = getattr(asked.options, "base_url", None)
        there = [
            each for each in suite.models if address and getattr(each.options, "base_url", "") == address
        ]
        known[endpoint] = EndpointBudget.of([each.limits for each in there or [asked]])
    return known[endpoint]


def _message(message: ChatMessage) -> Message:
    content: JSON = message.content
    if isinstance(content, list):
        content = "\n".join(part.text for part in content if getattr(part, "type", "") == "text")
    return Message(message.role, content)


def _call(call: JSON) -> ToolCall:
    import json

    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
        problem = None
    except ValueError as error:
        arguments, problem = {}, str(error)
    return ToolCall(
        id=call.get("id") or function.get("name", "call"),
        function=function.get("name", ""),
        arguments=arguments,
        parse_error=problem,
        type="function",
    )

"""The Messages API of Anthropic, over evalrun's own HTTP layer: the SDK would add a package and time to each
request, and nothing else that is needed.

Prompts and parameters are those of every other model (OpenAI's words); here they become the API's: system
text stands apart, images and tools have another form, `stop` is `stop_sequences`, and answers come back in
the words of the others (`stop`, `length`, `tool_calls`), so that one suite asks both alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator

from evalrun.errors import UserError
from evalrun.providers.answers import (
    StreamedAnswer,
    count,
    kept,
    reasoning_of,
    text_of,
    usage_of,
    whole_text,
    word,
)
from evalrun.providers.base import ProviderContext, provider
from evalrun.providers.batch_api import BATCH_KEY, Batches, BatchOptions, batch_options
from evalrun.providers.http_provider import ServerOptions, ServerProvider, http_address
from evalrun.providers.openai_api import wrong_form
from evalrun.providers.parameters import ANTHROPIC
from evalrun.suite.components import ModelSpec
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.providers.http_client import HTTPClient

ADDRESS = "https://api.anthropic.com/v1"
MAX_TOKENS = 4096
"""Of an answer, where the suite says nothing: the API wants a number."""
_VERSION = "2023-06-01"
_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
"""Reasons to stop, in the words of the other providers; others stay as they are (`refusal`, `pause_turn`)."""
_CHOICES: Mapping[str, str] = {"required": "any"}


class AnthropicOptions(ServerOptions):
    """What a model entry with `provider: anthropic` may say besides the common keys."""

    base_url: str = Field(
        default_factory=lambda: os.environ.get("ANTHROPIC_BASE_URL", "").strip() or ADDRESS,
        validate_default=True,
        description=f"Address of the API. Default: ANTHROPIC_BASE_URL, else {ADDRESS}.",
    )
    api_key_env: str | None = Field(
        default="ANTHROPIC_API_KEY",
        description="Name of the environment variable that holds the key, sent as x-api-key.",
    )
    beta: list[str] = Field(
        default_factory=list, description="Names of features in beta that are asked for (anthropic-beta)."
    )

    @field_validator("base_url")
    @classmethod
    def _with_version(cls, value: str) -> str:
        value = http_address(value).removesuffix("/messages")
        return value if urlsplit(value).path.endswith("/v1") else f"{value}/v1"

    batch: bool | BatchOptions = Field(default=False, description=BATCH_KEY)


class StreamedMessage(StreamedAnswer):
    """A message while it arrives."""

    def __init__(self, sent_ns: int) -> None:
        super().__init__(sent_ns)
        self.usage: dict[str, JSON] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def take(self, chunk: JSON) -> bool:
        kind = chunk["type"]
        if kind == "content_block_delta":
            return self._take_delta(chunk["index"], chunk["delta"])
        if kind == "content_block_start":
            return self._take_block(chunk["index"], chunk["content_block"])
        if kind == "message_start":
            self.model = chunk["message"].get("model")
            self._count(chunk["message"].get("usage"))
        elif kind == "message_delta":
            if reason := word(chunk["delta"].get("stop_reason")):
                self.finish_reason = _REASONS.get(reason, reason)
            self._count(chunk.get("usage"))
        elif kind == "message_stop":
            self.done = True
        return False

    def _count(self, usage: JSON) -> None:
        """What a later event says of the tokens counts; what it leaves out stays."""
        self.usage |= {name: value for name, value in usage_of(usage).items() if value is not None}
        self.prompt_tokens, self.cached_prompt_tokens = prompt_counts(self.usage)
        self.completion_tokens = self.usage.get("output_tokens")

    def _take_block(self, index: int, block: Mapping[str, JSON]) -> bool:
        if block["type"] == "tool_use":
            call = _call(block, "")
            self._calls[index] = call
            self.tool_calls = list(self._calls.values())
            return True
        if block["type"] == "text" and block.get("text"):
            self.text.append(block["text"])
            return True
        return False

    def _take_delta(self, index: int, delta: Mapping[str, JSON]) -> bool:
        kind = delta["type"]
        if kind == "text_delta":
            self.text.append(delta["text"])
            return bool(delta["text"])
        if kind == "thinking_delta":
            self.reasoning.append(delta["thinking"])
            return bool(delta["thinking"])
        if kind == "input_json_delta" and index in self._calls:
            self._calls[index]["function"]["arguments"] += delta["partial_json"]
            return bool(delta["partial_json"])
        return False


def prompt_counts(usage: Mapping[str, JSON]) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and those of them that came from the cache; None where it is not said.

    The API's `input_tokens` are only those that were neither read from the cache nor written to it.
    """
    fresh, read = count(usage.get("input_tokens")), count(usage.get("cache_read_input_tokens"))
    if fresh is None:
        return None, None
    return fresh + (read or 0) + (count(usage.get("cache_creation_input_tokens")) or 0), read


def parse_message(document: JSON, timing: Timing | None) -> Response:
    """The answer that a message holds."""
    content = document["content"]
    calls = [
        _call(part, orjson.dumps(part.get("input") or {}).decode()) for part in content if _is_call(part)
    ]
    usage = usage_of(document.get("usage"))
    prompt_tokens, cached_prompt_tokens = prompt_counts(usage)
    reason = word(document.get("stop_reason"))
    return Response(
        output=whole_text(text_of(content)),
        finish_reason=_REASONS.get(reason, reason) if reason else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=count(usage.get("output_tokens")),
        timing=timing,
        reasoning=whole_text(reasoning_of(document)) or None,
        tool_calls=kept(calls),
        model=word(document.get("model")),
        cached_prompt_tokens=cached_prompt_tokens,
    )


def _is_call(part: Mapping[str, JSON]) -> bool:
    return part.get("type") == "tool_use"


def _call(part: Mapping[str, JSON], arguments: str) -> dict[str, Any]:
    """A call of a tool in the form that all providers give."""
    return {
        "id": part.get("id"),
        "type": "function",
        "function": {"name": part["name"], "arguments": arguments},
    }


@provider("anthropic")
class Anthropic(ServerProvider[AnthropicOptions], Batches):
    """Asks Anthropic's Messages API."""

    summary: ClassVar[str] = "Anthropic's Messages API (Claude)"
    parameters = ANTHROPIC
    supports = frozenset({"chat", "stream", "json_schema"})
    path = "messages"
    probe: ClassVar[str] = "models"
    Stream = StreamedMessage
    key_header: ClassVar[tuple[str, str]] = ("x-api-key", "")
    fixed_headers: ClassVar[Mapping[str, str]] = {"anthropic-version": _VERSION}

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        if not spec.model:
            raise UserError("'model' is missing", where=f"model {spec.id}", remedy="Add `model:`.")
        super().__init__(spec, context)
        if self.options.beta:
            self.headers["anthropic-beta"] = ",".join(self.options.beta)
            self.connect(self.made_client())

        batch = batch_options(self.options.batch)
        if batch is not None:
            from evalrun.providers.anthropic_batches import AnthropicBatches

            self.batch_api = AnthropicBatches(batch, self._connected, self._request, parse_message)
            self.measured, self.supports = False, self.supports - {"stream"}

    def _request(self, request: Request) -> dict[str, JSON]:
        return {**self.payload(request), **self.options.extra_body}

    def _connected(self) -> HTTPClient:
        if self.client is None:
            raise ProviderError(ErrorKind.CONNECTION, "the provider is not started")
        return self.client

    def identity(self) -> dict[str, JSON]:
        beta: dict[str, JSON] = {"beta": self.options.beta} if self.options.beta else {}
        return {**super().identity(), "max_tokens": MAX_TOKENS, **beta}

    def payload(self, request: Request) -> dict[str, JSON]:
        if not request.messages:
            raise wrong_form("chat")
        # Instructions that a template put anywhere else than first are instructions all the same.
        system = [message for message in request.messages if message.role in ("system", "developer")]
        turns = [message for message in request.messages if message.role not in ("system", "developer")]
        if not turns:
            what = "the API wants a message of the user beside the instructions"
            raise ProviderError(ErrorKind.BAD_REQUEST, what)
        body: dict[str, JSON] = {"model": self.model, "max_tokens": MAX_TOKENS, **_parameters(request.params)}
        if system:
            body["system"] = "\n\n".join(text_of(message.content) for message in system)
        body["messages"] = [{"role": turn.role, "content": _content(turn.content)} for turn in turns]
        if request.stream:
            body["stream"] = True
        return body

    def parse(self, document: JSON, timing: Timing) -> Response:
        return parse_message(document, timing)


def _parameters(params: Mapping[str, JSON]) -> dict[str, JSON]:
    """Generation parameters in the words of the API. It takes no seed: that of a sample is left out."""
    known = {name: value for name, value in params.items() if name not in _TURNED}
    if (most := params.get("max_completion_tokens")) is not None:
        known["max_tokens"] = most
    if (stop := params.get("stop")) is not None:
        known["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if tools := params.get("tools"):
        known["tools"] = [_tool(tool) for tool in tools]
    if (choice := params.get("tool_choice")) is not None:
        known["tool_choice"] = _choice(choice)
    if (wanted := params.get("response_format")) is not None:
        schema = wanted.get("json_schema", {}).get("schema") if isinstance(wanted, dict) else None
        if schema is None:
            what = "response_format must be {type: json_schema, json_schema: {schema: …}} for this API"
            raise ProviderError(ErrorKind.BAD_REQUEST, what)
        shape = {"format": {"type": "json_schema", "schema": schema}}
        known["output_config"] = {**(params.get("output_config") or {}), **shape}
    return known


_TURNED = frozenset(
    {"max_completion_tokens", "stop", "tools", "tool_choice", "response_format", "seed", "stream"}
)


def _tool(tool: JSON) -> JSON:
    """A tool as the API has it; one that is in its form already, as it is."""
    if not (isinstance(tool, dict) and isinstance(tool.get("function"), dict)):
        return tool
    function = tool["function"]
    named = {key: function[key] for key in ("name", "description") if key in function}
    return {**named, "input_schema": function.get("parameters") or {"type": "object", "properties": {}}}


def _choice(choice: JSON) -> JSON:
    if isinstance(choice, str):
        return {"type": _CHOICES.get(choice, choice)}
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"type": "tool", "name": choice["function"].get("name")}
    return choice


def _content(content: JSON) -> JSON:
    """The content of a turn: text, or parts of which images are turned into the API's form."""
    if not isinstance(content, list):
        return content
    return [_image(part) if isinstance(part, dict) and "image_url" in part else part for part in content]


def _image(part: Mapping[str, JSON]) -> JSON:
    named = part["image_url"]
    url = str(named.get("url", "") if isinstance(named, dict) else named)
    head, comma, data = url.partition(",")
    if url.startswith("data:") and comma and head.endswith(";base64"):
        media = head.removeprefix("data:").removesuffix(";base64")
        return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}

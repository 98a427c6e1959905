"""The OpenAI API: what is sent, what comes back, and the provider for the many servers that speak it (vLLM,
SGLang, llama.cpp, TGI, Ollama, LiteLLM proxies and others).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import orjson
from pydantic import Field

from evalrun.errors import UserError
from evalrun.moment import until
from evalrun.providers.answers import (
    StreamedAnswer,
    count,
    kept,
    prompt_counts,
    prose,
    reasoning_of,
    text_of,
    usage_of,
    whole_text,
    word,
)
from evalrun.providers.base import Embeds, OptionsT, ProviderContext, RendersChat, provider
from evalrun.providers.faults import error_of_payload
from evalrun.providers.http_provider import HTTPProvider, ServerOptions, ServerProvider, json_bytes
from evalrun.providers.parameters import EVERY
from evalrun.types import JSON, Ask, ErrorKind, Message, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from yarl import URL

    from evalrun.providers.embeddings import Embedded
    from evalrun.providers.likelihood import TextLikelihoods
    from evalrun.providers.token_ids import TokenIds
    from evalrun.suite.components import ModelSpec


Api: TypeAlias = Literal["chat", "completions"]

PATHS: Mapping[Api, str] = {"chat": "chat/completions", "completions": "completions"}
_PREFIXES_KEPT = 64


def has_form(request: Request, api: Api) -> bool:
    """Whether the request's prompt can be sent to that API: messages to chat, text to completions."""
    return bool(request.messages) if api == "chat" else request.prompt is not None


def wrong_form(api: Api) -> ProviderError:
    """The failure of a request whose prompt is of the other form than the model's `api`."""
    what = (
        "no messages: this text prompt needs api: completions"
        if api == "chat"
        else "chat messages cannot be sent with api: completions"
    )
    return ProviderError(ErrorKind.BAD_REQUEST, what)


def question(request: Request, api: Api) -> dict[str, Any]:
    """The prompt as an argument of an SDK: `messages` or `prompt`. Raises ProviderError."""
    if not has_form(request, api):
        raise wrong_form(api)
    if api == "chat":
        return {
            "messages": [{"role": message.role, "content": message.content} for message in request.messages]
        }
    return {"prompt": request.prompt}


_FAILED = frozenset(
    {"error", "network_error", "server_error", "model_error", "internal_error", "abort", "aborted"}
    | {"insufficient_system_resource", "error_limit", "error_toxic"}
)
"""Reasons to stop with which a server or router says that the answer broke off by a fault of its own."""


def _check(choice: Mapping[str, JSON], beside: JSON = None) -> None:
    """Raises ProviderError where a choice says that its answer broke off: what it holds is only a part."""
    error, reason = choice.get("error"), choice.get("finish_reason")
    if error or (isinstance(reason, str) and reason.lower() in _FAILED):
        said = error or beside or f"the server ended the answer with finish_reason {reason!r}"
        raise error_of_payload(said, 200)


def parse_completion(document: JSON, timing: Timing | None) -> Response:
    """The answer that a (chat) completion holds.

    Null content is an empty output (tool calls, refusals, reasoning that used up the tokens).
    """
    choices = document["choices"]
    choice = choices[0]
    if choice.get("index"):
        choice = next((other for other in choices if not other.get("index")), choice)
    _check(choice)
    message = choice.get("message")
    if message is None:
        message = choice.get("delta")
    usage = usage_of(document.get("usage"))
    prompt_tokens, cached_prompt_tokens = prompt_counts(usage)
    if message is None:
        output, message = text_of(choice["text"]), {}
    else:
        output = text_of(message.get("content"))
    reasoning = None
    if len(message) > 2 or not output or type(message.get("content")) is not str:  # more than role and words
        reasoning = whole_text(reasoning_of(message)) or None
    return Response(
        output=whole_text(output),
        finish_reason=word(choice.get("finish_reason")),
        prompt_tokens=prompt_tokens,
        completion_tokens=count(usage.get("completion_tokens")),
        timing=timing,
        refusal=prose(message.get("refusal")),
        reasoning=reasoning,
        tool_calls=kept(message.get("tool_calls")),
        logprobs=kept(choice.get("logprobs")),
        model=word(document.get("model")),
        fingerprint=word(document.get("system_fingerprint")),
        cached_prompt_tokens=cached_prompt_tokens,
    )


class StreamedCompletion(StreamedAnswer):
    """A (chat) completion that is streamed."""

    def __init__(self, sent_ns: int) -> None:
        super().__init__(sent_ns)
        self._tools: list[tuple[int, dict[str, Any]]] = []
        self._tool_at: dict[int, dict[str, Any]] = {}
        self._index: JSON = None
        """The choice that is read: the first, or the only one that comes."""

    def take(self, chunk: JSON) -> bool:
        usage = chunk.get("usage")
        if usage:
            usage = usage_of(usage)
            self.prompt_tokens, self.cached_prompt_tokens = prompt_counts(usage)
            self.completion_tokens = usage.get("completion_tokens")
        choices = chunk.get("choices")
        content = False
        if choices:
            choice = choices[0]
            if len(choices) == 1 and choice.get("index", 0) == self._index:
                content = self._take_choice(choice, chunk, usage)
            else:
                for choice in choices:
                    if (choice.get("index") or 0) == self._index or self._turns_to(choice):
                        content = self._take_choice(choice, chunk, usage) or content
        if chunk.get("error"):
            raise error_of_payload(chunk["error"], 200)
        return content

    def _turns_to(self, choice: dict[str, Any]) -> bool:
        """Whether a choice other than the one that was read so far is read from now on: the very first, or
        that with the index 0 where it did not come first."""
        index = choice.get("index") or 0
        if self._index is None:
            self._index = index
            return True
        if index:  # a second choice of n > 1
            return False
        self._index = index
        self.restart()
        self._tools, self._tool_at = [], {}
        return True

    def _take_choice(self, choice: dict[str, Any], chunk: dict[str, Any], usage: JSON) -> bool:
        if self.model is None:
            self.model = chunk.get("model")
            self.fingerprint = chunk.get("system_fingerprint")
        finish_reason = choice.get("finish_reason")
        if finish_reason:
            self.finish_reason = word(finish_reason) or "unknown"
        if finish_reason or "error" in choice:
            _check(choice, chunk.get("error"))
        delta = choice.get("delta") or choice.get("message")
        if not delta:
            content = self._take_text(choice.get("text"))
        elif len(delta) == 1 and type(text := delta.get("content")) is str:  # as nearly all chunks are
            content = text != ""
            if content:
                self.text.append(text)
        else:
            content = self._take_delta(delta)
        if content and usage and self.first_ns is None and not finish_reason:
            # Only servers that report usage with every chunk say how many tokens the first one holds;
            # in a chunk that is first and last at once the figure is the total.
            self.first_chunk_tokens = count(self.completion_tokens)
        if choice.get("logprobs"):
            self.logprobs = _extended(self.logprobs or {}, choice["logprobs"])
        return content

    def _take_text(self, value: JSON) -> bool:
        text = value if type(value) is str else text_of(value)
        if text:
            self.text.append(text)
        return bool(text)

    def _take_delta(self, delta: dict[str, Any]) -> bool:
        content = self._take_text(delta.get("content"))
        if reasoning := reasoning_of(delta):
            self.reasoning.append(reasoning)
            content = True
        if delta.get("tool_calls"):
            content = self._take_tools(delta["tool_calls"]) or content
        if delta.get("refusal"):
            self.refusal.append(text_of(delta["refusal"]))
            content = True
        return content

    def _take_tools(self, pieces: list[dict[str, Any]]) -> bool:
        """Join the pieces of tool calls; names and arguments arrive in parts."""
        content = False
        for piece in pieces:
            call = self._call_of(piece)
            call["id"] = piece.get("id") or call["id"]
            call["type"] = piece.get("type") or call["type"]
            function = piece.get("function") or {}
            for key in ("name", "arguments"):
                text = prose(function.get(key))  # arguments may come as an object
                if text and (key == "arguments" or text != call["function"]["name"]):  # some repeat the name
                    call["function"][key] += text
                    content = True
        self.tool_calls = [call for _, call in sorted(self._tools, key=itemgetter(0))]
        return content

    def _call_of(self, piece: dict[str, Any]) -> dict[str, Any]:
        """The call that a piece belongs to: by its index where it has one. A server may give two calls one
        index, and then only id and name tell that a second has begun; or none, and then each whole piece is a
        call of its own."""
        index, name = piece.get("index"), (piece.get("function") or {}).get("name")
        if type(index) is not int:
            index = next((at for at, call in self._tool_at.items() if piece.get("id") == call["id"]), None)
            if index is None and not name and not piece.get("id") and self._tool_at:
                index = max(self._tool_at)
            if index is None:
                index = len(self._tools)
        call = self._tool_at.get(index)
        if call is None or (name and _begins_another(call, piece.get("id"), name)):
            call = {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
            self._tool_at[index] = call
            self._tools.append((index, call))
        return call


def _begins_another(call: dict[str, Any], new_id: JSON, name: JSON) -> bool:
    """Whether a piece with a name begins another call than the one under its index. (Some servers repeat the
    name with each piece, some give each a new id.)"""
    function = call["function"]
    if function["arguments"]:
        try:
            orjson.loads(function["arguments"])
        except orjson.JSONDecodeError:
            complete = False
        else:
            complete = True
    else:
        complete = False
    differs = bool(new_id and call["id"] and new_id != call["id"])
    other_name = name != function["name"]
    return (complete and (differs or other_name)) or (differs and other_name)


def _extended(whole: dict[str, JSON], part: dict[str, JSON]) -> dict[str, JSON]:
    """The logprobs of the chunks before, with the lists of one more chunk appended."""
    for key, value in part.items():
        if isinstance(value, list) and isinstance(whole.get(key), list):
            whole[key].extend(value)
        elif value is not None:
            whole[key] = value
    return whole


class OpenAIAPI(HTTPProvider[OptionsT], Embeds, RendersChat):
    """A provider whose server speaks the API, whoever started it.

    `model` is the name that is sent. Its options have `api`, and may have `extra_body` and `include_usage`.
    """

    Stream: ClassVar[type[StreamedAnswer]] = StreamedCompletion
    parse = staticmethod(parse_completion)

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        options: Any = spec.options
        self.api: Api = options.api
        self.path = PATHS[self.api]
        self.extra_body: Mapping[str, JSON] = getattr(options, "extra_body", {})
        self.include_usage: bool = getattr(options, "include_usage", True)
        self.model = spec.model
        if self.api == "chat":  # only completions echo their prompts
            self.supports = type(self).supports - {"prompt_logprobs"}
        elif "prompt_logprobs" in type(self).supports:
            self.supports = type(self).supports | {"token_ids"}
        # By identity, each entry holding its object, so that no other object can take the same id.
        self._prefixes: dict[tuple[int, bool], tuple[Mapping[str, JSON], bytes]] = {}
        self._of_texts: TextLikelihoods | None = None
        self._token_ids: TokenIds | None = None
        super().__init__(spec, context)

    def payload(self, request: Request) -> dict[str, JSON]:
        return {**self.common(request.params, request.stream), **question(request, self.api)}

    def body(self, request: Request) -> bytes:
        """The JSON that is sent for a request: model, parameters, extra_body, then the prompt.

        A parameter object is read once and taken to stay as it is: what it becomes is kept.
        """
        params = request.params
        known = self._prefixes.get((id(params), request.stream))
        prefix = known[1] if known is not None else self._prefix(params, request.stream)
        if not has_form(request, self.api):
            raise wrong_form(self.api)
        try:
            if self.api == "chat":
                return b'%b"messages":%b}' % (prefix, orjson.dumps(request.messages))
            return b'%b"prompt":%b}' % (prefix, orjson.dumps(request.prompt))
        except TypeError as error:
            what = f"the prompt cannot be written as JSON: {error}"
            raise ProviderError(ErrorKind.BAD_REQUEST, what) from error

    async def embed(self, texts: Sequence[str]) -> Embedded:
        from evalrun.providers.embeddings import read_embeddings

        body = {"input": list(texts), "encoding_format": "float", **self.extra_body, **self._named()}
        try:
            return await self.post(
                "embeddings", json_bytes(body), lambda document, _: read_embeddings(document, len(texts))
            )
        except ProviderError as error:
            raise await self.diagnose(error) from error

    async def chat_text(self, messages: Sequence[Message]) -> str:
        from evalrun.providers.chat_texts import chat_text

        return await chat_text(self, messages)

    async def likelihoods(self, request: Request, ask: Ask) -> Response:
        from evalrun.providers.likelihood import by_first_token

        if ask.max_length:
            return await self.token_ids().answer(request, ask)
        if ask.via == "first_token":
            return await by_first_token(self.generate, request, chat=self.api == "chat")
        if self.api == "chat" or request.prompt is None:
            raise ProviderError(ErrorKind.BAD_REQUEST, "likelihoods of texts need api: completions")
        if self._of_texts is None:
            self._of_texts = self.text_likelihoods()
        return await self._of_texts.answer(request, ask)

    async def generate(self, request: Request) -> Response:
        if not request.exact or request.ask is not None or self.api == "chat":
            return await super().generate(request)
        if request.due_ns is not None:
            await until(request.due_ns)
        try:
            return await self.token_ids().generate(request)
        except ProviderError as error:
            cause = await self.diagnose(error)
            if cause is error:
                raise
            raise cause from error

    def token_ids(self) -> TokenIds:
        """What asks this server as lm-evaluation-harness does. Raises ProviderError."""
        from evalrun.providers.token_ids import TokenIds

        if self.api == "chat":
            raise ProviderError(ErrorKind.BAD_REQUEST, "likelihoods of texts need api: completions")
        if self._token_ids is None:
            path = getattr(self.options, "tokenizer", None)
            self._token_ids = TokenIds(self, None if path is None else str(self.context.base_dir / path))
        return self._token_ids

    def beside(self, path: str) -> URL:
        """The address of a path beside the API (`/tokenize` beside `/v1`)."""
        assert self.client is not None
        base = self.client.base_url
        root = base.parent if base.name in ("v1", "api") else base
        return (root / path).with_query(base.query)

    def text_likelihoods(self) -> TextLikelihoods:
        """What asks this server for the likelihoods of texts."""
        from evalrun.providers.likelihood import EchoLikelihoods

        return EchoLikelihoods(self)

    def _named(self) -> dict[str, JSON]:
        return {} if self.model is None else {"model": self.model}

    def common(self, params: Mapping[str, JSON], stream: bool) -> dict[str, JSON]:
        """Model, parameters and extra_body: what all requests with these parameters have in common."""
        common = {**self._named(), **params, **self.extra_body}
        common.pop("stream", None)  # whether an answer is streamed is the request's to say
        if stream:
            common["stream"] = True
            if self.include_usage:
                common["stream_options"] = {"include_usage": True, **common.get("stream_options", {})}
        return common

    def _prefix(self, params: Mapping[str, JSON], stream: bool) -> bytes:
        """The unchanging start of the body, open at its end: `{"model":…,"temperature":0,`."""
        common = self.common(params, stream)
        prefix = json_bytes(common)[:-1] + b"," if common else b"{"
        if len(self._prefixes) >= _PREFIXES_KEPT:  # parameters that change per request: keep no more
            self._prefixes.clear()
        self._prefixes[id(params), stream] = (params, prefix)
        return prefix


class OpenAICompatibleOptions(ServerOptions):
    """What a model entry with `provider: openai_compatible` may say besides the common keys."""

    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="Which endpoint is asked: chat/completions with messages, or completions with raw text.",
    )
    include_usage: bool = Field(
        default=True,
        description="Ask for token counts at the end of streams; false for servers that refuse the field.",
    )
    tokenizer: str | None = Field(
        default=None,
        description="For `tasks`: the model's tokenizer.json, where the server has no /tokenize. Needs the "
        "package tokenizers.",
    )


@provider("openai_compatible")
class OpenAICompatible(OpenAIAPI[OpenAICompatibleOptions], ServerProvider[OpenAICompatibleOptions]):
    """Sends requests to a server that is already there."""

    shorthand: ClassVar[str | None] = "base_url"
    summary: ClassVar[str] = (
        "a server that speaks the OpenAI API (vLLM, SGLang, llama.cpp, Ollama and others)"
    )
    parameters = EVERY
    supports = frozenset({"chat", "completions", "stream", "prompt_logprobs", "first_token", "json_schema"})
    probe: ClassVar[str] = "models"

    async def start(self) -> None:
        """See whether the server is there. Any HTTP answer will do.

        Where the suite names no model, the server's only one is taken. Raises UserError (exit 3) when
        nothing listens at the address, (exit 2) when the server has several models and none is named.
        """
        status, body, headers = await self.reach()
        if self.model is None:
            self.model = self._only_model(status, body)
            self._prefixes.clear()
        if headers.get("Server") == "llama.cpp":
            # It hangs up after each stream without saying so: the next request there would fail.
            await self.close()
            self.connect(self.made_client(reuse=False))

    def identity(self) -> dict[str, JSON]:
        return {**super().identity(), "api": self.api}

    def _only_model(self, status: int, body: bytes) -> str:
        import orjson

        try:
            models = [entry["id"] for entry in orjson.loads(body)["data"]] if status == 200 else []
        except (orjson.JSONDecodeError, LookupError, TypeError):
            models = []
        if len(models) == 1:
            return str(models[0])
        raise UserError(
            "the model's name is missing, and the server does not offer exactly one",
            where=f"model {self.spec.id}",
            remedy=f"Add `model:` with one of: {', '.join(map(str, models[:20]))}."
            if models
            else "Add `model:`.",
        )

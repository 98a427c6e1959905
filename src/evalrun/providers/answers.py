"""From the JSON of a (chat) completion, whole or in chunks, to a Response. Pure: no clock, no network.

Definitions of the timings: a content chunk is one with non-empty text, reasoning, refusal or tool call
text. The role-only first chunk and the usage chunk at the end are none. `Timing.first_ns` and `last_ns`
are the arrivals of the first and the last content chunk.
"""

from __future__ import annotations

from typing import Any

import orjson

from evalrun.providers.answer_fields import count, kept, load, prose, usage_of, whole_text, word
from evalrun.providers.faults import error_of_payload, shorten
from evalrun.providers.sse import DONE, Event
from evalrun.types import JSON, ErrorKind, ProviderError, Response, Timing


def text_of(value: JSON) -> str:
    """The text of a content field: text, null, or a list of parts of which the text parts count."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(
            part if isinstance(part, str) else part["text"]
            for part in value
            if isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("text"), str))
        )
    raise ProviderError(ErrorKind.PROTOCOL, "the answer's content is neither text nor a list of parts")


def _broken(what: str, data: bytes) -> ProviderError:
    return ProviderError(ErrorKind.PROTOCOL, shorten(f"{what}: {data[:2000].decode('utf-8', 'replace')}"))


def whole_answer(body: bytes, sent_ns: int, done_ns: int) -> Response:
    """The response that the body of a not streamed completion holds.

    Null content is an empty output (tool calls, refusals, reasoning that used up the tokens).
    Raises ProviderError: protocol for what is no completion, else the error that the body reports.
    """
    try:
        value = load(body)
    except orjson.JSONDecodeError:
        raise _broken("the answer is not JSON", body) from None
    if not isinstance(value, dict):
        raise _broken("the answer is not a JSON object", body)
    if value.get("error"):
        raise error_of_payload(value["error"], 200)
    try:
        choice = value["choices"][0]
        message = choice.get("message")
        usage = usage_of(value.get("usage"))
        if message is None:
            output, message = text_of(choice["text"]), {}
        else:
            output = text_of(message.get("content"))
        return Response(
            output=whole_text(output),
            finish_reason=word(choice.get("finish_reason")),
            prompt_tokens=count(usage.get("prompt_tokens")),
            completion_tokens=count(usage.get("completion_tokens")),
            timing=Timing(sent_ns, done_ns),
            refusal=prose(message.get("refusal")),
            reasoning=prose(message.get("reasoning_content") or message.get("reasoning")),
            tool_calls=kept(message.get("tool_calls")),
            logprobs=kept(choice.get("logprobs")),
            model=word(value.get("model")),
            fingerprint=word(value.get("system_fingerprint")),
        )
    except (LookupError, AttributeError, TypeError):
        raise _broken("the answer has no usable choices", body) from None


class StreamedAnswer:
    """A streamed completion while it arrives: `feed` the events of each piece, then `response`."""

    __slots__ = (
        "_chunks",
        "_fingerprint",
        "_finish_reason",
        "_first_chunk_tokens",
        "_first_ns",
        "_last_ns",
        "_logprobs",
        "_model",
        "_reasoning",
        "_refusal",
        "_sent_ns",
        "_text",
        "_tools",
        "_usage",
        "done",
    )

    def __init__(self, sent_ns: int) -> None:
        self._sent_ns = sent_ns
        self._first_ns: int | None = None
        self._last_ns = 0
        self._chunks = 0
        self._first_chunk_tokens: int | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, JSON] = {}
        self._usage: dict[str, Any] | None = None
        self._finish_reason: str | None = None
        self._model: str | None = None
        self._fingerprint: str | None = None
        self.done = False
        """The closing [DONE] has arrived."""

    def feed(self, events: list[Event], now_ns: int) -> None:
        """Take the events that arrived at `now_ns`. Raises ProviderError for errors and broken chunks."""
        for data, name in events:
            if data == DONE:
                self.done = True
                self._last_ns = self._last_ns or now_ns
                continue
            if name == b"error":
                raise _error_event(data)
            try:
                self._take(load(data), now_ns)
            except orjson.JSONDecodeError:
                raise _broken("a chunk of the stream is not JSON", data) from None
            except (LookupError, AttributeError, TypeError):
                raise _broken("a chunk of the stream is not of the expected form", data) from None

    def feed_last(self, events: list[Event], now_ns: int) -> None:
        """Take what stood in the buffer when the stream ended; a chunk that was cut short is left out."""
        try:
            self.feed(events, now_ns)
        except ProviderError as error:
            if error.kind is not ErrorKind.PROTOCOL:
                raise

    def response(self) -> Response:
        """The finished answer. Raises ProviderError (truncated) when the stream ended before its end."""
        if self._finish_reason is None and not self.done:
            raise ProviderError(
                ErrorKind.TRUNCATED,
                f"the stream ended after {self._chunks} chunks without finish_reason or [DONE]",
            )
        usage = self._usage or {}
        return Response(
            output=whole_text("".join(self._text)),
            finish_reason=self._finish_reason,
            prompt_tokens=count(usage.get("prompt_tokens")),
            completion_tokens=count(usage.get("completion_tokens")),
            timing=Timing(
                self._sent_ns, self._last_ns, self._first_ns, self._chunks, self._first_chunk_tokens
            ),
            refusal=whole_text("".join(self._refusal)) or None,
            reasoning=whole_text("".join(self._reasoning)) or None,
            tool_calls=kept([self._tools[index] for index in sorted(self._tools)]),
            logprobs=kept(self._logprobs),
            model=word(self._model),
            fingerprint=word(self._fingerprint),
        )

    def _take(self, chunk: JSON, now_ns: int) -> None:
        usage = chunk.get("usage")
        if usage:
            self._usage = usage = usage_of(usage)
        choices = chunk.get("choices")
        if not choices:
            if chunk.get("error"):
                raise error_of_payload(chunk["error"], 200)
            return
        choice = choices[0]
        if choice.get("index"):  # a second choice of n > 1
            return
        if self._model is None:
            self._model = chunk.get("model")
            self._fingerprint = chunk.get("system_fingerprint")
        finish_reason = choice.get("finish_reason")
        if finish_reason:
            self._finish_reason = word(finish_reason) or "unknown"
        delta = choice.get("delta")
        if self._take_delta(delta) if delta else self._take_text(choice.get("text")):
            # Only servers that report usage with every chunk say how many tokens the first one holds;
            # in a chunk that is first and last at once the figure is the total.
            self._count(now_ns, usage if usage and not finish_reason else None)
        elif self._first_ns is None:
            self._last_ns = now_ns  # an empty answer ends when the server says so
        if choice.get("logprobs"):
            _extend(self._logprobs, choice["logprobs"])
        if chunk.get("error"):
            raise error_of_payload(chunk["error"], 200)

    def _count(self, now_ns: int, usage: dict[str, Any] | None) -> None:
        self._last_ns = now_ns
        self._chunks += 1
        if self._first_ns is None:
            self._first_ns = now_ns
            if usage is not None:
                self._first_chunk_tokens = count(usage.get("completion_tokens"))

    def _take_text(self, value: JSON) -> bool:
        text = value if type(value) is str else text_of(value)
        if text:
            self._text.append(text)
        return bool(text)

    def _take_delta(self, delta: dict[str, Any]) -> bool:
        bears = self._take_text(delta.get("content"))
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning:
            self._reasoning.append(text_of(reasoning))
            bears = True
        if delta.get("tool_calls"):
            bears = self._take_tools(delta["tool_calls"]) or bears
        if delta.get("refusal"):
            self._refusal.append(text_of(delta["refusal"]))
            bears = True
        return bears

    def _take_tools(self, pieces: list[dict[str, Any]]) -> bool:
        """Join the pieces of tool calls by their index; names and arguments arrive in parts."""
        bears = False
        for piece in pieces:
            index = piece.get("index")
            if type(index) is not int:  # some servers send whole calls without an index
                index = len(self._tools)
            call = self._tools.setdefault(
                index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
            )
            call["id"] = piece.get("id") or call["id"]
            call["type"] = piece.get("type") or call["type"]
            function = piece.get("function") or {}
            for key in ("name", "arguments"):
                text = prose(function.get(key))  # arguments may come as an object
                if text and (key == "arguments" or text != call["function"]["name"]):  # some repeat the name
                    call["function"][key] += text
                    bears = True
        return bears


def _error_event(data: bytes) -> ProviderError:
    """An event that the server named "error": JSON with or without an `error` key, or plain text."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = data.decode("utf-8", "replace")
    return error_of_payload(value.get("error") or value if isinstance(value, dict) else value, 200)


def _extend(whole: dict[str, JSON], part: dict[str, JSON]) -> None:
    """Append the lists of one chunk's logprobs to those of the chunks before."""
    for key, value in part.items():
        if isinstance(value, list) and isinstance(whole.get(key), list):
            whole[key].extend(value)
        elif value is not None:
            whole[key] = value

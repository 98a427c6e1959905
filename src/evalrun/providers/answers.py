"""Answers, whole or while they arrive: bytes to events, events to a Response. Pure: no clock, no network.

Nothing here knows of any API. A provider reads its own by a function of one document (`read_document`) and a
subclass of `StreamedAnswer` with a method for one chunk.

An answer in words that was paid for is not thrown away because a field beside it is odd: a count that is no
count is not known, a reason to stop that is no word is none.

Definitions of the timings: a content chunk is one with non-empty text, reasoning, refusal or tool call
text. Chunks that only name a role or count tokens are none. `Timing.first_ns` and `last_ns` are the
arrivals of the first and the last content chunk.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, Protocol, TypeAlias, TypeVar

import orjson

from evalrun.providers.faults import error_of_payload, shorten
from evalrun.types import JSON, ErrorKind, ProviderError, Response, Timing

T = TypeVar("T")
TimingT = TypeVar("TimingT", Timing, Timing | None)
T_co = TypeVar("T_co", covariant=True)

DONE = b"[DONE]"
"""The data of the event with which chat completion streams end."""
MOST_BYTES = 64 << 20
_GREATEST = 2**53
"""Counts of tokens above that are no counts."""
_BOM = b"\xef\xbb\xbf"
_JSON_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/json-lines"})
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_DRAIN_S = 1.0

Event: TypeAlias = tuple[bytes, bytes]
"""One event: its data, and its name (empty for an ordinary one). A plain tuple, as it is made per chunk."""


# --- bytes to events ------------------------------------------------------------------------------------


class SSEParser:
    """Server-sent events. Bytes in, events out; how the bytes are cut into pieces makes no difference.

    Follows the event stream format of the WHATWG HTML standard (section 9.2.6): lines end in \\n, \\r\\n or
    \\r, lines that begin with a colon are comments, several `data` lines make one event, a blank line ends
    it. Two leniences: the last event counts even if the stream ends before its blank line (`finish`), since
    servers cut that short; `id` and `retry` are read over, since nothing here reconnects.
    """

    __slots__ = ("_at_start", "_data", "_name", "_pieces", "_skip_newline")

    def __init__(self) -> None:
        # Of the line that has not ended; a list, so that long lines stay linear.
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []
        self._name = b""
        self._skip_newline = False  # the last piece ended in \r: a \n now belongs to it
        self._at_start = True

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        if not piece:
            return []
        if self._skip_newline:
            self._skip_newline = False
            if piece[0] == 0x0A:
                piece = piece[1:]
        if b"\r" in piece:
            self._skip_newline = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = piece.split(b"\n")
        if len(lines) == 1:
            self._pieces.append(piece)
            return []
        if self._pieces:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
        rest = lines.pop()
        self._pieces = [rest] if rest else []
        return self._take(lines)

    def finish(self) -> list[Event]:
        """The event that was under way when the stream ended, if any; its data may be cut short."""
        line = b"".join(self._pieces)
        self._pieces = []
        return self._take([line, b""] if line else [b""])

    def _take(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        data = self._data
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if data:
                    events.append((data[0] if len(data) == 1 else b"\n".join(data), self._name))
                    data.clear()
                self._name = b""
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ")
            elif line == b"data":
                data.append(b"")
        return events


class LinesParser:
    """A stream of JSON documents, one a line (NDJSON): each line is an event without a name."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        first, *rest = piece.split(b"\n")
        self._pieces.append(first)
        if not rest:
            return []
        lines = [b"".join(self._pieces), *rest]
        self._pieces = [lines.pop()]
        return [(line, b"") for line in lines if line.strip()]

    def finish(self) -> list[Event]:
        """What stood in the last line, if anything; it may be cut short."""
        return self.feed(b"\n")


def may_stream(content_type: str) -> bool:
    """Whether a body of that type is said to be a stream."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "text/event-stream" or kind in _JSON_LINES


def stream_parser(start: bytes, content_type: str) -> SSEParser | LinesParser | None:
    """What cuts a body that begins so into events; None where it is one document.

    The bytes say what it is: servers and proxies name types that are none of theirs. Only a stream of JSON
    documents looks like one document and is known by its type.
    """
    start = start.removeprefix(_BOM).lstrip()
    if start[:1] in (b"{", b"["):
        return LinesParser() if content_type.partition(";")[0].strip().lower() in _JSON_LINES else None
    if start[:1] == b"<":
        raise ProviderError(ErrorKind.PROTOCOL, "the answer is a web page, not what was asked for")
    if start.startswith(_EVENT_STARTS) or may_stream(content_type):
        return SSEParser()
    return None


# --- fields of documents --------------------------------------------------------------------------------


def load(data: bytes) -> JSON:
    """The JSON value that the bytes hold. Raises orjson.JSONDecodeError.

    Beyond the standard it takes what servers are known to write: NaN and Infinity (they become null where
    they are kept), halves of a surrogate pair (a character cut in two by a server that streams UTF-16), and a
    byte order mark. See `whole_text` for the halves.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.decode("utf-8-sig"), parse_int=_integer)
        except (ValueError, RecursionError):
            pass
        raise


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)  # as orjson does it, whose numbers have 64 bits


def whole_text(text: str) -> str:
    """Text in which halves of surrogate pairs are joined, and those without their other half replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def text_of(value: JSON) -> str:
    """The text of a content field: text, null, or a list of parts of which the text parts count."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return "".join(
            part if isinstance(part, str) else part["text"]
            for part in value
            if isinstance(part, str)
            or (isinstance(part, dict) and isinstance(part.get("text"), str) and not _is_thinking(part))
        )
    raise ProviderError(ErrorKind.PROTOCOL, "the answer's content is neither text nor a list of parts")


def _is_thinking(part: Mapping[str, JSON]) -> bool:
    return str(part.get("type")).startswith(("thinking", "reasoning", "redacted_thinking"))


REASONING = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "reasoning_details",
    "thinking_blocks",
)
"""The fields in which servers keep what a model thought, the likelier first: some fill two alike."""


def reasoning_of(message: Mapping[str, JSON]) -> str:
    """What the model thought, as a message or a part of one holds it: in a field beside the content, or in
    parts of the content."""
    for name in REASONING:
        if (value := message.get(name)) and (text := _thought(value)):
            return text
    content = message.get("content")
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        return "".join(_thought(part) for part in content if isinstance(part, dict) and _is_thinking(part))
    return ""


def _thought(value: JSON) -> str:
    """The text of what a field or part of thinking holds: text, a part, or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_thought, value))
    if isinstance(value, dict):
        for name in ("text", "thinking", "reasoning", "summary", "content"):
            if value.get(name):
                return _thought(value[name])
    return ""


def count(value: JSON) -> int | None:
    """A number of tokens; None for what is none. Text of digits and whole floats are taken."""
    if type(value) is int:
        return value if 0 <= value < _GREATEST else None
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, float) and value.is_integer() and 0 <= value < _GREATEST:
        return int(value)
    return None


def word(value: JSON) -> str | None:
    """A name or a reason; None for what is no text."""
    return value if type(value) is str else None


def prose(value: JSON) -> str | None:
    """Text that stands beside the answer (reasoning, refusal); other values as their JSON."""
    if not value:
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def usage_of(value: JSON) -> dict[str, Any]:
    """The token counts that a server reports; empty where they are no object."""
    return value if isinstance(value, dict) else {}


_TOTALS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


def prompt_counts(usage: Mapping[str, JSON]) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and those of them that the provider had in its cache; None where it is not said.

    Named as by OpenAI, Anthropic (also through LiteLLM), DeepSeek and Moonshot. Where more were in the cache
    than the prompt is said to have, the prompt is counted without them (Anthropic's own way).
    """
    prompt = count(usage.get("prompt_tokens"))
    if len(usage) == len(_TOTALS) and usage.keys() == _TOTALS:
        return prompt, None
    details = usage.get("prompt_tokens_details")
    said = details.get("cached_tokens") if isinstance(details, dict) else None
    for name in ("cache_read_input_tokens", "prompt_cache_hit_tokens", "cached_tokens"):
        said = usage.get(name) if said is None else said
    cached = count(said)
    if prompt is not None and cached is not None and cached > prompt:
        prompt += cached
    return prompt, cached


def kept(value: JSON) -> JSON:
    """A value that goes into the records as it is. Raises ProviderError where it is nested too deeply to be
    written."""
    if value:
        try:
            orjson.dumps(value)
        except TypeError as error:
            if "ecursion" in str(error):
                raise ProviderError(
                    ErrorKind.PROTOCOL, "the answer is nested too deeply to be kept"
                ) from None
            return json.loads(whole_text(json.dumps(value, ensure_ascii=False)))
    return value or None


# --- documents and events to answers --------------------------------------------------------------------


def _broken(what: str, data: bytes) -> ProviderError:
    return ProviderError(ErrorKind.PROTOCOL, shorten(f"{what}: {data[:2000].decode('utf-8', 'replace')}"))


def read_document(body: bytes, parse: Callable[[JSON, TimingT], T], timing: TimingT) -> T:
    """What `parse` makes of the document in a body.

    Raises ProviderError: protocol for what is no JSON object or not of the form that `parse` expects, else
    the error that the document reports.
    """
    try:
        document = load(body)
    except orjson.JSONDecodeError:
        raise _broken("the answer is not JSON", body) from None
    if not isinstance(document, dict):
        raise _broken("the answer is not a JSON object", body)
    if document.get("error"):
        raise error_of_payload(document["error"], 200)
    try:
        return parse(document, timing)
    except (LookupError, AttributeError, TypeError):
        raise _broken("the answer is not of the expected form", body) from None


class Accumulator(Protocol[T_co]):
    """Takes the events of a stream: `feed` those of each piece, `feed_last` the last, then `response`."""

    done: bool

    def feed(self, events: list[Event], now_ns: int) -> None: ...
    def feed_last(self, events: list[Event], now_ns: int) -> None: ...
    def response(self) -> T_co: ...


class StreamedAnswer:
    """A streamed answer while it arrives. A subclass says by `take` what a chunk of its API adds to it."""

    def __init__(self, sent_ns: int) -> None:
        self.prompt_tokens: JSON = None
        self.completion_tokens: JSON = None
        self.cached_prompt_tokens: int | None = None
        self.model: JSON = None
        self.fingerprint: JSON = None
        self.done = False
        """The server has said that nothing more comes."""
        self._sent_ns = sent_ns
        self.restart()

    def restart(self) -> None:
        """Forget what the answer held so far: it belongs to another than the one that is wanted."""
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.tool_calls: JSON = None
        self.logprobs: JSON = None
        self.finish_reason: str | None = None
        self.first_ns: int | None = None
        self.first_chunk_tokens: int | None = None
        self._last_ns = 0
        self._arrivals: list[int] = []

    def take(self, chunk: JSON) -> bool:
        """Keep what one chunk holds. True where that is content: text, reasoning, a refusal, a tool call.

        Raises ProviderError for an error that the server reports; LookupError, TypeError or AttributeError
        for a chunk that is not of the expected form.
        """
        raise NotImplementedError

    def feed(self, events: list[Event], now_ns: int) -> None:
        """Take the events that arrived at `now_ns`. Raises ProviderError for errors and broken chunks."""
        for data, name in events:
            if data == DONE:
                self.done = True
                self._last_ns = self._last_ns or now_ns
                break  # what stands behind it belongs to no answer
            if name == b"error":
                raise _error_event(data)
            ended = self.finish_reason is not None
            try:
                content = self.take(load(data))
            except orjson.JSONDecodeError:
                raise _broken("a chunk of the stream is not JSON", data) from None
            except (LookupError, AttributeError, TypeError):
                raise _broken("a chunk of the stream is not of the expected form", data) from None
            if content:
                self._last_ns = now_ns
                self._arrivals.append(now_ns)
                if self.first_ns is None:
                    self.first_ns = now_ns
            elif self.first_ns is None and not ended:
                self._last_ns = now_ns  # an empty answer ends when the server says so

    def feed_last(self, events: list[Event], now_ns: int) -> None:
        """Take what stood in the buffer when the stream ended; a chunk that was cut short is left out."""
        try:
            self.feed(events, now_ns)
        except ProviderError as error:
            if error.kind is not ErrorKind.PROTOCOL:
                raise

    def _gaps_us(self) -> list[int] | None:
        """Times between chunks. Kept as they are: to count them here would cost three times as much."""
        arrivals = self._arrivals
        if len(arrivals) < 2 or arrivals[0] == arrivals[-1]:
            return None
        return [(now - before) // 1000 for before, now in pairwise(arrivals)]

    def response(self) -> Response:
        """The finished answer. Raises ProviderError (truncated) when the stream ended before its end."""
        if self.finish_reason is None and not self.done:
            raise ProviderError(
                ErrorKind.TRUNCATED,
                f"the stream ended after {len(self._arrivals)} chunks without finish_reason or [DONE]",
            )
        return Response(
            output=whole_text("".join(self.text)),
            finish_reason=self.finish_reason,
            prompt_tokens=count(self.prompt_tokens),
            completion_tokens=count(self.completion_tokens),
            timing=Timing(
                self._sent_ns,
                self._last_ns,
                self.first_ns,
                len(self._arrivals),
                self.first_chunk_tokens,
                self._gaps_us(),
            ),
            refusal=whole_text("".join(self.refusal)) or None,
            reasoning=whole_text("".join(self.reasoning)) or None,
            tool_calls=kept(self.tool_calls),
            logprobs=kept(self.logprobs),
            model=word(self.model),
            fingerprint=word(self.fingerprint),
            cached_prompt_tokens=self.cached_prompt_tokens,
        )


def _error_event(data: bytes) -> ProviderError:
    """An event that the server named "error": JSON with or without an `error` key, or plain text."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = data.decode("utf-8", "replace")
    return error_of_payload(value.get("error") or value if isinstance(value, dict) else value, 200)


Read: TypeAlias = Callable[[], Awaitable[bytes]]
"""Gives the next piece of a body; empty at its end."""


async def read_stream(
    read: Read,
    answer: Accumulator[T],
    parser: SSEParser | LinesParser,
    clock: Callable[[], int] = perf_counter_ns,
    most_bytes: int = MOST_BYTES,
    start: bytes = b"",
) -> T:
    """What an answer makes of a stream. `clock` gives the time at which the last piece arrived; `start` is
    what was read of the stream already."""
    feed, size = parser.feed, 0
    data = start or await read()
    while data:
        now_ns = clock()
        size += len(data)
        if size > most_bytes:
            raise too_long(most_bytes)
        if events := feed(data):
            answer.feed(events, now_ns)
            if answer.done:
                return answer.response()
        data = await read()
    answer.feed_last(parser.finish(), clock())
    return answer.response()


async def read_answer(
    read: Read,
    content_type: str,
    parse: Callable[[JSON, Timing], T],
    stream: Callable[[int], Accumulator[T]],
    sent_ns: int,
    clock: Callable[[], int] = perf_counter_ns,
    most_bytes: int = MOST_BYTES,
) -> T:
    """What a body that may be a document or a stream holds, by its bytes.

    `parse` reads a document, `stream` makes what takes a stream, with the time at which the request was sent.
    Raises ProviderError for every fault but those of `read`.
    """
    start, blank = b"", 0
    while not start.strip() and (piece := await read()):
        start = start[-1:] + piece  # of blank space one byte is enough
        blank += len(piece)
        if blank > most_bytes:
            raise too_long(most_bytes)
    parser = stream_parser(start, content_type)
    if parser is not None:
        return await read_stream(read, stream(sent_ns), parser, clock, most_bytes, start)
    pieces, size = [start], len(start)
    while piece := await read():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise too_long(most_bytes)
    return read_document(b"".join(pieces), parse, Timing(sent_ns, clock()))


def read_whole(
    body: bytes,
    content_type: str,
    parse: Callable[[JSON, Timing], T],
    stream: Callable[[int], Accumulator[T]] | None,
    timing: Timing,
) -> T:
    """What a body holds that was read to its end: a document, or a stream that nobody asked for."""
    if stream is not None and not body.startswith(b"{"):
        parser = stream_parser(body, content_type)
        if parser is not None:
            answer = stream(timing.sent_ns)
            answer.feed(parser.feed(body), timing.last_ns)
            if not answer.done:
                answer.feed_last(parser.finish(), timing.last_ns)
            return answer.response()
    return read_document(body, parse, timing)


async def drain(read: Read) -> None:
    """Read on to the end of a finished stream, so that its connection can be used again. Raises TimeoutError
    after a second, and what `read` raises."""
    async with asyncio.timeout(_DRAIN_S):
        while await read():
            pass


def too_long(most_bytes: int) -> ProviderError:
    """The failure of an answer that is longer than any: memory is everybody's."""
    return ProviderError(ErrorKind.PROTOCOL, f"the answer is longer than {most_bytes >> 20} MiB")

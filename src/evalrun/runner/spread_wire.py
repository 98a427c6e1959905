"""What passes between evalrun and its worker processes, and how: plain tuples, pickled many at a time.

Both ends are evalrun of the same version on the same machine, joined by a socket pair that nobody else can
reach, so pickle is safe here. Messages of one turn of the event loop travel as one frame: eight bytes of
length, then a list. Requests and responses travel as tuples, which costs a third of what the objects do.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Any, cast

from evalrun.providers.base import ProviderContext
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, Message, ProviderError, Request, Response, Timing

Parts = tuple[Any, ...]
"""A message: its `Tag`, then what belongs to it."""

_LENGTH = struct.Struct("!Q")
_response = attrgetter(
    "output", "finish_reason", "prompt_tokens", "completion_tokens", "refusal", "reasoning", "tool_calls",
    "logprobs", "model", "fingerprint", "cost_usd", "likelihood",
    "cached_prompt_tokens",
)  # fmt: skip
_timing = attrgetter("sent_ns", "last_ns", "first_ns", "chunks", "first_chunk_tokens", "gaps")


class Tag(IntEnum):
    """The first item of every message. To a worker: HELLO, ASK, DROP; from one: the others."""

    HELLO = 0
    ASK = 1
    DROP = 2
    READY = 3
    REFUSED = 4
    ANSWER = 5
    ERROR = 6
    FAULT = 7
    LAG = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message to a worker: whose requests it is to send, and who started it. `secrets` are
    environment variables that only this worker knows; they travel here, and in no argument of a process."""

    spec: ModelSpec
    context: ProviderContext
    parent_pid: int
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class Line(asyncio.Protocol):
    """One end of the socket pair. `on_message` gets each message; `on_end` is told that the other end is
    gone."""

    def __init__(self, on_message: Callable[[Parts], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[Parts] = []
        self._in = bytearray()

    def send(self, *message: Any) -> None:
        """Send a message at the end of this turn of the event loop, with all others of the turn."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(message)

    def close(self) -> None:
        """Write what is left and hang up."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._on_end()

    def data_received(self, data: bytes) -> None:
        pending = self._in
        pending += data
        start, size = 0, _LENGTH.size
        while len(pending) >= start + size:
            end = start + size + _LENGTH.unpack_from(pending, start)[0]
            if len(pending) < end:
                break
            with memoryview(pending) as whole, whole[start + size : end] as frame:
                messages = pickle.loads(frame)
            start = end
            for message in messages:
                self._on_message(message)
        del pending[:start]

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            frame = pickle.dumps(out, pickle.HIGHEST_PROTOCOL)
            self._transport.write(_LENGTH.pack(len(frame)) + frame)


def request_parts(request: Request) -> Parts:
    """What of a request shapes its answer, the parameters apart. The row stays behind: no provider that asks
    over a network reads it."""
    messages = tuple([(message.role, message.content) for message in request.messages])
    return messages, request.prompt, request.stream, request.ask, request.exact, request.due_ns


def request_of(parts: Parts, params: Mapping[str, Any]) -> Request:
    """The request that `request_parts` took apart."""
    messages, prompt, stream, ask, exact, due_ns = parts
    made = tuple([Message(*message) for message in messages])
    return Request("", 0, made, prompt, params, {}, stream, ask, exact, due_ns)


def response_parts(response: Response) -> Parts:
    """A response as plain values."""
    timing = response.timing
    return _response(response), None if timing is None else _timing(timing)


def response_of(parts: Parts) -> Response:
    """The response that `response_parts` took apart.

    Times are those of the worker's `perf_counter`. On Linux (CLOCK_MONOTONIC) and macOS that clock is the
    machine's, not the process's, so they can be compared with ours.
    """
    values, timing = parts
    output, finish, prompt, completion, *rest = values
    return Response(output, finish, prompt, completion, None if timing is None else Timing(*timing), *rest)


def error_parts(error: ProviderError) -> Parts:
    """A provider's error as plain values."""
    return str(error.kind), error.message, error.http_status, error.retry_after_s


def error_of(parts: Parts) -> ProviderError:
    """The error that `error_parts` took apart."""
    kind, message, http_status, retry_after_s = parts
    return ProviderError(ErrorKind(kind), message, http_status=http_status, retry_after_s=retry_after_s)

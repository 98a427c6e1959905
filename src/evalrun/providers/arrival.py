"""Connections that know when bytes arrived, and take nothing for an answer that nobody waits for.

With many streams the event loop reads all sockets that have something before any coroutine goes on: the
last of 64 waits for the work of the 63 before it, milliseconds that would be taken for the server's. So the
moment is kept where the bytes are read. aiohttp offers no public place for that; where a version lacks the
attributes used here, times are those of the coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler


class _Handler(ResponseHandler):
    """aiohttp's protocol of one connection, with the time of the last bytes."""

    arrived_ns = 0
    idle = False
    """No request has been sent since the last answer was read to its end."""

    def data_received(self, data: bytes) -> None:
        if data:  # nothing comes where aiohttp goes on with what it had put aside: that is no arrival
            if self.idle:
                # A second answer to the last question would be taken for the first one to the next.
                self.close()
                return
            self.arrived_ns = perf_counter_ns()
        super().data_received(data)
        if self._exception is not None:
            self._break_off(self._exception)

    def resume_reading(self, *arguments: Any, **named: Any) -> None:
        # aiohttp 3.14 calls it after each chunk that is taken, paused or not: as dear as the chunk itself.
        if self._reading_paused:
            super().resume_reading(*arguments, **named)

    def set_response_params(self, **named: Any) -> None:
        """Called before each request is sent."""
        self.idle = False
        super().set_response_params(**named)

    def _break_off(self, error: BaseException) -> None:
        """Tell who reads the body that no more of it comes. aiohttp 3.14 tells only who waits for the head:
        a body that breaks the rules of HTTP later on would be waited for until the deadline."""
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError(str(error)))


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, with connections as above. Make it inside the running loop."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        if hasattr(self, "_factory"):
            factory: Any = partial(_Handler, loop=asyncio.get_running_loop())
            self._factory = factory

    def _release(self, key: Any, protocol: ResponseHandler, **named: Any) -> None:
        if isinstance(protocol, _Handler):
            protocol.idle = True
        super()._release(key, protocol, **named)


def arrival_clock(answer: aiohttp.ClientResponse) -> Callable[[], int]:
    """A clock that says when the last bytes of this answer arrived (perf_counter_ns).

    On a connection that already serves the next request it may say a later time, never one after now.
    """
    protocol = getattr(answer, "_protocol", None)
    if not isinstance(protocol, _Handler):
        return perf_counter_ns
    return lambda: protocol.arrived_ns

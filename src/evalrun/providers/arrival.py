"""When bytes arrived, rather than when the coroutine that waits for them had its turn.

With many streams the event loop reads all sockets that have something before any coroutine goes on: the
last of 64 waits for the work of the 63 before it, milliseconds that would be taken for the server's. So the
moment is kept where the bytes are read. aiohttp offers no public place for that; where a version lacks the
two attributes used here, times are those of the coroutines.
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

    def data_received(self, data: bytes) -> None:
        self.arrived_ns = perf_counter_ns()
        super().data_received(data)


def stamp_arrivals(connector: aiohttp.TCPConnector) -> None:
    """Have the connections of this connector keep the time. Call it inside the running loop."""
    if hasattr(connector, "_factory"):
        factory: Any = partial(_Handler, loop=asyncio.get_running_loop())
        connector._factory = factory


def arrival_clock(answer: aiohttp.ClientResponse) -> Callable[[], int]:
    """A clock that says when the last bytes of this answer arrived (perf_counter_ns).

    On a connection that already serves the next request it may say a later time, never one after now.
    """
    protocol = getattr(answer, "_protocol", None)
    if not isinstance(protocol, _Handler):
        return perf_counter_ns
    return lambda: protocol.arrived_ns

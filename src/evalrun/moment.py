"""Waiting for a moment of the machine's clock."""

from __future__ import annotations

import asyncio
import time

READY_NS = 4_000_000
"""A request is made ready so long before it is due: its body, its connection, its headers."""


_EARLY_S = 0.0005


async def about(due_ns: int) -> None:
    """Wait until about then, a millisecond more or less, without the loop going round for the rest."""
    left_s = (due_ns - time.perf_counter_ns()) / 1e9
    if left_s > 0:
        await asyncio.sleep(left_s)


async def until(due_ns: int) -> None:
    """Wait until `time.perf_counter_ns()` reads `due_ns`; the event loop goes on meanwhile.

    Timers count whole milliseconds (uvloop's, and epoll's): they are set for half of one before, and the loop
    goes round for the rest.
    """
    while (left_s := (due_ns - time.perf_counter_ns()) / 1e9) > 0:  # noqa: ASYNC110  (a clock, no event)
        await asyncio.sleep(left_s - _EARLY_S if left_s > _EARLY_S else 0)

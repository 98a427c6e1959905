"""Waiting for a moment of the machine's clock."""

from __future__ import annotations

import asyncio
import time


async def until(due_ns: int) -> None:
    """Wait until `time.perf_counter_ns()` reads `due_ns`; the event loop goes on meanwhile.

    Timers may be a little early (uvloop's count milliseconds): then the loop goes round for the rest.
    """
    while (left_s := (due_ns - time.perf_counter_ns()) / 1e9) > 0:  # noqa: ASYNC110  (a clock, no event)
        await asyncio.sleep(left_s)

"""How late the event loop wakes up: the client's own share in every latency it measures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping


class LagWatch:
    """Wakes every 50 ms and counts by how many steps of 0.1 ms it overslept.

    Not oftener: each time it takes a core from an engine that may want all of them.
    """

    INTERVAL_S = 0.05
    STEP_S = 1e-4
    STEPS = 10_000

    def __init__(self) -> None:
        self._histogram: dict[int, int] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.INTERVAL_S
            await asyncio.sleep(self.INTERVAL_S)
            step = min(self.STEPS, int(max(0.0, loop.time() - due) / self.STEP_S))
            self._histogram[step] = self._histogram.get(step, 0) + 1

    def take(self) -> dict[int, int]:
        """What was counted, by step; counting begins anew."""
        counted, self._histogram = self._histogram, {}
        return counted

    def quantile_s(self, q: float) -> float | None:
        """The q-quantile of the lag in seconds (upper edge of its step), or None if nothing was seen."""
        return quantile_s(self._histogram, q)


def quantile_s(histogram: Mapping[int, int], q: float) -> float | None:
    """The q-quantile of a histogram in steps of `LagWatch.STEP_S`, as seconds; None where it is empty."""
    total = sum(histogram.values())
    if not total:
        return None
    seen, last = 0, 0
    for step in sorted(histogram):
        seen, last = seen + histogram[step], step
        if seen >= q * total:
            break
    return (last + 1) * LagWatch.STEP_S

"""How late the event loop wakes up: the client's own share in every latency it measures."""

from __future__ import annotations

import asyncio


class LagWatch:
    """Wakes every 20 ms and records by how much it overslept, in a fixed histogram of 0.1 ms steps."""

    INTERVAL_S = 0.02
    STEP_S = 1e-4
    STEPS = 10_000

    def __init__(self) -> None:
        self._histogram = [0] * (self.STEPS + 1)

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.INTERVAL_S
            await asyncio.sleep(self.INTERVAL_S)
            late = max(0.0, loop.time() - due)
            self._histogram[min(self.STEPS, int(late / self.STEP_S))] += 1

    def quantile_s(self, q: float) -> float | None:
        """The q-quantile of the lag in seconds (upper edge of its step), or None if nothing was seen."""
        total = sum(self._histogram)
        if not total:
            return None
        seen = 0
        for step, count in enumerate(self._histogram):
            seen += count
            if seen >= q * total:
                return (step + 1) * self.STEP_S
        return (self.STEPS + 1) * self.STEP_S

"""The search for capacity: probes in closed loop, each of which ends when its question is decided.

Every number of requests in flight has a steady state, which a rate above capacity has not. A probe asks
whether a share of requests keeps the promise; the first round of it is not counted. Requests that are in
flight together are not independent: units of the test are blocks of a round, or of a second where a round
takes longer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass

from evalrun.runner.load.betting import Betting, Bracket, Decision
from evalrun.runner.load.level_run import LevelRun
from evalrun.suite.levels import Bound
from evalrun.types import SampleRecord, Status

LEAST = 60
"""Requests of a probe at least."""


@dataclass(slots=True)
class Probe:
    """One probe: `kept` of `n` counted requests kept the promise."""

    concurrency: int
    start_s: float
    end_s: float = 0.0
    n: int = 0
    kept: int = 0
    blocks: int = 0
    decision: Decision = "undecided"


class SearchRun(LevelRun):
    """The search as one run: its samples are those of all probes."""

    async def run(self) -> None:
        """Probe until the bracket is narrow. Raises UserError (exit code 3) where it cannot go on."""
        load = self._plan.load
        assert load.search is not None
        self._bounds = load.objectives(open_loop=False)
        probes: list[Probe] = []
        bracket = Bracket(load.search.up_to, start=min(4, load.search.up_to))
        self._start_ns = time.perf_counter_ns()
        self.facts.start_s = self._records.clock_s(self._start_ns)
        watch = asyncio.get_running_loop().create_task(self._deadlines.watch())
        try:
            while (level := bracket.next()) is not None and not self._ends():
                probe = await self._probe(level, load.search.attain, load.search.probe_s)
                probes.append(probe)
                share = probe.kept / probe.n if probe.n else 0.0
                decided = probe.decision != "undecided"
                bracket.add(level, probe.decision == "pass" if decided else share >= load.search.attain)
        finally:
            watch.cancel()
            self.facts.extra["probes"] = [asdict(probe) for probe in probes]
            self.facts.extra["attain"] = load.search.attain
        if self._fault is not None:
            raise self._fault

    async def _probe(self, level: int, attain: float, seconds: float) -> Probe:
        """Ask with so many in flight until it is decided, at most `seconds`, and once as long again where it
        is not."""
        self._now = Probe(level, self._records.clock_s(time.perf_counter_ns()))
        self._test = Betting(attain)
        self._skipped = 0
        self._block: list[bool] = []
        self._block_ns = time.perf_counter_ns()
        end_ns = time.perf_counter_ns() + int(2 * seconds * 1e9)
        async with asyncio.TaskGroup() as group:
            for _ in range(level):
                group.create_task(self._probing(end_ns))
        self._now.end_s = self._records.clock_s(time.perf_counter_ns())
        self._now.blocks = self._test.blocks
        self._now.decision = self._test.decision
        return self._now

    async def _probing(self, end_ns: int) -> None:
        while not self._ends() and not self._done() and time.perf_counter_ns() < end_ns:
            prepared = await self._source.take()
            if prepared is None:
                return
            await self._ask(prepared, time.perf_counter_ns())

    def _done(self) -> bool:
        return self._test.decision != "undecided" and self._now.n >= min(LEAST, 5 * self._now.concurrency)

    def _keep(self, record: SampleRecord) -> None:
        super()._keep(record)
        if self._skipped < self._now.concurrency:
            self._skipped += 1  # the first round: all were sent at one moment
            return
        kept = keeps(record, self._bounds)
        self._now.n += 1
        self._now.kept += kept
        self._block.append(kept)
        now_ns = time.perf_counter_ns()
        if len(self._block) >= self._now.concurrency or now_ns - self._block_ns >= 1_000_000_000:
            self._test.add(sum(self._block) / len(self._block))
            self._block, self._block_ns = [], now_ns


def keeps(record: SampleRecord, bounds: tuple[Bound, ...]) -> bool:
    """Whether an answer kept the promise. What it has no such time for it is judged without."""
    if record.status is Status.FAILED:
        return False
    response = None
    if record.done_s is not None and record.scheduled_s is not None:
        response = record.done_s - record.scheduled_s
    times = {
        "e2e_s": record.e2e_s, "ttft_s": record.ttft_s, "tpot_s": record.tpot_s, "response_s": response,
        "ttft_scheduled_s": None if record.ttft_s is None or record.client_queue_s is None
        else record.ttft_s + record.client_queue_s,
    }  # fmt: skip
    return all(value is None or bound.holds(value) for bound in bounds for value in [times[bound.of]])

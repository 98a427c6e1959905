"""The search for capacity: probes, each of which ends when its question is decided, then one that confirms.

It goes over requests in flight, each number of which has a steady state, or over rates, where a probe follows
a schedule of its own. A probe asks whether a share of requests keeps the promise; its beginning is not
counted. Requests that wait together are not independent: units of the test are blocks, of a round of those in
flight, or of a second where a round takes longer. What is found is held for once more as long, with arrivals
drawn anew, and nothing ends that early: a level that was picked because it did well is not believed for it.
Where it does not hold, the next lower one is held.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict, dataclass, replace

from evalrun.canonical import derived_seed
from evalrun.runner.load.betting import AnyBracket, Betting, Bracket, Decision, RateBracket
from evalrun.runner.load.level_run import LEAD_S, LevelRun
from evalrun.suite.levels import Bound, Level
from evalrun.types import SampleRecord, Status

LEAST = 60
"""Requests of a probe at least."""
MOST_CONFIRMING = 1_000
"""Requests of the probe that confirms, at most."""
FIRST, COUNTED = 5, 10
"""The first requests of a schedule find no queue, and are not counted; so many are, however long it takes."""
SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Probe:
    """One probe: `kept` of `n` counted requests kept the promise."""

    concurrency: int | None
    rate: float | None
    start_s: float
    confirms: bool = False
    end_s: float = 0.0
    n: int = 0
    kept: int = 0
    blocks: int = 0
    decision: Decision = "undecided"

    @property
    def level(self) -> float:
        """Requests in flight, or a second."""
        return float(self.concurrency or self.rate or 0)

    def refuted(self, attain: float) -> bool:
        """Whether fewer kept the promise than can be put down to chance (normal approximation)."""
        miss = attain - (self.kept / self.n if self.n else 0.0)
        return miss > 2 * math.sqrt(attain * (1 - attain) / max(1, self.n))


class SearchRun(LevelRun):
    """The search as one run: its samples are those of all probes."""

    async def run(self) -> None:
        """Probe until the bracket is narrow. Raises UserError (exit code 3) where it cannot go on."""
        load = self._plan.load
        assert load.search is not None
        open_loop = self._plan.level.open_loop
        self._bounds = load.objectives(open_loop=open_loop)
        probes: list[Probe] = []
        most = load.search.most
        bracket: AnyBracket = RateBracket(most) if open_loop else Bracket(int(most), start=min(4, int(most)))
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
            for level in sorted({each.level for each in probes if each.level <= bracket.passed})[:-4:-1]:
                if self._ends():
                    break
                probes.append(
                    await self._probe(level, load.search.attain, load.search.probe_s, confirms=True)
                )
                if not probes[-1].refuted(load.search.attain):
                    break
        finally:
            watch.cancel()
            self.facts.extra["probes"] = [asdict(probe) for probe in probes]
            self.facts.extra["attain"] = load.search.attain
        if self._fault is not None:
            raise self._fault

    async def _probe(self, level: float, attain: float, seconds: float, *, confirms: bool = False) -> Probe:
        """Ask at a level until it is decided, at most `seconds`, and once as long again where it is not; one
        that confirms goes on for `seconds`."""
        open_loop = self._plan.level.open_loop
        await self._forget()
        start_ns = time.perf_counter_ns()
        self._now = Probe(
            concurrency=None if open_loop else int(level),
            rate=level if open_loop else None,
            start_s=self._records.clock_s(start_ns),
            confirms=confirms,
        )
        self._test = Betting(attain)
        self._skipped, self._skip = 0, FIRST if open_loop else int(level)
        self._block: list[bool] = []
        self._block_ns = start_ns
        self._longest_ns = 0
        length = seconds if confirms else 2 * seconds
        if open_loop:
            await self._arriving(level, max(length, (FIRST + COUNTED) / level), confirms)
        else:
            end_ns = start_ns + int(length * 1e9)
            async with asyncio.TaskGroup() as group:
                for _ in range(int(level)):
                    group.create_task(self._probing(end_ns))
        self._now.end_s = self._records.clock_s(time.perf_counter_ns())
        self._now.blocks = self._test.blocks
        self._now.decision = self._test.decision
        return self._now

    async def _arriving(self, rate: float, length: float, confirms: bool) -> None:
        """Follow a schedule at a rate, and every request of it to its end."""
        schedule, level = self._plan.schedule, self._plan.level
        assert schedule is not None
        seed = derived_seed(schedule.seed, "confirm") if confirms else schedule.seed
        own = Level(rate=rate, arrivals=level.arrivals)
        self._start_ns = time.perf_counter_ns() + int(LEAD_S * 1e9)
        async with asyncio.TaskGroup() as group:
            await self._open(replace(schedule, level=own, seed=seed, until_s=length, count=None), group)

    async def _probing(self, end_ns: int) -> None:
        while not self._ends() and not self._over() and time.perf_counter_ns() < end_ns:
            prepared = await self._source.take()
            if prepared is None:
                return
            await self._ask(prepared, time.perf_counter_ns())

    def _over(self) -> bool:
        """Whether the probe may end before its time."""
        if self._now.confirms:
            return self._now.n >= MOST_CONFIRMING
        enough = LEAST if self._now.concurrency is None else min(LEAST, 5 * self._now.concurrency)
        # What does not keep up is seen soon, and each request more would wait longer than the one before.
        decision = self._test.decision
        return decision == "fail" or (decision == "pass" and self._now.n >= enough)

    def _keep(self, record: SampleRecord) -> None:
        super()._keep(record)
        if self._skipped < self._skip:
            self._skipped += 1  # the first round: all were sent at one moment, or found no queue
            return
        kept = keeps(record, self._bounds)
        self._now.n += 1
        self._now.kept += kept
        self._block.append(kept)
        if record.done_s is not None and record.scheduled_s is not None:
            self._longest_ns = max(self._longest_ns, int((record.done_s - record.scheduled_s) * 1e9))
        now_ns = time.perf_counter_ns()
        if self._is_block(now_ns - self._block_ns):
            self._test.add(sum(self._block) / len(self._block))
            self._block, self._block_ns = [], now_ns

    def _is_block(self, passed_ns: int) -> bool:
        if passed_ns >= SECOND_NS:
            return True
        if self._now.concurrency is not None:
            return len(self._block) >= self._now.concurrency
        return passed_ns >= 2 * self._longest_ns


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

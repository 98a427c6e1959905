"""All that watches a run: the machine, the event loop's lag, and what the engine says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from evalrun.frozen import frozen
from evalrun.providers.base import HasWorkers, Provider, RunsEngine, capability
from evalrun.runner.gpus import Gpus, open_gpus
from evalrun.runner.monitor import Monitor, SystemSample, Watched
from evalrun.runner.processes import JustRead
from evalrun.runner.rapl import open_rapl


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


Sink = Callable[[SystemSample], None]

STATS_INTERVAL_S = 1.0
_LONGEST_INTERVAL_S = 5.0
_STATS_SHARE = 0.02
"""The greatest share of time that the engine may spend on telling us: vLLM writes hundreds of figures."""
_STATS_PATIENCE_S = 2.0


@frozen
class Load:
    """What starting an engine took. `seconds` is None where no engine of ours was started; `rows` are its
    readings, with the end of the load as the zero of their clock."""

    seconds: float | None = None
    engine_peak_bytes: int | None = None
    samples: tuple[SystemSample, ...] = ()

    def figures(self) -> dict[str, float]:
        """Metric name to value, for what was measured."""
        known = {"performance.load_s": self.seconds, "memory.engine_load_peak_bytes": self.engine_peak_bytes}
        return {name: value for name, value in known.items() if value is not None}


def engine_pid(provider: Provider) -> int | None:
    """Root of the process tree whose memory is the engine's, where the provider has an engine of ours."""
    engine = capability(provider, RunsEngine)
    return engine.engine_pid if engine is not None else None


async def watched_start(provider: Provider) -> Load:
    """Start a provider and, where that starts an engine, watch the machine meanwhile. Raises what `start`
    raises."""
    if not provider.endpoint.startswith("local:"):
        await provider.start()
        return Load()
    samples: list[SystemSample] = []
    began = time.perf_counter()
    monitor = Monitor(Watched(lambda: engine_pid(provider), no_gpus="not read while loading"), samples.append)
    await asyncio.to_thread(monitor.start, "load")
    try:
        await provider.start()
    finally:
        seconds = time.perf_counter() - began
        await asyncio.to_thread(monitor.stop)
    if engine_pid(provider) is None:
        return Load()
    return Load(seconds, monitor.figures.engine_peak_bytes, tuple(samples))


@dataclass(slots=True)
class LoadOnce:
    """Hands the readings of the load to the first run after it, and its figures to every run."""

    load: Load = field(default_factory=Load)
    _given: bool = False

    def write_to(self, sink: Sink, at_s: float) -> None:
        """Write the readings so that the load ends at `at_s` of the run's clock, once."""
        if self._given or self.load.seconds is None:
            return
        self._given = True
        for sample in self.load.samples:
            sink(replace(sample, t_s=sample.t_s - self.load.seconds + at_s))


class Watch:
    """An async context around a run: `async with Watch(…) as watch`. Read its results afterwards."""

    def __init__(
        self,
        provider: Provider,
        sink: Sink,
        clock_offset_s: float = 0.0,
        just_read: JustRead | None = None,
    ) -> None:
        """`clock_offset_s` is where the run's clock stands, for a run that is taken up again; `just_read` is
        what the runs of one sweep share."""
        self._gpus, no_gpus = _gpus_of(provider)
        rapl, no_rapl = open_rapl() if _runs_here(provider) else (None, "")
        watched = Watched(
            lambda: engine_pid(provider),
            self._gpus,
            no_gpus,
            rapl,
            no_rapl,
            time.perf_counter() - clock_offset_s,
            just_read or JustRead(),
        )
        self.monitor = Monitor(watched, sink)
        self._engine = capability(provider, RunsEngine)
        self._spread = capability(provider, HasWorkers)
        self.workers = self._spread.workers if self._spread is not None else 0
        self._lag = LagWatch()
        self._lags: list[Mapping[int, int]] = []
        self.since_s = clock_offset_s
        self.devices: list[dict[str, Any]] = self._gpus.describe() if self._gpus is not None else []
        self.unavailable: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._silent = ""

    async def __aenter__(self) -> Watch:
        said = await self._ask_engine()
        self._take_lags()
        self.monitor.start("inference")
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._lag.run()))
        if said:
            self._tasks.append(loop.create_task(self._keep_asking()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if error is None and len(self._tasks) > 1:
                await self._ask_engine()
        finally:
            self.monitor.stop()
            self._take_lags()
            self.unavailable = self.monitor.unavailable
            if self._silent:
                self.unavailable["engine"] = self._silent
            if self._gpus is not None:
                self._gpus.close()

    def lag_s(self, q: float) -> float | None:
        """The q-quantile of the lag in seconds of the event loop that took the times: ours, or where others
        sent the requests the worst of theirs. None where nothing was seen."""
        lags = [lag for each in self._lags if (lag := quantile_s(each, q)) is not None]
        return max(lags) if lags else self._lag.quantile_s(q)

    def _take_lags(self) -> None:
        self._lags = self._spread.take_lags() if self._spread is not None else []

    async def _keep_asking(self) -> None:
        took_s = 0.0
        while True:
            await asyncio.sleep(min(max(STATS_INTERVAL_S, took_s / _STATS_SHARE), _LONGEST_INTERVAL_S))
            began = time.perf_counter()
            await self._ask_engine()
            took_s = time.perf_counter() - began

    async def _ask_engine(self) -> bool:
        """Hand the monitor what the engine says of itself; whether it said anything."""
        figures: dict[str, float] = {}
        reason = "the provider gives no figures of its engine"
        with contextlib.suppress(Exception):  # a figure that is missing must not cost a run
            reason = "the engine did not answer"
            async with asyncio.timeout(_STATS_PATIENCE_S):
                figures = await self._engine.engine_stats() if self._engine is not None else {}
            reason = "the provider gives no figures of its engine"
        self.monitor.engine_says(figures)
        if not figures and not self._silent:
            self._silent = reason
        return bool(figures)


def _gpus_of(provider: Provider) -> tuple[Gpus | None, str]:
    """The GPUs that the provider's model may run on."""
    if not provider.measured:
        return None, "no model runs: its answers are recorded ones"
    if not _runs_here(provider):
        return None, "the model does not run on this machine"
    return open_gpus(os.environ)


def _runs_here(provider: Provider) -> bool:
    """Whether a model runs, and on this machine."""
    here = engine_pid(provider) is not None or _on_this_machine(provider.endpoint)
    return provider.measured and here


def _on_this_machine(endpoint: str) -> bool:
    if endpoint.startswith(("local:", "python:")):
        return True
    host = urlsplit(endpoint).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")

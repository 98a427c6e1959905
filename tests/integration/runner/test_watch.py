"""The watch around a run: an engine's start, what it says of itself while it works, and its silence."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import UserError
from evalrun.providers.base import Provider, ProviderContext, RunsEngine
from evalrun.runner import watch as watch_module
from evalrun.runner.monitor import SystemSample
from evalrun.runner.watch import LoadOnce, Watch, watched_start
from evalrun.suite.components import ModelSpec
from evalrun.types import JSON, Request, Response

HOLD = "block = bytearray(40_000_000); print('ready', flush=True); input()"


class Engine(Provider, RunsEngine):
    """Starts a process that holds 40 MB, and counts how often it was asked about itself."""

    summary = "an engine for this test"
    place = "local:test"
    process: subprocess.Popen[bytes] | None = None
    asked = 0
    says: Any = None

    @property
    def endpoint(self) -> str:
        return self.place

    @property
    def engine_pid(self) -> int | None:
        return self.process.pid if self.process else None

    async def start(self) -> None:
        if self.place == "local:broken":
            raise UserError("it does not start")
        if self.place.startswith("local:"):
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-c", HOLD], stdin=pipe, stdout=pipe
            )
            assert self.process.stdout is not None
            await asyncio.to_thread(self.process.stdout.readline)

    async def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def identity(self) -> dict[str, JSON]:
        return {}

    async def engine_stats(self) -> dict[str, float]:
        self.asked += 1
        if self.says == "hang":
            await asyncio.sleep(1000)
        if self.says == "fail":
            raise OSError("reset")
        return {"preemptions": float(self.asked)} if self.says else {}

    async def generate(self, request: Request) -> Response:
        raise NotImplementedError


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    spec = ModelSpec.model_validate({"id": "m", "provider": "openai_compatible", "base_url": "http://h/v1"})
    made = Engine(spec, ProviderContext(tmp_path, tmp_path))
    yield made
    await made.close()


async def test_the_load_is_a_phase_of_its_own_before_the_run(engine: Engine) -> None:
    load = await watched_start(engine)
    assert load.seconds is not None and load.seconds > 0.01
    assert load.engine_peak_bytes is not None and load.engine_peak_bytes > 40_000_000
    assert load.figures() == {
        "performance.load_s": load.seconds,
        "memory.engine_load_peak_bytes": load.engine_peak_bytes,
    }
    rows: list[SystemSample] = []
    once = LoadOnce(load)
    once.write_to(rows.append, 5.0)
    written = len(rows)
    once.write_to(rows.append, 5.0)
    assert len(rows) == written == len(load.samples) >= 2, "only the first run after it is given the load"
    async with Watch(engine, rows.append, 5.0):
        pass
    phases = [row.phase for row in rows]
    assert phases[:written] == ["load"] * written
    assert len(phases) >= written + 2 and set(phases[written:]) == {"inference"}
    assert all(row.t_s <= 5.1 for row in rows[:written]) and all(row.t_s >= 5.0 for row in rows[written:])


async def test_a_server_that_is_there_already_has_no_load(engine: Engine) -> None:
    engine.place = "http://192.0.2.1:8000"
    load = await watched_start(engine)
    assert load.seconds is None and load.figures() == {}
    rows: list[SystemSample] = []
    LoadOnce(load).write_to(rows.append, 0.0)
    assert rows == []


async def test_an_engine_that_does_not_start_leaves_no_thread(engine: Engine) -> None:
    import threading

    engine.place = "local:broken"
    with pytest.raises(UserError, match="does not start"):
        await watched_start(engine)
    assert not [thread for thread in threading.enumerate() if thread.name == "evalrun-monitor"]


async def test_what_the_engine_says_stands_in_the_first_and_last_sample(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "STATS_INTERVAL_S", 0.05)
    engine.says = True
    rows: list[SystemSample] = []
    async with Watch(engine, rows.append) as watch:
        await asyncio.sleep(0.3)
    assert rows[0].engine == {"preemptions": 1.0}
    assert rows[-1].engine == {"preemptions": float(engine.asked)} and engine.asked > 3
    assert watch.monitor.figures.figures()["engine.preemptions"] == engine.asked - 1
    assert "engine" not in watch.unavailable


async def test_a_silent_engine_is_asked_once_and_that_is_said(engine: Engine) -> None:
    async with Watch(engine, lambda sample: None) as watch:
        await asyncio.sleep(0.05)
    assert engine.asked == 1
    assert "gives no figures" in watch.unavailable["engine"]


@pytest.mark.parametrize("says", ["hang", "fail"])
async def test_an_engine_that_does_not_answer_costs_no_run(
    engine: Engine, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_STATS_PATIENCE_S", 0.1)
    engine.says = says
    async with asyncio.timeout(60), Watch(engine, lambda sample: None) as watch:
        pass
    assert "did not answer" in watch.unavailable["engine"]


async def test_the_last_sample_is_taken_when_the_run_fails(engine: Engine) -> None:
    rows: list[SystemSample] = []
    with pytest.raises(KeyError):
        async with Watch(engine, rows.append):
            raise KeyError
    assert len(rows) >= 2


async def test_gpus_of_this_machine_say_nothing_of_a_model_elsewhere(engine: Engine) -> None:
    engine.place = "https://api.example.com:443"
    async with Watch(engine, lambda sample: None) as watch:
        pass
    assert watch.unavailable["gpu"] == "the model does not run on this machine"
    engine.place = "http://127.0.0.1:8000"
    async with Watch(engine, lambda sample: None) as watch:
        pass
    assert "this machine" not in watch.unavailable.get("gpu", "")

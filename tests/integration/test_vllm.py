"""Real vLLM: a server of our own, one that runs, and offline. Slow: each engine takes a minute to start.

They run where EVALRUN_VLLM_PYTHON names an interpreter with vLLM and EVALRUN_VLLM_MODEL a folder with a
small model (by default `smollm2-135m-hf` beside that interpreter's virtual environment).
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import BatchProvider, Provider, ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, Message, ProviderError, Request, Response

PYTHON = os.environ.get("EVALRUN_VLLM_PYTHON", "")
MODEL = os.environ.get("EVALRUN_VLLM_MODEL") or str(
    Path(PYTHON).parents[2] / "smollm2-135m-hf" if PYTHON else ""
)

pytestmark = [
    pytest.mark.skipif(
        not PYTHON, reason="EVALRUN_VLLM_PYTHON is not set: no interpreter with vLLM is named"
    ),
    pytest.mark.skipif(bool(PYTHON) and not Path(MODEL).is_dir(), reason=f"there is no model folder {MODEL}"),
    pytest.mark.asyncio(loop_scope="module"),
]

ENGINE = {
    "engine_args": {"dtype": "bfloat16", "max_model_len": 1024, "enforce_eager": True},
    "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
}
CONCURRENT = 16


def made(folder: Path, **keys: Any) -> Provider:
    entry = {"id": "smol", "provider": "vllm", "model": MODEL, **keys}
    return create(ModelSpec.model_validate(entry), ProviderContext(folder, folder))


def request(number: int, stream: bool = False, **params: Any) -> Request:
    text = f"Tell me of the number {number}."
    given = {"temperature": 0, "max_tokens": 24, **params}
    return Request(f"s{number}", 0, (Message("user", text),), None, given, {}, stream)


def say(what: str, **figures: Any) -> None:
    sys.stdout.write(f"\n[vllm] {what}: " + ", ".join(f"{k}={v}" for k, v in figures.items()) + "\n")


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


async def gone(processes: list[psutil.Process], patience_s: float = 15.0) -> list[psutil.Process]:
    """Those that are still there after the patience."""
    _, left = await asyncio.to_thread(psutil.wait_procs, processes, patience_s)
    return list(left)


def seconds(answer: Response) -> tuple[float | None, float]:
    timing = answer.timing
    assert timing is not None
    first = None if timing.first_ns is None else (timing.first_ns - timing.sent_ns) / 1e9
    return first, (timing.last_ns - timing.sent_ns) / 1e9


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Provider]:
    provider = made(tmp_path_factory.mktemp("server"), **ENGINE)
    began = time.perf_counter()
    await provider.start()
    say("server started", seconds=round(time.perf_counter() - began, 1))
    yield provider
    await provider.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def offline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BatchProvider]:
    provider = made(tmp_path_factory.mktemp("offline"), mode="offline", **ENGINE)
    assert isinstance(provider, BatchProvider)
    began = time.perf_counter()
    await provider.start()
    say("offline started", seconds=round(time.perf_counter() - began, 1))
    yield provider
    await provider.close()


class TestServer:
    async def test_says_what_shapes_its_answers(self, server: Provider) -> None:
        identity = server.identity()
        assert identity["mode"] == "server" and identity["max_model_len"] == 1024
        assert len(str(identity["weights_sha256"])) == 64
        assert identity["engine"]["vllm"]
        say("identity", **identity)

    async def test_answers_alike_whole_and_streamed(self, server: Provider) -> None:
        whole = await server.generate(request(1))
        streamed = await server.generate(request(1, stream=True))
        assert whole.output == streamed.output != ""
        assert whole.completion_tokens == streamed.completion_tokens
        first, last = seconds(streamed)
        assert first is not None and 0 < first < last
        say(
            "streamed",
            output=repr(streamed.output),
            tokens=streamed.completion_tokens,
            ttft_s=first,
            e2e_s=last,
        )

    async def test_what_does_not_fit_is_refused_by_name(self, server: Provider) -> None:
        long = Request("s", 0, (Message("user", "word " * 3000),), None, {}, {})
        with pytest.raises(ProviderError, match="maximum context length is 1024 tokens") as caught:
            await server.generate(long)
        assert caught.value.kind is ErrorKind.BAD_REQUEST

    async def test_counts_what_it_computes(self, server: Provider) -> None:
        before = await server.engine_stats()  # type: ignore[attr-defined]
        began = time.perf_counter()
        answers = await asyncio.gather(*[server.generate(request(n, stream=True)) for n in range(CONCURRENT)])
        wall = time.perf_counter() - began
        after = await server.engine_stats()  # type: ignore[attr-defined]
        tokens = sum(each.completion_tokens or 0 for each in answers)
        assert after["generation_tokens"] - before["generation_tokens"] == tokens
        assert after["prompt_tokens"] > before["prompt_tokens"] and after["kv_cache_tokens"] > 1024
        waits = [seconds(each)[0] for each in answers]
        median = statistics.median(wait for wait in waits if wait is not None)
        say(
            "server throughput",
            tokens_per_s=round(tokens / wall, 1),
            median_ttft_s=round(median, 3),
            stats=after,
        )

    async def test_its_running_requests_show(self, server: Provider) -> None:
        tasks = [asyncio.ensure_future(server.generate(request(n, max_tokens=64))) for n in range(4)]
        seen: dict[str, float] = {}
        while not all(task.done() for task in tasks):
            now = await server.engine_stats()  # type: ignore[attr-defined]
            seen = {key: max(value, seen.get(key, 0.0)) for key, value in now.items()}
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)
        assert seen["requests_running"] > 0 and seen["kv_cache_usage"] > 0

    async def test_can_be_attached_to(self, server: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
        client = server.client  # type: ignore[attr-defined]
        monkeypatch.setenv("VLLM_TEST_KEY", client.target.headers["Authorization"].removeprefix("Bearer "))
        folder = server.context.base_dir
        keys = {"base_url": str(client.base_url), "api_key_env": "VLLM_TEST_KEY", "model": None}
        attached = made(folder, **keys)
        await attached.start()
        try:
            assert (await attached.generate(request(1))).output == (await server.generate(request(1))).output
            assert (attached.identity()["model"], attached.engine_pid) == ("smol", None)
            assert (await attached.engine_stats())["generation_tokens"] > 0  # type: ignore[attr-defined]
        finally:
            await attached.close()
        with pytest.raises(UserError, match="does not serve 'other'") as caught:
            await made(folder, **{**keys, "model": "other"}).start()
        assert "smol" in str(caught.value)

    async def test_its_memory_is_that_of_a_tree(self, server: Provider) -> None:
        assert server.engine_pid is not None
        sizes = [(process.name(), process.memory_info().rss >> 20) for process in tree(server.engine_pid)]
        assert max(size for _, size in sizes[1:]) > 500  # MB: the weights are not in the root
        say("processes", mb=sizes)

    async def test_its_death_is_a_failure_of_the_engine(self, server: Provider) -> None:
        """The last of this class: the engine's core is killed in the middle of four answers."""
        assert server.engine_pid is not None
        processes = tree(server.engine_pid)
        core = next(process for process in processes if "EngineCore" in process.name())
        work = [server.generate(request(n, stream=n % 2 == 0, max_tokens=900)) for n in range(4)]
        tasks = [asyncio.ensure_future(each) for each in work]
        await asyncio.sleep(2)
        killed = time.perf_counter()
        core.kill()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        known = time.perf_counter() - killed
        assert [getattr(end, "kind", None) for end in ends] == [ErrorKind.ENGINE] * 4
        say("engine killed", seconds_until_known=round(known, 2), message=str(ends[0]))
        assert known < 20
        await server.close()
        assert not await gone(processes)


class TestOffline:
    async def test_answers_a_batch_with_the_engine_s_own_times(self, offline: BatchProvider) -> None:
        requests = [request(n) for n in range(CONCURRENT)]
        await offline.generate_batch(requests[:1])
        began = time.perf_counter()
        answers = await offline.generate_batch(requests)
        wall = time.perf_counter() - began
        tokens, times = 0, []
        for answer in answers:
            assert isinstance(answer, Response) and answer.output
            first, last = seconds(answer)
            assert first is not None and 0 < first <= last <= wall
            tokens += answer.completion_tokens or 0
            times.append(first)
        say(
            "offline throughput", tokens_per_s=round(tokens / wall, 1), median_ttft_s=statistics.median(times)
        )
        stats = await offline.engine_stats()  # type: ignore[attr-defined]
        assert stats["generation_tokens"] >= tokens
        say("offline", identity=offline.identity(), stats=stats)

    async def test_one_bad_request_fails_alone(self, offline: BatchProvider) -> None:
        long = Request("s", 0, (Message("user", "word " * 3000),), None, {}, {})
        odd = request(2, no_such_parameter=1)
        good, too_long, unknown, also = await offline.generate_batch([request(1), long, odd, request(3)])
        assert isinstance(good, Response) and isinstance(also, Response)
        assert isinstance(too_long, ProviderError) and isinstance(unknown, ProviderError)
        assert too_long.kind is unknown.kind is ErrorKind.BAD_REQUEST
        assert "1024 tokens" in too_long.message and "no_such_parameter" in unknown.message

    async def test_structured_output(self, offline: BatchProvider) -> None:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        (answer,) = await offline.generate_batch([request(1, response_format=shape, max_tokens=40)])
        assert isinstance(answer, Response), answer
        assert answer.output.lstrip().startswith("{")

    async def test_a_killed_engine_loses_only_what_was_not_finished(self, offline: BatchProvider) -> None:
        """The last of this class."""
        assert offline.engine_pid is not None
        processes = tree(offline.engine_pid)
        core = next(process for process in processes if "EngineCore" in process.name())
        requests = [
            request(1, max_tokens=1),
            *[request(n, max_tokens=900, min_tokens=900) for n in range(2, 5)],
        ]
        task = asyncio.ensure_future(offline.generate_batch(requests))
        await asyncio.sleep(8)
        killed = time.perf_counter()
        core.kill()
        first, *rest = await task
        say(
            "offline engine killed",
            seconds_until_known=round(time.perf_counter() - killed, 2),
            message=str(rest[0]),
        )
        assert isinstance(first, Response)
        assert [getattr(each, "kind", None) for each in rest] == [ErrorKind.ENGINE] * 3
        await offline.close()
        assert not await gone(processes)


async def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "config.json").write_text('{"architectures": ["NoSuchForCausalLM"], "model_type": "llama"}')
    provider = made(tmp_path, **{**ENGINE, "model": str(broken)})
    with pytest.raises(UserError) as caught:
        await provider.start()
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert "the engine vllm ended while starting" in str(caught.value)
    assert "cause: " in str(caught.value) and "NoSuchForCausalLM" in str(caught.value)
    say("could not start", message=str(caught.value))
    assert provider.engine_pid is None


def spawned(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


async def test_never_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from evalrun.providers.base import ProviderContext, create
from evalrun.suite.schema import ModelSpec
entry = {{"id": "smol", "provider": "vllm", "model": {MODEL!r}, **{ENGINE!r}}}
folder = Path({str(tmp_path)!r})
asyncio.run(create(ModelSpec.model_validate(entry), ProviderContext(folder, folder)).start())
"""
    parent = spawned(code)
    try:
        deadline = time.monotonic() + 240
        processes: list[psutil.Process] = []
        while time.monotonic() < deadline and not any("EngineCore" in each.name() for each in processes):
            await asyncio.sleep(0.5)
            processes = psutil.Process(parent.pid).children(recursive=True)
        assert len(processes) >= 3
        os.kill(parent.pid, signal.SIGKILL)
        assert not await gone(processes)
        say("parent killed while the engine started", processes=len(processes), left=0)
    finally:
        parent.kill()
        parent.wait()

"""One run against a real server: what is asked, retried, counted, cached and kept."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.servers import ChatServer, completion

from evalrun.datasets import open_dataset
from evalrun.errors import ExitCode, UserError
from evalrun.prompts import compile_prompt
from evalrun.providers.base import ProviderContext, create
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Stop
from evalrun.runner.journal import NOTHING_EARLIER, Earlier, Journal
from evalrun.runner.limits import AdaptiveLimit, FixedLimit, Limit, Throttle
from evalrun.runner.source import LARGE_CHUNK, sample_seed
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.load import parse_suite
from evalrun.suite.plan import cells
from evalrun.types import SampleRecord, Status


class Kept:
    """An observer that keeps the records."""

    def __init__(self) -> None:
        self.records: list[SampleRecord] = []

    def sample(self, run_id: str, record: SampleRecord) -> None:
        self.records.append(record)


def options(**changes: Any) -> CellOptions:
    plain = {"stream": False, "warmup": 0, "timeout_s": 10.0, "retries": 1, "seed": 5, "tolerate": 1.0}
    return CellOptions(**{**plain, **changes})


async def run_cell(
    server: ChatServer,
    folder: Path,
    *,
    n: int = 8,
    limit: Limit | None = None,
    cell_options: CellOptions | None = None,
    cache: ResponseCache | None = None,
    suite_changes: dict[str, Any] | None = None,
    stop: Stop | None = None,
    kept: Kept | None = None,
    earlier: Earlier = NOTHING_EARLIER,
) -> list[SampleRecord]:
    suite = parse_suite(
        {
            "name": "t",
            "models": [
                {
                    "id": "m",
                    "provider": "openai_compatible",
                    "base_url": server.base_url,
                    "model": "scripted",
                    "params": {"temperature": 0},
                    "price": {"input_per_million_usd": 1.0, "output_per_million_usd": 2.0},
                }
            ],
            "prompts": [{"id": "p", "text": "number {{ x }}"}],
            "datasets": [{"id": "d", "rows": [{"x": i} for i in range(n)], "target": "x"}],
            "parse": ["last_number"],
            "scorers": ["numeric"],
            **(suite_changes or {}),
        }
    )
    (spec,) = cells(suite)
    dataset = open_dataset(spec.dataset, folder, suite.seed)
    renderer = compile_prompt(spec.prompt, folder).bind(None, suite.seed)
    provider = create(spec.model, ProviderContext(folder, folder))
    pipeline = Pipeline([each.build() for each in suite.parse], [each.build() for each in suite.scorers])
    kept = kept or Kept()
    journal = Journal(folder / "journal.jsonl")
    await provider.start()
    try:
        await CellRun(
            Cell.of(spec, dataset, renderer, provider, pipeline),
            cell_options or options(),
            CellContext(journal, cache, Throttle(limit or FixedLimit(3)), kept, stop or Stop()),
            earlier,
        ).run()
    finally:
        await journal.close()
        await provider.close()
    return kept.records


def echo(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


async def test_every_sample_once_with_its_figures(chat_server: ChatServer, tmp_path: Path) -> None:
    chat_server.answer = echo
    chat_server.delay_s = 0.05
    loop = asyncio.get_running_loop()
    start = loop.time()
    records = await run_cell(chat_server, tmp_path)
    took = loop.time() - start
    assert sum(record.e2e_s or 0 for record in records) <= 3 * took, "three at a time"
    assert sorted(record.vars["x"] for record in records) == list(range(8))
    for record in records:
        assert (record.status, record.scores["numeric"]) == (Status.SCORED, 1.0)
        assert record.e2e_s is not None and record.e2e_s >= 0.05
        assert record.ttft_s is None and record.tpot_s is None, "not streamed, so not measured"
        assert record.cost_usd == pytest.approx((7 * 1.0 + 3 * 2.0) / 1e6)
        assert (record.attempts, record.attempt_log) == (1, ())


async def test_streamed_answers_have_a_first_token(chat_server: ChatServer, tmp_path: Path) -> None:
    chat_server.answer = echo
    records = await run_cell(chat_server, tmp_path, cell_options=options(stream=True))
    assert all(body["stream"] for body in chat_server.bodies)
    assert all(record.ttft_s is not None and record.ttft_s <= (record.e2e_s or 0) for record in records)
    assert all(record.completion_tokens == 3 for record in records)


async def test_no_more_in_flight_than_allowed(chat_server: ChatServer, tmp_path: Path) -> None:
    in_flight, most = 0, 0

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.02)
        in_flight -= 1
        return web.json_response(completion(echo(body)))

    chat_server.behaviour = behaviour
    await run_cell(chat_server, tmp_path, n=30, limit=FixedLimit(3))
    assert most == 3


async def test_the_adaptive_limit_grows_and_workers_follow(chat_server: ChatServer, tmp_path: Path) -> None:
    chat_server.answer = echo
    chat_server.delay_s = 0.01
    limit = AdaptiveLimit(start=2, maximum=16)
    records = await run_cell(chat_server, tmp_path, n=120, limit=limit)
    assert len(records) == 120
    assert [change.limit for change in limit.changes] == [4, 8, 16]


async def test_a_busy_server_is_asked_again_and_each_attempt_is_recorded(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if chat_server.questions.count(body["messages"][-1]["content"]) == 1:
            await asyncio.sleep(0.2)
            return web.json_response({"error": "busy"}, status=429, headers={"Retry-After": "0.3"})
        return web.json_response(completion(echo(body)))

    chat_server.behaviour = behaviour
    records = await run_cell(chat_server, tmp_path, n=2)
    for record in records:
        assert record.status is Status.SCORED and record.attempts == 2
        assert [attempt.error for attempt in record.attempt_log] == ["rate_limit", None]
        refused, answered = record.attempt_log
        assert refused.start_s == 0.0 and refused.duration_s >= 0.2
        assert 0.3 <= refused.wait_s <= 0.55, "Retry-After, and a little jitter"
        assert answered.start_s == pytest.approx(refused.duration_s + refused.wait_s)
        assert answered.wait_s == 0.0 and answered.duration_s > 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_will_not_mend_is_asked_once(chat_server: ChatServer, tmp_path: Path, status: int) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    chat_server.behaviour = behaviour
    records = await run_cell(chat_server, tmp_path, n=3)
    assert len(chat_server.bodies) == 3
    assert all(record.status is Status.FAILED and record.scores == {} for record in records)


async def test_the_deadline_holds_with_retries_and_waits(chat_server: ChatServer, tmp_path: Path) -> None:
    async def never(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    chat_server.behaviour = never
    async with asyncio.timeout(60):
        (record,) = await run_cell(chat_server, tmp_path, n=1, cell_options=options(timeout_s=0.3))
    assert record.status is Status.FAILED and record.error == "timeout: no answer within 0.3 s"


async def test_many_identical_failures_stop_the_run(chat_server: ChatServer, tmp_path: Path) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "wrong key"}}, status=401)

    chat_server.behaviour = behaviour
    with pytest.raises(UserError, match="wrong key") as caught:
        await run_cell(chat_server, tmp_path, n=500, limit=FixedLimit(1))
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert len(chat_server.bodies) == 5


async def test_too_many_failures_stop_the_run(chat_server: ChatServer, tmp_path: Path) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        number = len(chat_server.bodies)
        return web.json_response({"error": {"message": f"unlike the last, {number}"}}, status=400)

    chat_server.behaviour = behaviour
    with pytest.raises(UserError, match=r"errors\.tolerate"):
        await run_cell(chat_server, tmp_path, n=100, cell_options=options(tolerate=0.1), limit=FixedLimit(1))
    assert len(chat_server.bodies) == 11


def _finish(reason: str) -> Callable[[dict[str, Any], web.Request], Any]:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response(completion("" if reason == "content_filter" else echo(body), reason))

    return behaviour


@pytest.mark.parametrize(("reason", "asked"), [("stop", 4), ("length", 4), ("content_filter", 8)])
async def test_filtered_answers_are_refused_and_never_cached(
    chat_server: ChatServer, tmp_path: Path, reason: str, asked: int
) -> None:
    chat_server.behaviour = _finish(reason)
    for turn in ("first", "second"):
        folder = tmp_path / turn
        folder.mkdir()
        cache = ResponseCache(tmp_path / "cache.db")
        records = await run_cell(chat_server, folder, n=4, cache=cache)
        await cache.close()
    assert len(chat_server.bodies) == asked
    expected = Status.REFUSED if reason == "content_filter" else Status.SCORED
    assert {record.status for record in records} == {expected}


async def test_work_that_is_done_already_leaves_the_loop_its_turns(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    cache, n = ResponseCache(tmp_path / "cache.db"), 3 * LARGE_CHUNK
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    await run_cell(chat_server, tmp_path / "first", n=n, cache=cache, limit=FixedLimit(32))
    kept, seen = Kept(), [0]

    async def look() -> None:
        while True:
            seen.append(len(kept.records))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await run_cell(chat_server, tmp_path / "second", n=n, cache=cache, limit=FixedLimit(32), kept=kept)
    looking.cancel()
    await cache.close()
    assert len(kept.records) == n and all(record.cached for record in kept.records)
    # Within one turn nothing is written, shown or stopped: it is one chunk, however many workers there are.
    assert max(later - earlier for earlier, later in pairwise([*seen, n])) <= LARGE_CHUNK


async def test_warm_up_samples_are_marked_and_asked_once(chat_server: ChatServer, tmp_path: Path) -> None:
    records = await run_cell(chat_server, tmp_path, n=6, cell_options=options(warmup=2))
    assert len(chat_server.bodies) == 6
    assert sum(record.warmup for record in records) == 2


async def test_repeats_are_asked_apart_with_seeds_of_their_own(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    changes = {"repeats": 3, "sweep": {"temperature": [0.7]}}
    records = await run_cell(chat_server, tmp_path, n=2, suite_changes=changes)
    assert sorted((record.vars["x"], record.repeat) for record in records) == [
        (x, repeat) for x in (0, 1) for repeat in (0, 1, 2)
    ]
    seeds = {body["seed"] for body in chat_server.bodies}
    assert seeds == {sample_seed(5, record.sample_id, record.repeat) for record in records}
    assert len(seeds) == 6


async def test_greedy_requests_carry_no_seed(chat_server: ChatServer, tmp_path: Path) -> None:
    await run_cell(chat_server, tmp_path, n=2)
    assert not any("seed" in body for body in chat_server.bodies)


async def test_a_stop_lets_what_is_in_flight_finish(chat_server: ChatServer, tmp_path: Path) -> None:
    stop = Stop()

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        stop.requested = True
        await asyncio.sleep(0.05)
        return web.json_response(completion(echo(body)))

    chat_server.behaviour = behaviour
    records = await run_cell(chat_server, tmp_path, n=50, limit=FixedLimit(3), stop=stop)
    assert 1 <= len(records) == len(chat_server.bodies) <= 3


async def test_what_an_earlier_start_answered_is_not_asked_again(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    chat_server.answer = echo
    repeated = {"repeats": 2}
    first = await run_cell(chat_server, tmp_path, n=3, suite_changes=repeated)
    asked = len(chat_server.bodies)
    done = {(record.sample_id, record.repeat) for record in first if (record.target, record.repeat) != (1, 1)}
    again = await run_cell(
        chat_server, tmp_path, n=3, suite_changes=repeated, earlier=Earlier(frozenset(done), 100.0)
    )
    assert len(chat_server.bodies) == asked + 1
    [record] = again
    assert (record.target, record.repeat) == (1, 1)
    assert record.done_s is not None and record.done_s >= 100.0, "the clock goes on"


@pytest.mark.parametrize(("price", "cost"), [({}, 1.0), ({"cached_input_per_million_usd": 0.1}, 0.19)])
async def test_prompt_tokens_from_a_providers_cache_have_a_price_of_their_own(
    chat_server: ChatServer, tmp_path: Path, price: dict[str, float], cost: float
) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        details = {"cached_tokens": 900_000}
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "prompt_tokens_details": details}
        return web.json_response({**completion("1"), "usage": usage})

    chat_server.behaviour = behaviour
    model = {
        "id": "m",
        "provider": "openai_compatible",
        "base_url": chat_server.base_url,
        "model": "scripted",
    }
    model["price"] = {"input_per_million_usd": 1.0, "output_per_million_usd": 2.0, **price}
    [record] = await run_cell(chat_server, tmp_path, n=1, suite_changes={"models": [model]})
    assert record.cost_usd == pytest.approx(cost) and record.cached_prompt_tokens == 900_000

"""When a run of failures ends a run, what it leaves unasked, and that it can be ended all the same."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.integration.runner.test_cell import Kept, echo, options, run_cell
from tests.servers import ChatServer, completion

from evalrun.errors import ExitCode, UserError
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Stop
from evalrun.runner.journal import RunFolder
from evalrun.runner.limits import FixedLimit
from evalrun.types import Status


def refusing(of: range, status: int = 400) -> Any:
    """A server that refuses these rows, each in other words."""
    asked: list[int] = []

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        number = int(echo(body).split()[-1])
        asked.append(number)
        if number in of:
            message = f"row {number} is filtered, request {len(asked)}"
            return web.json_response({"error": {"message": message}}, status=status)
        return web.json_response(completion(echo(body)))

    return behaviour, asked


async def test_rows_that_fail_by_themselves_do_not_stop_who_bears_it(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    chat_server.behaviour, asked = refusing(range(10, 70))
    records = await run_cell(
        chat_server, tmp_path, n=80, limit=FixedLimit(1), cell_options=options(patient=True)
    )
    assert len(asked) == len(records) == 80
    assert sum(record.status is Status.FAILED for record in records) == 60


async def test_a_run_that_stops_goes_on_with_what_was_never_asked_and_ends(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    chat_server.behaviour, asked = refusing(range(10, 70))
    parts: list[list[int]] = []
    for _ in range(6):
        del asked[:]
        folder = RunFolder(tmp_path)
        earlier = folder.open({"model": "m"})
        folder.close()
        try:
            await run_cell(chat_server, tmp_path, n=80, limit=FixedLimit(1), earlier=earlier)
        except UserError as stopped:
            assert stopped.exit_code is ExitCode.INCOMPLETE
            assert "tolerate: 1" in stopped.problems[0].remedy
            parts.append(list(asked))
        else:
            parts.append(list(asked))
            break
    assert parts[:3] == [list(range(30)), list(range(30, 50)), list(range(50, 70))]
    assert parts[3:] == [[*range(70, 80), *range(10, 70)]], (
        "the last part asks the rest, then the failed again"
    )


async def test_a_wrong_key_stops_early_whatever_its_message_says(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    chat_server.behaviour, asked = refusing(range(1000), 401)
    with pytest.raises(UserError, match="5 failures alike in a row"):
        await run_cell(chat_server, tmp_path, n=200, limit=FixedLimit(1), cell_options=options(patient=True))
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"message": "You exceeded your current quota", "type": "insufficient_quota"}),
        (429, {"message": "no", "code": "insufficient_quota"}),
        (429, {"message": "Insufficient balance or no resource package."}),
        (402, {"message": "Insufficient Balance"}),
        (403, {"message": "no", "code": "billing_not_active"}),
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low to access it."}),
        (200, {"message": "no", "code": 402}),
        (200, {"message": "no", "code": "insufficient_quota"}),
    ],
)
async def test_an_account_without_money_is_not_asked_again(
    chat_server: ChatServer, tmp_path: Path, status: int, error: dict[str, Any]
) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=status)

    chat_server.behaviour = behaviour
    with pytest.raises(UserError, match="account") as stopped:
        await run_cell(
            chat_server, tmp_path, n=9, limit=FixedLimit(1), cell_options=options(retries=4, patient=True)
        )
    assert stopped.value.exit_code is ExitCode.INCOMPLETE and len(chat_server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "Rate limit reached for requests per minute"),
        (429, "You exceeded your current quota, please retry in 3 s."),
        (500, "insufficient_quota"),
        (400, "the prompt 'my account has insufficient funds' was filtered"),
    ],
)
async def test_other_refusals_are_not_taken_for_an_empty_account(
    chat_server: ChatServer, tmp_path: Path, status: int, message: str
) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": message}}, status=status)

    chat_server.behaviour = behaviour
    records = await run_cell(chat_server, tmp_path, n=2, cell_options=options(retries=0))
    assert len(records) == 2 and not any("billing" in (record.error or "") for record in records)


@pytest.mark.parametrize("status", [503, 429, 408])
async def test_what_fails_while_the_run_stops_is_left_unasked(
    chat_server: ChatServer, tmp_path: Path, status: int
) -> None:
    stop, kept = Stop(), Kept()

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        stop.requested = True
        await asyncio.sleep(0.05)
        return web.json_response({"error": "busy"}, status=status)

    chat_server.behaviour = behaviour
    patient = options(retries=4)
    await run_cell(
        chat_server, tmp_path, n=12, limit=FixedLimit(12), stop=stop, kept=kept, cell_options=patient
    )
    assert kept.records == [] and len(chat_server.bodies) <= 12


async def test_what_will_not_mend_is_recorded_though_the_run_stops(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    stop = Stop()

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        stop.requested = True
        return web.json_response({"error": "no"}, status=400)

    chat_server.behaviour = behaviour
    records = await run_cell(chat_server, tmp_path, n=12, limit=FixedLimit(1), stop=stop)
    assert [record.status for record in records] == [Status.FAILED]


async def test_a_wait_that_a_server_asked_for_ends_with_the_run(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    stop, answered = Stop(), threading.Semaphore(0)

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if len(chat_server.bodies) == 3:
            answered.release()
        return web.json_response({"error": "slow"}, status=429, headers={"Retry-After": "37"})

    chat_server.behaviour = behaviour
    asking = asyncio.create_task(
        run_cell(chat_server, tmp_path, n=3, stop=stop, cell_options=options(timeout_s=90.0, retries=4))
    )
    await asyncio.to_thread(answered.acquire)
    await asyncio.sleep(0.1)
    stop.requested = True
    assert await asyncio.wait_for(asking, 10) == []
    assert len(chat_server.bodies) == 3


async def test_a_fault_ends_the_waits_too(chat_server: ChatServer, tmp_path: Path) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if echo(body).endswith(" 0"):
            return web.json_response({"error": "slow"}, status=429, headers={"Retry-After": "37"})
        return web.json_response({"error": {"code": "insufficient_quota"}}, status=429)

    chat_server.behaviour = behaviour
    kept = Kept()
    with pytest.raises(UserError):
        await asyncio.wait_for(
            run_cell(chat_server, tmp_path, n=9, kept=kept, cell_options=options(timeout_s=90.0, retries=4)),
            10,
        )
    assert all("billing" in (record.error or "") for record in kept.records)


async def test_an_answer_that_broke_off_is_asked_again_and_never_cached(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    broken = completion("a part", "error")
    broken["choices"][0]["error"] = {"code": 502, "message": "the upstream broke"}

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response(broken)

    chat_server.behaviour = behaviour
    cache = ResponseCache(tmp_path / "cache.db")
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        [record] = await run_cell(chat_server, folder, n=1, cache=cache)
        assert (record.status, record.attempts, record.output) == (Status.FAILED, 2, None)
        assert "the upstream broke" in (record.error or "")
    await cache.close()
    assert len(chat_server.bodies) == 4

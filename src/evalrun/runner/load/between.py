"""Between two levels: a server ends what it is still at, and forgets the prompts of the level before."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import RunsEngine, capability

if TYPE_CHECKING:
    from evalrun.providers.base import Provider
    from evalrun.providers.http_client import HTTPClient
    from evalrun.runner.load.level_run import LevelFacts

FORGET = ("/reset_prefix_cache", "/flush_cache")
"""Where vLLM (with VLLM_SERVER_DEV_MODE=1) and SGLang are told to empty their prefix cache."""
BLIND_S, BUSY_S = 10.0, 60.0
"""Waited at most: where a server does not say whether it is busy, and where it does."""
_ASK_S = 0.25
_ABSENT = (404, 405, 501)


async def forget_prefixes(provider: Provider) -> str:
    """Have the server empty its prefix cache, and say by which of its ways.

    It refuses while requests run (vLLM), so that it is asked again for a while. Raises UserError (exit 3)
    where it has no such way, or goes on refusing.
    """
    client, model = _client(provider), provider.spec.id
    status, at = 0, 0
    end = time.monotonic() + BLIND_S
    while client is not None and at < len(FORGET) and time.monotonic() < end:
        status = await _post(client, FORGET[at])
        if 200 <= status < 300:
            return FORGET[at]
        if status in _ABSENT:
            at += 1
        else:
            await asyncio.sleep(_ASK_S)
    said = f": it answers {status}" if status and status not in _ABSENT else ""
    raise UserError(
        f"the server of model '{model}' does not empty its prefix cache at {' or '.join(FORGET)}{said}",
        where="load.prefix_cache",
        remedy="Start vLLM with VLLM_SERVER_DEV_MODE=1, or write prefix_cache: separate.",
        exit_code=ExitCode.INCOMPLETE,
    )


async def settled(provider: Provider, facts: LevelFacts) -> bool:
    """Where requests were given up the server may be at them still: wait until it says that it is not, or for
    twice the longest answer. False where it says that it is busy even so."""
    if not facts.timed_out:
        return True
    end = time.monotonic() + BUSY_S
    while (busy := await _busy(provider)) and time.monotonic() < end:  # noqa: ASYNC110  (another process)
        await asyncio.sleep(_ASK_S)
    if busy is None:
        await asyncio.sleep(min(BLIND_S, 2 * facts.longest_s))
    return not busy


async def _busy(provider: Provider) -> float | None:
    """Requests that the server runs or keeps waiting; None where it does not say."""
    import aiohttp

    from evalrun.providers.engine import llamacpp_figures, vllm_figures

    engine, client = capability(provider, RunsEngine), _client(provider)
    try:
        figures = await engine.engine_stats() if engine is not None else {}
        if not figures and client is not None:
            status, body, _ = await client.get(client.base_url.with_path("/metrics"), BLIND_S)
            text = body.decode("utf-8", "replace") if status == 200 else ""
            figures = {**vllm_figures(text), **llamacpp_figures(text)}
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
    if "requests_running" not in figures:
        return None
    return figures["requests_running"] + figures.get("requests_waiting", 0)


async def _post(client: HTTPClient, path: str) -> int:
    """The status of the answer; 0 where there was none."""
    import aiohttp

    try:
        async with asyncio.timeout(BLIND_S):
            _, answer = await client.send("POST", client.base_url.with_path(path), {}, b"")
            async with answer:
                return answer.status
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0


def _client(provider: Provider) -> HTTPClient | None:
    from evalrun.providers.http_provider import HTTPProvider

    asked = getattr(provider, "inner", provider)  # that of worker processes is ours here
    return asked.client if isinstance(asked, HTTPProvider) else None

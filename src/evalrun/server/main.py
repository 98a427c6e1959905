"""Runs a server until it is told to end, and ends within seconds, whoever still reads."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import orjson

from evalrun.atomic import write_private
from evalrun.errors import ExitCode, UserError
from evalrun.server.app import Server, make_app
from evalrun.server.config import ADDRESS, Config, own_address
from evalrun.server.database import Database
from evalrun.tracking.store import Store

STOP_S = 4


def serve(store: Store, config: Config, say: Callable[[str], None]) -> None:
    """Serve the store until SIGINT or SIGTERM. Raises UserError where the address is taken, or the database
    cannot be used."""
    import uvicorn

    from evalrun.server.answers import recover
    from evalrun.server.push import remove_stale

    settings = uvicorn.Config(
        "", host=config.host, port=config.port, log_level="warning", access_log=False, lifespan="on",
        # Who the other end is must not be what a header says: see `security.peer_of`.
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=STOP_S, timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 << 10, limit_concurrency=1000,
    )  # fmt: skip
    try:
        listening = settings.bind_socket()
    except SystemExit:
        what = f"{config.bind} cannot be listened on (another program may have it)"
        raise UserError(
            what, remedy="Choose another: --bind 127.0.0.1:8471", exit_code=ExitCode.INCOMPLETE
        ) from None
    if config.port == 0:
        port = listening.getsockname()[1]
        config = config.model_copy(update={"bind": f"{config.host}:{port}"})
    try:
        server = Server(store, config, Database(store))
        recover(server)
        remove_stale(store)
    except BaseException:
        listening.close()
        raise
    settings.app = make_app(server)
    listening.listen(128)
    asyncio.run(_run(uvicorn.Server(settings), server, listening, say))


async def _run(running, server: Server, listening, say) -> None:  # type: ignore[no-untyped-def]
    loop = asyncio.get_running_loop()
    address = own_address(server.config)
    write_private(server.store.root / ADDRESS, orjson.dumps({"url": address}))

    def stop() -> None:
        server.live.end()  # streams say goodbye first: uvicorn waits for them
        running.should_exit = True

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)
    say(first_words(server, address))
    # Not `run`, which would take the signals for itself and end the process by them.
    await running._serve([listening])


def first_words(server: Server, address: str) -> str:
    """What is printed at the start: where, and for one of this machine a link that signs its owner in."""
    config = server.config
    lines = [f"evalrun serves {Path(server.store.root)} at {address} (Ctrl-C ends it)"]
    if config.login.links or not (config.login.oidc or config.login.proxy):
        person = server.accounts.person("link", "owner")
        server.accounts.grant(person, "*", "admin")
        lines.append(
            f"Sign in, once, within 15 minutes: {address}/sign-in#{server.accounts.make_link(person)}"
        )
        lines.append("Another link, for you or others: evalrun user link NAME")
    return "\n".join(lines)

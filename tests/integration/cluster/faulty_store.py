"""A server before an S3 server, which lets requests fail as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType

from aiohttp import ClientSession, web

Fault = Callable[[str, str, int], str]
"""Of method, path and how manieth such request: "" (let it pass), "500", "409", "403", "stall", "lost" (done,
and the answer is a 500), "lie" (not done, and the answer is a 200)."""


class FaultyStore:
    """Passes requests on, counts them, and keeps when objects were put."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self.fault: Fault = lambda method, path, number: ""
        self.counts: dict[str, int] = {}
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method = request.method
        self.counts[method] = self.counts.get(method, 0) + 1
        fault = self.fault(method, request.path, self.counts[method])
        body = await request.read()
        if fault == "stall":
            await asyncio.sleep(2)
        if fault in ("500", "409", "403", "stall"):
            return web.Response(status=int(fault) if fault != "stall" else 500, text="<Error/>")
        if fault == "lie":
            return web.Response(status=200, headers={"ETag": '"0"'})
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        url = self._behind + request.raw_path
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            data = await answer.read()
            if fault == "lost":
                return web.Response(status=500, text="<Error/>")
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in ("content-length", "transfer-encoding", "connection")
            }
            return web.Response(status=answer.status, body=data, headers=kept)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        self._session = ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def _end(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    def __enter__(self) -> FaultyStore:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

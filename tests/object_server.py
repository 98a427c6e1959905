"""As much of S3's API on loopback as reading takes: HEAD, GET of ranges, lists. It counts what it sent."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from xml.sax.saxutils import escape

from aiohttp import web

_LIST = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>'
_WRONG = '<?xml version="1.0"?><Error><Code>{}</Code><Message>no</Message></Error>'


class ObjectServer:
    """`objects` are by "bucket/key". `refuse` is the status and code that everything is answered with."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.sent = 0
        self.gets: list[str] = []
        self.keys: set[str] = set()
        self.refuse: tuple[int, str] | None = None
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address, as AWS_ENDPOINT_URL has it."""
        return f"http://127.0.0.1:{self.port}"

    async def _handle(self, request: web.Request) -> web.Response:
        self.keys.add(request.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0])
        if self.refuse is not None:
            status, code = self.refuse
            return web.Response(status=status, text=_WRONG.format(code), content_type="application/xml")
        name = request.path.strip("/")
        if "list-type" in request.query:
            return self._listed(name, request.query.get("prefix", ""))
        data = self.objects.get(name)
        if data is None:
            return web.Response(status=404, text=_WRONG.format("NoSuchKey"), content_type="application/xml")
        headers = {"Last-Modified": "Mon, 30 Nov 2026 08:00:00 GMT", "ETag": '"1"', "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(data))})
        self.gets.append(name)
        place = request.http_range
        part = data[place]
        self.sent += len(part)
        if part is data or request.headers.get("Range") is None:
            return web.Response(body=part, headers=headers)
        start, stop, _ = place.indices(len(data))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return web.Response(status=206, body=part, headers=headers)

    def _listed(self, bucket: str, prefix: str) -> web.Response:
        found = [name.partition("/")[2] for name in self.objects if name.startswith(f"{bucket}/{prefix}")]
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-30T08:00:00.000Z</LastModified>"
            f"<Size>{len(self.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in sorted(found)
        )
        body = f"<Name>{bucket}</Name><KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{rows}"
        return web.Response(text=_LIST.format(body), content_type="application/xml")

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    def __enter__(self) -> ObjectServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

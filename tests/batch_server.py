"""The batch APIs of OpenAI, Azure and Anthropic on loopback, which shuffle, lose, refuse and die."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.messages_server import MessagesServer, error, said
from tests.servers import completion


@dataclass
class Made:
    """One batch at the provider."""

    id: str
    requests: list[dict[str, Any]]
    file: str
    created: float
    metadata: dict[str, str] = field(default_factory=dict)
    endpoint: str = ""
    polls: int = 0
    results: list[tuple[str, Any]] | None = None
    """Of each request its key and what became of it, once the batch ended."""
    cancelled: bool = False
    refused: str = ""


class BatchServer(MessagesServer):
    """`die_at` names a step at which `die` is called once and the connection broken off: `made` (before an
    upload or a batch is taken), `uploaded`, `created`, `running`, `results` (each after it was done)."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.batches: list[Made] = []
        self.paid: Counter[str] = Counter()
        """How often each question was answered."""
        self.ready_after = 1
        self.fate: Callable[[str], str] = lambda question: "answered"
        """What becomes of a question: answered, expired, broken (a 500), wrong (a 400), canceled or lost."""
        self.most_waiting: int | None = None
        self.die_at = ""
        self.die: Callable[[], None] = lambda: None
        self.dead = False
        self.die_with = 1
        """How many batches are created before it dies at that step."""
        self.paths: list[str] = []
        self._rng = random.Random(3)

    # --- steps ------------------------------------------------------------------------------------------

    def _step(self, name: str, request: web.Request) -> None:
        if self.die_at == name and not self.dead:
            self.dead = True
            self.die()
        if self.dead and request.transport is not None:
            request.transport.abort()
            raise web.HTTPServiceUnavailable

    async def _others(self) -> None:
        deadline = time.monotonic() + 10
        while self.die_at == "created" and len(self.batches) < self.die_with:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    def _create(self, requests: list[dict[str, Any]], file: str = "") -> Made:
        keys = [request["custom_id"] for request in requests]
        assert len(set(keys)) == len(keys), "two requests with one custom_id"
        assert all(len(key) <= 64 for key in keys)
        made = Made(f"batch_{len(self.batches) + 1}", requests, file, time.time())
        waiting = sum(len(other.requests) for other in self.batches if other.results is None)
        self.batches.append(made)
        if self.most_waiting is not None and waiting + len(requests) > self.most_waiting:
            made.refused, made.results = "token_limit_exceeded", []
        return made

    def _poll(self, made: Made) -> None:
        made.polls += 1
        if made.results is None and made.polls >= self.ready_after:
            made.results = [self._end(request) for request in made.requests]
            self._rng.shuffle(made.results)

    def _end(self, request: dict[str, Any]) -> tuple[str, Any]:
        body = request.get("body") or request["params"]
        question = said(body) if "messages" in body else body["prompt"]
        fate = self.fate(question)
        if fate == "answered":
            self.paid[question] += 1
            fate = self.document(body) if "params" in request else completion(self.answer(body))
        return request["custom_id"], fate

    def of(self, name: str) -> Made:
        """The batch with an id."""
        return next(made for made in self.batches if made.id == name)

    # --- OpenAI -----------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        self.paths.append(request.path_qs)
        self._step("made", request)
        form = await request.post()
        assert form["purpose"] == "batch"
        name = f"file-{len(self.files) + 1}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
        self._step("uploaded", request)
        return web.json_response(
            {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"}
        )

    async def create(self, request: web.Request) -> web.Response:
        self.paths.append(request.path_qs)
        said = await request.json()
        lines = self.files[said["input_file_id"]].splitlines()
        made = self._create([json.loads(line) for line in lines], said["input_file_id"])
        made.metadata, made.endpoint = said["metadata"], said["endpoint"]
        assert all(line["url"] == said["endpoint"] for line in made.requests)
        await self._others()
        self._step("created", request)
        return web.json_response(self.openai(made))

    async def retrieve(self, request: web.Request) -> web.Response:
        made = self.of(request.match_info["batch"])
        self._poll(made)
        self._step("running", request)
        return web.json_response(self.openai(made))

    async def list(self, request: web.Request) -> web.Response:
        page, more, _ = self._page(request.query.get("after"), int(request.query["limit"]))
        return web.json_response(
            {"object": "list", "data": [self.openai(made) for made in page], "has_more": more}
        )

    def _page(self, after: str | None, limit: int) -> tuple[list[Made], bool, str | None]:
        newest = self.batches[::-1]
        start = 0 if after is None else newest.index(self.of(after)) + 1
        page = newest[start : start + min(limit, 2)]  # few on a page, so that there are pages
        return page, start + len(page) < len(newest), page[-1].id if page else None

    async def cancel(self, request: web.Request) -> web.Response:
        made = self.of(request.match_info["batch"])
        made.cancelled = True
        if made.results is None:
            self._poll_until_ended(made)
        of = self.anthropic if "messages" in request.path else self.openai
        return web.json_response(of(made))

    def _poll_until_ended(self, made: Made) -> None:
        """Half of it was answered when it was cancelled."""
        half = len(made.requests) // 2
        made.results = [self._end(one) for one in made.requests[:half]]
        made.results += [(one["custom_id"], "canceled") for one in made.requests[half:]]

    async def content(self, request: web.Request) -> web.Response:
        kind, _, name = request.match_info["file"].partition("-")
        made = self.of(name)
        lines = []
        for key, fate in made.results or ():
            if (fate == "answered" or isinstance(fate, dict)) is (kind == "out"):
                lines.append(json.dumps({"id": "r", "custom_id": key, **_line(fate)}))
        self._step("results", request)
        return web.Response(body="\n".join(line for line in lines if '"lost"' not in line).encode())

    def openai(self, made: Made) -> dict[str, Any]:
        """A batch as OpenAI says it."""
        results = made.results or []
        good = sum(isinstance(fate, dict) for _, fate in results)
        status = "in_progress" if made.results is None else "completed"
        if any(fate == "expired" for _, fate in results):
            status = "expired"
        status = "failed" if made.refused else "cancelled" if made.cancelled else status
        errors = [
            {"code": made.refused, "message": "Enqueued token limit reached", "line": None, "param": None}
        ]
        return {
            "id": made.id,
            "object": "batch",
            "endpoint": made.endpoint,
            "errors": {"object": "list", "data": errors} if made.refused else None,
            "input_file_id": made.file,
            "completion_window": "24h",
            "status": status,
            "output_file_id": f"out-{made.id}" if good else None,
            "error_file_id": f"err-{made.id}" if len(results) > good else None,
            "created_at": int(made.created),
            "request_counts": {
                "total": len(made.requests),
                "completed": good,
                "failed": len(results) - good,
            },
            "metadata": made.metadata,
        }

    # --- Anthropic --------------------------------------------------------------------------------------

    async def create_messages(self, request: web.Request) -> web.Response:
        self._step("made", request)
        made = self._create((await request.json())["requests"])
        await self._others()
        self._step("created", request)
        return web.json_response(self.anthropic(made))

    async def retrieve_messages(self, request: web.Request) -> web.Response:
        made = self.of(request.match_info["batch"])
        self._poll(made)
        self._step("running", request)
        return web.json_response(self.anthropic(made))

    async def list_messages(self, request: web.Request) -> web.Response:
        page, more, last = self._page(request.query.get("after_id"), int(request.query["limit"]))
        data = [self.anthropic(made) for made in page]
        return web.json_response({"data": data, "has_more": more, "last_id": last})

    async def results_messages(self, request: web.Request) -> web.Response:
        made = self.of(request.match_info["batch"])
        lines = [
            json.dumps({"custom_id": key, "result": _result(fate)})
            for key, fate in made.results or ()
            if fate != "lost"
        ]
        self._step("results", request)
        return web.Response(body="\n".join(lines).encode())

    def anthropic(self, made: Made) -> dict[str, Any]:
        """A batch as Anthropic says it."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if made.results is None:
            counts["processing"] = len(made.requests)
        for _, fate in made.results or ():
            name = "succeeded" if isinstance(fate, dict) else fate
            counts[name if name in counts else "errored"] += 1
        return {
            "id": made.id,
            "type": "message_batch",
            "processing_status": "in_progress" if made.results is None else "ended",
            "request_counts": counts,
            "created_at": datetime.fromtimestamp(made.created, UTC).isoformat(),
            "results_url": "https://elsewhere.invalid/results",
        }

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/v1/messages/batches", self.create_messages)
        app.router.add_get("/v1/messages/batches", self.list_messages)
        app.router.add_get("/v1/messages/batches/{batch}", self.retrieve_messages)
        app.router.add_get("/v1/messages/batches/{batch}/results", self.results_messages)
        app.router.add_post("/v1/messages/batches/{batch}/cancel", self.cancel)
        for root in ("/v1", "/openai"):
            app.router.add_post(f"{root}/files", self.upload)
            app.router.add_get(f"{root}/files/{{file}}/content", self.content)
            app.router.add_post(f"{root}/batches", self.create)
            app.router.add_get(f"{root}/batches", self.list)
            app.router.add_get(f"{root}/batches/{{batch}}", self.retrieve)
            app.router.add_post(f"{root}/batches/{{batch}}/cancel", self.cancel)


def _line(fate: Any) -> dict[str, Any]:
    """What became of a request, in a line of OpenAI's results."""
    if isinstance(fate, dict):
        return {"response": {"status_code": 200, "request_id": "q", "body": fate}, "error": None}
    if fate in ("broken", "wrong"):
        status = 500 if fate == "broken" else 400
        body = {"error": {"message": fate, "type": "invalid_request_error"}}
        return {"response": {"status_code": status, "request_id": "q", "body": body}, "error": None}
    code = "batch_cancelled" if fate == "canceled" else f"batch_{fate}"
    return {"response": None, "error": {"code": code, "message": f"{fate}"}}


def _result(fate: Any) -> dict[str, Any]:
    """The same in a line of Anthropic's."""
    if isinstance(fate, dict):
        return {"type": "succeeded", "message": fate}
    if fate in ("broken", "wrong"):
        kind = "api_error" if fate == "broken" else "invalid_request_error"
        return {"type": "errored", "error": error(kind, fate)}
    return {"type": fate}

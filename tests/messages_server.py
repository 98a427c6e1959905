"""Anthropic's Messages API on loopback: answers, streams and errors in its forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.servers import ChatServer

MODEL = "claude-scripted-1"


def said(body: dict[str, Any]) -> str:
    """The text of the last message of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1].get("text", "")


def message(content: list[dict[str, Any]], stop_reason: str = "end_turn", **usage: int) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 3, **usage},
    }


def error(kind: str, text: str) -> dict[str, Any]:
    """An error as the API writes it."""
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"}


def events(document: dict[str, Any]) -> Iterator[bytes]:
    """The events in which an answer is streamed: texts in two pieces, a ping among them."""
    start = {**document, "content": [], "stop_reason": None}
    start["usage"] = {**document["usage"], "output_tokens": 1}
    yield _event("message_start", message=start)
    yield _event("ping")
    for index, block in enumerate(document["content"]):
        yield from _block(index, block)
    delta = {"stop_reason": document["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": document["usage"]["output_tokens"]}
    yield _event("message_delta", delta=delta, usage=usage)
    yield _event("message_stop")


def _block(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    kind = block["type"]
    field, delta = {
        "text": ("text", "text_delta"),
        "thinking": ("thinking", "thinking_delta"),
        "tool_use": ("input", "input_json_delta"),
    }[kind]
    whole = json.dumps(block[field]) if kind == "tool_use" else block[field]
    yield _event(
        "content_block_start", index=index, content_block={**block, field: {} if kind == "tool_use" else ""}
    )
    half = len(whole) // 2
    name = "partial_json" if kind == "tool_use" else field
    for piece in (whole[:half], whole[half:]):
        yield _event("content_block_delta", index=index, delta={"type": delta, name: piece})
    if kind == "thinking":
        signature = {"type": "signature_delta", "signature": "c2ln"}
        yield _event("content_block_delta", index=index, delta=signature)
    yield _event("content_block_stop", index=index)


def _event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, **fields}).encode())


class MessagesServer(ChatServer):
    """Answers `POST /v1/messages`. `answer(body)` gives a text, or a list of content blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[Any] = []
        self.usage: dict[str, int] = {}
        self.stop_reason = "end_turn"
        self.behaviour = self._message

    def document(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request, or its error where it is not one that the API takes."""
        wrong = set(body) & {"seed", "stop", "response_format", "max_completion_tokens"}
        if wrong:
            return error("invalid_request_error", f"{wrong.pop()}: Extra inputs are not permitted")
        if not isinstance(body.get("max_tokens"), int):
            return error("invalid_request_error", "max_tokens: Field required")
        if any(turn["role"] not in ("user", "assistant") for turn in body["messages"]):
            return error("invalid_request_error", "messages: Unexpected role")
        content: Any = self.answer(body)
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        return message(blocks, self.stop_reason, **self.usage)

    async def _message(self, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers.copy())
        document = self.document(body)
        if document["type"] == "error":
            return web.json_response(document, status=400)
        if not body.get("stream"):
            return web.json_response(document)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for event in events(document):
            await response.write(event)
        return response

    def routes(self, app: web.Application) -> None:
        """What the server answers to."""
        app.router.add_post("/v1/messages", self._handle)
        app.router.add_get("/v1/models", self._models)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        self.routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

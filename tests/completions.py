"""A completions server that echoes prompts with log-probabilities, as vLLM does.

The language model behind it is one that a test can compute for itself."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.servers import ChatServer

TOKEN = re.compile(r" ?\w+|\s|[^\w\s]")


def tokens_of(text: str) -> list[str]:
    """Words with the space before them, single marks and spaces."""
    return TOKEN.findall(text)


def logprob_of(before: str, token: str) -> float:
    """What the model thinks of a token after the one before: between -0.1 and -8, always the same."""
    return -0.1 - 7.9 * (zlib.crc32(f"{before}|{token}".encode()) % 10_007) / 10_007


def likelihood(text: str, start: int) -> tuple[float, int]:
    """Log-likelihood and number of the tokens that begin at `start` or after it; the first has none."""
    place, before, total, count = 0, "", 0.0, 0
    for number, token in enumerate(tokens_of(text)):
        if number and place >= start:
            total += logprob_of(before, token)
            count += 1
        place, before = place + len(token), token
    return total, count


class CompletionsServer(ChatServer):
    """`lists`: takes several prompts at once. `least_tokens`: what max_tokens must be. `echoes`: gives
    log-probabilities of prompts. `prefix`: a begin-of-text token put before every prompt. `first` are the
    log-probabilities of first tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.lists = True
        self.least_tokens = 0
        self.echoes = True
        self.prefix: str | None = None
        self.first: dict[str, float] = {" Yes": math.log(0.5), "Yes": math.log(0.1), " No": math.log(0.3)}
        self.texts: Callable[[dict[str, Any]], str] = lambda body: " words"

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if len(prompts) > 1 and not self.lists:
            return self._refuse("prompt must be a string")
        if body.get("max_tokens", 16) < self.least_tokens:
            return self._refuse(f"max_tokens must be at least {self.least_tokens}")
        if any(len(prompt) > 5000 for prompt in prompts):
            return self._refuse("maximum context length is exceeded")
        make = self._echo if body.get("echo") and self.echoes else self._plain_choice
        choices = [make(number, prompt, body) for number, prompt in enumerate(prompts)]
        counted = sum(len(tokens_of(prompt)) for prompt in prompts)
        usage = {"prompt_tokens": counted, "completion_tokens": body.get("max_tokens", 16) * len(prompts)}
        return web.json_response({"model": "scripted", "choices": choices[::-1], "usage": usage})

    def _echo(self, number: int, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        tokens = tokens_of(prompt)
        shown = ([self.prefix] if self.prefix else []) + tokens + [" end"] * body["max_tokens"]
        pairs = zip([self.prefix or "", *tokens, ""], [*tokens, *[" end"] * body["max_tokens"]], strict=False)
        values = [logprob_of(before, token) if before else None for before, token in pairs]
        found = ([None] if self.prefix else []) + values
        offsets = [sum(map(len, shown[:at])) for at in range(len(shown))]
        logprobs = {"tokens": shown, "token_logprobs": found, "text_offset": offsets}
        return {"index": number, "text": prompt, "finish_reason": "length", "logprobs": logprobs}

    def _plain_choice(self, number: int, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": number, "text": self.texts(body), "finish_reason": "stop"}
        if body.get("logprobs") and not body.get("echo"):
            token = max(self.first, key=lambda each: self.first[each])
            choice["text"] = token
            choice["logprobs"] = {
                "tokens": [token],
                "token_logprobs": [self.first[token]],
                "top_logprobs": [self.first],
            }
        return choice

    @staticmethod
    def _refuse(message: str) -> web.Response:
        return web.json_response({"error": {"message": message, "type": "BadRequestError"}}, status=400)

    def _routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_get("/v1/models", self._models)

    async def _start(self) -> None:
        app = web.Application()
        self._routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

"""A completions server whose model looks at planted words, and a suite that asks it."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from tests.completions import TOKEN, CompletionsServer, tokens_of

ROWS = [
    {"id": "a", "text": "I was charged twice. The weather is fine today. My name is Sam.", "t": "billing"},
    {"id": "b", "text": "The parcel came late. Thank you. It is Monday.", "t": "delivery"},
]
TEXT = (
    "{% section task %}You sort messages.{% endsection %}\n"
    "{% section message %}{{ text }}{% endsection %}\n"
    "{% section form %}Be brief.{% endsection %} Team:"
)


class Planted(CompletionsServer):
    """What it thinks of a label depends on single words of what stands before it: `weights`."""

    weights = {"charged": {"billing": 4.0}, "late": {"delivery": 3.0}, "brief": {"billing": -1.0}}

    def __init__(self) -> None:
        super().__init__()
        self.texts = lambda body: " billing" if "charged" in body["prompt"] else " account"

    def _echo(self, number: int, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        choice = super()._echo(number, prompt, body)
        tokens = tokens_of(prompt)
        before = {token.strip() for token in tokens[:-1]}
        value = -9.0 + sum(
            w.get(tokens[-1].strip(), 0.0) for word, w in self.weights.items() if word in before
        )
        choice["logprobs"]["token_logprobs"][len(tokens) - (self.prefix is None)] = value
        return choice


class Chatting(Planted):
    """Asked in chats, by a template of its own; tells it by `/tokenize` and `/detokenize`, as vLLM does."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = "<s>"
        self.vocabulary: dict[str, int] = {}
        self.answer = lambda body: " billing" if "charged" in str(body["messages"]) else " account"

    def _ids(self, text: str) -> list[int]:
        found = re.findall(r"<s>|<\|\w+\|>|" + TOKEN.pattern, text)
        return [self.vocabulary.setdefault(token, len(self.vocabulary)) for token in found]

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = "<s>" + body.get("prompt", "")
        if "messages" in body:
            assert body["add_generation_prompt"]
            text += "".join(f"<|{each['role']}|>{each['content']}<|end|>" for each in body["messages"])
            text += "<|assistant|>"
        ids = self._ids(text)
        return web.json_response(
            {"count": len(ids), "max_model_len": 4096, "tokens": ids, "token_strs": None}
        )

    async def _detokenize(self, request: web.Request) -> web.Response:
        token_of = {number: token for token, number in self.vocabulary.items()}
        ids = (await request.json())["tokens"]
        return web.json_response({"prompt": "".join(token_of[number] for number in ids)})

    def _routes(self, app: web.Application) -> None:
        super()._routes(app)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)


def suite(server: CompletionsServer, **changes: Any) -> dict[str, Any]:
    model = {"id": "m", "provider": "openai_compatible", "base_url": server.base_url, "model": "scripted"}
    return {
        "name": "why",
        "models": [{**model, "api": "completions", "params": {"max_tokens": 4}}],
        "prompts": [{"id": "p", "text": TEXT}],
        "datasets": [{"id": "d", "rows": ROWS, "key": "id", "target": "t"}],
        "parse": [{"choice": ["billing", "delivery", "account"]}],
        "scorers": ["exact_match"],
        "performance": {"concurrency": 4, "retries": 0},
        **changes,
    }

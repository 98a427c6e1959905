"""What passes between the vLLM providers and their child process, with a small stand-in for the package vllm.

How vLLM itself behaves is for test_vllm.py. Here the child, the wire and the provider are real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from evalrun.providers.base import ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import Ask, ErrorKind, Message, ProviderError, Request, Response

OFFLINE = """
    import time, types
    __version__ = "0.0"

    class SamplingParams:
        def __init__(self, temperature=0, max_tokens=None, prompt_logprobs=None):
            self.prompt_logprobs = prompt_logprobs

    class Engine:
        model_config = types.SimpleNamespace(max_model_len=128, get_diff_sampling_param=dict)
        waiting = []

        def has_unfinished_requests(self):
            return bool(self.waiting)

        def step(self):
            number, text, params = self.waiting.pop(0)
            if text == "die":
                raise RuntimeError("the engine died")
            now = time.monotonic()
            made = types.SimpleNamespace
            choice = made(text=text.upper(), finish_reason="stop", token_ids=[1, 2], logprobs=None)
            known = [None] + [{ord(c): made(decoded_token=c, logprob=-1.0)} for c in text[1:]]
            yield made(
                request_id=number, finished=True, outputs=[choice], prompt_token_ids=[ord(c) for c in text],
                prompt_logprobs=known if params.prompt_logprobs is not None else None,
                metrics=made(queued_ts=now, first_token_ts=now + 0.1, last_token_ts=now + 0.2),
            )

    class LLM:
        def __init__(self, model, **arguments):
            self.llm_engine, self.number = Engine(), 0

        def enqueue(self, prompts, params, use_tqdm):
            self.number += 1
            self.llm_engine.waiting.append((str(self.number), prompts[0], params[0]))
            return [f"{self.number}-x"]

        def enqueue_chat(self, chats, params, use_tqdm):
            return self.enqueue([chats[0][-1]["content"]], params, use_tqdm)

        def get_tokenizer(self):
            return types.SimpleNamespace(decode=lambda ids: "".join(map(chr, ids)))
"""
SERVER = """
    import json, os, sys
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def reply(self, text):
            data = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            name = sys.argv[sys.argv.index("--served-model-name") + 1]
            pages = {
                "/version": '{"version": "0.0"}',
                "/v1/models": json.dumps({"data": [{"id": name, "max_model_len": 128}]}),
                "/metrics": 'vllm:num_requests_running{engine="0",model_name="m"} 3.0\\n',
            }
            self.reply(pages.get(self.path, ""))

        def do_POST(self):
            assert self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            if text == "die":
                os._exit(3)
            choice = {"message": {"content": text.upper()}, "finish_reason": "stop"}
            self.reply(json.dumps({"choices": [choice]}))

    HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """made(mode, api): a provider whose child finds the stand-in."""
    package = tmp_path / "package" / "vllm"
    (package / "entrypoints" / "openai").mkdir(parents=True)
    for folder in (package / "entrypoints", package / "entrypoints" / "openai"):
        (folder / "__init__.py").write_text("")
    (package / "__init__.py").write_text(dedent(OFFLINE))
    (package / "entrypoints" / "openai" / "api_server.py").write_text(dedent(SERVER))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")

    def make(mode: str, api: str = "chat") -> Any:
        entry = {"id": "m", "provider": "vllm", "mode": mode, "api": api, "model": "weights"}
        entry |= {"python": sys.executable, "env": {"PYTHONPATH": str(package.parent)}}
        return create(ModelSpec.model_validate(entry), ProviderContext(tmp_path, tmp_path / "work"))

    return make


def ask(text: str, raw: bool = False, **params: Any) -> Request:
    return Request(text, 0, () if raw else (Message("user", text),), text if raw else None, params, {})


async def test_a_batch_is_answered_request_by_request(made: Any) -> None:
    provider = made("offline")
    await provider.start()
    try:
        requests = [ask("one"), ask("text", raw=True), ask("odd", unknown=1), ask("two")]
        one, text, odd, two = await provider.generate_batch(requests)
        assert isinstance(one, Response) and (one.output, one.prompt_tokens, one.finish_reason) == (
            "ONE",
            3,
            "stop",
        )
        assert one.timing is not None and one.timing.first_ns is not None
        assert one.timing.last_ns - one.timing.sent_ns == pytest.approx(0.2e9, rel=0.01)
        assert isinstance(text, ProviderError) and "api: completions" in text.message
        assert (
            isinstance(odd, ProviderError) and odd.kind is ErrorKind.BAD_REQUEST and "unknown" in odd.message
        )
        assert isinstance(two, Response) and two.output == "TWO"
        identity = provider.identity()
        assert (identity["mode"], identity["engine"], identity["max_model_len"]) == (
            "offline",
            {"vllm": "0.0"},
            128,
        )
        assert identity["weights_sha256"] == provider.pins()["weights_sha256"] and provider.engine_pid
    finally:
        await provider.close()
    assert provider.engine_pid is None


async def test_what_was_answered_before_an_engine_died_is_kept(made: Any) -> None:
    provider = made("offline")
    await provider.start()
    try:
        one, died, after = await provider.generate_batch([ask("one"), ask("die"), ask("two")])
        assert isinstance(one, Response) and one.output == "ONE"
        for lost in (died, after):
            assert isinstance(lost, ProviderError) and lost.kind is ErrorKind.ENGINE
    finally:
        await provider.close()


async def test_likelihoods_of_texts_are_one_answer(made: Any) -> None:
    provider = made("offline", api="completions")
    await provider.start()
    try:
        chosen = Ask("choose", options=("no", "yes!"), answers=("no", "yes!"), separator="")
        request = Request("s", 0, (), "so ", {}, {}, ask=chosen)
        (answer,) = await provider.generate_batch([request])
        assert isinstance(answer, Response)
        assert [option["logprob"] for option in answer.likelihood["options"]] == [-2.0, -4.0]
    finally:
        await provider.close()


async def test_a_server_of_our_own_is_asked_measured_and_missed(made: Any) -> None:
    provider = made("server")
    await provider.start()
    try:
        assert (await provider.generate(ask("one"))).output == "ONE"
        assert await provider.engine_stats() == {"requests_running": 3.0}
        identity = provider.identity()
        assert (identity["mode"], identity["engine"], identity["max_model_len"]) == (
            "server",
            {"vllm": "0.0"},
            128,
        )
        entry, secrets = provider.clone()
        assert entry.options.base_url.startswith("http://127.0.0.1:") and entry.model == "m" and secrets
        with pytest.raises(ProviderError) as caught:
            await provider.generate(ask("die"))
        assert caught.value.kind is ErrorKind.ENGINE and "exit code 3" in caught.value.message
    finally:
        await provider.close()

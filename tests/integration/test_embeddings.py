"""What embeddings cost, and by which way they are asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_judge import EmbeddingServer
from tests.integration.test_sweep import metric
from tests.recorded import document_of, recorded_suite
from tests.servers import completion

PRICE = {"input_per_million_usd": 1.0, "output_per_million_usd": 1.0}
ELSEWHERE = "models.invalid"
"""A host that no name server knows: what reaches it came by the proxy."""


def suite_with_embeddings(folder: Path, base_url: str, **parts: Any) -> Path:
    rows = [{"id": text, "want": text[::-1], "m": text} for text in ("abc", "aab", "b", "cc")]
    models = {"judges": [{"id": "emb", "provider": "openai_compatible", "base_url": base_url, "model": "e"}]}
    models["judges"][0]["price"] = PRICE
    return recorded_suite(folder, rows, ["m"], scorers=[{"embedding": "emb"}], **models, **parts)


def test_the_tokens_of_a_request_are_counted_once(project: Path) -> None:
    """The server counts 5 tokens a text, of all texts of a request together."""
    with EmbeddingServer() as server:
        address = f"http://127.0.0.1:{server.embedding_port}/v1"
        (run,) = document_of(suite_with_embeddings(project, address), "--no-report")["runs"]
    sent = [text for batch in server.inputs for text in batch]
    assert sorted(sent) == ["aab", "abc", "b", "baa", "cba", "cc"]  # each distinct text once
    assert len(server.inputs) < len(sent), "several texts went together"
    assert metric(run, "cost.judge_usd")["value"] == pytest.approx(5 * len(sent) / 1e6, rel=0.1)


class Proxy(ThreadingHTTPServer):
    """An HTTP proxy that answers for every host; `asked` are the requests with a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: dict[str, Any] = completion("abc")
        if "input" in body:
            vectors = [{"index": at, "embedding": [len(text), 1]} for at, text in enumerate(body["input"])]
            answer = {"data": vectors, "usage": {"prompt_tokens": 7}, "model": "e"}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Proxy() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_chat_goes_by_the_proxy_that_the_environment_names(project: Path, proxy: Proxy) -> None:
    served = {"id": "m", "provider": "openai_compatible", "base_url": f"http://{ELSEWHERE}/v1", "model": "x"}
    suite = recorded_suite(project, [{"id": "s", "want": "abc"}], [], models=[served])
    (run,) = document_of(suite, "--no-report", "--no-cache")["runs"]
    assert metric(run, "exact_match")["value"] == 1
    assert set(proxy.asked) == {f"POST http://{ELSEWHERE}/v1/chat/completions"}


def test_embeddings_go_by_the_proxy_that_the_environment_names(project: Path, proxy: Proxy) -> None:
    suite = suite_with_embeddings(project, f"http://{ELSEWHERE}/v1", performance={"retries": 0})
    (run,) = document_of(suite, "--no-report", "--no-cache")["runs"]
    assert metric(run, "embedding")["value"] == pytest.approx(1)
    assert set(proxy.asked) == {f"POST http://{ELSEWHERE}/v1/embeddings"}

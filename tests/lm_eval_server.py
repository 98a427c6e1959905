"""A completions server with a tokenizer, as vLLM serves one, whose numbers are hashes: for comparisons with
lm_eval, which asks the same server."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOS, EOS = "<s>", "</s>"
_WORD = re.compile(r"<s>|</s>|\s?\w+|\s|[^\w\s]")
_MERGING = re.compile(r"<s>|</s>|: \w+|\s?\w+|\s|[^\w\s]")


class LmEvalServer:
    """Serves on a port of its own until it is closed. `merging`: a colon and the word after it are one token.
    `tokenizes`: it has /tokenize and /tokenizer_info. `asked` has the bodies of all completions."""

    def __init__(self, *, merging: bool = False, tokenizes: bool = True, fails: str = "") -> None:
        self.pattern = _MERGING if merging else _WORD
        self.tokenizes, self.fails = tokenizes, fails
        self.ids: dict[str, int] = {EOS: 2, BOS: 1}
        self.texts: dict[int, str] = {2: EOS, 1: BOS}
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None: ...

            def do_GET(self) -> None:
                if self.path.endswith("/models"):
                    self._answer({"data": [{"id": "m"}]})
                elif self.path == "/tokenizer_info" and outer.tokenizes:
                    self._answer({"bos_token": BOS, "eos_token": EOS, "chat_template": None})
                else:
                    self._answer({"error": "not found"}, 404)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/tokenize" and outer.tokenizes:
                    self._answer({"tokens": outer.encode(body["prompt"])})
                elif self.path == "/detokenize" and outer.tokenizes:
                    self._answer({"prompt": outer.decode(body["tokens"])})
                elif self.path.endswith("/chat/completions"):
                    self._answer(outer.chat(body))
                elif self.path.endswith("/completions"):
                    document, status = outer.complete(body)
                    self._answer(document, status)
                else:
                    self._answer({"error": "not found"}, 404)

            def _answer(self, document: Any, status: int = 200) -> None:
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def encode(self, text: str) -> list[int]:
        found = []
        with self._lock:
            for token in self.pattern.findall(text):
                if token not in self.ids:
                    self.ids[token] = len(self.ids) + 10
                    self.texts[self.ids[token]] = token
                found.append(self.ids[token])
        return found

    def decode(self, ids: list[int]) -> str:
        return "".join(self.texts[each] for each in ids)

    def complete(self, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        self.asked.append(body)
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if prompts and isinstance(prompts[0], int):
            prompts = [prompts]
        ids = [self.encode(BOS + each) if isinstance(each, str) else each for each in prompts]
        if self.fails and any(self.fails in self.decode(each) for each in ids):
            return {"error": {"message": "too long"}}, 400
        if body.get("echo"):
            choices = [
                {"index": at, "text": "", "logprobs": self.logprobs(each)} for at, each in enumerate(ids)
            ]
        else:
            choices = [
                {"index": at, "text": self.said(self.decode(each), body), "finish_reason": "stop"}
                for at, each in enumerate(ids)
            ]
        return {"model": "m", "choices": choices, "usage": {"prompt_tokens": sum(map(len, ids)),
                "completion_tokens": len(ids)}}, 200  # fmt: skip

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        text = self.said(json.dumps(body["messages"]), body)
        return {"model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": text},
                "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}  # fmt: skip

    def logprobs(self, ids: list[int]) -> dict[str, Any]:
        """Of each token: a hash of the twelve characters before it and of the token."""
        values, tops, tokens = [], [], []
        before = ""
        for token in [*ids, 2]:
            text = self.texts[token]
            value = -float(_hash(before[-12:] + "|" + text) % 5000) / 997.0
            other = -float(_hash(before[-12:] + "|other") % 5000) / 997.0
            values.append(value if tokens else None)
            tops.append({text: value, "other": other} if tokens else None)
            tokens.append(text)
            before += text
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}

    def said(self, prompt: str, body: dict[str, Any]) -> str:
        number = _hash(prompt[-40:])
        text = f" the answer is {number % 4}.\n#### {number % 5}\nQ: more {EOS} and more"
        for stop in body.get("stop") or []:
            text = text.partition(stop)[0]
        return text


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:6], "big")

"""The deployment of the demonstration: a service on loopback that sorts customer messages, with an
OpenAI-compatible API.

`triage-v1` and `triage-v2` are two prompts of it, `triage` is the one that is released. How often each is
right is known: 0.80 and 0.92, and 0.30 for messages about gift cards, which appear on the ninth day.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

LABELS = ("billing", "bug", "account", "other")
RIGHT = {"triage-v1": 0.80, "triage-v2": 0.92}
NEW = "gift card"
TEXTS = {
    "billing": "I was charged {n} euros twice for order {n}",
    "bug": "The page {n} is blank since the update {n}",
    "account": "I cannot sign in to account {n}, the code does not come",
    "other": "When do you open on day {n}?",
}


def share(*parts: object) -> float:
    """A number between 0 and 1 that the parts decide."""
    return int(hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:12], 16) / 16**12


def message(number: int, day: float) -> tuple[str, str]:
    """A customer's message with its label. From the ninth day on a third is about gift cards."""
    label = LABELS[int(share("label", number) * 4)]
    if day >= 9 and share("new", number) < 0.33:
        return f"The {NEW} {number} I got does not work at the till", "other"
    return TEXTS[label].format(n=number), label


def answer(model: str, text: str, turn: int = 0) -> str:
    """What a prompt answers: the label, or as often as it is wrong the next one; another turn is another
    draw."""
    label = next((key for key, form in TEXTS.items() if text.startswith(form.split("{")[0])), "other")
    right = 0.30 if NEW in text else RIGHT[model]
    return label if share(model, text, turn) < right else LABELS[(LABELS.index(label) + 1) % 4]


@dataclass
class Deployment:
    """What is released, whether it is up, how long it takes, and the probe's turn."""

    released: str = "triage-v1"
    up: bool = True
    busy_s: float = 0.01
    turn: int = 0


def serve(deployment: Deployment) -> ThreadingHTTPServer:
    """Start the service on a free port of loopback; `shutdown` ends it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200, {"data": [{"id": name} for name in ("triage", *RIGHT)]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not deployment.up:
                self._say(503, {"error": {"message": "the service is down"}})
                return
            model = deployment.released if body["model"] == "triage" else body["model"]
            text = body["messages"][-1]["content"]
            turn = deployment.turn if body["model"] == "triage" else 0
            time.sleep(deployment.busy_s * (0.7 + 0.6 * share("time", text, time.time())))
            choice = {"index": 0, "message": {"role": "assistant", "content": answer(model, text, turn)}}
            usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
            choices = [{**choice, "finish_reason": "stop"}]
            self._say(200, {"id": "c", "model": model, "choices": choices, "usage": usage})

        def _say(self, status: int, document: Any) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server

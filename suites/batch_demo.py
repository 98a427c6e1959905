"""`suites/batch.yaml` without a key, against a scripted batch API on this machine that counts.

    python suites/batch_demo.py [--store out/batch_demo]

evalrun is killed while its batch runs, and the same command is started again: it takes the batch up. A tenth
of the requests expires, and goes into a second batch. In the end every question was paid for once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from aiohttp import web

SUITE = Path(__file__).with_name("batch.yaml")
PRODUCTS = ("kettle", "lamp", "chair", "backpack")
READY_S = 3.0
"""How long a batch runs."""


class BatchAPI:
    """OpenAI's: files and batches, in memory. `paid` counts the answers by request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()

    async def upload(self, request: web.Request) -> web.Response:
        """A file of requests."""
        form = await request.post()
        name = f"file-{len(self.files) + 1}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
        said = {"object": "file", "bytes": 1, "created_at": 1, "filename": "requests.jsonl"}
        return web.json_response({"id": name, "purpose": "batch", **said})

    async def create(self, request: web.Request) -> web.Response:
        """A batch of a file."""
        said = await request.json()
        name = f"batch_{len(self.batches) + 1}"
        self.batches[name] = {
            "id": name, "object": "batch", "endpoint": said["endpoint"], "completion_window": "24h",
            "input_file_id": said["input_file_id"], "status": "in_progress", "created_at": int(time.time()),
            "request_counts": {"total": len(self.lines(said["input_file_id"])), "completed": 0, "failed": 0},
            "ready": time.monotonic() + READY_S,
        }  # fmt: skip
        return web.json_response(self.batches[name])

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The requests of a file."""
        return [json.loads(line) for line in self.files[file].splitlines()]

    async def list(self, request: web.Request) -> web.Response:
        """All batches, the newest first."""
        newest = list(self.batches.values())[::-1]
        return web.json_response({"object": "list", "data": newest, "has_more": False})

    async def retrieve(self, request: web.Request) -> web.Response:
        """How a batch stands; one whose time has come ends."""
        batch = self.batches[request.match_info["batch"]]
        if batch["status"] == "in_progress" and time.monotonic() > batch["ready"]:
            self.end(batch)
        return web.json_response(batch)

    async def cancel(self, request: web.Request) -> web.Response:
        """End a batch early: nothing of it is answered."""
        batch = self.batches[request.match_info["batch"]]
        batch["status"] = "cancelled"
        return web.json_response(batch)

    def end(self, batch: dict[str, Any]) -> None:
        """Answer all, but of the first batch every tenth, which expires."""
        first = batch["id"] == "batch_1"
        answers, expired = [], []
        for number, line in enumerate(self.lines(batch["input_file_id"])):
            if first and number % 10 == 9:
                error = {"code": "batch_expired", "message": "it was not answered within 24h"}
                expired.append({"custom_id": line["custom_id"], "response": None, "error": error})
                continue
            self.paid[line["custom_id"]] += 1
            response = {"status_code": 200, "body": completion(line["body"])}
            answers.append({"custom_id": line["custom_id"], "response": response, "error": None})
        for kind, results in (("output", answers), ("error", expired)):
            if results:
                batch[f"{kind}_file_id"] = f"{kind}-{batch['id']}"
                self.files[f"{kind}-{batch['id']}"] = "\n".join(map(json.dumps, results)).encode()
        batch["request_counts"] |= {"completed": len(answers), "failed": len(expired)}
        batch["status"] = "expired" if expired else "completed"

    async def content(self, request: web.Request) -> web.Response:
        """A file."""
        return web.Response(body=self.files[request.match_info["file"]])

    def app(self) -> web.Application:
        """The routes."""
        made = web.Application(client_max_size=1 << 28)
        made.router.add_post("/v1/files", self.upload)
        made.router.add_get("/v1/files/{file}/content", self.content)
        made.router.add_post("/v1/batches", self.create)
        made.router.add_get("/v1/batches", self.list)
        made.router.add_get("/v1/batches/{batch}", self.retrieve)
        made.router.add_post("/v1/batches/{batch}/cancel", self.cancel)
        return made


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The product that the message names first."""
    text = body["messages"][-1]["content"]
    named = [(text.lower().rfind(product), product) for product in PRODUCTS if product in text.lower()]
    content, tokens = max(named)[1] if named else "kettle", len(text) // 4
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        ],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2},
    }  # fmt: skip


def serve(api: BatchAPI) -> str:
    """Serve it from a thread; its address."""
    ready: list[str] = []

    async def run() -> None:
        runner = web.AppRunner(api.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    while not ready:
        time.sleep(0.01)
    return ready[0]


def main() -> None:
    """Run it, kill it, run it again, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("out/batch_demo"))
    options = parser.parse_args()
    api = BatchAPI()
    command = [
        sys.executable, "-m", "evalrun", str(SUITE), "--store", str(options.store), "--no-cache",
        "--set", f"models.0.base_url={serve(api)}", "--set", "models.0.batch.poll_s=0.5",
    ]  # fmt: skip
    os.environ["OPENAI_API_KEY"] = "none-is-needed-here"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            click.echo(line, nl=False, err=True)
            if "is at the provider" in line:
                first.kill()
                click.echo("-- killed; the same command again:", err=True)
                break
    done = subprocess.run(command)
    twice = sum(count - 1 for count in api.paid.values())
    click.echo(f"{len(api.batches)} batches, {len(api.paid)} requests answered, {twice} of them paid twice")
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()

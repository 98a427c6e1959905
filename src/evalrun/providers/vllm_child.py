"""The child process of the `vllm` provider, run as a file by the interpreter that has vLLM.

That interpreter need not have evalrun, so nothing but the standard library and vLLM is imported here.
`serve` starts vLLM's own server and watches over it; `offline` holds a `vllm.LLM` and answers batches that
come by HTTP, one JSON line an answer as each finishes. Either way it says by one JSON line on standard
output on which port of 127.0.0.1 it listens, and everything that it started ends when its parent does.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.metadata
import importlib.util
import json
import multiprocessing
import multiprocessing.connection
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY_VARIABLE = "EVALRUN_ENGINE_KEY"
_STOP_PATIENCE_S = 4.0
_PARENT_POLL_S = 1.0


def main() -> None:
    """Do what the JSON in the first argument says: mode, parent_pid, and what the mode needs."""
    config = json.loads(sys.argv[1])
    channel = os.dup(1)
    os.dup2(2, 1)  # what vLLM prints belongs to the log
    threading.Thread(target=end_with_parent, args=(config["parent_pid"],), daemon=True).start()
    sys.exit(_serve(config, channel) if config["mode"] == "serve" else _offline(config, channel))


def announce(channel: int, port: int, **more: Any) -> None:
    """Say by one JSON line on which port we listen."""
    os.write(channel, json.dumps({"port": port, **more}).encode() + b"\n")


def say(what: str) -> None:
    """A line of ours in the log; before it a new line, as what came before may not have ended with one."""
    sys.stderr.write(f"\nevalrun: {what}\n")
    sys.stderr.flush()


def end_with_parent(parent_pid: int) -> None:
    """Wait until the parent is gone (its end of our standard input closes), then end the whole group."""
    with contextlib.suppress(OSError):
        while os.getppid() == parent_pid:
            ready, _, _ = select.select([0], [], [], _PARENT_POLL_S)
            if ready and not os.read(0, 4096):
                break
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


# --- serve ---------------------------------------------------------------------------------------------


def _serve(config: dict[str, Any], channel: int) -> int:
    """Run vLLM's server until it ends or a signal comes. Its exit code."""
    if importlib.util.find_spec("vllm") is None:
        say(f"{sys.executable} has no vllm")
        return 1
    port = _free_port()
    address = ("--host", "127.0.0.1", "--port", str(port))
    command = [*_server_command(config["model"]), *config["flags"], *address]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(*_: object) -> None:
        process.terminate()
        threading.Timer(_STOP_PATIENCE_S, process.kill).start()

    signal.signal(signal.SIGTERM, stop)
    announce(channel, port)
    code = process.wait()
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    say(f"the server of vLLM ended ({how})")
    _kill_rest_of_group()  # a server that was killed leaves its engine processes behind
    os._exit(code if code >= 0 else 128 - code)


def _server_command(model: str) -> list[str]:
    """`vllm serve`, or the server's module where the console script cannot start.

    The script looks up the version of a package named vllm; builds that are named otherwise fail there.
    """
    script = Path(sys.executable).with_name("vllm")
    try:
        importlib.metadata.distribution("vllm")
    except importlib.metadata.PackageNotFoundError:
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    if script.exists():
        return [sys.executable, str(script), "serve", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_rest_of_group() -> None:
    group = os.getpgrp()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if pid != os.getpid() and os.getpgid(pid) == group:
                os.kill(pid, signal.SIGKILL)


# --- offline -------------------------------------------------------------------------------------------


class Job:
    """One batch under way: its requests, and the lines of its answer as they become known."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.api: str = body["api"]
        self.requests: list[dict[str, Any]] = body["requests"]
        self.began = time.monotonic()
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.sent = threading.Event()

    def answer(self, index: int, **fields: Any) -> None:
        self.lines.put(json.dumps({"index": index, **fields}).encode() + b"\n")


def _offline(config: dict[str, Any], channel: int) -> int:
    """Load the model, then answer one batch after the other in this thread; HTTP has threads of its own."""
    vllm: Any = importlib.import_module("vllm")
    llm = vllm.LLM(model=config["model"], **{"disable_log_stats": False, **config["engine_args"]})
    if not (hasattr(llm, "enqueue") and hasattr(llm, "enqueue_chat")):
        say(f"vLLM {vllm.__version__} is too old for mode: offline; use mode: server")
        return 1
    jobs: queue.Queue[Job] = queue.Queue()
    port = listen(jobs)
    context = int(llm.llm_engine.model_config.max_model_len)
    announce(channel, port, version=vllm.__version__, max_model_len=context)
    under_way: list[Job] = []
    threading.Thread(target=_end_with_engine, args=(under_way,), daemon=True).start()
    while True:
        under_way[:] = [jobs.get()]
        try:
            _run(llm, under_way[0])
        except Exception as error:
            _give_up(f"{type(error).__name__}: {error}", under_way)
        under_way[0].lines.put(None)


def _end_with_engine(under_way: list[Job]) -> None:
    """End when a process of the engine does: vLLM itself would wait for its answer for ever."""
    engines = multiprocessing.active_children()
    if not engines:
        return  # the engine lives in this process
    multiprocessing.connection.wait([engine.sentinel for engine in engines])
    _give_up("RuntimeError: the process of the engine ended", under_way)


def _give_up(why: str, under_way: list[Job]) -> None:
    """The engine is gone, and we go too; what it answered before is not lost."""
    say(why)
    for job in under_way:
        job.lines.put(None)
        job.sent.wait(_STOP_PATIENCE_S)
    _kill_rest_of_group()
    os._exit(1)


def listen(jobs: queue.Queue[Job]) -> int:
    """Take batches by HTTP, in threads, on a port of 127.0.0.1: which one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(jobs))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def _handler(jobs: queue.Queue[Job]) -> type[BaseHTTPRequestHandler]:
    key = os.environ.get(KEY_VARIABLE, "")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/health":
                self._whole(200, b"")
            elif self.path == "/metrics":
                client: Any = importlib.import_module("prometheus_client")
                self._whole(200, client.generate_latest())
            else:
                self._whole(404, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {key}"):
                self._whole(401, b"")
                return
            job = Job(json.loads(body))
            jobs.put(job)
            self.send_response(200)
            self.send_header("Content-Type", "application/jsonl")
            self.end_headers()  # HTTP/1.0: the answer ends with the connection
            try:
                while (line := job.lines.get()) is not None:
                    self.wfile.write(line)
            except OSError:
                pass  # the parent has gone on
            finally:
                job.sent.set()

        def _whole(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _run(llm: Any, job: Job) -> None:
    """Queue every request of the batch, then step the engine and answer as requests finish.

    A request that the engine refuses (too long, an unknown parameter) fails alone.
    """
    engine = llm.llm_engine
    indices: dict[str, int] = {}
    for index, request in enumerate(job.requests):
        try:
            indices[_enqueue(llm, job.api, request)] = index
        except Exception as error:
            if type(error).__name__ == "EngineDeadError":
                raise
            job.answer(index, error="bad_request", message=f"{type(error).__name__}: {error}"[:2000])
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                fields = _answer(output, job.api, job.began)
                if output.prompt_logprobs:
                    fields["prompt_logprobs"] = _prompt_logprobs(llm, output)
                job.answer(indices[str(output.request_id)], **fields)


def _enqueue(llm: Any, api: str, request: dict[str, Any]) -> str:
    params, chat = _sampling(llm, request["params"])
    if api == "chat":
        ids = llm.enqueue_chat([request["messages"]], [params], use_tqdm=False, **chat)
    else:
        ids = llm.enqueue([request["prompt"]], [params], use_tqdm=False)
    return str(ids[0]).partition("-")[0]


def _sampling(llm: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """vLLM's sampling parameters, and the arguments of the chat template, from those of the OpenAI API.

    As in vLLM's server: the model's generation_config gives the defaults, an answer may fill the context.
    """
    vllm: Any = importlib.import_module("vllm")
    params = {"max_tokens": None, **llm.llm_engine.model_config.get_diff_sampling_param(), **given}
    if (limit := params.pop("max_completion_tokens", None)) is not None:
        params["max_tokens"] = limit
    if isinstance(params.get("logprobs"), bool):
        top = params.pop("top_logprobs", None) or 0
        params["logprobs"] = top if params["logprobs"] else None
    shape = params.pop("response_format", None)
    if shape and shape.get("type") != "text":
        sampling: Any = importlib.import_module("vllm.sampling_params")
        schema = (shape.get("json_schema") or {}).get("schema")
        how = {"json": schema} if schema is not None else {"json_object": True}
        params["structured_outputs"] = sampling.StructuredOutputsParams(**how)
    if params.get("logit_bias"):
        params["logit_bias"] = {int(token): bias for token, bias in params["logit_bias"].items()}
    template = params.pop("chat_template_kwargs", None)
    return vllm.SamplingParams(**params), {"chat_template_kwargs": template} if template else {}


def _answer(output: Any, api: str, began: float) -> dict[str, Any]:
    """What is kept of a finished request. Times are seconds after the batch arrived.

    They are the engine core's own, all of its one monotonic clock: vLLM's `arrival_time` and what it
    computes from it are of the wall clock and of when this process came to look.
    """
    choice = output.outputs[0]
    fields: dict[str, Any] = {
        "output": choice.text,
        "finish_reason": choice.finish_reason,
        "prompt_tokens": len(output.prompt_token_ids or ()),
        "completion_tokens": len(choice.token_ids),
    }
    if choice.logprobs:
        fields["logprobs"] = _logprobs(choice, api)
    stats = output.metrics
    if stats is not None and stats.queued_ts and stats.last_token_ts:
        fields["times"] = [
            each - began if each else None
            for each in (stats.queued_ts, stats.first_token_ts, stats.last_token_ts)
        ]
    return fields


def _prompt_logprobs(llm: Any, output: Any) -> dict[str, Any]:
    """The prompt's own tokens with their log probabilities; the first has none, unless it is conditioned."""
    tokens: list[str] = []
    values: list[float | None] = []
    for token_id, known in zip(output.prompt_token_ids, output.prompt_logprobs, strict=True):
        own = known.get(token_id) if known else None
        text = own.decoded_token if own is not None else None
        tokens.append(llm.get_tokenizer().decode([token_id]) if text is None else text)
        values.append(max(own.logprob, -9999.0) if own is not None else None)
    return {"tokens": tokens, "token_logprobs": values}


def _logprobs(choice: Any, api: str) -> dict[str, Any]:
    """Log probabilities in the form in which the API in question has them."""
    tokens = []
    for token_id, known in zip(choice.token_ids, choice.logprobs, strict=True):
        top = [{"token": each.decoded_token, "logprob": each.logprob} for each in known.values()]
        chosen = known[token_id]
        tokens.append({"token": chosen.decoded_token, "logprob": chosen.logprob, "top_logprobs": top})
    if api == "chat":
        return {"content": tokens}
    return {
        "tokens": [token["token"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in tokens],
    }


if __name__ == "__main__":
    # The folder of this file holds modules of evalrun: none of their names may stand before vLLM's.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    main()

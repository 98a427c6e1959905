"""The child process of the `llamacpp` provider: `python -m evalrun.providers.llamacpp_server --config JSON`.

It loads the weights, serves them on a free port of 127.0.0.1, and says so by one JSON line on standard
output. It ends when its parent does. The configuration is that of `ServerConfig`; the key that requests
must carry comes in the environment, where other users of the machine cannot read it.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from dataclasses import dataclass
from typing import Any

import orjson

from evalrun.providers.engine import watch_parent

KEY_VARIABLE = "EVALRUN_ENGINE_KEY"
_HTTP_THREADS = 64


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the engine is started with. `ctx` is tokens for each slot."""

    parent_pid: int
    weights: str
    name: str
    slots: int
    ctx: int
    threads: int
    prompt_cache: bool
    pooling: str | None = None
    """Makes embeddings, pooled so, and nothing else."""


def main() -> None:
    """Serve until the parent ends or a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    config = ServerConfig(**orjson.loads(parser.parse_args().config))
    watch_parent(config.parent_pid)
    import xllamacpp

    try:
        server = xllamacpp.Server(_params(config))
    except RuntimeError as error:
        sys.exit(f"evalrun: {error}")
    announcement = {
        "port": int(server.listening_address.rpartition(":")[2]),
        "version": xllamacpp.__version__,
        "build": {key: xllamacpp.BUILD_INFO.get(key) for key in ("build_number", "commit")},
    }
    os.write(1, b"\n" + orjson.dumps(announcement) + b"\n")
    threading.Event().wait()


def _params(config: ServerConfig) -> Any:
    """The engine's parameters. What is set here and not in ServerConfig is the same for every run."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config.weights
    params.model_alias = [config.name]
    params.n_parallel = config.slots
    params.n_ctx = config.ctx * config.slots
    params.kv_unified = False  # each slot has its own context, whatever the others do
    params.fit_params = False  # the context is as the suite says, not as memory allows
    params.cpuparams.n_threads = config.threads
    params.cpuparams_batch.n_threads = config.threads
    params.cache_prompt = config.prompt_cache
    params.cache_ram_mib = 0  # no second cache outside the slots: it would grow the memory we measure
    params.cache_idle_slots = False
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # a free one
    params.n_threads_http = max(_HTTP_THREADS, 2 * config.slots)  # each open connection holds one
    params.ui = False
    if config.pooling is not None:
        params.embedding = True
        params.pooling_type = getattr(
            xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{config.pooling.upper()}"
        )
        # A text is embedded in one piece, which must fit the batches of the engine.
        params.n_batch = params.n_ubatch = config.ctx
    params.endpoint_metrics = True  # what it says of itself, for the time series
    params.verbosity = 1  # errors: a line for every request would fill disks
    key = os.environ.get(KEY_VARIABLE)
    if key:
        params.api_keys = [key]
    return params


if __name__ == "__main__":
    main()

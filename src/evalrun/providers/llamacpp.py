"""The embedded engine: llama.cpp, run by `xllamacpp` in a child process of ours."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import orjson
from pydantic import Field

from evalrun.errors import ExitCode, UserError
from evalrun.providers import parameters
from evalrun.providers.base import Pinned, ProviderContext, ProviderOptions, provider
from evalrun.providers.engine import llamacpp_figures
from evalrun.providers.http_provider import ManagedEngine, json_bytes
from evalrun.providers.openai_api import OpenAIAPI
from evalrun.types import JSON, ErrorKind, ProviderError, Timing

if TYPE_CHECKING:
    from evalrun.providers.engine import Engine
    from evalrun.providers.likelihood import TextLikelihoods
    from evalrun.suite.components import ModelSpec

DEFAULT_SLOTS = 4
_ENGINE_FAULTS = frozenset({ErrorKind.CONNECTION, ErrorKind.TRUNCATED, ErrorKind.PROTOCOL})


class LlamaCppOptions(ProviderOptions):
    """What a model entry with `provider: llamacpp` may say besides the common keys.

    `model` is a name of `evalrun models list`, the path of a .gguf file (relative to the suite), or
    `hf:owner/repo/file.gguf` with an optional `@revision`.
    """

    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="chat puts messages through the model's chat template; completions sends raw text.",
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Requests answered at the same time; more wait in the engine. Default 4, and 1 where the "
        "suite says deterministic: true. Greedy text can change with the number of slots.",
    )
    ctx: int = Field(
        default=2048, ge=64, description="Tokens of context for each slot, prompt and answer together."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU threads of the engine. Default: the cores this process may use.",
    )
    prompt_cache: bool = Field(
        default=True,
        description="Keep each slot's last prompt, and compute only where the next one differs. As in "
        "production servers, time to first token then leaves out a shared beginning (instructions, "
        "few-shot examples). false: every prompt is computed whole, as always with deterministic: true.",
    )
    embeddings: bool = Field(
        default=False,
        description="Make embeddings and nothing else: for the scorer 'embedding'. Such a model stands under "
        "`judges`, and answers no prompts.",
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        default="mean", description="How the tokens of a text become one embedding."
    )
    startup_timeout_s: float = Field(
        default=120, gt=0, strict=False, description="Seconds that loading the weights may take."
    )


@provider("llamacpp")
class LlamaCpp(ManagedEngine, OpenAIAPI[LlamaCppOptions], Pinned):
    """Starts a llama.cpp server, asks it, measures it, stops it."""

    summary: ClassVar[str] = "the embedded engine: llama.cpp on this machine, no server and no key needed"
    parameters = parameters.LLAMA_CPP
    supports = frozenset({"chat", "completions", "stream", "prompt_logprobs", "first_token", "json_schema"})
    figures = staticmethod(llamacpp_figures)

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.slots = self._slots()
        self.threads = self.options.threads or available_cores()
        self._identity: dict[str, JSON] = {}

    def _slots(self) -> int:
        given, deterministic = self.options.slots, self.context.deterministic
        if deterministic and given is not None and given > 1:
            raise UserError(
                f"deterministic: true needs one slot, found slots: {given}",
                where=f"model {self.spec.id}",
                remedy="Leave slots out, or drop deterministic.",
            )
        return given or (1 if deterministic else DEFAULT_SLOTS)

    @property
    def endpoint(self) -> str:
        return f"local:llamacpp:{self.spec.id}"

    @property
    def default_concurrency(self) -> int | None:
        return self.slots

    async def start(self) -> None:
        """Fetch the weights where they are not there yet, start the engine, wait until it answers."""
        from evalrun.providers.http_client import HTTPClient

        if self.engine is not None:
            return
        if importlib.util.find_spec("xllamacpp") is None:
            raise UserError(
                "the embedded engine is not installed",
                where=f"model {self.spec.id}",
                remedy="Run: pip install 'xllamacpp>=2026.1'",
                exit_code=ExitCode.INCOMPLETE,
            )
        weights, sha256 = await asyncio.to_thread(self._weights)
        key = secrets.token_urlsafe(24)
        self.engine = self._made_engine(weights, key)
        try:
            announced = await self.engine.start()
            headers = {"Authorization": f"Bearer {key}"}
            # It hangs up after each stream without saying so: the next request there would fail.
            self.connect(HTTPClient(f"http://127.0.0.1:{announced['port']}/v1", headers, reuse=False))
            template = await self._chat_template()
        except BaseException:
            await self.close()
            raise
        self._identity = self._identify(announced, sha256, template)

    def text_likelihoods(self) -> TextLikelihoods:
        from evalrun.providers.llamacpp_likelihood import ForcedLikelihoods

        return ForcedLikelihoods(self._post_to_root, cache_prompt=self.prompt_cache)

    async def _post_to_root(
        self, path: str, body: Mapping[str, JSON], parse: Callable[[JSON, Timing], Any]
    ) -> Any:
        """As `post`, to a path of llama.cpp's own API, beside that of OpenAI."""
        if self.client is None:
            raise ProviderError(ErrorKind.ENGINE, "the engine is not running")
        return await self.client.post(self.client.base_url.with_path(path), json_bytes(body), parse)

    async def diagnose(self, error: ProviderError) -> ProviderError:
        if self.engine is None or error.kind not in _ENGINE_FAULTS:
            return error
        reason = await self.engine.failure()
        return error if reason is None else ProviderError(ErrorKind.ENGINE, reason)

    def pins(self) -> dict[str, JSON]:
        from evalrun.providers import catalogue

        sha256 = catalogue.known_sha256(self.spec.model or "", self.context.base_dir)
        return {"weights_sha256": sha256} if sha256 else {}

    def identity(self) -> dict[str, JSON]:
        return dict(self._identity)

    def _weights(self) -> tuple[Path, str]:
        from evalrun.providers import catalogue
        from evalrun.providers.catalogue import download_progress
        from evalrun.providers.downloads import file_sha256

        if self.spec.model is None:
            names = ", ".join(entry.name for entry in catalogue.list_models())
            raise UserError(
                "'model' is missing", where=f"model {self.spec.id}", remedy=f"Name weights, such as: {names}."
            )
        with download_progress(self.spec.model) as progress:
            path = catalogue.ensure(self.spec.model, self.context.base_dir, progress)
        return path, file_sha256(path)

    def _made_engine(self, weights: Path, key: str) -> Engine:
        from evalrun.providers.engine import Engine, EngineCommand
        from evalrun.providers.llamacpp_server import KEY_VARIABLE, ServerConfig

        config = ServerConfig(
            parent_pid=os.getpid(),
            weights=str(weights),
            name=str(self.spec.model),
            slots=self.slots,
            ctx=self.options.ctx,
            threads=self.threads,
            prompt_cache=self.prompt_cache,
            pooling=self.options.pooling if self.options.embeddings else None,
        )
        module = "evalrun.providers.llamacpp_server"
        return Engine(
            EngineCommand(
                name="llamacpp",
                argv=(sys.executable, "-P", "-m", module, "--config", orjson.dumps(asdict(config)).decode()),
                log_path=self.context.work_dir / f"engine-{self.spec.id}.log",
                startup_timeout_s=self.options.startup_timeout_s,
                env={KEY_VARIABLE: key, **patient_threads(os.environ)},
                remedy="See that the weights are a whole GGUF file and that memory suffices (slots, ctx).",
            )
        )

    @property
    def prompt_cache(self) -> bool:
        """Whether the engine reuses the beginnings of prompts."""
        return self.options.prompt_cache and not self.context.deterministic

    async def _chat_template(self) -> str | None:
        """Digest of the chat template in use, where the engine tells it."""
        assert self.client is not None
        try:
            status, body, _ = await self.client.get(self.client.base_url.with_path("/props"), 10.0)
            template = orjson.loads(body).get("chat_template") if status == 200 else None
        except Exception:
            return None
        return hashlib.sha256(template.encode()).hexdigest() if template else None

    def _identify(self, announced: dict[str, Any], sha256: str, template: str | None) -> dict[str, JSON]:
        return {
            "provider": "llamacpp",
            "model": self.spec.model,
            "weights_sha256": sha256,
            "engine": {"xllamacpp": announced.get("version"), "llama_cpp": announced.get("build")},
            "api": self.api,
            "slots": self.slots,
            "ctx": self.options.ctx,
            "threads": self.threads,
            "prompt_cache": self.prompt_cache,
            "chat_template_sha256": template,
            **({"embeddings": self.options.pooling} if self.options.embeddings else {}),
        }


SPIN_COUNT = "2000"
"""How long a thread of the engine waits busily for the others before it sleeps: some tens of
microseconds. The default of GNU OpenMP is 150 times as long; where other work wants the cores, threads then
burn them waiting for a thread that cannot run (seen: 3 tokens/s against 15 to 24)."""


def patient_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """The engine's settings for waiting threads, unless the user has made some."""
    chosen = any(name in environment for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    return {} if chosen else {"GOMP_SPINCOUNT": SPIN_COUNT}


def available_cores() -> int:
    """Physical cores that this process may use: no hyper-threads, no cores beyond affinity or CPU quota."""
    import psutil

    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, min(logical, physical, _cpu_quota() or logical))


def _cpu_quota() -> int | None:
    """Cores that a container's limit leaves (cgroup v2), rounded up; None where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None

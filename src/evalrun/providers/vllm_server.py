"""vLLM as a server: one of our own, started and stopped with the runs, or one that runs already."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import orjson

from evalrun.errors import UserError
from evalrun.providers import parameters
from evalrun.providers.base import Cloneable, ProviderContext, provider
from evalrun.providers.http_provider import origin, secret_headers
from evalrun.providers.openai_api import OpenAIAPI
from evalrun.providers.vllm_engine import (
    VLLMEngine,
    VLLMOptions,
    effective_engine_args,
    flags,
    model_argument,
)
from evalrun.types import JSON, ErrorKind, ProviderError

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec

DEFAULT_SEQUENCES = 256
"""Requests kept in flight for an engine of our own: vLLM's usual `max_num_seqs`."""
_ENGINE_FAULTS = frozenset({ErrorKind.CONNECTION, ErrorKind.TRUNCATED, ErrorKind.PROTOCOL, ErrorKind.SERVER})
_ENGINE_WORDS = ("EngineCore", "EngineDead", "engine core")
_DEATH_PATIENCE_S = 15.0
_WORKER_KEY = "EVALRUN_ENGINE_KEY"
_START_TIMEOUT_S = 5.0


@provider("vllm")
class VLLM(VLLMEngine, OpenAIAPI[VLLMOptions], Cloneable):
    """Asks a vLLM server. With `mode: offline` an instance of `VLLMOffline` is made in its place."""

    summary: ClassVar[str] = "vLLM: a server of our own, one that runs already, or offline on whole batches"
    parameters = parameters.VLLM
    supports = frozenset({"chat", "completions", "stream", "prompt_logprobs", "first_token", "json_schema"})

    def __new__(cls, spec: ModelSpec, context: ProviderContext) -> Any:
        """Offline mode answers batches, so it is another class; a suite knows one provider."""
        if cast(VLLMOptions, spec.options).resolved_mode == "offline":
            from evalrun.providers.vllm_offline import VLLMOffline

            return VLLMOffline(spec, context)
        return super().__new__(cls)

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._managed = self.options.resolved_mode == "server"
        self.engine_args = effective_engine_args(self.options, context.deterministic and self._managed)
        key = self.options.api_key_env
        wanted = [] if key is None else [("Authorization", key, "Bearer ")]
        self._headers = secret_headers(wanted, spec.id, os.environ)
        self._identity: dict[str, JSON] = {}
        if self._managed:
            model_argument(spec, context)

    @property
    def endpoint(self) -> str:
        return f"local:vllm:{self.spec.id}" if self._managed else origin(str(self.options.base_url))

    @property
    def default_concurrency(self) -> int | None:
        if not self._managed:
            return None
        return int(self.engine_args.get("max_num_seqs") or DEFAULT_SEQUENCES)

    async def start(self) -> None:
        """Start the engine, or find the one that runs, and ask what it serves.

        Raises UserError (exit 3) with the cause from the engine's log.
        """
        if self.client is not None:
            return
        try:
            if self._managed:
                await self._start_engine()
            else:
                self._ask_at(str(self.options.base_url))
            await self._identify()
        except BaseException:
            await self.close()
            raise

    async def diagnose(self, error: ProviderError) -> ProviderError:
        if error.kind not in _ENGINE_FAULTS:
            return error
        return await self._death(error) or error

    def clone(self) -> tuple[ModelSpec, Mapping[str, str]]:
        options = self.options
        assert self.client is not None
        entry = {
            "id": self.spec.id,
            "provider": "openai_compatible",
            "base_url": options.base_url or str(self.client.base_url),
            "model": self.model,
            "api": self.api,
            "extra_body": options.extra_body,
        }
        secrets = {}
        if self._managed:
            entry["api_key_env"] = _WORKER_KEY
            secrets[_WORKER_KEY] = self._headers["Authorization"].removeprefix("Bearer ")
        elif options.api_key_env is not None:
            entry["api_key_env"] = options.api_key_env
        return type(self.spec).model_validate(entry), secrets

    def identity(self) -> dict[str, JSON]:
        return dict(self._identity)

    async def _start_engine(self) -> None:
        key = secrets.token_urlsafe(24)
        arguments = flags({"served_model_name": self.spec.id, "uvicorn_log_level": "warning"})
        words = [*arguments, *flags(self.engine_args)]
        announced = await self.launch("serve", {"VLLM_API_KEY": key}, flags=words)
        self._headers = {"Authorization": f"Bearer {key}"}
        self.model = self.spec.id
        self._ask_at(f"http://127.0.0.1:{announced['port']}/v1")

    def _ask_at(self, base_url: str) -> None:
        from evalrun.providers.http_client import HTTPClient

        self.connect(HTTPClient(base_url, self._headers))

    async def _identify(self) -> None:
        from evalrun.secrets import scrub_json, scrub_url

        assert self.client is not None
        version = _json(await self._get("/version", _START_TIMEOUT_S)).get("version")
        served = _json(await self._get("models", _START_TIMEOUT_S, must=True)).get("data") or []
        model = self._served_model(served)
        self._identity = {
            "provider": "vllm",
            "mode": self.options.resolved_mode,
            "api": self.api,
            "model": self.spec.model or model.get("id"),
            "engine": {"vllm": version},
            "max_model_len": model.get("max_model_len"),
            "extra_body": scrub_json(self.options.extra_body),
        }
        if self._managed:
            self._identity |= self.engine_identity()
        else:
            self._identity["base_url"] = scrub_url(str(self.options.base_url))

    def _served_model(self, served: list[dict[str, Any]]) -> dict[str, Any]:
        """The entry of our model in the server's list; where the suite names none, its only one."""
        names = [str(entry.get("id")) for entry in served]
        wanted = self.spec.id if self._managed else self.spec.model
        if wanted is None and len(served) == 1:
            self.model = names[0]
            return served[0]
        if wanted in names:
            return served[names.index(wanted)]
        raise UserError(
            f"the server does not serve '{wanted}'" if wanted else "the model's name is missing",
            where=f"model {self.spec.id}",
            remedy=f"It serves: {', '.join(names[:20])}." if names else "It serves nothing.",
        )

    async def _get(self, path: str, timeout_s: float, must: bool = False) -> bytes:
        """The body of a GET; nothing where it fails, or UserError where it `must` be."""
        import aiohttp

        client = self.client
        if client is None:
            return b""
        url = client.base_url.with_path(path) if path.startswith("/") else client.base_url / path
        try:
            answer = await client.get(url, timeout_s)
        except (aiohttp.ClientError, OSError) as error:
            if must:
                raise _absent(self.options, self.spec, str(error) or type(error).__name__) from error
            return b""
        if answer[0] == 200:
            return answer[1]
        if must:
            raise _absent(self.options, self.spec, f"GET {path} answers HTTP {answer[0]}")
        return b""

    async def _death(self, error: ProviderError) -> ProviderError | None:
        """The error that says so, when the engine is gone. The server outlives its engine by seconds."""
        dying = any(words in error.message for words in _ENGINE_WORDS)
        if error.kind is ErrorKind.SERVER and not dying:
            return None
        return await self.death(_DEATH_PATIENCE_S if dying else 0.5)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _absent(options: VLLMOptions, spec: ModelSpec, reason: str) -> UserError:
    from evalrun.errors import ExitCode
    from evalrun.providers.faults import shorten
    from evalrun.secrets import scrub_url

    where = scrub_url(options.base_url) if options.base_url else "of our own"
    return UserError(
        f"the vLLM server {where} cannot be used: {shorten(reason)}",
        where=f"model {spec.id}",
        remedy="Start the server, or correct base_url." if options.base_url else "See the engine's log.",
        exit_code=ExitCode.INCOMPLETE,
    )

"""vLLM as a server: one of our own, started and stopped with the runs, or one that runs already."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import orjson
from pydantic import BaseModel

from evalrun.errors import Problem, UserError
from evalrun.providers.base import Provider, ProviderContext
from evalrun.providers.vllm_options import (
    VLLMOptions,
    effective_engine_args,
    engine_environment,
    flags,
    interpreter,
    key_header,
    model_argument,
    root_cause,
    weights_identity,
)
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response

if TYPE_CHECKING:
    from evalrun.providers.chat_client import ChatClient
    from evalrun.providers.embeddings import Embedded
    from evalrun.providers.engine import Engine
    from evalrun.suite.components import ModelSpec

DEFAULT_SEQUENCES = 256
"""Requests kept in flight for an engine of our own: vLLM's usual `max_num_seqs`."""
_ENGINE_FAULTS = frozenset({ErrorKind.CONNECTION, ErrorKind.TRUNCATED, ErrorKind.PROTOCOL, ErrorKind.SERVER})
_ENGINE_WORDS = ("EngineCore", "EngineDead", "engine core")
_DEATH_PATIENCE_S = 15.0
_STATS_TIMEOUT_S = 2.0
_WORKER_KEY = "EVALRUN_ENGINE_KEY"
_START_TIMEOUT_S = 5.0


class VLLM(Provider):
    """Asks a vLLM server. With `mode: offline` an instance of `VLLMOffline` is made in its place."""

    Options: ClassVar[type[BaseModel]] = VLLMOptions
    shorthand: ClassVar[str | None] = None
    summary: ClassVar[str] = "vLLM: a server of our own, one that runs already, or offline on whole batches"
    supports: ClassVar[frozenset[str]] = frozenset(
        {"chat", "completions", "stream", "prompt_logprobs", "first_token", "json_schema", "embeddings"}
    )
    spreads: ClassVar[bool] = True

    def __new__(cls, spec: ModelSpec, context: ProviderContext) -> Any:
        """Offline mode answers batches, so it is another class; a suite knows one provider."""
        if cast(VLLMOptions, spec.options).resolved_mode == "offline":
            from evalrun.providers.vllm_offline import VLLMOffline

            return VLLMOffline(spec, context)
        return super().__new__(cls)

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.options = cast(VLLMOptions, spec.options)
        self._managed = self.options.resolved_mode == "server"
        self._engine_args = effective_engine_args(self.options, context.deterministic and self._managed)
        self._headers = {} if self._managed else key_header(self.options, spec)
        self._engine: Engine | None = None
        self._client: ChatClient | None = None
        self._identity: dict[str, JSON] = {}
        if self._managed:
            model_argument(spec, context)

    @property
    def endpoint(self) -> str:
        from evalrun.providers.addresses import origin

        return f"local:vllm:{self.spec.id}" if self._managed else origin(str(self.options.base_url))

    @property
    def default_concurrency(self) -> int | None:
        if not self._managed:
            return None
        return int(self._engine_args.get("max_num_seqs") or DEFAULT_SEQUENCES)

    @property
    def engine_pid(self) -> int | None:
        return self._engine.pid if self._engine is not None else None

    async def start(self) -> None:
        """Start the engine, or find the one that runs, and ask what it serves.

        Raises UserError (exit 3) with the cause from the engine's log.
        """
        if self._client is not None:
            return
        try:
            if self._managed:
                await self._start_engine()
            else:
                self._client = self._connect(str(self.options.base_url), self.spec.model)
            await self._identify()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._client = self._client, None
        engine, self._engine = self._engine, None
        try:
            if client is not None:
                await client.close()
        finally:
            if engine is not None:
                await engine.stop()

    async def embed(self, texts: Sequence[str]) -> Embedded:
        from evalrun.providers.embeddings import embed_over_http

        if self._client is None:
            raise ProviderError(ErrorKind.ENGINE, "the engine is not running")
        return await embed_over_http(self._client, texts)

    async def generate(self, request: Request) -> Response:
        client = self._client
        if client is None:
            raise ProviderError(ErrorKind.ENGINE, "the engine is not running")
        try:
            return await client.send(request)
        except ProviderError as error:
            truth = await self.diagnose(error)
            if truth is error:
                raise
            raise truth from error

    async def diagnose(self, error: ProviderError) -> ProviderError:
        if error.kind not in _ENGINE_FAULTS:
            return error
        return await self._death(error) or error

    def twin(self) -> tuple[ModelSpec, Mapping[str, str]]:
        client, options = self._client, self.options
        assert client is not None
        entry = {
            "id": self.spec.id,
            "provider": "openai_compatible",
            "base_url": client.target.base_url,
            "model": client.target.model,
            "api": options.api,
            "extra_body": options.extra_body,
        }
        secrets = {}
        if self._managed:
            entry["api_key_env"] = _WORKER_KEY
            secrets[_WORKER_KEY] = self._headers["Authorization"].removeprefix("Bearer ")
        elif options.api_key_env is not None:
            entry["api_key_env"] = options.api_key_env
        return type(self.spec).model_validate(entry), secrets

    def pins(self) -> dict[str, JSON]:
        if not self._managed or self.spec.model is None:
            return {}
        revision = self._engine_args.get("revision")
        return weights_identity(model_argument(self.spec, self.context), revision)

    def identity(self) -> dict[str, JSON]:
        return dict(self._identity)

    async def engine_stats(self) -> dict[str, float]:
        """What the engine says of itself now (see `vllm_metrics.FIGURES`); empty where it says nothing."""
        from evalrun.providers.engine_metrics import vllm_figures

        body = await self._get("/metrics", _STATS_TIMEOUT_S)
        return vllm_figures(body.decode("utf-8", "replace")) if body else {}

    async def _start_engine(self) -> None:
        python = interpreter(self.options, self.spec, self.context.base_dir, os.environ)
        key = secrets.token_urlsafe(24)
        arguments = flags({"served_model_name": self.spec.id, "uvicorn_log_level": "warning"})
        config = {
            "mode": "serve",
            "parent_pid": os.getpid(),
            "model": model_argument(self.spec, self.context),
            "flags": [*arguments, *flags(self._engine_args)],
        }
        environment = {**engine_environment(self.options), "VLLM_API_KEY": key}
        self._engine = made_engine(self.spec, self.context, self.options, python, config, environment)
        announced = await started(self._engine)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._client = self._connect(f"http://127.0.0.1:{announced['port']}/v1", self.spec.id)

    def _connect(self, base_url: str, model: str | None) -> ChatClient:
        from evalrun.providers.chat_client import ChatClient, Target

        options = self.options
        return ChatClient(Target(base_url, model, options.api, self._headers, options.extra_body))

    async def _identify(self) -> None:
        from evalrun.secrets import scrub_json, scrub_url

        assert self._client is not None
        version = _json(await self._get("/version", _START_TIMEOUT_S)).get("version")
        served = _json(await self._get("models", _START_TIMEOUT_S, must=True)).get("data") or []
        model = await self._served_model(served)
        self._identity = {
            "provider": "vllm",
            "mode": self.options.resolved_mode,
            "api": self.options.api,
            "model": self.spec.model or model.get("id"),
            "engine": {"vllm": version},
            "max_model_len": model.get("max_model_len"),
            "extra_body": scrub_json(self.options.extra_body),
        }
        if self._managed:
            weights = weights_identity(
                model_argument(self.spec, self.context), self._engine_args.get("revision")
            )
            self._identity |= {
                **weights,
                "engine_args": scrub_json(self._engine_args),
                "env": scrub_json(self.options.env),
            }
        else:
            self._identity["base_url"] = scrub_url(str(self.options.base_url))

    async def _served_model(self, served: list[dict[str, Any]]) -> dict[str, Any]:
        """The entry of our model in the server's list; where the suite names none, its only one."""
        names = [str(entry.get("id")) for entry in served]
        wanted = self.spec.id if self._managed else self.spec.model
        if wanted is None and len(served) == 1:
            nameless, self._client = self._client, self._connect(str(self.options.base_url), names[0])
            if nameless is not None:
                await nameless.close()
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

        client = self._client
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
        if self._engine is None:
            return None
        dying = any(words in error.message for words in _ENGINE_WORDS)
        if error.kind is ErrorKind.SERVER and not dying:
            return None
        return await death_of(self._engine, _DEATH_PATIENCE_S if dying else 0.5)


def made_engine(
    spec: ModelSpec,
    context: ProviderContext,
    options: VLLMOptions,
    python: str,
    config: dict[str, JSON],
    environment: dict[str, str],
) -> Engine:
    """The child process for `vllm_child`, not yet started."""
    from pathlib import Path

    from evalrun.providers.engine import Engine, EngineCommand

    child = str(Path(__file__).with_name("vllm_child.py"))
    return Engine(
        EngineCommand(
            name="vllm",
            argv=(python, child, orjson.dumps(config).decode()),
            log_path=context.work_dir / f"engine-{spec.id}.log",
            startup_timeout_s=options.startup_timeout_s,
            env=environment,
            remedy="The log says more. See that the model is whole and that memory suffices.",
        )
    )


async def started(engine: Engine) -> dict[str, Any]:
    """Start an engine. What it announced; UserError with the cause that its log names, else the log's end."""
    try:
        return await engine.start()
    except UserError as error:
        cause = root_cause(engine.command.log_path)
        if cause is None:
            raise
        problems = [
            Problem(f"{each.what.partition('; its log ends')[0]}; cause: {cause}", each.where, each.remedy)
            for each in error.problems
        ]
        raise UserError(problems, exit_code=error.exit_code) from error


async def death_of(engine: Engine, patience_s: float) -> ProviderError | None:
    """The ENGINE error for an engine that is gone, with its log's last lines; None while it runs."""
    reason = await engine.failure(patience_s)
    if reason is None:
        return None
    cause = root_cause(engine.command.log_path)
    from evalrun.providers.faults import shorten

    return ProviderError(ErrorKind.ENGINE, shorten(f"{cause}; {reason}" if cause else reason))


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

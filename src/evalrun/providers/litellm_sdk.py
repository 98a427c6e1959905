"""LiteLLM: the providers that it knows, by its names (`anthropic/…`, `bedrock/…`, `gemini/…`, `ollama/…`).

It is here for its breadth. Its retries, its telemetry and its logging of streams are off; its map of
prices is the one in its package, never fetched. Its objects are read as the JSON that they stand for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import Mapping
from functools import cache
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.providers.base import Cloneable, Priced, Provider, ProviderContext, ProviderOptions, provider
from evalrun.providers.http_provider import http_address, origin
from evalrun.providers.openai_api import question
from evalrun.providers.parameters import EVERY
from evalrun.providers.proxies import is_here, key_problem, proxy_of
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec


_ENVIRONMENT: Mapping[str, str] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the prices of its package, not those of a URL
    "LITELLM_MODE": "PRODUCTION",  # no .env file changes our environment
}
_NO_DEADLINE_S = 86_400.0  # the runner's deadline cancels; LiteLLM would set one of its own


class LiteLLMOptions(ProviderOptions):
    """What a model entry with `provider: litellm` may say besides the common keys.

    `model` is LiteLLM's name of a model. Keys come from the environment variables that LiteLLM reads for
    that provider (OPENAI_API_KEY, ANTHROPIC_API_KEY, AWS_…), or from `api_key_env`.
    """

    api: Literal["chat", "completions"] = Field(
        default="chat", description="chat sends messages; completions sends raw text."
    )
    api_base: str | None = Field(
        default=None, description="Address of the API, where it is not the provider's own."
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the key. Default: LiteLLM's own.",
    )
    api_version: str | None = Field(
        default=None, description="Version of the API, where a provider needs one."
    )
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of LiteLLM, such as {drop_params: true, aws_region_name: eu-west-1}. "
        "No keys: these are written down with the sweep.",
    )
    include_usage: bool = Field(default=True, description="Ask for token counts at the end of streams.")

    @field_validator("api_base")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)


@provider("litellm")
class LiteLLM(Provider[LiteLLMOptions], Cloneable, Priced):
    """Asks through LiteLLM."""

    summary: ClassVar[str] = "any provider that LiteLLM knows, by its model names"
    parameters = EVERY
    supports = frozenset({"chat", "completions", "stream"})
    _open: ClassVar[weakref.WeakSet[LiteLLM]] = weakref.WeakSet()
    """LiteLLM keeps its connections in one pool for the process: the last provider to close closes it."""

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._common = _common_arguments(self.options, spec, os.environ)
        self._litellm: Any = None

    @property
    def endpoint(self) -> str:
        if self.options.api_base is not None:
            return origin(self.options.api_base)
        vendor, slash, _ = str(self.spec.model).partition("/")
        return f"litellm:{vendor}" if slash else "litellm"

    def knows_price(self) -> bool:
        """Whether LiteLLM's map of prices holds the model. Imports LiteLLM, which takes seconds."""
        try:
            _quiet_litellm().cost_per_token(model=self.spec.model, prompt_tokens=1, completion_tokens=1)
        except Exception:  # it is not installed, or it raises plain Exception for models without a price
            return False
        return True

    async def start(self) -> None:
        """Import LiteLLM, which takes seconds. Raises UserError (exit 3) when it is not installed."""
        if self._litellm is not None:
            return
        past_proxies(self.options.api_base)
        try:
            self._litellm = await asyncio.to_thread(_quiet_litellm)
        except ModuleNotFoundError as error:
            raise UserError(
                f"LiteLLM is not installed: {error}",
                where=f"model {self.spec.id}",
                remedy="Run: pip install 'litellm>=1.80'",
                exit_code=ExitCode.INCOMPLETE,
            ) from error
        self._open.add(self)
        with contextlib.suppress(Exception):  # then the first samples pay for it
            await warm_up(self._litellm)

    async def close(self) -> None:
        litellm, self._litellm = self._litellm, None
        self._open.discard(self)
        if litellm is not None and not self._open:
            await litellm.close_litellm_async_clients()
            litellm.in_memory_llm_clients_cache.flush_cache()  # it would hand out the closed ones again

    async def generate(self, request: Request) -> Response:
        litellm = self._litellm
        if litellm is None:
            raise ProviderError(ErrorKind.CONNECTION, "the provider is not started")
        arguments = self._arguments(request)
        call = litellm.acompletion if self.options.api == "chat" else litellm.atext_completion
        answering = False
        sent_ns = perf_counter_ns()
        try:
            answer = await call(**arguments)
            answering = True
            if request.stream:
                return await self._streamed(answer, sent_ns)
            return self._whole(answer, sent_ns, perf_counter_ns())
        except ProviderError:
            raise
        except Exception as error:  # vendors' adapters raise what they like
            raise provider_error(error, answering) from error

    def identity(self) -> dict[str, JSON]:
        from importlib.metadata import PackageNotFoundError, version

        from evalrun.secrets import scrub_json, scrub_url

        try:
            release = version("litellm")  # it translates prompts and parameters, so it shapes answers
        except PackageNotFoundError:
            release = None
        base = self.options.api_base
        return {
            "provider": "litellm",
            "litellm": release,
            "api": self.options.api,
            "model": self.spec.model,
            "api_base": scrub_url(base) if base else None,
            "api_version": self.options.api_version,
            "extra": scrub_json(self.options.extra),
        }

    def _arguments(self, request: Request) -> dict[str, Any]:
        arguments = {**request.params, **self._common, "stream": request.stream}
        if "tools" in arguments and _wants_mcp():
            arguments["_skip_mcp_handler"] = True
        if request.stream and self.options.include_usage:
            arguments["stream_options"] = {"include_usage": True, **arguments.get("stream_options", {})}
        return {**arguments, **question(request, self.options.api)}

    def _whole(self, answer: Any, sent_ns: int, done_ns: int) -> Response:
        from dataclasses import replace

        from evalrun.providers.answers import read_document
        from evalrun.providers.openai_api import parse_completion

        response = read_document(_json(answer), parse_completion, Timing(sent_ns, done_ns))
        return replace(response, cost_usd=self._cost(getattr(answer, "usage", None)))

    async def _streamed(self, chunks: Any, sent_ns: int) -> Response:
        from dataclasses import replace

        from evalrun.providers.openai_api import StreamedCompletion

        result = StreamedCompletion(sent_ns)
        usage = None
        async for chunk in chunks:
            now_ns = perf_counter_ns()
            result.feed([(_json(chunk), b"")], now_ns)
            usage = getattr(chunk, "usage", None) or usage
        if not _ended_properly(chunks):
            raise ProviderError(ErrorKind.TRUNCATED, "the stream ended without finish_reason")
        return replace(result.response(), cost_usd=self._cost(usage))

    def _cost(self, usage: Any) -> float | None:
        """What LiteLLM's map of prices says, cached tokens included. None for models that it does not
        hold, and where the suite names prices of its own."""
        if usage is None or self.spec.price is not None:
            return None
        try:
            prompt, completion = self._litellm.cost_per_token(
                model=self.spec.model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                usage_object=usage,
            )
        except Exception:  # it raises plain Exception for models without a price
            return None
        return float(prompt + completion) or None


def _ended_properly(chunks: Any) -> bool:
    """Whether the server said why it stopped. LiteLLM says "stop" in its place where it did not."""
    return any(
        getattr(chunks, name, "unknown") is not None
        for name in ("received_finish_reason", "intermittent_finish_reason")
    )


@cache
def _wants_mcp() -> bool:
    """Whether LiteLLM would import the package `mcp` for any request with tools, and it is not installed.
    What it looks for there, tools behind LiteLLM's own gateway, none of ours are."""
    from importlib.util import find_spec

    try:
        handler = find_spec("litellm.responses.mcp.chat_completions_handler")
    except ModuleNotFoundError:
        handler = None
    return handler is not None and find_spec("mcp") is None


def _json(value: Any) -> bytes:
    return cast("bytes", value.model_dump_json(exclude_none=True).encode())


def _quiet_litellm() -> Any:
    for name, setting in _ENVIRONMENT.items():
        os.environ.setdefault(name, setting)
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_streaming_logging = True
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)  # failures are ours to report
    return litellm


def _common_arguments(options: LiteLLMOptions, spec: ModelSpec, env: Mapping[str, str]) -> dict[str, Any]:
    """What every call carries. Raises UserError for all that is missing at once."""
    where = f"model {spec.id}"
    problems = [] if spec.model else [Problem("'model' is missing", where, "Add `model:`.")]
    arguments: dict[str, Any] = {
        **options.extra,
        "model": spec.model,
        "num_retries": 0,
        "max_retries": 0,
        "timeout": _NO_DEADLINE_S,
    }
    if options.api_base is not None:
        arguments["api_base"] = options.api_base
        if options.api_key_env is not None or _takes_key(options, env):
            refused = key_problem(options.api_base, proxy_of(options.api_base), where)
            problems += [refused] if refused is not None else []
    if options.api_version is not None:
        arguments["api_version"] = options.api_version
    if options.api_key_env is not None:
        key = env.get(options.api_key_env, "").strip()
        if not key:
            what = f"the environment variable {options.api_key_env} is not set"
            problems.append(Problem(what, where, f"Set {options.api_key_env} to the key."))
        arguments["api_key"] = key
    if problems:
        raise UserError(problems)
    return arguments


def past_proxies(address: str | None) -> None:
    """Let this machine be asked directly. LiteLLM's clients go by the environment alone, and would tell a
    proxy the key of a server on this machine; so its names are added to NO_PROXY, whatever stands there."""
    host = urlsplit(address).hostname if address else None
    here = ["localhost", "127.0.0.1", "::1", *([host] if host and is_here(host) else [])]
    for name in ("no_proxy", "NO_PROXY"):
        known = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, *here]))


def _takes_key(options: LiteLLMOptions, env: Mapping[str, str]) -> bool:
    """Whether a key may go with a request though the suite names none: LiteLLM looks for those of its
    providers in the environment, and headers may hold one."""
    own = ("api_key", "headers", "extra_headers")
    return any(options.extra.get(name) for name in own) or any(
        name.endswith(("_API_KEY", "_TOKEN")) and value.strip() for name, value in env.items()
    )


def provider_error(error: Exception, answering: bool) -> ProviderError:
    """What an exception of LiteLLM stands for. `answering`: the head of the answer had arrived."""
    import aiohttp

    from evalrun.providers.faults import (
        causes,
        error_of_exception,
        is_billing,
        kind_of_status,
        names_of,
        retry_after_s,
        shorten,
    )

    # LiteLLM calls a refused connection an internal server error: what lies at the bottom comes first.
    chain = causes(error)
    for cause in chain:
        if isinstance(cause, aiohttp.ClientError):
            return error_of_exception(cause, answering)
    text = shorten(f"{type(error).__name__}: {getattr(error, 'message', None) or error}")
    names = {type(cause).__name__ for cause in chain}
    if "MidStreamFallbackError" in names:  # since 1.110, for whatever ends a stream that has begun
        return ProviderError(ErrorKind.TRUNCATED, text)
    if names & {"ConnectError", "ConnectTimeout", "RemoteProtocolError", "ReadError"}:
        return ProviderError(ErrorKind.TRUNCATED if answering else ErrorKind.CONNECTION, text)
    if any("Timeout" in name for name in names):
        return ProviderError(ErrorKind.TIMEOUT, text)
    status = getattr(error, "status_code", None)
    if names & {"APIConnectionError"} or not isinstance(status, int):
        # Also what its adapters stumble over in an answer is called a connection error.
        kind = ErrorKind.CONNECTION if names & {"APIConnectionError"} else ErrorKind.PROTOCOL
        return ProviderError(kind, text)
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    wait = retry_after_s(headers) if headers is not None else None
    kind = kind_of_status(status)
    body = getattr(error, "body", None)
    codes = f"{getattr(error, 'code', '')} {names_of(body) if isinstance(body, dict) else ''}"
    if status < 500 and is_billing(codes, text.partition(": ")[2], status):
        kind = ErrorKind.BILLING
    return ProviderError(kind, text, http_status=status, retry_after_s=wait)


_CHOICE = (
    b'"id":"w","created":1,"model":"warm-up",'
    b'"choices":[{"index":0,"%b":{"role":"assistant","content":"-"},"finish_reason":"stop"}]}'
)
_WHOLE = b'{"object":"chat.completion",' + _CHOICE % b"message"
_CHUNK = b'{"object":"chat.completion.chunk",' + _CHOICE % b"delta"
_STREAM = b"data: %b\n\ndata: [DONE]\n\n" % _CHUNK
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
_PATIENCE_S = 60.0


async def warm_up(litellm: Any) -> None:
    """One whole and one streamed answer, on loopback. Raises whatever LiteLLM raises."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    try:
        arguments = {
            "model": "openai/warm-up",
            "messages": [{"role": "user", "content": "-"}],
            "api_base": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1",
            "api_key": "none",
            "num_retries": 0,
            "max_retries": 0,
        }
        async with asyncio.timeout(_PATIENCE_S):
            await litellm.acompletion(**arguments)
            async for _ in await litellm.acompletion(**arguments, stream=True):
                pass
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        streamed = b'"stream":true' in body.replace(b" ", b"")
        kind, answer = (b"text/event-stream", _STREAM) if streamed else (b"application/json", _WHOLE)
        writer.write(_HEAD % (kind, len(answer)) + answer)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
        pass  # whoever else looked in
    finally:
        writer.close()

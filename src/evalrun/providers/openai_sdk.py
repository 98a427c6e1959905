"""The official OpenAI SDK: OpenAI, Azure OpenAI, and whatever the SDK's environment variables point to.

The SDK makes and signs requests, which go out over our own HTTP layer (`sdk_wire`); its own retries are off.
Its answers are taken as bytes and read by `answers`, which saves the building of its response objects and
keeps fields that its version does not know (reasoning, vendors' extras).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.providers.base import Cloneable, Embeds, Provider, ProviderContext, ProviderOptions, provider
from evalrun.providers.batch_api import BATCH_KEY, Batches, BatchOptions, batch_options
from evalrun.providers.faults import NO_KEY, nothing_listens, provider_error, transport_errors
from evalrun.providers.http_provider import http_address, origin
from evalrun.providers.openai_api import question
from evalrun.providers.parameters import OPENAI
from evalrun.providers.proxies import absent_proxy, key_problem, proxy_of
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response

if TYPE_CHECKING:
    from evalrun.providers.embeddings import Embedded
    from evalrun.suite.components import ModelSpec


DEFAULT_BASE_URL = "https://api.openai.com/v1"


def account_of(options: OpenAIOptions, spec: ModelSpec, env: Mapping[str, str]) -> dict[str, Any]:
    """Address, key and version, from the suite and the environment. The key stays out of everything kept.

    Raises UserError for all that is missing at once.
    """
    missing = [] if spec.model else [("'model' is missing", "Add `model:`.")]
    named, azure = options.api_key_env, options.azure
    key = _value(env, named) if named is not None else None
    if named is not None and key is None:
        missing.append((f"the environment variable {named} is not set", f"Set {named} to the key."))
    address = options.azure_endpoint if azure else options.base_url
    address = address or _value(env, "AZURE_OPENAI_ENDPOINT" if azure else "OPENAI_BASE_URL")
    account: dict[str, Any] = {"address": address or ("" if azure else DEFAULT_BASE_URL)}
    if azure:
        version = options.api_version or _value(env, "OPENAI_API_VERSION", "AZURE_OPENAI_API_VERSION")
        account["api_version"] = version
        if options.base_url:
            missing.append(("base_url cannot stand beside azure: true", "Name azure_endpoint instead."))
        if address is None:
            remedy = "Set AZURE_OPENAI_ENDPOINT, or give azure_endpoint."
            missing.append(("the address of the Azure resource is missing", remedy))
        if version is None:
            remedy = "Set OPENAI_API_VERSION, or give api_version."
            missing.append(("the version of Azure's API is missing", remedy))
        if named is None and not _value(env, "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY"):
            remedy = "Set AZURE_OPENAI_API_KEY (or AZURE_OPENAI_AD_TOKEN)."
            missing.append(("no key for Azure OpenAI is set", remedy))
    else:
        key = key or _value(env, "OPENAI_API_KEY") or (NO_KEY if address else None)
        if options.azure_endpoint or options.api_version:
            missing.append(("azure_endpoint and api_version need azure: true", "Add `azure: true`."))
        if key is None and named is None:
            remedy = "Set it to your key, or give base_url for a server of your own."
            missing.append(("the environment variable OPENAI_API_KEY is not set", remedy))
    if missing:
        raise UserError([Problem(what, f"model {spec.id}", remedy) for what, remedy in missing])
    return {**account, "key": key}


def _value(env: Mapping[str, str], *names: str) -> str | None:
    """What the first of these variables that is set holds."""
    return next((value for name in names if (value := env.get(name, "").strip())), None)


START_TIMEOUT_S = 10.0


class OpenAIOptions(ProviderOptions):
    """What a model entry with `provider: openai` may say besides the common keys.

    What is not given comes from the environment variables of the SDK: OPENAI_API_KEY, OPENAI_BASE_URL,
    OPENAI_ORG_ID, OPENAI_PROJECT_ID; with `azure: true` AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_API_KEY,
    AZURE_OPENAI_AD_TOKEN, OPENAI_API_VERSION.
    """

    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="Which endpoint is asked: chat/completions with messages, or completions with raw text.",
    )
    base_url: str | None = Field(
        default=None,
        description="Address of the API with its version. Default: OPENAI_BASE_URL, else OpenAI's own.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the key. Default: OPENAI_API_KEY; "
        "for Azure AZURE_OPENAI_AD_TOKEN or AZURE_OPENAI_API_KEY.",
    )
    azure: bool = Field(
        default=False, description="Ask Azure OpenAI; `model` is then the name of the deployment."
    )
    azure_endpoint: str | None = Field(
        default=None,
        description="Address of the Azure resource, such as https://name.openai.azure.com. "
        "Default: AZURE_OPENAI_ENDPOINT.",
    )
    api_version: str | None = Field(
        default=None, description="Version of Azure's API, such as 2024-10-21. Default: OPENAI_API_VERSION."
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="Fields added to every request as they are."
    )
    include_usage: bool = Field(
        default=True,
        description="Ask for token counts at the end of streams; false for servers that refuse the field.",
    )
    batch: bool | BatchOptions = Field(default=False, description=BATCH_KEY)

    @field_validator("base_url", "azure_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)


@provider("openai")
class OpenAI(Provider[OpenAIOptions], Cloneable, Embeds, Batches):
    """Asks through the official SDK."""

    summary: ClassVar[str] = "OpenAI and Azure OpenAI through the official SDK"
    parameters = OPENAI
    supports = frozenset({"chat", "completions", "stream", "json_schema", "first_token"})

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._account = account_of(self.options, spec, os.environ)
        self._proxy = proxy_of(self._account["address"])
        if self._account["key"] != NO_KEY:
            problem = key_problem(self._account["address"], self._proxy, f"model {spec.id}")
            if problem is not None:
                raise UserError([problem])
        self._client: Any = None
        self._headers: dict[str, str] = {}
        self._open: Any = None
        batch = batch_options(self.options.batch)
        if batch is not None:
            from evalrun.providers.openai_batches import OpenAIBatches

            self.batch_api = OpenAIBatches(
                batch,
                self._connected,
                self._body,
                self.options.api,
                azure=self.options.azure,
                key=self._account["key"],
            )
            self.measured, self.supports = False, self.supports - {"stream", "first_token"}

    @property
    def endpoint(self) -> str:
        return origin(self._account["address"])

    async def start(self) -> None:
        """Import the SDK, and see whether the server is there: any HTTP answer will do.

        Raises UserError (exit 3) when nothing answers at the address.
        """
        if self._client is not None:
            return
        client = self._client = await asyncio.to_thread(self._connect)  # importing takes over a second
        seen: Any = None
        try:
            seen = await client.with_options(timeout=START_TIMEOUT_S).models.with_raw_response.list()
        except transport_errors() as error:
            if nothing_listens(error):
                await self.close()
                raise self._absent(error) from error
            # Something is there; what it says to real requests will be recorded.
            seen = getattr(error, "response", None)
        if seen is not None and seen.headers.get("server") == "llama.cpp":
            self._headers = {"Connection": "close"}  # it hangs up after each stream without saying so

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def generate(self, request: Request) -> Response:
        if self._client is None:
            raise ProviderError(ErrorKind.CONNECTION, "the provider is not started")
        if request.ask is not None:
            from evalrun.providers.likelihood import by_first_token

            return await by_first_token(self.generate, request, chat=self.options.api == "chat")
        arguments = self._arguments(request)
        answering = False
        try:
            async with self._open(**arguments) as answer:
                answering = True
                return await _read(answer)
        except transport_errors() as error:
            raise provider_error(error, answering, self._account["key"]) from error

    async def embed(self, texts: Sequence[str]) -> Embedded:
        from evalrun.providers.embeddings import read_embeddings

        if self._client is None:
            raise ProviderError(ErrorKind.CONNECTION, "the provider is not started")
        try:
            answer = await self._client.embeddings.create(
                model=self.spec.model, input=list(texts), encoding_format="float", extra_headers=self._headers
            )
        except transport_errors() as error:
            raise provider_error(error, False, self._account["key"]) from error
        return read_embeddings(answer.model_dump(), len(texts))

    def identity(self) -> dict[str, JSON]:
        from evalrun.secrets import scrub_json, scrub_url

        identity: dict[str, JSON] = {
            "provider": "openai",
            "base_url": scrub_url(self._account["address"]),
            "api": self.options.api,
            "model": self.spec.model,
            "extra_body": scrub_json(self.options.extra_body),
        }
        if self.options.azure:
            identity["api_version"] = self._account["api_version"]
        return identity

    def _connect(self) -> Any:
        import openai

        client: Any
        from evalrun.providers.http_client import HTTPClient
        from evalrun.providers.sdk_wire import http_client

        account = self._account
        wire = HTTPClient(account["address"], proxy=self._proxy)
        common: dict[str, Any] = {"max_retries": 0, "timeout": None, "http_client": http_client(wire)}
        address = account["address"].partition("?")[0].rstrip("/")  # the query is added to each request
        if self.options.azure:
            client = openai.AsyncAzureOpenAI(
                azure_endpoint=address,
                api_version=account["api_version"],
                api_key=account["key"],
                **common,
            )
        else:
            client = openai.AsyncOpenAI(
                api_key=account["key"],
                base_url=address,
                **common,
            )
        # Named now, since the SDK imports these parts of itself at the first use.
        chat = self.options.api == "chat"
        resource = client.chat.completions if chat else client.completions
        self._open = resource.with_streaming_response.create
        return client

    def _arguments(self, request: Request) -> dict[str, Any]:
        """The SDK's arguments; parameters go in `extra_body`, where it passes on what it does not know."""
        body: dict[str, JSON] = {**request.params, **self.options.extra_body}
        body.pop("stream", None)  # whether an answer is streamed is the request's to say
        arguments: dict[str, Any] = {"model": body.pop("model", self.spec.model), "extra_body": body}
        if self._headers:
            arguments["extra_headers"] = self._headers
        if request.stream:
            arguments["stream"] = True
            if self.options.include_usage:
                body["stream_options"] = {"include_usage": True, **body.get("stream_options", {})}
        return {**arguments, **question(request, self.options.api)}

    def _body(self, request: Request) -> dict[str, JSON]:
        """The JSON that a request is in a batch."""
        arguments = self._arguments(request)
        arguments.pop("extra_headers", None)
        return {**arguments.pop("extra_body"), **arguments}

    def _connected(self) -> Any:
        if self._client is None:
            raise ProviderError(ErrorKind.CONNECTION, "the provider is not started")
        return self._client

    def _absent(self, error: Exception) -> UserError:
        from evalrun.secrets import scrub_url

        missing = absent_proxy(self._account["address"], self._proxy, error, f"model {self.spec.id}")
        if missing is not None:
            return missing
        return UserError(
            f"the server {scrub_url(self._account['address'])} is not there:"
            f" {provider_error(error, answering=False).message}",
            where=f"model {self.spec.id}",
            remedy="See that the address is right and that this machine can reach it.",
            exit_code=ExitCode.INCOMPLETE,
        )


async def _read(answer: Any) -> Response:
    """What an answer holds, streamed or not, whatever was asked for; its times are those of the wire."""
    import aiohttp

    from evalrun.providers.answers import drain, read_answer
    from evalrun.providers.http_client import arrival_clock
    from evalrun.providers.openai_api import StreamedCompletion, parse_completion
    from evalrun.providers.sdk_wire import exchange_of

    exchange = exchange_of(answer)
    content, kind = exchange.answer.content, exchange.answer.headers.get("Content-Type", "")
    clock, sent_ns = arrival_clock(exchange.answer), exchange.body.sent_ns
    response = await read_answer(content.readany, kind, parse_completion, StreamedCompletion, sent_ns, clock)
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        await drain(content.readany)
    return response

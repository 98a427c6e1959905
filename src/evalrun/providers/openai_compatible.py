"""Any server that speaks the OpenAI API: vLLM, SGLang, llama.cpp, TGI, Ollama, LiteLLM proxies and others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.providers.addresses import http_address
from evalrun.providers.base import Provider, ProviderContext
from evalrun.types import JSON, Request, Response

if TYPE_CHECKING:
    from evalrun.providers.chat_client import ChatClient
    from evalrun.providers.embeddings import Embedded
    from evalrun.suite.components import ModelSpec

START_TIMEOUT_S = 2.0


class OpenAICompatibleOptions(BaseModel):
    """What a model entry with `provider: openai_compatible` may say besides the common keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base_url: str = Field(
        description="Address of the API with its version, such as http://127.0.0.1:8000/v1."
    )
    api: Literal["chat", "completions"] = Field(
        default="chat",
        description="Which endpoint is asked: chat/completions with messages, or completions with raw text.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the key, sent as a bearer token.",
    )
    headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="Further headers: name of the header to the environment variable that holds its value.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields added to every request as they are: what a server knows beyond the OpenAI API.",
    )
    include_usage: bool = Field(
        default=True,
        description="Ask for token counts at the end of streams; false for servers that refuse the field.",
    )
    verify_tls: bool = Field(
        default=True,
        description="Check the server's certificate; false only for a test server that signed its own.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        return http_address(value)

    @model_validator(mode="after")
    def _one_credential(self) -> OpenAICompatibleOptions:
        headers = {name.lower() for name in self.headers_env}
        if "@" in self.base_url.split("/")[2] and (self.api_key_env or "authorization" in headers):
            raise ValueError("base_url holds credentials: name no key beside them")
        return self


class OpenAICompatible(Provider):
    """Sends requests to a server that is already there."""

    Options: ClassVar[type[BaseModel]] = OpenAICompatibleOptions
    shorthand: ClassVar[str | None] = "base_url"
    summary: ClassVar[str] = (
        "a server that speaks the OpenAI API (vLLM, SGLang, llama.cpp, Ollama and others)"
    )
    supports: ClassVar[frozenset[str]] = frozenset(
        {"chat", "completions", "stream", "prompt_logprobs", "first_token", "json_schema", "embeddings"}
    )

    spreads: ClassVar[bool] = True

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.options = cast(OpenAICompatibleOptions, spec.options)
        self._model = spec.model
        self._client = self._connect(_headers(self.options, spec.id, os.environ))

    def _connect(self, headers: Mapping[str, str]) -> ChatClient:
        from evalrun.providers.chat_client import ChatClient, Target

        options = self.options
        return ChatClient(
            Target(
                base_url=options.base_url,
                model=self._model,
                api=options.api,
                headers=headers,
                extra_body=options.extra_body,
                include_usage=options.include_usage,
                verify_tls=options.verify_tls,
            )
        )

    @property
    def endpoint(self) -> str:
        return self._client.endpoint

    async def start(self) -> None:
        """See whether the server is there. Any HTTP answer will do.

        Where the suite names no model, the server's only one is taken. Raises UserError (exit 3) when
        nothing listens at the address, (exit 2) when the server has several models and none is named.
        """
        import aiohttp

        from evalrun.providers.chat_client import ONE_REQUEST_A_CONNECTION

        try:
            status, body, seen = await self._client.get(self._client.below("models"), START_TIMEOUT_S)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            await self._client.close()
            raise self._absent(error) from error
        except (aiohttp.ClientError, OSError):
            status, body, seen = (
                0,
                b"",
                {},
            )  # something is there; what it says to real requests will be recorded
        llama_cpp = seen.get("Server") == "llama.cpp"
        if self._model is None or llama_cpp:
            await self._client.close()
            self._model = self._model or self._only_model(status, body)
            extra = ONE_REQUEST_A_CONNECTION if llama_cpp else {}
            self._client = self._connect({**self._client.target.headers, **extra})

    async def close(self) -> None:
        await self._client.close()

    async def generate(self, request: Request) -> Response:
        return await self._client.send(request)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        from evalrun.providers.embeddings import embed_over_http

        return await embed_over_http(self._client, texts)

    def twin(self) -> tuple[ModelSpec, Mapping[str, str]]:
        return self.spec.model_copy(update={"model": self._model}), {}

    def identity(self) -> dict[str, JSON]:
        from evalrun.secrets import scrub_json, scrub_url

        options = self.options
        return {
            "provider": "openai_compatible",
            "base_url": scrub_url(options.base_url),
            "api": options.api,
            "model": self._model,
            "extra_body": scrub_json(options.extra_body),
        }

    def _absent(self, error: Exception) -> UserError:
        import aiohttp

        from evalrun.providers.faults import shorten
        from evalrun.secrets import scrub_url

        address, why = scrub_url(self.options.base_url), shorten(str(error))
        tls = isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError)
        return UserError(
            f"TLS with {address} fails: {why}" if tls else f"the server {address} is not there: {why}",
            where=f"model {self.spec.id}",
            remedy="Name the authority in SSL_CERT_FILE, or set verify_tls: false for a test server."
            if tls
            else "Start the server, or correct base_url.",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _only_model(self, status: int, body: bytes) -> str:
        import orjson

        try:
            models = [entry["id"] for entry in orjson.loads(body)["data"]] if status == 200 else []
        except (orjson.JSONDecodeError, LookupError, TypeError):
            models = []
        if len(models) == 1:
            return str(models[0])
        raise UserError(
            "the model's name is missing, and the server does not offer exactly one",
            where=f"model {self.spec.id}",
            remedy=f"Add `model:` with one of: {', '.join(map(str, models[:20]))}."
            if models
            else "Add `model:`.",
        )


def _headers(options: OpenAICompatibleOptions, model_id: str, env: Mapping[str, str]) -> dict[str, str]:
    """The headers that hold keys. Raises UserError for all variables that are unset or unfit at once."""
    problems: list[Problem] = []
    headers: dict[str, str] = {}
    wanted = [(header, variable, "") for header, variable in options.headers_env.items()]
    if options.api_key_env is not None:
        wanted.append(("Authorization", options.api_key_env, "Bearer "))
    for header, variable, scheme in wanted:
        value = env.get(variable, "").strip()
        if not value:
            what = f"the environment variable {variable} is not set"
        elif not (value.isascii() and value.isprintable()):
            what = f"the environment variable {variable} holds characters that cannot stand in a header"
        else:
            headers[header] = scheme + value
            continue
        problems.append(Problem(what, f"model {model_id}", f"Set {variable} to the value for {header}."))
    if problems:
        raise UserError(problems)
    return headers

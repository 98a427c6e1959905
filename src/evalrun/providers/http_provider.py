"""Providers that ask a server by HTTP and JSON.

For a server that speaks another API than OpenAI's: a subclass of `ServerProvider` that says where questions
go (`path`), what is sent (`payload`), how a whole answer is read (`parse`) and what a chunk of a stream adds
(`Stream`). Connections, proxies, keys, limits of size, errors and times come from `http_client.HTTPClient`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator, model_validator

from evalrun.errors import ExitCode, Problem, UserError
from evalrun.moment import until
from evalrun.providers.base import (
    Cloneable,
    OptionsT,
    Provider,
    ProviderContext,
    ProviderOptions,
    Punctual,
    RunsEngine,
)
from evalrun.providers.proxies import absent_proxy, holds_key, key_problem, proxy_of
from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Timing

if TYPE_CHECKING:
    from yarl import URL

    from evalrun.providers.answers import Accumulator, StreamedAnswer
    from evalrun.providers.engine import Engine
    from evalrun.providers.http_client import HTTPClient
    from evalrun.suite.components import ModelSpec

T = TypeVar("T")

START_TIMEOUT_S = 2.0
_STATS_TIMEOUT_S = 2.0


def http_address(value: str) -> str:
    """The address without a slash at its end.

    Raises ValueError when it is not http:// or https:// with a host.
    """
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        example = "http://127.0.0.1:8000/v1"
        raise ValueError(f"must be an http:// or https:// address with a host, such as {example}")
    return value.rstrip("/").removesuffix("/chat/completions")


def origin(address: str) -> str:
    """scheme://host:port of an address: what limits are shared on. No userinfo, so no secret."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


class HTTPProvider(Provider[OptionsT], Punctual):
    """Asks a server by HTTP: the hooks, and a client that is there while the server is."""

    path: str
    """Where questions are posted, below the base address."""
    Stream: ClassVar[type[StreamedAnswer] | None] = None
    """Takes a stream: a subclass of `answers.StreamedAnswer`. None where the API has none."""

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.client: HTTPClient | None = None
        self._url: URL | None = None

    @abstractmethod
    def payload(self, request: Request) -> dict[str, JSON]:
        """The JSON that is posted for a request. Raises ProviderError (bad_request) where there is none."""

    @abstractmethod
    def parse(self, document: JSON, timing: Timing) -> Response:
        """The answer that a whole document holds, with these times.

        LookupError, TypeError and AttributeError mean that it is not of the expected form.
        """

    def body(self, request: Request) -> bytes:
        """The bytes that are posted."""
        return json_bytes(self.payload(request))

    async def likelihoods(self, request: Request, ask: Ask) -> Response:
        """Answer a request for likelihoods, where `supports` says that it can."""
        raise ProviderError(ErrorKind.BAD_REQUEST, f"provider '{self.spec.provider}' gives no likelihoods")

    async def diagnose(self, error: ProviderError) -> ProviderError:
        """What a failed request truly was: an engine of ours that ended, where that is the reason."""
        return error

    def connect(self, client: HTTPClient) -> None:
        """Ask by this client from now on."""
        self.client, self._url = client, client.below(self.path)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def generate(self, request: Request) -> Response:
        if self.client is None:
            raise _not_running()
        try:
            if request.ask is not None:
                if request.due_ns is not None:
                    await until(request.due_ns)
                return await self.likelihoods(request, request.ask)
            body, due_ns = self.body(request), request.due_ns
            return await self.post(None, body, self.parse, self.Stream, request.stream, due_ns)
        except ProviderError as error:
            cause = await self.diagnose(error)
            if cause is error:
                raise
            raise cause from error

    async def post(
        self,
        path: str | None,
        body: bytes,
        parse: Callable[[JSON, Timing], T],
        stream: Callable[[int], Accumulator[T]] | None = None,
        asked: bool = False,
        due_ns: int | None = None,
    ) -> T:
        """As `HTTPClient.post`, to a path below the base address; None is that of questions."""
        client, url = self.client, self._url
        if client is None or url is None:
            raise _not_running()
        address = url if path is None else client.below(path)
        return await client.post(address, body, parse, stream, asked, due_ns)


def _not_running() -> ProviderError:
    return ProviderError(ErrorKind.ENGINE, "the engine is not running")


def json_bytes(value: Mapping[str, JSON]) -> bytes:
    """The value as JSON. Raises ProviderError (bad_request) for what JSON does not hold."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        what = f"the request cannot be written as JSON: {error}"
        raise ProviderError(ErrorKind.BAD_REQUEST, what) from error


class ServerOptions(ProviderOptions):
    """What a model entry may say of a server that is already there."""

    base_url: str = Field(
        description="Address of the API with its version, such as http://127.0.0.1:8000/v1."
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
        description="Fields added to every request as they are: what a server knows beyond its API.",
    )
    verify_tls: bool = Field(
        default=True,
        description="Check the server's certificate; false only for a test server that signed its own.",
    )
    proxy: str | None = Field(
        default=None,
        description="Address of an HTTP proxy for this server. Default: the one that HTTP_PROXY, HTTPS_PROXY "
        "and NO_PROXY name; none for addresses of this machine.",
    )

    @field_validator("base_url", "proxy")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)

    @model_validator(mode="after")
    def _one_credential(self) -> ServerOptions:
        headers = {name.lower() for name in self.headers_env}
        if "@" in self.base_url.split("/")[2] and (self.api_key_env or "authorization" in headers):
            raise ValueError("base_url holds credentials: name no key beside them")
        return self


ServerOptionsT = TypeVar("ServerOptionsT", bound=ServerOptions, covariant=True)


class ServerProvider(HTTPProvider[ServerOptionsT], Cloneable):
    """Sends requests to a server that is already there."""

    key_header: ClassVar[tuple[str, str]] = ("Authorization", "Bearer ")
    """The header that holds the key, and what stands before it."""
    fixed_headers: ClassVar[Mapping[str, str]] = {}
    """Headers that the API wants with every request."""
    probe: ClassVar[str] = ""
    """What is asked for at the start, to see whether the server is there."""

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self.model = spec.model
        options = self.options
        wanted = [(header, variable, "") for header, variable in options.headers_env.items()]
        if options.api_key_env is not None:
            name, scheme = self.key_header
            wanted.append((name, options.api_key_env, scheme))
        secrets = secret_headers(wanted, spec.id, os.environ)
        self.headers = {**self.fixed_headers, **secrets}
        if secrets or holds_key(options.base_url):
            proxy = options.proxy or proxy_of(options.base_url)
            problem = key_problem(options.base_url, proxy, f"model {spec.id}")
            if problem is not None:
                raise UserError([problem])
        self.connect(self.made_client())

    def made_client(self, reuse: bool = True) -> HTTPClient:
        """A client for the server."""
        from evalrun.providers.http_client import HTTPClient

        options = self.options
        return HTTPClient(
            options.base_url, self.headers, verify_tls=options.verify_tls, proxy=options.proxy, reuse=reuse
        )

    @property
    def endpoint(self) -> str:
        return origin(self.options.base_url)

    def body(self, request: Request) -> bytes:
        return json_bytes({**self.payload(request), **self.options.extra_body})

    async def start(self) -> None:
        """See whether the server is there: any HTTP answer will do. Raises UserError (exit 3)."""
        await self.reach()

    async def reach(self) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of what answers to `probe`; status 0 where that is no HTTP.

        Raises UserError (exit 3) where nothing listens at the address.
        """
        import aiohttp

        assert self.client is not None
        try:
            return await self.client.get(self.client.below(self.probe), START_TIMEOUT_S)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            await self.client.close()
            raise self._absent(error) from error
        except (aiohttp.ClientError, OSError):
            return 0, b"", {}  # something is there; what it says to real requests will be recorded

    def clone(self) -> tuple[ModelSpec, Mapping[str, str]]:
        return self.spec.model_copy(update={"model": self.model}), {}

    def identity(self) -> dict[str, JSON]:
        from evalrun.secrets import scrub_json, scrub_url

        return {
            "provider": self.spec.provider,
            "base_url": scrub_url(self.options.base_url),
            "model": self.model,
            "extra_body": scrub_json(self.options.extra_body),
        }

    def _absent(self, error: Exception) -> UserError:
        import aiohttp

        from evalrun.providers.faults import shorten
        from evalrun.secrets import scrub_url

        proxy = self.client.proxy if self.client is not None else None
        missing = absent_proxy(
            self.options.base_url, str(proxy) if proxy else None, error, f"model {self.spec.id}"
        )
        if missing is not None:
            return missing
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


class ManagedEngine(RunsEngine):
    """Asks a server that may be a child process of ours; `engine` and `client` are None without it."""

    client: HTTPClient | None = None
    engine: Engine | None = None
    figures: Callable[[str], dict[str, float]]
    """What is kept of the text at /metrics."""

    @property
    def engine_pid(self) -> int | None:
        return self.engine.pid if self.engine is not None else None

    async def engine_stats(self) -> dict[str, float]:
        if self.client is None:
            return {}
        url = self.client.base_url.with_path("/metrics")
        status, body, _ = await self.client.get(url, _STATS_TIMEOUT_S)
        return self.figures(body.decode("utf-8", "replace")) if status == 200 else {}

    async def close(self) -> None:
        """Close the connections, then end the engine."""
        client, self.client = self.client, None
        engine, self.engine = self.engine, None
        try:
            if client is not None:
                await client.close()
        finally:
            if engine is not None:
                await engine.stop()


def secret_headers(
    wanted: list[tuple[str, str, str]], model_id: str, env: Mapping[str, str]
) -> dict[str, str]:
    """The headers that hold keys, from (header, environment variable, what stands before the value).

    Raises UserError for all variables that are unset, or hold what no header can, at once.
    """
    problems: list[Problem] = []
    headers: dict[str, str] = {}
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

"""What the exceptions of the OpenAI SDK, and of the HTTP clients under it, stand for."""

from __future__ import annotations

import sys

from evalrun.providers.openai_account import NO_KEY
from evalrun.types import ErrorKind, ProviderError


def transport_errors() -> tuple[type[Exception], ...]:
    """What the SDK and the HTTP clients under it raise; only of modules that are imported already."""
    import aiohttp
    import openai

    under = [sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules]
    return (openai.OpenAIError, aiohttp.ClientError, OSError, *(module.HTTPError for module in under))


def provider_error(error: Exception, answering: bool, key: str | None = None) -> ProviderError:
    """What an exception of the SDK stands for. `answering`: the head of the answer had arrived.

    `key` is what we sent as one, which a server may repeat in its message and nobody shall read there.
    """
    import aiohttp
    import openai

    from evalrun.providers.http_faults import error_of_exception, error_of_status, shorten

    if isinstance(error, openai.APIStatusError):
        response = error.response
        body = response.content
        if key is not None and key != NO_KEY:
            body = body.replace(key.encode(), b"***")
        return error_of_status(response.status_code, body, response.headers)
    # The SDK's own names are no guide: its transport calls a dropped connection a timeout. What lies at
    # the bottom says what happened.
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, aiohttp.ClientError):
            return error_of_exception(cause, answering)
    names = {type(cause).__name__ for cause in chain}
    text = shorten(str(chain[-1]) or type(chain[-1]).__name__)
    if names & {"ReadError", "RemoteProtocolError"} and (answering or "message body" in text):
        return ProviderError(ErrorKind.TRUNCATED, f"the answer broke off: {text}")
    if any("Timeout" in name for name in names):
        return ProviderError(ErrorKind.TIMEOUT, f"no answer in time: {text}")
    if isinstance(error, openai.APIConnectionError | OSError) or names & {"ConnectError", "ReadError"}:
        return ProviderError(ErrorKind.CONNECTION, text)
    return ProviderError(ErrorKind.PROTOCOL, text)


def nothing_listens(error: Exception) -> bool:
    """Whether an exception says that no connection could be made at all."""
    import aiohttp

    chain = causes(error)
    if any(isinstance(cause, aiohttp.ClientError) for cause in chain):
        kinds = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        return any(isinstance(cause, kinds) for cause in chain)
    return any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in chain)


def causes(error: BaseException) -> list[BaseException]:
    """The exception and what it came from, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain

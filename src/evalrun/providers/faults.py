"""What went wrong on the wire, as a ProviderError with the right kind and a message fit to be kept.

Messages are cut to `MESSAGE_CHARS` and scrubbed of anything that looks like a secret, since servers
echo keys and requests in their errors. What the exceptions of the OpenAI SDK stand for is said here too.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

import orjson

from evalrun.types import JSON, ErrorKind, ProviderError

MESSAGE_CHARS = 300

_KINDS: Mapping[int, ErrorKind] = {
    401: ErrorKind.AUTH,
    402: ErrorKind.BILLING,
    403: ErrorKind.AUTH,
    404: ErrorKind.NOT_FOUND,
    408: ErrorKind.TIMEOUT,
    429: ErrorKind.RATE_LIMIT,
    504: ErrorKind.TIMEOUT,
}
_WORDS: tuple[tuple[str, ErrorKind], ...] = (
    ("rate_limit", ErrorKind.RATE_LIMIT),
    ("authentication", ErrorKind.AUTH),
    ("permission", ErrorKind.AUTH),
    ("not_found", ErrorKind.NOT_FOUND),
    ("timeout", ErrorKind.TIMEOUT),
    ("invalid_request", ErrorKind.BAD_REQUEST),
    ("badrequest", ErrorKind.BAD_REQUEST),
    ("context_length", ErrorKind.BAD_REQUEST),
    ("exceed_context", ErrorKind.BAD_REQUEST),
)
"""What the `type` or `code` of an error holds where no HTTP status says its kind."""
_BILLING = re.compile(
    r"insufficient[ _-]?(user[ _-]?)?(quota|balance|credit|fund)|billing[ _-]?(hard|soft)?[ _-]?(limit|not)"
    r"|(credit|account)[ _-]?balance[ _-](is[ _-])?(too[ _-]low|exhausted|insufficient)"
    r"|(credits?|quota)[ _-](exhausted|depleted)|(out of|no|not enough|run out of) credits?\b"
    r"|exceeded_current_quota|payment[ _-]required|account[ _-]?deactivated|arrearage",
    re.IGNORECASE,
)
"""How APIs say that the account has nothing left: by a code, a type or, some, in words alone."""
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.DOTALL | re.IGNORECASE)


def kind_of_status(status: int) -> ErrorKind:
    """The kind of a failed HTTP status: 4xx are ours (bad_request), 5xx the server's."""
    return _KINDS.get(status) or (ErrorKind.SERVER if status >= 500 else ErrorKind.BAD_REQUEST)


def shorten(text: str) -> str:
    """One line, without secrets, of at most `MESSAGE_CHARS` characters."""
    from evalrun.secrets import scrub

    # Cut generously first: scrubbing a megabyte of HTML would cost more than the request did. What is
    # scrubbed must still be whole, so the last cut comes after.
    text = " ".join(scrub(text[: 20 * MESSAGE_CHARS]).split())
    return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait that a server asked for, in seconds: `retry-after-ms`, or `Retry-After` as seconds or a date;
    without either, until what is used up is there again, where the server says when (Anthropic).

    None when there is none or it cannot be read. A date in the past is 0; dates are by the server's clock.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After")
    if value is None:
        return _reset_s(headers)
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _moment(value)
    if until is None:
        return None
    # By the server's own clock where it tells the time: ours may be off.
    now = _moment(headers.get("Date"))
    return max(0.0, until - (time.time() if now is None else now))


_RATES = ("requests", "tokens", "input-tokens", "output-tokens")


def _reset_s(headers: Mapping[str, str]) -> float | None:
    """Seconds until the last of the rates that are used up begins anew, by Anthropic's headers."""
    until = []
    for rate in _RATES:
        name = f"anthropic-ratelimit-{rate}"
        if headers.get(f"{name}-remaining") == "0" and f"{name}-reset" in headers:
            with contextlib.suppress(ValueError):
                until.append(datetime.fromisoformat(headers[f"{name}-reset"]).timestamp())
    if not until:
        return None
    now = _moment(headers.get("Date"))
    return max(0.0, max(until) - (time.time() if now is None else now))


def _moment(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value is not None else None
    except (ValueError, TypeError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def error_of_status(status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The error that an answer with a status other than 200 stands for."""
    wait = retry_after_s(headers)
    kind = kind_of_status(status)
    if 300 <= status < 400:
        target = headers.get("Location", "another address")
        text = f"the server redirects to {target}; name that address as base_url"
    else:
        text = message_in(body) or "no message"
        if status < 500 and is_billing(_names_in(body), text, status):
            kind = ErrorKind.BILLING
    return ProviderError(kind, shorten(f"HTTP {status}: {text}"), http_status=status, retry_after_s=wait)


def is_billing(names: str, message: str, status: int | None) -> bool:
    """Whether an error says that the account has nothing left: by code or type, and where no code is to be
    expected by its words. The words of other errors may be those of the prompt, which some servers repeat."""
    if _BILLING.search(names):
        return True
    if status in (403, 429, None):
        return _BILLING.search(message[: 4 * MESSAGE_CHARS]) is not None
    return status == 400 and message.startswith("Your credit balance is too low")  # Anthropic


def _names_in(body: bytes) -> str:
    """The codes and types that a JSON error names, at its top and in its `error`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(value, dict):
        return ""
    inner = value.get("error")
    return names_of(value) + (" " + names_of(inner) if isinstance(inner, dict) else "")


def names_of(error: Mapping[str, JSON]) -> str:
    """The code and the type that an error names."""
    return " ".join(str(error[key])[:100] for key in ("code", "type", "reason", "status") if error.get(key))


def error_of_payload(error: JSON, status: int | None = None) -> ProviderError:
    """The error that a server wrote into the body of an answer or into the middle of a stream."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    known = code if isinstance(code, int) and 400 <= code <= 599 else None
    kind = kind_of_status(known) if known else _kind_of_words(error)
    text = _message_of(error) or "the server reported an error without a message"
    names = names_of(error) if isinstance(error, dict) else ""
    if (known is None or known < 500) and is_billing(names, text, known):
        kind = ErrorKind.BILLING
    return ProviderError(kind, shorten(text), http_status=known or status)


def _kind_of_words(error: JSON) -> ErrorKind:
    if not isinstance(error, dict):
        return ErrorKind.SERVER
    named = f"{error.get('code')} {error.get('type')}".lower()
    return next((kind for word, kind in _WORDS if word in named), ErrorKind.SERVER)


def message_in(body: bytes) -> str:
    """What the body of a failed answer says: the message of a JSON error, the title of a page, the text."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:65536].decode("utf-8", "replace")
        title = _TITLE.search(text)
        return title.group(1) if title and title.group(1).strip() else _TAGS.sub(" ", text)
    return _message_of(value)


def _message_of(value: JSON) -> str:
    """The message within a JSON error, wherever the server keeps it: error.message, message, detail."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
    for key in ("error", "message", "detail", "error_description", "msg"):
        inner = value.get(key)
        if inner:
            return _message_of(inner)
    return orjson.dumps(value).decode() if value else ""


def error_of_exception(error: Exception, answering: bool) -> ProviderError:
    """The error that an exception of the HTTP client stands for.

    `answering` says that the head of the answer had arrived: what breaks after that is truncation.
    """
    import aiohttp

    # An aiohttp timeout is also a connection error, so it comes first. The deadline of the runner is not
    # seen here: it cancels.
    if isinstance(error, TimeoutError):
        return ProviderError(ErrorKind.TIMEOUT, shorten(f"no answer in time: {error}"))
    if isinstance(error, aiohttp.ClientSSLError):
        return ProviderError(ErrorKind.CONNECTION, shorten(f"TLS: {error}"))
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return ProviderError(ErrorKind.CONNECTION, shorten(f"the proxy is not there: {_named(error)}"))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        kind = ErrorKind.AUTH if error.status in (401, 403, 407) else ErrorKind.CONNECTION
        what = shorten(f"the proxy opens no way to the server: {error.status} {error.message}")
        return ProviderError(kind, what, http_status=error.status)
    if isinstance(error, aiohttp.ClientPayloadError) or (
        answering and isinstance(error, aiohttp.ClientConnectionError | OSError)
    ):
        return ProviderError(ErrorKind.TRUNCATED, shorten(f"the answer broke off: {_named(error)}"))
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return ProviderError(ErrorKind.CONNECTION, shorten(_named(error)))
    return ProviderError(ErrorKind.PROTOCOL, shorten(f"not a valid HTTP answer: {_named(error)}"))


def _named(error: Exception) -> str:
    text = str(error)
    return text if text else type(error).__name__


NO_KEY = "none"
"""Sent as the key to a server of one's own where no key is set: the SDK refuses to send none."""


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

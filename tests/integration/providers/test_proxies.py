"""Proxies: which is asked, that none is told a key, and that this machine is never asked through one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import ProviderContext, create
from evalrun.providers.proxies import is_here, proxy_of
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, ProviderError

SECRETS = {
    "MODEL_KEY": "key-in-the-test",
    "OTHER_KEY": "other-key-in-the-test",
    "OPENAI_API_KEY": "sdk-key-in-the-test",
}


class Proxy:
    """Listens, keeps what it is told, and refuses it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """A proxy, named with credentials of its own by HTTP_PROXY and HTTPS_PROXY."""
    made = Proxy()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://jo:pass@127.0.0.1:{made.port}")
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    yield made
    server.close()


def made(tmp_path: Path, **entry: Any) -> Any:
    spec = ModelSpec.model_validate({"id": "m", "model": "m", **entry})
    return create(spec, ProviderContext(tmp_path, tmp_path))


COMPATIBLE = {
    "provider": "openai_compatible",
    "api_key_env": "MODEL_KEY",
    "headers_env": {"X-Other": "OTHER_KEY"},
}


@pytest.mark.parametrize("entry", [COMPATIBLE, {"provider": "openai"}], ids=["compatible", "sdk"])
async def test_a_tunnel_is_asked_for_without_any_key(
    proxy: Proxy, tmp_path: Path, ask: Any, entry: dict[str, Any]
) -> None:
    provider = made(tmp_path, base_url="https://models.invalid/v1", **entry)
    try:
        await provider.start()
    except UserError:
        pass
    else:
        for stream in (False, True):
            with pytest.raises(ProviderError):
                await provider.generate(ask(stream=stream))
    await provider.close()
    assert proxy.heard and all(said.startswith(b"CONNECT models.invalid:443 ") for said in proxy.heard)
    said = b"".join(proxy.heard)
    assert not [value for value in SECRETS.values() if value.encode() in said]
    own = base64.b64encode(b"jo:pass")
    assert said.count(b"Proxy-Authorization: Basic " + own) == len(proxy.heard)
    assert said.lower().count(b"authorization:") == len(proxy.heard), (
        "the proxy's own credentials and no others"
    )


@pytest.mark.parametrize(
    "entry",
    [
        COMPATIBLE,
        {"provider": "openai_compatible", "headers_env": {"X-Other": "OTHER_KEY"}},
        {"provider": "openai_compatible", "base_url": "http://user:word@models.invalid/v1"},
        {"provider": "openai"},
        {
            "provider": "litellm",
            "api_base": "http://models.invalid/v1",
            "api_key_env": "MODEL_KEY",
            "base_url": None,
        },
    ],
)
async def test_a_key_is_not_sent_in_clear_through_a_proxy(
    proxy: Proxy, tmp_path: Path, entry: dict[str, Any]
) -> None:
    whole = {"base_url": "http://models.invalid/v1", **entry}
    with pytest.raises(UserError, match="would be told to the proxy") as refused:
        made(tmp_path, **{name: value for name, value in whole.items() if value is not None})
    assert refused.value.exit_code is ExitCode.USAGE and proxy.heard == []
    assert "jo:pass" not in str(refused.value)


async def test_without_a_key_plain_http_goes_through_the_proxy(
    proxy: Proxy, tmp_path: Path, ask: Any
) -> None:
    provider = made(tmp_path, base_url="http://models.invalid/v1", provider="openai_compatible")
    with pytest.raises(ProviderError):
        await provider.generate(ask())
    await provider.close()
    assert proxy.heard[0].startswith(b"POST http://models.invalid/v1/chat/completions ")


@pytest.mark.parametrize("entry", [COMPATIBLE, {"provider": "openai"}], ids=["compatible", "sdk"])
async def test_this_machine_is_asked_directly(
    proxy: Proxy, tmp_path: Path, serve: Any, ask: Any, entry: dict[str, Any]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "42"}}]})

    provider = made(tmp_path, base_url=await serve(handler), **entry)
    await provider.start()
    assert (await provider.generate(ask())).output == "42"
    await provider.close()
    assert proxy.heard == []


@pytest.mark.parametrize("entry", [COMPATIBLE, {"provider": "openai"}], ids=["compatible", "sdk"])
async def test_a_dead_proxy_is_named(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://jo:word@127.0.0.1:9")
    provider = made(tmp_path, base_url="https://models.invalid/v1", **entry)
    with pytest.raises(
        UserError, match=r"the proxy http://(\*\*\*@)?127\.0\.0\.1:9 .*is not there"
    ) as absent:
        await provider.start()
    assert "word" not in str(absent.value) and "HTTPS_PROXY" in str(absent.value)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
    ],
)
def test_names_of_this_machine(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize(
    "host", ["models.invalid", "128.0.0.1", "localhost.evil.invalid", "127.0.0.1.evil.invalid", "::2"]
)
def test_names_of_others(host: str) -> None:
    assert not is_here(host)


def test_which_proxy_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "direct.invalid,ported.invalid:8000")
    monkeypatch.delenv("NO_PROXY", raising=False)
    named = {"https": "http://a:1", "all": "b:2"}
    assert proxy_of("https://models.invalid/v1", named) == "http://a:1"
    assert proxy_of("http://models.invalid/v1", named) == "http://b:2", "without a scheme it speaks HTTP"
    assert proxy_of("http://direct.invalid/v1", named) is None
    assert proxy_of("http://ported.invalid:8000/v1", named) is None
    assert proxy_of("http://ported.invalid:9000/v1", named) == "http://b:2"
    assert proxy_of("https://models.invalid/v1", {}) is None


def test_a_proxy_that_does_not_speak_http_is_not_passed_over() -> None:
    with pytest.raises(UserError, match="does not speak HTTP"):
        proxy_of("https://models.invalid/v1", {"all": "socks5://a:1"})


async def test_a_dead_proxy_in_mid_run_is_named(tmp_path: Path, ask: Any, proxy: Proxy) -> None:
    provider = made(
        tmp_path,
        base_url="https://models.invalid/v1",
        provider="openai_compatible",
        proxy="http://127.0.0.1:9",
    )
    with pytest.raises(ProviderError, match="proxy") as caught:
        await provider.generate(ask())
    await provider.close()
    assert caught.value.kind is ErrorKind.CONNECTION

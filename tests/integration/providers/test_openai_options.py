from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from evalrun.errors import ExitCode, UserError
from evalrun.providers.openai_api import OpenAICompatibleOptions


@pytest.mark.parametrize("base_url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://h:99999/v1"])
def test_base_url_must_be_an_http_address(base_url: str) -> None:
    with pytest.raises(ValidationError, match="http"):
        OpenAICompatibleOptions(base_url=base_url)


@pytest.mark.parametrize("base_url", ["http://h/v1/", "http://h/v1", "http://h/v1/chat/completions"])
def test_base_url_is_brought_to_one_form(base_url: str) -> None:
    assert OpenAICompatibleOptions(base_url=base_url).base_url == "http://h/v1"


def test_credentials_come_from_one_place() -> None:
    with pytest.raises(ValidationError, match="credentials"):
        OpenAICompatibleOptions(base_url="http://u:p@h/v1", api_key_env="K")
    assert OpenAICompatibleOptions(base_url="http://u:p@h/v1").api_key_env is None


async def test_a_query_of_the_address_is_kept(provider_for: Any) -> None:
    client = provider_for("http://h.invalid/v1?api-version=2").client
    assert str(client.below("chat/completions")) == "http://h.invalid/v1/chat/completions?api-version=2"


def test_every_option_is_described() -> None:
    assert all(field.description for field in OpenAICompatibleOptions.model_fields.values())


async def test_all_unset_variables_are_named_at_once_before_anything_is_sent(provider_for: Any) -> None:
    keys = {"api_key_env": "EVALRUN_NO_SUCH_A", "headers_env": {"X-Org": "EVALRUN_NO_SUCH_B"}}
    with pytest.raises(UserError) as caught:
        provider_for("http://127.0.0.1:9/v1", **keys)
    assert caught.value.exit_code is ExitCode.USAGE
    text = str(caught.value)
    assert "EVALRUN_NO_SUCH_A" in text and "EVALRUN_NO_SUCH_B" in text


async def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(
    provider_for: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("EVALRUN_TEST_ODD", "top\nsecret")
    with pytest.raises(UserError) as caught:
        provider_for("http://127.0.0.1:9/v1", api_key_env="EVALRUN_TEST_ODD")
    assert "secret" not in str(caught.value)


async def test_endpoint_and_identity(provider_for: Any) -> None:
    provider = provider_for("http://127.0.0.1:9123/v1", extra_body={"top_k": 1})
    assert provider.endpoint == "http://127.0.0.1:9123"
    identity = provider.identity()
    assert identity["provider"] == "openai_compatible" and identity["model"] == "m"
    assert identity["extra_body"] == {"top_k": 1} and identity["base_url"] == "http://127.0.0.1:9123/v1"
    await provider.close()
    await provider.close()


async def test_credentials_in_the_address_do_not_reach_the_identity(provider_for: Any) -> None:
    provider = provider_for("http://user:hunter2hunter2@127.0.0.1:9/v1")
    assert "hunter2hunter2" not in str(provider.identity()) + provider.endpoint


async def test_loopback_is_never_asked_through_a_proxy(monkeypatch: Any, provider_for: Any) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert provider_for("http://127.0.0.1:9/v1").client.proxy is None
    assert str(provider_for("http://models.invalid/v1").client.proxy) == "http://proxy.invalid:3128"

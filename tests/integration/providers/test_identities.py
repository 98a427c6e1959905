"""The identities that go into cache keys, byte for byte: a change here loses everybody's cached answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.servers import ChatServer

from evalrun.canonical import canonical_json
from evalrun.providers.base import ProviderContext, create
from evalrun.suite.components import ModelSpec

EXTRA = {"top_k": 5, "nested": {"b": 1, "a": [None, True]}}


def identity_of(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    spec = ModelSpec.model_validate({"id": "m", "model": "org/name", **entry})
    return create(spec, ProviderContext(folder, folder / "work")).identity()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {
                "provider": "openai_compatible",
                "base_url": "http://me:hunter2@h:8000/v1/",
                "extra_body": EXTRA,
            },
            {
                "provider": "openai_compatible",
                "base_url": "http://h:8000/v1",
                "api": "chat",
                "model": "org/name",
                "extra_body": EXTRA,
            },
        ),
        (
            {"provider": "openai", "base_url": "http://h:8000/v1", "api": "completions"},
            {
                "provider": "openai",
                "base_url": "http://h:8000/v1",
                "api": "completions",
                "model": "org/name",
                "extra_body": {},
            },
        ),
        (
            {
                "provider": "openai",
                "azure": True,
                "azure_endpoint": "https://r.openai.azure.com",
                "api_version": "2024-10-21",
            },
            {
                "provider": "openai",
                "base_url": "https://r.openai.azure.com",
                "api": "chat",
                "model": "org/name",
                "extra_body": {},
                "api_version": "2024-10-21",
            },
        ),
        (
            {"provider": "recorded", "column": "answer"},
            {"provider": "recorded", "model": "org/name", "column": "answer"},
        ),
        (
            {"provider": "recorded", "path": "answers.jsonl"},
            {"provider": "recorded", "model": "org/name", "sha256": None, "output_field": "output"},
        ),
    ],
)
def test_identities_before_the_start(
    entry: dict[str, Any], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "none")
    assert canonical_json(identity_of(entry, tmp_path)) == canonical_json(expected)


def test_the_identity_of_litellm(tmp_path: Path) -> None:
    identity = identity_of({"provider": "litellm", "api_base": "http://h:1/v1", "extra": EXTRA}, tmp_path)
    identity["litellm"] = "any"
    assert canonical_json(identity) == canonical_json(
        {
            "provider": "litellm",
            "litellm": "any",
            "api": "chat",
            "model": "org/name",
            "api_base": "http://h:1/v1",
            "api_version": None,
            "extra": EXTRA,
        }
    )


async def test_the_identity_of_a_vllm_that_runs_already(chat_server: ChatServer, tmp_path: Path) -> None:
    entry = {
        "id": "m",
        "provider": "vllm",
        "model": "scripted",
        "base_url": chat_server.base_url,
        "extra_body": EXTRA,
    }
    provider = create(ModelSpec.model_validate(entry), ProviderContext(tmp_path, tmp_path))
    await provider.start()
    await provider.close()
    assert canonical_json(provider.identity()) == canonical_json(
        {
            "provider": "vllm",
            "mode": "attach",
            "api": "chat",
            "model": "scripted",
            "engine": {"vllm": None},
            "max_model_len": None,
            "extra_body": EXTRA,
            "base_url": chat_server.base_url,
        }
    )

"""Whose account the `openai` provider uses: address, key and version, from the suite and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evalrun.errors import Problem, UserError

if TYPE_CHECKING:
    from evalrun.providers.openai_sdk import OpenAIOptions
    from evalrun.suite.components import ModelSpec

DEFAULT_BASE_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent as the key to a server of one's own where no key is set: the SDK refuses to send none."""


def account_of(options: OpenAIOptions, spec: ModelSpec, env: Mapping[str, str]) -> dict[str, Any]:
    """Address, key and version, from the suite and the environment. The key stays out of everything kept.

    Raises UserError for all that is missing at once.
    """
    where = f"model {spec.id}"
    problems = [] if spec.model else [Problem("'model' is missing", where, "Add `model:`.")]
    key: str | None = None
    if options.api_key_env is not None:
        key = _value(env, options.api_key_env)
        if key is None:
            what = f"the environment variable {options.api_key_env} is not set"
            problems.append(Problem(what, where, f"Set {options.api_key_env} to the key."))
    finder = _azure_account if options.azure else _openai_account
    account, missing = finder(options, env, key)
    if options.api_key_env is not None:
        missing.pop("key", None)
    problems += [Problem(what, where, remedy) for what, remedy in missing.values()]
    if problems:
        raise UserError(problems)
    return account


def _openai_account(
    options: OpenAIOptions, env: Mapping[str, str], key: str | None
) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    missing: dict[str, tuple[str, str]] = {}
    if options.azure_endpoint or options.api_version:
        missing["azure"] = ("azure_endpoint and api_version need azure: true", "Add `azure: true`.")
    address = options.base_url or _value(env, "OPENAI_BASE_URL")
    key = key or _value(env, "OPENAI_API_KEY") or (NO_KEY if address else None)
    if key is None:
        remedy = "Set it to your key, or give base_url for a server of your own."
        missing["key"] = ("the environment variable OPENAI_API_KEY is not set", remedy)
    return {"address": address or DEFAULT_BASE_URL, "key": key}, missing


def _azure_account(
    options: OpenAIOptions, env: Mapping[str, str], key: str | None
) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    missing: dict[str, tuple[str, str]] = {}
    if options.base_url:
        missing["base_url"] = ("base_url cannot stand beside azure: true", "Name azure_endpoint instead.")
    address = options.azure_endpoint or _value(env, "AZURE_OPENAI_ENDPOINT")
    if address is None:
        remedy = "Set AZURE_OPENAI_ENDPOINT, or give azure_endpoint."
        missing["address"] = ("the address of the Azure resource is missing", remedy)
    version = (
        options.api_version or _value(env, "OPENAI_API_VERSION") or _value(env, "AZURE_OPENAI_API_VERSION")
    )
    if version is None:
        remedy = "Set OPENAI_API_VERSION, or give api_version."
        missing["version"] = ("the version of Azure's API is missing", remedy)
    if key is None and not (_value(env, "AZURE_OPENAI_AD_TOKEN") or _value(env, "AZURE_OPENAI_API_KEY")):
        remedy = "Set AZURE_OPENAI_API_KEY (or AZURE_OPENAI_AD_TOKEN)."
        missing["key"] = ("no key for Azure OpenAI is set", remedy)
    return {"address": address or "", "key": key, "api_version": version}, missing


def _value(env: Mapping[str, str], name: str) -> str | None:
    return env.get(name, "").strip() or None

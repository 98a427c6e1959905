"""Providers as models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from evalrun.tasks.promptfoo.notes import Notes, id_of, unique
from evalrun.tasks.reading import as_list, as_mapping, parse_yaml, text_of

_PARAMS = {
    "temperature", "max_tokens", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty",
    "max_completion_tokens",
}  # fmt: skip
_NO_CHAT = {
    "embedding", "embeddings", "moderation", "image", "realtime", "assistant", "transcription", "speech",
    "audio", "video", "agents", "rerank",
}  # fmt: skip
_OPENAI_LIKE = {
    "ollama": "http://127.0.0.1:11434/v1", "openrouter": "https://openrouter.ai/api/v1",
    "localai": "http://127.0.0.1:8080/v1", "vllm": "http://127.0.0.1:8000/v1",
    "groq": "https://api.groq.com/openai/v1", "together": "https://api.together.xyz/v1",
    "deepseek": "https://api.deepseek.com/v1", "mistral": "https://api.mistral.ai/v1",
}  # fmt: skip
_KEYS = {
    "openrouter": "OPENROUTER_API_KEY", "groq": "GROQ_API_KEY", "together": "TOGETHER_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY", "mistral": "MISTRAL_API_KEY",
}  # fmt: skip
_BY_LITELLM = {
    "anthropic": "anthropic", "google": "gemini", "vertex": "vertex_ai", "bedrock": "bedrock",
    "azure": "azure",
    "cohere": "cohere", "replicate": "replicate", "huggingface": "huggingface", "azureopenai": "azure",
    "xai": "xai", "cerebras": "cerebras", "databricks": "databricks", "perplexity": "perplexity",
}  # fmt: skip


def models_of(notes: Notes, listed: Any) -> Iterator[dict[str, Any]]:
    """The providers as models of the suite."""
    used: set[str] = set()
    entries = [listed] if isinstance(listed, str | dict) else as_list(listed, "providers")
    for entry in [one for each in entries for one in _of_file(notes, each)]:
        config: Mapping[str, Any] = {}
        label = None
        if isinstance(entry, dict) and "id" not in entry and len(entry) == 1:
            name, inner = next(iter(entry.items()))  # {openai:gpt-4: {config: …}}
            entry = {"id": name, **as_mapping(inner or {}, f"provider {name}")}
        if isinstance(entry, dict):
            source, label = str(entry.get("id")), entry.get("label")
            config = as_mapping(entry.get("config") or {}, f"provider {source}: config")
            for key in entry.keys() - {"id", "config", "label"}:
                notes.leave(f"provider {source}: {key}", "has no counterpart here")
        else:
            source = str(entry)
        made = _model_of(notes, source, config)
        if made is not None:
            yield {"id": unique(id_of(label or source.replace(":", "-")), used), **made}


def _of_file(notes: Notes, entry: Any) -> list[Any]:
    """The providers that a file lists, where one is named: one or several."""
    if not isinstance(entry, str) or not re.match(r"file://.*\.(ya?ml|json)$", entry):
        return [entry]
    path = notes.base / entry.removeprefix("file://")
    if not path.is_file():
        notes.leave(f"provider {entry}", "there is no such file")
        return []
    inside = parse_yaml(text_of(path), path)
    return inside if isinstance(inside, list) else [inside]


def _model_of(notes: Notes, source: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, _, rest = source.partition(":")
    params = {key: config[key] for key in config if key in _PARAMS}
    for key in config.keys() - _PARAMS - {"apiBaseUrl", "apiHost", "apiKeyEnvar", "apiKey"}:
        notes.leave(
            f"provider {source}: {key}", "has no counterpart here; extra_body of the model may send it"
        )
    if config.get("apiKey"):
        notes.leave(f"provider {source}: apiKey", "keys stand in no suite: name a variable by api_key_env")
    sub, _, name = rest.partition(":")
    if sub in _NO_CHAT:
        notes.leave(f"provider {source}", "is no model of chats or completions")
        return None
    if sub == "responses":
        notes.leave(f"provider {source}: responses", "is asked by chat completions")
    if sub not in ("chat", "completion", "completions", "responses", "messages", "generate"):
        sub, name = "chat", rest
    common = {"model": name, **({"params": params} if params else {})}
    if config.get("apiKeyEnvar"):
        common["api_key_env"] = str(config["apiKeyEnvar"])
    base = config.get("apiBaseUrl") or (f"https://{config['apiHost']}/v1" if config.get("apiHost") else None)
    completions = {"api": "completions"} if sub.startswith("completion") else {}
    if kind == "openai" and name:
        if base:
            return {"provider": "openai_compatible", "base_url": base, **completions, **common}
        return {"provider": "openai", **completions, **common}
    if kind in _OPENAI_LIKE and name:
        own_key = _KEYS.get(kind)
        return {"provider": "openai_compatible", "base_url": base or _OPENAI_LIKE[kind],
                **({"api_key_env": own_key} if own_key else {}), **common}  # fmt: skip
    if kind in _BY_LITELLM and name:
        if base:
            notes.leave(f"provider {source}: {base}", "LiteLLM's own variables name another address")
        return {"provider": "litellm", **common, "model": f"{_BY_LITELLM[kind]}/{name}"}
    why = (
        "is a program of its own: name it by provider: python"
        if kind in ("python", "exec", "file", "javascript", "package", "golang", "ruby")
        else "has no counterpart here"
    )
    notes.leave(f"provider {source}", why)
    return None

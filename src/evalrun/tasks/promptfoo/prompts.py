"""Prompts: texts, chats, and files of them."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from evalrun.tasks.promptfoo.notes import CODE, Notes, id_of, unique
from evalrun.tasks.reading import as_list, text_of


def prompts_of(notes: Notes, listed: Any) -> Iterator[dict[str, Any]]:
    """The prompts of the configuration, of files too, as the suite has them."""
    if isinstance(listed, dict):  # {file: id}
        listed = [{"id": key, "label": value} for key, value in listed.items()]
    used: set[str] = set()
    for at, entry in enumerate([listed] if isinstance(listed, str) else as_list(listed, "prompts")):
        label = None
        if isinstance(entry, dict):
            label, source = entry.get("label"), entry.get("raw") or entry.get("id") or entry.get("file")
            if entry.get("function"):
                notes.leave(f"prompt {label or at}", "is made by a function")
                continue
        else:
            source = entry
        if not isinstance(source, str):
            notes.leave(f"prompt {label or at}", "has no text")
            continue
        for text, name in _prompt_texts(notes, source):
            own = unique(id_of(label or name or f"prompt{at + 1}"), used)
            made = _prompt_of(notes, text, own)
            if made is not None:
                yield made


def _prompt_texts(notes: Notes, source: str) -> Iterator[tuple[str, str]]:
    named = source.removeprefix("file://")
    is_file = source.startswith("file://") or (
        "\n" not in source
        and re.search(r"\.(txt|json|ya?ml|md|j2|jsonl|csv|py|js|ts|mjs|cjs)(:\w+)?$", source)
    )
    if not is_file:
        yield source, ""
        return
    paths = sorted(glob.glob(str(notes.base / named)))  # noqa: PTH207  (absolute names too)
    if not paths:
        suffix = Path(named.partition(":")[0]).suffix
        why = "is made by code" if suffix in CODE else "there is no such file"
        notes.leave(f"prompt {source}", why)
    for name in paths:
        path = Path(name)
        if path.suffix in CODE:
            notes.leave(f"prompt {source}", "is made by code")
            continue
        text = text_of(path)
        parts = [text] if path.suffix != ".txt" else re.split(r"^---\s*$", text, flags=re.MULTILINE)
        for part in parts:
            if part.strip():
                yield part.strip() if path.suffix == ".txt" else part, path.stem


def _prompt_of(notes: Notes, text: str, name: str) -> dict[str, Any] | None:
    messages = _messages(text)
    if messages is not None:
        found = []
        for message in messages:
            if not isinstance(message, dict) or "content" not in message:
                notes.leave(f"prompt {name}", "a message has no content")
                return None
            for key in message.keys() - {"role", "content"}:
                notes.leave(f"prompt {name}: {key} of a message", "has no counterpart here")
            content = notes.jinja(message["content"], f"prompt {name}")
            found.append({"role": str(message.get("role", "user")), "content": content})
        return {"id": name, "messages": found}
    return {"id": name, "text": notes.jinja(text, f"prompt {name}")}


def _messages(text: str) -> list[Any] | None:
    """The messages of a chat that is written as JSON or YAML; None for a plain text."""
    if not text.lstrip().startswith(("[", "- role")):
        return None
    for load in (json.loads, yaml.safe_load):
        try:
            document = load(text)
        except (ValueError, yaml.YAMLError):
            continue
        if isinstance(document, list) and document and all(isinstance(each, dict) for each in document):
            return document
    return None

"""The samples of a run as they are stored: what scorers, judges and `verify` read of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from evalrun.privacy.kept import as_it_was, raw_texts
from evalrun.tracking.folder import RAW
from evalrun.tracking.parquet import column_names, iter_samples
from evalrun.types import JSON, Status

Key: TypeAlias = tuple[str, int]
"""A sample: its id and repeat."""

VARS = "vars."
_READ = frozenset(
    {"sample_id", "repeat", "position", "status", "error", "messages", "prompt", "output", "answer", "target"}
    | {"target_json", "tool_calls", "likelihood"}
)


def stored_samples(
    path: Path, prefixes: Iterable[str] = (), *, redacted: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of a run's samples in the file's order: what was asked, said and wanted.

    `row` holds the dataset's columns, `target` the target with its type. Columns that begin with one of
    `prefixes` come as well. Of a run that waits to be scored, whose texts were redacted, they come as they
    were (`raw` then holds the record), unless they are wanted `redacted`. Raises UserError where the file
    cannot be read, or holds no samples.
    """
    also = tuple(prefixes)
    wanted = [
        name for name in column_names(path) if name in _READ or name.startswith(VARS) or name.startswith(also)
    ]
    wanted = [*dict.fromkeys(("sample_id", "status", *wanted))]
    kept = raw_texts(path.parent) if path.with_name(RAW).exists() and not redacted else None
    for sample in iter_samples(path, 512, wanted, decode=True):
        row = {name.removeprefix(VARS): value for name, value in sample.items() if name.startswith(VARS)}
        typed = sample.get("target_json")
        target = sample.get("target") if typed is None else typed
        stored = {**sample, "row": row, "target": target}
        yield stored if kept is None else as_it_was(stored, kept.find(*key_of(sample)))


def key_of(sample: Mapping[str, Any]) -> Key:
    """Which sample a row is."""
    return sample["sample_id"], int(sample.get("repeat") or 0)


def is_answered(sample: Mapping[str, Any]) -> bool:
    """Whether there was an answer at all."""
    return bool(sample["status"] != Status.FAILED)


def question_of(sample: Mapping[str, Any]) -> str:
    """What the model was asked: the last message of the user, or the text of the prompt."""
    for message in reversed(sample.get("messages") or []):
        if message["role"] == "user":
            content: JSON = message["content"]
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return sample.get("prompt") or ""

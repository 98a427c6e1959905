"""What people say of a sweep after it ended: tags, notes, archived or not. Events of its folder, folded.

The manifest of a finished sweep is never changed. What stands here is made from the events alone, so that
`evalrun reindex` loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evalrun.errors import Problem, UserError

TAG, NOTE, ARCHIVE = "tag", "note", "archive"
"""Actions of the events."""

MAX_NOTE = 10_000
_MAX_TAG = 200


@dataclass(frozen=True, slots=True)
class Note:
    """A note with who wrote it and when (ISO 8601, UTC)."""

    text: str
    actor: str
    ts: str


@dataclass(frozen=True, slots=True)
class Said:
    """All that people have said of a sweep. `tags` start from those of its suite."""

    tags: Mapping[str, str]
    notes: tuple[Note, ...]
    archived: bool


def fold(suite_tags: Mapping[str, str], events: Iterable[Mapping[str, Any]]) -> Said:
    """From the events, oldest first, to how things stand. Events of an odd form are passed over."""
    tags, notes, archived = dict(suite_tags), list[Note](), False
    for event in events:
        detail = event.get("detail")
        if not isinstance(detail, Mapping):
            continue
        if event["action"] == TAG:
            given, removed = detail.get("set"), detail.get("removed")
            tags.update({str(k): str(v) for k, v in given.items()} if isinstance(given, Mapping) else {})
            for key in removed if isinstance(removed, list) else ():
                tags.pop(str(key), None)
        elif event["action"] == NOTE and isinstance(detail.get("text"), str):
            notes.append(Note(detail["text"], event["actor"], event["ts"]))
        elif event["action"] == ARCHIVE:
            archived = bool(detail.get("archived"))
    return Said(tags, tuple(notes), archived)


def read_tags(pairs: Iterable[str]) -> dict[str, str]:
    """`team=nlp` and the like. Raises UserError for each that is not of this form."""
    tags: dict[str, str] = {}
    wrong: list[Problem] = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key or max(len(key), len(value)) > _MAX_TAG or not (key + value).isprintable():
            wrong.append(
                Problem(
                    f"'{pair[:80]}' is not a tag",
                    remedy=f"Write NAME=VALUE in at most {_MAX_TAG} printable characters each.",
                )
            )
        tags[key] = value.strip()
    if wrong:
        raise UserError(wrong)
    return tags

"""What people say of a sweep after it ended: name, tags, notes, labels, archived or not. Its events, folded.

The manifest of a finished sweep is never changed. What stands here is made from the events alone, so that
`evalrun reindex` loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evalrun.errors import Problem, UserError

TAG, NOTE, ARCHIVE = "tag", "note", "archive"
RENAME, LABEL = "rename", "label"
"""Actions of the events."""

MAX_NOTE = 10_000
MAX_NAME = 100
_MAX_TAG = 200


@dataclass(frozen=True, slots=True)
class Note:
    """A note with who wrote it and when (ISO 8601, UTC). `target` is RUN or RUN/SAMPLE; empty: the sweep."""

    text: str
    actor: str
    ts: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels or ratings that people gave to samples, from one file; what was read lies in `file`.

    `target` is the run they are of, empty where the file says it or they are of rows whatever the run.
    """

    column: str
    kind: str
    n: int
    target: str
    file: str
    actor: str
    ts: str
    agreement: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """All that people have said of a sweep. `tags` start from those of its suite.

    `name` is what it was renamed to, None where it was not; of `labels` the last set of a column counts.
    """

    tags: Mapping[str, str]
    notes: tuple[Note, ...]
    archived: bool
    name: str | None = None
    labels: tuple[LabelSet, ...] = ()

    def notes_of(self, target: str = "") -> tuple[Note, ...]:
        """The notes on the sweep itself, or on RUN or RUN/SAMPLE."""
        return tuple(each for each in self.notes if each.target == target)


def fold(suite_tags: Mapping[str, str], events: Iterable[Mapping[str, Any]]) -> Said:
    """From the events, oldest first, to how things stand. Events of an odd form are passed over."""
    tags, notes, archived = dict(suite_tags), list[Note](), False
    name: str | None = None
    labels: dict[tuple[str, str], LabelSet] = {}
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
            notes.append(Note(detail["text"], event["actor"], event["ts"], str(event.get("target", ""))))
        elif event["action"] == ARCHIVE:
            archived = bool(detail.get("archived"))
        elif event["action"] == RENAME and isinstance(detail.get("name"), str):
            name = detail["name"]
        elif event["action"] == LABEL:
            given_labels = _label_set(event, detail)
            labels.pop((given_labels.column, given_labels.target), None)
            labels[given_labels.column, given_labels.target] = given_labels
    return Said(tags, tuple(notes), archived, name, tuple(labels.values()))


def _label_set(event: Mapping[str, Any], detail: Mapping[str, Any]) -> LabelSet:
    agreement = detail.get("agreement")
    n = detail.get("n")
    return LabelSet(
        column=str(detail.get("column")),
        kind=str(detail.get("kind")),
        n=n if isinstance(n, int) else 0,
        target=str(event.get("target", "")),
        file=str(detail.get("file")),
        actor=event["actor"],
        ts=event["ts"],
        agreement=tuple(each for each in agreement if isinstance(each, Mapping))
        if isinstance(agreement, list)
        else (),
    )


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

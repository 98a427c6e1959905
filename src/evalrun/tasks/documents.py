"""The documents of a task in the place of a dataset, and what is sent for each, as lm_eval built it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from evalrun.canonical import canonical_json
from evalrun.datasets import Item
from evalrun.prompts.rendering import Rendered
from evalrun.types import JSON, Ask, Message, hot_value

DOC_ID = "doc_id"
"""Column with lm_eval's number of a document, where the document has no column of that name."""


@hot_value
class TaskItem(Item):
    """A document with what is sent for it."""

    rendered: Rendered | None = None


class TaskDocuments:
    """What a task asks about: rows like a dataset's, gone through any number of times, none kept.

    It has what `datasets.Dataset` offers to those who run it. `digest` is over the documents and over what
    is sent for them.
    """

    def __init__(
        self,
        name: str,
        file: Path,
        described: Mapping[str, Any],
        max_length: int,
        groups: Collection[str] = (),
    ) -> None:
        self.id = name
        self._file = file
        self._groups = groups
        self._max_length = max_length
        self.warnings: list[str] = []
        self.partial: dict[str, str] = {}
        self.nulls: dict[str, tuple[int, str]] = {}
        self.binary: dict[str, list[str]] = {}
        self.generation: dict[str, JSON] | None = None
        self.doc_ids: dict[str, int] = {}
        self._count = 0
        self.columns, self.digest = self._survey(described)
        self.source: dict[str, JSON] = {
            "lm_eval": described["version_of_lm_eval"],
            "task": described["task"],
            "task_version": described["version"],
            "dataset": described["dataset"],
            "num_fewshot": described["num_fewshot"],
            "output_type": described["output_type"],
        }

    def _survey(self, described: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
        digest = hashlib.sha256()
        columns: dict[str, None] = {}
        for line in self._lines():
            digest.update(line)
            document = orjson.loads(line)
            columns |= dict.fromkeys(document["doc"])
            self.doc_ids[document["id"]] = document["doc_id"]
            request = document["requests"][0]
            if self._count == 0 and request["type"] == "generate_until":
                self.generation = request["args"][1]
            self._count += 1
        shape = {key: described.get(key) for key in ("task", "version", "output_type", "repeats", "metrics")}
        digest.update(canonical_json({**shape, "max_length": self._max_length}))
        return (*columns, *(() if DOC_ID in columns else (DOC_ID,))), digest.hexdigest()

    def _lines(self) -> Iterator[bytes]:
        with self._file.open("rb") as file:
            yield from file

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        for position, line in enumerate(self._lines()):
            document = orjson.loads(line)
            row = {**dict.fromkeys(self.columns), DOC_ID: document["doc_id"], **document["doc"]}
            yield TaskItem(
                sample_id=document["id"],
                position=position,
                row=row,
                target=document["target"],
                sensitive={name: _group(row.get(name)) for name in self._groups if name in self.columns},
                rendered=rendered(document, self._max_length),
            )

    def source_rows(self) -> Iterator[dict[str, JSON]]:
        """The documents as the task has them."""
        for line in self._lines():
            yield orjson.loads(line)["doc"]

    def withheld_groups(self) -> dict[str, dict[str, str | None]]:
        """There are none."""
        return {}


def _group(value: JSON) -> str | None:
    return value if value is None or isinstance(value, str) else canonical_json(value).decode()


def rendered(document: Mapping[str, Any], max_length: int) -> Rendered:
    """What is sent for a document."""
    requests = document["requests"]
    kind, args = requests[0]["type"], requests[0]["args"]
    if kind == "generate_until":
        if isinstance(args[0], list):
            return Rendered(_messages(args[0]), None, None, max_length)
        return Rendered((), args[0], None, max_length)
    if kind == "written":
        return Rendered(_messages(args[0]), None)
    if kind == "loglikelihood_rolling":
        return Rendered((), args[0], Ask("rolling", max_length=max_length))
    pairs = tuple((request["args"][0], request["args"][1]) for request in requests)
    answers = tuple(document["choices"] or ())[: len(pairs)]
    return Rendered((), pairs[0][0], Ask("pairs", answers=answers, pairs=pairs, max_length=max_length))


def _messages(listed: list[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(each["role"], each["content"]) for each in listed)


class TaskRenderer:
    """Stands where a prompt bound to its examples stands: everything is rendered already."""

    pool = None

    def render(self, item: Item) -> Rendered:
        """What is sent for a document."""
        assert isinstance(item, TaskItem)
        assert item.rendered is not None
        return item.rendered

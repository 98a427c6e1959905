"""Answers that already exist: from a column of the dataset, or from a JSONL file joined by sample id.

Nothing is measured: latencies that stand in such a file are somebody else's and are not read.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import orjson
from pydantic import Field, model_validator

from evalrun import registry
from evalrun.errors import Problem, UserError
from evalrun.providers.base import Pinned, Provider, ProviderContext, ProviderOptions, ReadsRows, provider
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec

_ID_FIELDS = ("sample_id", "id")
_PROBLEMS_SHOWN = 10
_TURN = 32
"""Answers given in one turn of the event loop."""


class RecordedOptions(ProviderOptions):
    """What a model entry with `provider: recorded` may say besides the common keys."""

    column: str | None = Field(
        default=None,
        description="Column of the dataset that holds the answers; a dotted path where it stands within one "
        "(gpt.solution).",
    )
    path: str | None = Field(
        default=None,
        description="JSONL file of answers, relative to the suite: one object a line with a sample id, an "
        "output, and where wanted repeat, finish_reason, prompt_tokens, completion_tokens.",
    )
    id_field: str | None = Field(
        default=None, description="Field of the file that holds the sample id. Default: sample_id, else id."
    )
    output_field: str = Field(
        default="output", description="Field of the file that holds the answer, or a dotted path."
    )

    @model_validator(mode="after")
    def _one_source(self) -> RecordedOptions:
        if (self.column is None) == (self.path is None):
            raise ValueError("give either column (of the dataset) or path (of a JSONL file)")
        return self


@provider("recorded")
class Recorded(Provider[RecordedOptions], ReadsRows, Pinned):
    """Looks answers up instead of asking a model."""

    shorthand: ClassVar[str | None] = "column"
    summary: ClassVar[str] = "answers that already exist, in a column of the dataset or in a JSONL file"
    supports = frozenset({"chat", "completions", "stream"})
    measured = False

    def __init__(self, spec: ModelSpec, context: ProviderContext) -> None:
        super().__init__(spec, context)
        self._answers: AnswerFile | None = None
        self._answered = 0

    @property
    def endpoint(self) -> str:
        return f"local:recorded:{self.spec.id}"

    @property
    def default_concurrency(self) -> int | None:
        return 1  # nothing is waited for

    def check(self, columns: Collection[str], where: str) -> Problem | None:
        """The column must be there."""
        column = self.options.column
        if column is None or column in columns or column.partition(".")[0] in columns:
            return None
        near = registry.nearest(column, columns)
        remedy = f"Did you mean '{near}'?" if near else f"Columns: {', '.join(columns)}."
        return Problem(f"there is no column '{column}' with recorded answers", where, remedy)

    async def start(self) -> None:
        """Index the file of answers. Raises UserError (exit 2) naming the lines that cannot be used."""
        if self.options.path is not None and self._answers is None:
            path = self.context.base_dir / self.options.path
            self._answers = AnswerFile(path, self.options.id_field, self.options.output_field)

    async def close(self) -> None:
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.close()

    def pins(self) -> dict[str, JSON]:
        from evalrun.providers.downloads import file_sha256

        path = self.context.base_dir / self.options.path if self.options.path is not None else None
        return {"answers_sha256": file_sha256(path)} if path is not None and path.is_file() else {}

    def identity(self) -> dict[str, JSON]:
        identity: dict[str, JSON] = {"provider": "recorded", "model": self.spec.model}
        if self.options.column is not None:
            return {**identity, "column": self.options.column}
        digest = self._answers.digest if self._answers is not None else None
        return {**identity, "sha256": digest, "output_field": self.options.output_field}

    async def generate(self, request: Request) -> Response:
        self._answered += 1
        if self._answered % _TURN == 0:
            # Nothing is waited for here: without this one turn of the event loop would answer everything, and
            # hold it until its end, when the journal gets to write.
            await asyncio.sleep(0)
        if self.options.column is not None:
            return Response(output=self._from_row(request, self.options.column))
        if self._answers is None:
            raise ProviderError(ErrorKind.MISSING, "the file of answers is not open")
        record = self._answers.find(request.sample_id, request.repeat)
        if record is None:
            raise ProviderError(ErrorKind.MISSING, f"no recorded answer for sample {request.sample_id}")
        return Response(
            output=_text(_at(record, self.options.output_field), f"sample {request.sample_id}"),
            finish_reason=_kept(record, "finish_reason", str),
            prompt_tokens=_kept(record, "prompt_tokens", int),
            completion_tokens=_kept(record, "completion_tokens", int),
        )

    def _from_row(self, request: Request, column: str) -> str:
        value = _at(request.row, column)
        if value is _ABSENT:
            near = registry.nearest(column, request.row)
            hint = f"; did you mean '{near}'?" if near else ""
            raise ProviderError(ErrorKind.MISSING, f"the dataset has no column '{column}'{hint}")
        return _text(value, f"column '{column}' of sample {request.sample_id}")


class AnswerFile:
    """A JSONL file of answers with an index of where each line begins, so that memory holds no answer."""

    def __init__(self, path: Path, id_field: str | None, output_field: str) -> None:
        self.path = path
        self.digest = ""
        self._file: mmap.mmap | None = None
        self._begins: dict[str | tuple[str, int], int] = {}
        self._lines: dict[str | tuple[str, int], int] = {}
        self._index(id_field, output_field)

    def find(self, sample_id: str, repeat: int) -> dict[str, Any] | None:
        """The record of a sample: that of the repeat where the file tells repeats apart."""
        begin = self._begins.get((sample_id, repeat), self._begins.get(sample_id))
        if begin is None or self._file is None:
            return None
        end = self._file.find(b"\n", begin)
        return cast("dict[str, Any]", orjson.loads(self._file[begin : end if end >= 0 else len(self._file)]))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _index(self, id_field: str | None, output_field: str) -> None:
        problems: list[Problem] = []
        answers = 0
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                begin = 0
                for number, line in enumerate(file, 1):
                    digest.update(line)
                    if line.strip():
                        what = self._add(line, number, begin, id_field, output_field)
                        answers += 1
                        if what and len(problems) < _PROBLEMS_SHOWN:
                            problems.append(Problem(what, f"{self.path}:{number}"))
                    begin += len(line)
                if answers:
                    self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(
                f"the file of answers cannot be read: {error.strerror or error}", where=str(self.path)
            ) from error
        self._lines.clear()
        if not answers:
            problems.append(Problem("the file of answers is empty", str(self.path)))
        if problems:
            self.close()
            raise UserError(problems)
        self.digest = digest.hexdigest()

    def _add(self, line: bytes, number: int, begin: int, id_field: str | None, output_field: str) -> str:
        """Enter one line into the index. What is wrong with it, or nothing."""
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"not valid JSON: {error}"
        if not isinstance(record, dict):
            return "not a JSON object"
        fields = (id_field,) if id_field is not None else _ID_FIELDS
        sample_id = next((record[field] for field in fields if record.get(field) is not None), None)
        if sample_id is None:
            return f"no sample id: neither of {', '.join(fields)}" if id_field is None else f"no '{id_field}'"
        if _at(record, output_field) is _ABSENT:
            near = registry.nearest(output_field, record)
            return f"no '{output_field}'" + (f"; did you mean output_field: {near}?" if near else "")
        repeat = record.get("repeat")
        key = (str(sample_id), repeat) if isinstance(repeat, int) else str(sample_id)
        if key in self._begins:
            return f"sample {sample_id} was answered before, in line {self._lines[key]}"
        self._begins[key] = begin
        self._lines[key] = number
        return ""


_ABSENT: Any = object()


def _at(row: Mapping[str, Any], path: str) -> Any:
    """What stands in a column, or at a dotted path within one; _ABSENT where nothing does."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _text(value: JSON, whose: str) -> str:
    """The answer as text: text as it is, other values as JSON. Null is no answer."""
    if isinstance(value, str):
        return value
    if value is None:
        raise ProviderError(ErrorKind.MISSING, f"no recorded answer: {whose} is null")
    return orjson.dumps(value).decode()


def _kept(record: dict[str, Any], name: str, kind: type) -> Any:
    value = record.get(name)
    return value if isinstance(value, kind) else None

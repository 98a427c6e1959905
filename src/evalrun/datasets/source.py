"""What a source of rows is, and which one a dataset's settings call for."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evalrun.errors import Problem, UserError
from evalrun.registry import import_attribute, nearest
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec


SHOWN = 10


class Findings:
    """Collects problems, so that one pass over a file reports all that is wrong with it."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def full(self) -> bool:
        """Whether further problems are only counted, so that no message needs to be made."""
        return len(self._problems) >= SHOWN

    def add(self, what: str, where: str, remedy: str = "") -> None:
        """Note one problem."""
        self._count += 1
        if not self.full:
            self._problems.append(Problem(what, where, remedy))

    def count(self) -> None:
        """Note a problem beyond the shown ones."""
        self._count += 1

    def raise_if_any(self) -> None:
        """Raises UserError with the problems noted so far."""
        if not self._count:
            return
        hidden = self._count - len(self._problems)
        more = [Problem(f"and {hidden:,} more like these")] if hidden else []
        raise UserError([*self._problems, *more])


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def json_row(row: Mapping[str, object]) -> dict[str, JSON]:
    """A row whose values JSON can hold. Raises ValueError that names the column of one that it cannot."""
    result = {}
    for column, value in row.items():
        if type(value) in _AS_THEY_ARE:
            result[column] = value
            continue
        try:
            result[column] = json_value(value)
        except ValueError as error:
            raise ValueError(f"column '{column}' holds {error}") from error
    return result


def json_value(value: object) -> JSON:
    """A value as JSON has it.

    Dates and times become ISO 8601 text, decimals their digits as text, bytes a text with their length
    and digest. Raises ValueError for numbers that are not finite and for other objects.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError("a number that is not finite (NaN or infinity)")
            return value
        case list() | tuple():
            return [json_value(item) for item in value]
        case Mapping():
            return {str(key): json_value(item) for key, item in value.items()}
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case bytes():
            return f"<{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()}>"
    raise ValueError(f"a {type(value).__name__}, which is neither text, number, list nor mapping")


Record: TypeAlias = tuple[int, int, dict[str, JSON]]
"""Number of the row or line (from 1), its byte offset (-1 where it has none), and the row."""


class Source(ABC):
    """A place that rows come from, in an order of its own."""

    repeatable: bool = True
    """Whether reading again costs no more than reading a local file."""

    seekable: bool = False
    """Whether rows have byte offsets, by which `read_at` finds them again."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a person should know of how the rows are read."""
        return ()

    @abstractmethod
    def records(self, findings: Findings) -> Iterator[Record]:
        """All rows, read as they are asked for. Rows that cannot be read are noted and left out."""

    @abstractmethod
    def place(self, number: int) -> str:
        """Where a row stands, as a person would look it up: `data/rows.jsonl:7`."""

    @abstractmethod
    def describe(self) -> dict[str, JSON]:
        """Where the rows came from, for provenance."""

    def read_at(self, offsets: Iterator[int]) -> Iterator[dict[str, JSON]]:
        """The rows at byte offsets, in the order given. Only for seekable sources."""
        raise NotImplementedError

    def check_unchanged(self) -> None:  # noqa: B027 (most sources have nothing that could change)
        """Raises UserError when the rows are no longer those of the first reading."""


class FileSource(Source):
    """A local file. `shown` is the path as messages give it."""

    format: str

    def __init__(self, path: Path, shown: str) -> None:
        self.path = path
        self.shown = shown
        self._state = self._stat()

    def place(self, number: int) -> str:
        return f"{self.shown}:{number}"

    def describe(self) -> dict[str, JSON]:
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "kind": "file",
            "path": self.shown,
            "format": self.format,
            "bytes": self._state[0],
            "sha256": sha256,
        }

    def check_unchanged(self) -> None:
        try:
            unchanged = self._stat() == self._state
        except OSError:
            unchanged = False
        if not unchanged:
            raise UserError(
                "the file has changed since it was opened",
                where=self.shown,
                remedy="Start again once nothing writes to it any more.",
            )

    def _stat(self) -> tuple[int, int]:
        state = self.path.stat()
        return state.st_size, state.st_mtime_ns


FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".json": "json",
}


TRAFFIC = "evalrun.traffic.source:TrafficSource"
"""What reads production records: a room of its own, that knows datasets."""


def open_source(
    spec: DatasetSpec, base_dir: Path, split: str | None = None, store: Path | None = None
) -> Source:
    """The source of a dataset's rows, or of one of its further splits. `store` is where the key of
    pseudonyms is kept.

    Local formats never import `datasets`, and pyarrow only for Parquet. Raises UserError when the file or
    the split does not exist.
    """
    if split is not None and spec.hub is None:
        path = _split_path(spec, split)
        return _open_file(path, _format_of_split(spec, path), base_dir, spec)
    if spec.path is not None:
        return _open_file(spec.path, spec.format, base_dir, spec)
    if spec.rows is not None:
        return Inline(spec.rows, spec.id)
    if spec.traffic is not None and split not in spec.splits:
        made: Source = import_attribute(TRAFFIC)(spec, base_dir, store)
        return made
    if split is not None and split in spec.splits:
        path = spec.splits[split]
        return _open_file(path, _format_of_split(spec, path), base_dir, spec)
    from evalrun.datasets.hub import Hub

    return Hub(spec, split or spec.split, spec.limit if split is None else None)


def _split_path(spec: DatasetSpec, split: str) -> Path:
    if split in spec.splits:
        return spec.splits[split]
    near = nearest(split, spec.splits)
    raise UserError(
        f"there is no split '{split}'",
        where=f"dataset {spec.id}",
        remedy=f"Did you mean '{near}'?"
        if near
        else f"Give the dataset 'splits: {{{split}: PATH}}', or the examples a path of their own.",
    )


def _format_of_split(spec: DatasetSpec, path: Path) -> str | None:
    """A split's suffix tells its format; where it does not, it is the dataset's own."""
    return None if Path(path.name.lower().removesuffix(".gz")).suffix in FORMATS else spec.format


def _open_file(path: Path, format_: str | None, base_dir: Path, spec: DatasetSpec) -> Source:
    if ":/" in path.as_posix():
        from evalrun.datasets.remote import open_remote
        from evalrun.suite.values import url_of

        if (url := url_of(path)) is not None:

            def fetched(file: Path) -> Source:
                return _of_format(format_ or _format_by_suffix(file, url), file, url, spec.separator)

            return open_remote(url, format_, spec.id, fetched)
    full = base_dir / path
    shown = _shown(full)
    if full.is_dir():
        raise UserError(
            "is a folder, not a file of rows", where=shown, remedy=f"Dataset {spec.id} needs a file."
        )
    if not full.is_file():
        raise UserError(
            "there is no such file",
            where=shown,
            remedy=f"Correct the path of dataset {spec.id}, or give another: --data {spec.id}=PATH.",
        )
    try:
        with full.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=shown) from error
    return _of_format(format_ or _format_by_suffix(full, shown), full, shown, spec.separator)


def _of_format(format_: str, full: Path, shown: str, separator: str | None) -> Source:
    match format_:
        case "jsonl":
            from evalrun.datasets.formats import JsonLines

            return JsonLines(full, shown)
        case "csv":
            from evalrun.datasets.formats import CsvFile

            return CsvFile(full, shown, separator)
        case "json":
            from evalrun.datasets.formats import JsonFile

            return JsonFile(full, shown)
    from evalrun.datasets.formats import ParquetFile

    return ParquetFile(full, shown)


def _format_by_suffix(path: Path, shown: str) -> str:
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    found = FORMATS.get(suffix)
    if found is None or (name.endswith(".gz") and found != "jsonl"):
        raise UserError(
            f"the suffix does not tell the format: '{path.name}'",
            where=shown,
            remedy="Set the dataset's format: jsonl, csv, parquet or json (only jsonl may be gzipped).",
        )
    return found


def _shown(path: Path) -> str:
    """The path as a person would type it: relative where it lies below the current folder."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)


class Inline(Source):
    """The `rows:` of a dataset."""

    def __init__(self, rows: Sequence[Mapping[str, JSON]], dataset: str) -> None:
        self._rows = rows
        self._dataset = dataset

    def records(self, findings: Findings) -> Iterator[Record]:
        for number, row in enumerate(self._rows, 1):
            try:
                yield number, -1, json_row(row)
            except ValueError as error:
                findings.add(str(error), self.place(number))

    def place(self, number: int) -> str:
        return f"dataset {self._dataset}, row {number}"

    def describe(self) -> dict[str, JSON]:
        return {"kind": "rows"}

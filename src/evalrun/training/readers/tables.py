"""Rows of a table as a training: Lightning's `metrics.csv`, and any CSV or JSONL by a map of its columns."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.training.readers import Reading, number, unix_s
from evalrun.training.series import MAX_STEP, Points

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    _Column: TypeAlias = np.ndarray[Any, Any]

LIGHTNING, TABLE = "lightning", "table"

_STEPS = (
    "step", "global_step", "trainer/global_step", "train/global_step", "iteration", "iter", "steps", "_step",
)  # fmt: skip
_WALLS = ("wall_s", "wall_time", "timestamp", "_timestamp", "time")
_EPOCHS = ("epoch", "train/epoch")
_NAMES, _VALUES = ("name", "metric", "key", "tag"), ("value",)
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MOST_FIELD = 1 << 24
MOST_SETTINGS = 100_000
_BLOCK = 1 << 20
_DECIMAL = re.compile(r"^([-+]?\d+),(\d+)$")


def find_lightning(folder: Path) -> list[Path]:
    """The `metrics.csv` of a folder, or of the newest version below it."""
    if (folder / "metrics.csv").is_file():
        return [folder / "metrics.csv"]
    files = [path for pattern in ("*/metrics.csv", "*/*/metrics.csv") for path in folder.glob(pattern)]
    return [max(files, key=lambda path: (path.stat().st_mtime, path.as_posix()))] if files else []


def find_table(folder: Path) -> list[Path]:
    """The tables of a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def read_lightning(path: Path) -> Reading:
    """Lightning's CSV: its step is the index of the last batch, from 0, so that one more is done.

    Rows of training and of validation stand apart for the same step, and become one.
    """
    reading = read_table(path, {}, shift=1, framework=LIGHTNING)
    reading.note("steps are Lightning's plus one: it counts batches from 0, evalrun the steps that are done")
    hparams = path.with_name("hparams.yaml")
    if hparams.is_file():
        reading.files.append(hparams)
        reading.hyperparameters |= _hparams(reading, hparams)
    return reading


def read_table(path: Path, mapped: Mapping[str, str], *, shift: int = 0, framework: str = TABLE) -> Reading:
    """A CSV or JSONL file with one row a step, or one a point (columns step, name and value).

    `mapped` names columns by what they are: {"step": "iteration", "loss": "train/loss"}; `shift` is added to
    every step. Raises UserError that names the file and line where it is not of this form, a column is
    missing, or steps fall.
    """
    reading = Reading(framework, files=[path])
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        table = _Table(reading, path, mapped, shift)
        for line, row in _json_rows(reading, path):
            table.add(line, row)
        table.end()
        return reading
    head = _head(path)
    table = _Table(reading, path, mapped, shift, head.names)
    if not _in_blocks(table, path, head):
        reading.points = Points()
        table = _Table(reading, path, mapped, shift, head.names)
        for line, row in _csv_rows(reading, path, head):
            table.add(line, row)
    table.end()
    return reading


class _Table:
    """Takes rows, and knows by the first of them what its columns are."""

    def __init__(
        self,
        reading: Reading,
        path: Path,
        mapped: Mapping[str, str],
        shift: int,
        columns: Sequence[str] = (),
    ) -> None:
        self._reading, self._path, self._shift = reading, path, shift
        self._mapped = mapped
        self._new = {old: new for new, old in mapped.items()}
        self._seen: dict[str, None] = dict.fromkeys(columns)
        self._before = -1
        self._rows = self._lost = self._odd = self._texts = 0
        self._columns: tuple[str | None, str | None, str | None] | None = None

    def add(self, line: int, row: Mapping[str, Any]) -> None:
        """One row of the file."""
        self._rows += 1
        if len(row) != len(self._seen) or not all(name in self._seen for name in row):
            self._seen |= dict.fromkeys(row)
            self._columns = None
        if self._columns is None:
            self._columns = self._about()
        step_column, wall_column, epoch_column = self._columns
        step = _at(row, step_column)
        if step is None or step != step // 1 or not 0 <= step + self._shift <= MAX_STEP:
            self._lost += 1
            return
        whole = int(step) + self._shift
        if whole < self._before:
            self._fallen(line, whole)
        self._before = whole
        wall = unix_s(row.get(wall_column)) if wall_column else None
        self._points(whole, row, {step_column, wall_column, epoch_column, ""}, wall, _at(row, epoch_column))

    def add_block(self, block: pa.RecordBatch) -> bool:
        """Rows of texts, in columns; the same as `add` for each. False where steps fall: `add` says in which
        line."""
        import numpy as np

        from evalrun.training.series import POINT

        self._rows += len(block)
        self._seen |= dict.fromkeys(block.schema.names)
        step_column, wall_column, epoch_column = self._columns = self._about()
        if step_column is None:
            self._lost += len(block)
            return True
        texts = dict(zip(block.schema.names, block.columns, strict=True))
        steps, known, _ = _floats(texts[step_column])
        with np.errstate(invalid="ignore"):
            shifted = steps + self._shift
            keep = known & (steps == np.floor(steps)) & (shifted >= 0) & (shifted <= MAX_STEP)
        self._lost += int((~keep).sum())
        shifted = shifted[keep]
        if len(shifted) and (shifted[0] < self._before or (np.diff(shifted) < 0).any()):
            return False
        self._before = int(shifted[-1]) if len(shifted) else self._before
        rows = np.full((len(shifted), POINT), math.nan)
        rows[:, 1] = shifted
        if wall_column:
            rows[:, 3] = _floats(texts[wall_column], unix_s)[0][keep]
        if epoch_column:
            rows[:, 4] = _floats(texts[epoch_column])[0][keep]
        about = {step_column, wall_column, epoch_column, ""}
        long = self._long(dict.fromkeys(texts, ""))
        chosen = [long[1]] if long else [name for name in texts if name not in about]
        made = np.repeat(rows[:, None, :], len(chosen), axis=1)
        named = np.ones(len(shifted), bool)
        if long:
            coded = texts[long[0]].fill_null("").dictionary_encode()
            names, places = coded.dictionary.to_pylist(), np.asarray(coded.indices)[keep]
            codes = [self._reading.points.code(self._new.get(name, name)) for name in names]
            made[:, 0, 0] = np.array(codes, float)[places]
            named = np.array([name not in about for name in names], bool)[places]
        given = np.zeros(made.shape[:2], bool)
        for at, name in enumerate(chosen):
            values, is_number, is_text = _floats(texts[name])
            made[:, at, 2], given[:, at] = values[keep], is_number[keep] & named
            self._texts += int((is_text[keep] & named).sum())
            if not long:
                made[:, at, 0] = self._reading.points.code(self._new.get(name, name))
        self._odd += int((given & ~np.isfinite(made[:, :, 2])).sum())
        self._reading.points.extend(made[given])
        return True

    def _about(self) -> tuple[str | None, str | None, str | None]:
        """The columns of step, time and epoch."""
        return self._named("step", _STEPS), self._named("wall_s", _WALLS), self._named("epoch", _EPOCHS)

    def _points(
        self,
        step: int,
        row: Mapping[str, Any],
        about: set[str | None],
        wall: float | None,
        epoch: float | None,
    ) -> None:
        add, new = self._reading.points.add, self._new
        walls, epochs = math.nan if wall is None else wall, math.nan if epoch is None else epoch
        long = self._long(row)
        items = [(str(row[long[0]]), row[long[1]])] if long else row.items()
        for name, value in items:
            if value is None or value == "" or name in about:
                continue
            got = number(value)
            if got is None:
                self._texts += 1
                continue
            self._odd += not math.isfinite(got)
            add(step, new.get(name, name), got, walls, epochs)

    def _long(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        named = (self._mapped.get(what) for what in ("name", "value"))
        names, values = ([own, *known] for own, known in zip(named, (_NAMES, _VALUES), strict=True))
        name = next((each for each in names if each and isinstance(row.get(each), str)), None)
        value = next((each for each in values if each and each in row), None)
        return (name, value) if name is not None and value is not None else None

    def _named(self, what: str, known: tuple[str, ...]) -> str | None:
        if what in self._mapped:
            return self._mapped[what]
        alike = {name.lower(): name for name in reversed(self._seen)}
        return next((alike[name] for name in known if name in alike), None)

    def _fallen(self, line: int, step: int) -> None:
        raise UserError(
            f"the step falls from {self._before:,} to {step:,}",
            where=f"{self._path}:{line}",
            remedy="Steps of one training rise. Name the column that counts them all: "
            "--map step=COLUMN; of a training that was taken up again, import the part after it by itself.",
        )

    def end(self) -> None:
        """Say what was odd; raise where there is nothing."""
        missing = [old for old in self._mapped.values() if old not in self._seen]
        listed = ", ".join([*self._seen][:20]) or "none"
        if missing and self._rows:
            near = nearest(missing[0], self._seen)
            raise UserError(
                f"there is no column '{missing[0]}'",
                where=str(self._path),
                remedy=f"Did you mean '{near}'?" if near else f"Columns: {listed}.",
            )
        self._reading.steps = self._before
        for count, what in (
            (self._lost, "rows have no whole step and are left out"),
            (self._odd, "values are NaN or infinite: kept as null with the reason"),
            (self._texts, "values are texts and are left out"),
        ):
            if count:
                self._reading.note(f"{count:,} {what}")
        if not len(self._reading.points):
            told = [
                "no row has a step and a number" if self._rows else "it has no rows",
                *self._reading.notes,
            ]
            remedy = f"Columns: {listed}. Name the one that counts steps: --map step=COLUMN."
            raise UserError("; ".join(told), where=str(self._path), remedy=remedy)


def _at(row: Mapping[str, Any], column: str | None) -> float | None:
    return number(row.get(column)) if column else None


@dataclass(frozen=True, slots=True)
class _Head:
    """What a CSV begins with: the lines before its first row, its columns, and what parts them."""

    lines: int
    names: tuple[str, ...]
    delimiter: str


def _head(path: Path) -> _Head:
    """The head of a CSV: lines with # before it are passed over. Raises UserError."""
    csv.field_size_limit(min(MOST_FIELD, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines, first = 0, ""
            for first in file:
                lines += 1
                if first.strip() and not first.startswith("#"):
                    break
                first = ""
            delimiter = max((",", "\t", ";"), key=first.count)
            reader = csv.reader(chain([first], file), delimiter=delimiter)
            names = tuple(name.strip() for name in next(reader, []))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_csv(path, error) from error
    twice = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if twice is not None:
        raise UserError(
            f"has the column '{twice}' twice", where=f"{path}:{lines}", remedy="Rename one of them."
        )
    return _Head(lines + reader.line_num - 1, names, delimiter)


def _no_csv(path: Path, error: Exception) -> UserError:
    return UserError(
        f"is no CSV in UTF-8: {error}",
        where=str(path),
        remedy="Write it again as UTF-8, or leave out what is no row.",
    )


def _in_blocks(table: _Table, path: Path, head: _Head) -> bool:
    """Read a CSV in blocks of columns, ten times as fast as row by row. False where that cannot be done the
    same way: rows of other lengths, steps that fall, decimal commas, no rows."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    if head.delimiter == ";" or len(set(head.names)) < len(head.names) or _last_byte(path) != b"\n":
        return False
    try:
        blocks = arrow.open_csv(
            path,
            arrow.ReadOptions(
                use_threads=False, block_size=_BLOCK, skip_rows=head.lines, column_names=list(head.names)
            ),
            arrow.ParseOptions(delimiter=head.delimiter, newlines_in_values=True),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(head.names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        return all(table.add_block(block) for block in blocks)
    except (pa.ArrowException, ValueError):
        return False


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read(1)


def _floats(
    texts: pa.Array, convert: Callable[[object], float | None] = number
) -> tuple[_Column, _Column, _Column]:
    """Texts as numbers: the numbers (NaN where there is none), where there is one, and where there is a text
    that is none."""
    import numpy as np
    import pyarrow as pa

    given = texts.is_valid().to_numpy(zero_copy_only=False)
    if convert is number:
        with contextlib.suppress(pa.ArrowInvalid):
            return texts.cast(pa.float64()).to_numpy(zero_copy_only=False), given, np.zeros(len(texts), bool)
    read = [None if text is None else convert(text) for text in texts.to_pylist()]
    is_number = np.array([value is not None for value in read], bool)
    return np.array(read, float), is_number, given & ~is_number


def _csv_rows(reading: Reading, path: Path, head: _Head) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line and cells of each row. A last line without an end that lacks cells is one being written."""
    torn, line = _last_byte(path) != b"\n", head.lines
    waiting: tuple[int, list[str]] | None = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for _ in range(head.lines):
                next(file, None)
            reader = csv.reader(file, delimiter=head.delimiter, strict=True)
            for row in filter(None, reader):
                if waiting is not None:
                    yield waiting[0], _cells(head, waiting[1])
                line = head.lines + reader.line_num
                waiting = line, row
    except csv.Error as error:
        if "unexpected end" not in str(error):
            raise _no_csv(path, error) from error
        reading.note(f"a quote after line {line} is never closed: what follows is left out")
    except UnicodeDecodeError as error:
        raise _no_csv(path, error) from error
    if torn:
        reading.note(f"{path.name} does not end with a line's end: its last line may be cut")
    if waiting is not None and not (torn and len(waiting[1]) < len(head.names)):
        yield waiting[0], _cells(head, waiting[1])


def _cells(head: _Head, row: Sequence[str]) -> Mapping[str, str]:
    """Where semicolons part the columns, numbers may have decimal commas."""
    if head.delimiter == ";":
        row = [_DECIMAL.sub(r"\1.\2", text) for text in row]
    return dict(zip(head.names, row, strict=False))


def _json_rows(reading: Reading, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = _json(text)
            except (ValueError, RecursionError) as error:
                if not text.endswith(b"\n"):
                    reading.note(f"{path.name} is torn or still being written: its last line is left out")
                    return
                what = f"is not JSON: {str(error)[:80]}"
                raise UserError(what, where=f"{path}:{line}", remedy="One JSON object a line.") from None
            if not isinstance(row, dict):
                raise UserError("is no JSON object", where=f"{path}:{line}", remedy="One JSON object a line.")
            yield line, dict(_flat(row))


def _json(text: bytes) -> Any:
    """A line of JSON, also with NaN and Infinity, which is none."""
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    return json.loads(text)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _hparams(reading: Reading, path: Path) -> dict[str, Any]:
    """`hparams.yaml`, in which Lightning may write Python objects: these become their tag's text, and nothing
    is made of them."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Takes any tag, and makes a text of it."""

    def as_text(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> str:
        inner = node.value if isinstance(node, yaml.ScalarNode) else "…"
        return f"{node.tag.removeprefix('tag:yaml.org,2002:')} {inner}".strip()

    yaml.add_multi_constructor("", as_text, Loader)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        try:
            values = yaml.load(text, Loader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            reading.note(f"{path.name} cannot be read: {str(error).splitlines()[0][:100]}")
            return {}
        if _spread(values, {}) > MOST_SETTINGS:
            reading.note(
                f"{path.name} is left out: its references spread to more than {MOST_SETTINGS:,} values"
            )
            return {}
        return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}
    reading.note(f"{path.name} cannot be read")
    return {}


def _spread(value: Any, known: dict[int, int]) -> int:
    """How many values it is once every reference is written out."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_SETTINGS + 1  # one that holds itself has no end
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_spread(each, known) for each in inner)
    return known[id(value)]

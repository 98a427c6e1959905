"""Rows of a table as a training: Lightning's `metrics.csv`, and any CSV or JSONL by a map of its columns."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.training.readers import Reading, number
from evalrun.training.series import MAX_STEP

LIGHTNING, TABLE = "lightning", "table"

_STEPS = (
    "step",
    "global_step",
    "_step",
    "trainer/global_step",
    "train/global_step",
    "iteration",
    "iter",
    "steps",
)
_WALLS = ("wall_s", "wall_time", "timestamp", "_timestamp", "time")
_EPOCHS = ("epoch", "train/epoch")
_NAMES, _VALUES = ("name", "metric", "key", "tag"), ("value",)
MOST_FIELD = 1 << 24


def find_lightning(folder: Path) -> list[Path]:
    """The `metrics.csv` of a folder, or of the newest version below it."""
    if (folder / "metrics.csv").is_file():
        return [folder / "metrics.csv"]
    files = [path for pattern in ("*/metrics.csv", "*/*/metrics.csv") for path in folder.glob(pattern)]
    return [max(files, key=lambda path: (path.stat().st_mtime, path.as_posix()))] if files else []


def find_table(folder: Path) -> list[Path]:
    """The one CSV or JSONL file of a folder."""
    files = sorted(path for suffix in ("csv", "jsonl") for path in folder.glob(f"*.{suffix}"))
    return files if len(files) == 1 else []


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
    table = _Table(reading, path, mapped, shift)
    rows = (
        _json_rows(reading, path)
        if path.suffix.lower() in (".jsonl", ".ndjson", ".json")
        else _csv_rows(path)
    )
    for line, row in rows:
        table.add(line, row)
    table.end()
    return reading


class _Table:
    """Takes rows, and knows by the first of them what its columns are."""

    def __init__(self, reading: Reading, path: Path, mapped: Mapping[str, str], shift: int) -> None:
        self._reading, self._path, self._shift = reading, path, shift
        self._mapped = mapped
        self._new = {old: new for new, old in mapped.items()}
        self._seen: dict[str, None] = {}
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
            self._columns = tuple(
                self._named(*each) for each in (("step", _STEPS), ("wall_s", _WALLS), ("epoch", _EPOCHS))
            )  # type: ignore[assignment]  # three of them
        step_column, wall_column, epoch_column = self._columns or (None, None, None)
        step = _at(row, step_column)
        if step is None or step != step // 1 or not 0 <= step + self._shift <= MAX_STEP:
            self._lost += 1
            return
        whole = int(step) + self._shift
        if whole < self._before:
            self._fallen(line, whole)
        self._before = whole
        wall, epoch = _at(row, wall_column), _at(row, epoch_column)
        self._points(whole, row, {step_column, wall_column, epoch_column}, wall, epoch)

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
        name = next(
            (each for each in (self._mapped.get("name", ""), *_NAMES) if isinstance(row.get(each), str)), None
        )
        value = next((each for each in (self._mapped.get("value", ""), *_VALUES) if each in row), None)
        return (name, value) if name is not None and value is not None else None

    def _named(self, what: str, known: tuple[str, ...]) -> str | None:
        if what in self._mapped:
            return self._mapped[what]
        return next((name for name in known if name in self._seen), None)

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
        if not len(self._reading.points):
            what = "no row has a step and a number" if self._rows else "it has no rows"
            remedy = f"Columns: {listed}. Name the one that counts steps: --map step=COLUMN."
            raise UserError(what, where=str(self._path), remedy=remedy)
        self._reading.steps = self._before
        for count, what in (
            (self._lost, "rows have no whole step and are left out"),
            (self._odd, "values are NaN or infinite: kept as null with the reason"),
            (self._texts, "values are texts and are left out"),
        ):
            if count:
                self._reading.note(f"{count:,} {what}")


def _at(row: Mapping[str, Any], column: str | None) -> float | None:
    return number(row.get(column)) if column else None


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(min(MOST_FIELD, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            twice = next((name for at, name in enumerate(header) if name in header[:at]), None)
            if twice is not None:
                raise UserError(
                    f"has the column '{twice}' twice", where=f"{path}:1", remedy="Rename one of them."
                )
            for row in reader:
                if row:
                    yield reader.line_num, dict(zip(header, row, strict=False))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"is no CSV in UTF-8: {error}", where=str(path)) from error


def _json_rows(reading: Reading, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                if not text.endswith(b"\n"):
                    reading.note(f"{path.name} is torn or still being written: its last line is left out")
                    return
                what = f"is not JSON: {str(error)[:80]}"
                raise UserError(what, where=f"{path}:{line}", remedy="One JSON object a line.") from None
            if not isinstance(row, dict):
                raise UserError("is no JSON object", where=f"{path}:{line}", remedy="One JSON object a line.")
            yield line, dict(_flat(row))


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
        return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}
    reading.note(f"{path.name} cannot be read")
    return {}

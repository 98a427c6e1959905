"""A file of one's own as a table, whatever wrote it: format, separator and encoding are found out, and said.

For `evalrun init --data`. A suite reads JSONL, JSON, CSV in UTF-8 with commas, and Parquet as they are; of
anything else `init` writes a copy that it does.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalrun.datasets.formats import JsonFile, JsonLines, ParquetFile
from evalrun.datasets.source import FileSource, Findings, json_value
from evalrun.errors import UserError
from evalrun.types import JSON

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_TRIED = 200
"""Lines by which a separator is chosen."""
_MOST_CELL = 1 << 27

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte order mark"),
          (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"), (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"))  # fmt: skip
_EXCEL = (".xlsx", ".xlsm")
_TEXTS = (".csv", ".tsv", ".tab", ".txt", ".psv")
_SOURCES: Mapping[str, type[FileSource]] = {
    ".jsonl": JsonLines, ".ndjson": JsonLines, ".json": JsonFile, ".parquet": ParquetFile, ".pq": ParquetFile,
}  # fmt: skip
KINDS = "CSV, TSV, Excel (.xlsx), JSONL, JSON or Parquet"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that all have all columns; None for what a row lacks. `said` is how the file was read.

    `format` is what a suite has to call the file, None where it cannot read the file as it is.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, JSON]]
    said: str
    format: str | None
    renamed: Mapping[str, str]


def read_table(path: Path) -> Table:
    """Read a file. Raises UserError where it cannot be read, or holds no rows."""
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise UserError(what, where=str(path), remedy=f"Name a file: {KINDS}.")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    with path.open("rb") as file:
        head = file.read(4096)
    if suffix in _EXCEL or (head.startswith(b"PK\x03\x04") and suffix not in _SOURCES):
        return _excel(path)
    if suffix in (".xls", ".ods", ".numbers") or head.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError(
            "this kind of workbook is not read", where=str(path), remedy="Save it as .xlsx or CSV."
        )
    if suffix not in _SOURCES and suffix not in _TEXTS:
        suffix = _by_content(path, head)
    table = _from_source(path, suffix) if suffix in _SOURCES else _text(path, suffix)
    if not table.rows:
        raise UserError("the file holds no rows", where=str(path), remedy=_columns_said(table.columns))
    return table


def _by_content(path: Path, head: bytes) -> str:
    """The suffix that a file without a known one should have."""
    if head.startswith(b"PAR1"):
        return ".parquet"
    if b"\0" in head and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("it holds neither text nor a table", where=str(path), remedy=f"Name a file: {KINDS}.")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith(b"["):
        return ".json"
    if text.startswith(b"{"):
        return ".jsonl" if text.partition(b"\n")[0].rstrip().endswith(b"}") else ".json"
    return ".csv"


def _columns_said(columns: Sequence[str]) -> str:
    return f"Its columns are: {', '.join(columns)}." if columns else ""


# JSON and Parquet


def _from_source(path: Path, suffix: str) -> Table:
    findings = Findings()
    source = _SOURCES[suffix](path, str(path))
    rows = [row for _, _, row in source.records(findings)]
    gaps = bool(findings) and source.format == "parquet"
    if gaps:
        rows = _with_gaps(path)
    else:
        findings.raise_if_any()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    names, renamed = _names(columns)
    whole = all(len(row) == len(columns) for row in rows)
    full = [{name: row.get(column) for column, name in zip(columns, names, strict=True)} for row in rows]
    known = whole and not renamed and not gaps
    said = {"jsonl": "JSON Lines", "json": "JSON", "parquet": "Parquet"}[source.format]
    if gaps:
        said += "; numbers that are not finite (NaN) taken as empty"
    if not whole:
        said += "; some rows lack some columns"
    return Table(names, full, said, source.format if known else None, renamed)


def _with_gaps(path: Path) -> list[dict[str, JSON]]:
    """The rows of a Parquet file, with nothing for NaN, which some programs write for a missing value."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return [{name: _finite(value) for name, value in row.items()} for row in file.read().to_pylist()]


def _finite(value: object) -> JSON:
    try:
        return json_value(value)
    except ValueError:
        return None


# Text


def _text(path: Path, suffix: str) -> Table:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(path)
    text, encoding, plain = _decoded(path, data)
    if text.startswith("sep=") and len(text.splitlines()[0]) <= len("sep=;"):
        stated, text, plain = text[4], text.partition("\n")[2], False
    else:
        stated = {".tsv": "\t", ".tab": "\t", ".psv": "|"}.get(suffix, "")
    delimiter = stated if stated and stated in text.partition("\n")[0] else _delimiter(text)
    header, lines, ragged = _cells(path, text, delimiter)
    if not header:
        raise UserError("the file is empty", where=str(path), remedy=f"Name a file with rows: {KINDS}.")
    rows = []
    for number, cells in lines:
        if len(cells) > len(header):
            what = f"the row has {len(cells)} cells where the header has {len(header)}"
            remedy = f"Read with {DELIMITERS[delimiter]} between columns: {', '.join(header)}."
            raise UserError(what, where=f"{path}:{number}", remedy=remedy)
        rows.append(cells + [""] * (len(header) - len(cells)))
    names, renamed = _names(header)
    known = plain and delimiter == "," and not renamed and not ragged and data[:2] != b"\x1f\x8b"
    said = f"{encoding}, {DELIMITERS[delimiter]} between columns"
    if ragged:
        said += (
            f"; {ragged:,} rows have other numbers of cells than the header, what is missing taken as empty"
        )
    made = [dict(zip(names, row, strict=True)) for row in rows]
    return Table(names, made, said, "csv" if known else None, renamed)


def _unpacked(path: Path) -> bytes:
    import gzip
    import zlib

    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the compressed file is damaged: {error}", where=str(path)) from error


def _decoded(path: Path, data: bytes) -> tuple[str, str, bool]:
    """The text, the name of its encoding, and whether a suite could read it as it is."""
    for mark, codec, name in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(codec), name, codec == "utf-8-sig"
            except UnicodeDecodeError as error:
                raise UserError(
                    f"it begins as {name} and goes on otherwise: {error}", where=str(path)
                ) from error
    zeros = [data[:2000:2].count(0), data[1:2000:2].count(0)]
    if max(zeros) > 0.3 * min(1000, len(data) / 2):  # every other byte of UTF-16 in Latin letters
        codec = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        return data.decode(codec, "replace"), "UTF-16", False
    if b"\0" in data:
        raise UserError("it holds neither text nor a table", where=str(path), remedy=f"Name a file: {KINDS}.")
    try:
        return data.decode("utf-8"), "UTF-8", True
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), "Windows-1252", False
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1", False


def _delimiter(text: str) -> str:
    """The separator that gives most lines the same number of cells, as many as the header; commas for one."""
    scores: dict[str, tuple[float, int]] = {}
    for delimiter in DELIMITERS:
        widths = []
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            for cells in reader:
                if cells:
                    widths.append(len(cells))
                if len(widths) >= _TRIED:
                    break
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            scores[delimiter] = (widths.count(widths[0]) / len(widths), widths[0])
    return max(scores, key=lambda each: scores[each], default=",")


def _cells(path: Path, text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]], int]:
    """The header, the rows with their lines, and how many of these have not as many cells as the header."""
    csv.field_size_limit(_MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)

    def lines() -> Iterator[tuple[int, list[str]]]:
        number = 1
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield number, cells
                number = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"it cannot be read as CSV: {error}", where=f"{path}:{number}") from error

    rest = lines()
    _, header = next(rest, (1, []))
    everything = [*rest]
    ragged = sum(len(cells) != len(header) for _, cells in everything)
    rows = [(number, _stripped(cells)) for number, cells in everything]
    widest = max((len(cells) for _, cells in rows), default=0)
    while len(header) > widest and not header[-1].strip():
        header.pop()
    return header, rows, ragged


def _stripped(cells: list[str]) -> list[str]:
    """Without empty cells at the end, which spreadsheets write."""
    while cells and not cells[-1].strip():
        cells.pop()
    return cells


# Excel


def _excel(path: Path) -> Table:
    try:
        import openpyxl  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise UserError(
            "reading Excel needs the package openpyxl, which is not installed",
            where=str(path),
            remedy="Run: pip install openpyxl (the extra `excel`). Or save the sheet as CSV.",
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: [*sheet.iter_rows(values_only=True)] for sheet in book.worksheets}
        formulas = openpyxl.load_workbook(path, read_only=True)
        written = {sheet.title: [*sheet.iter_rows(values_only=True)] for sheet in formulas.worksheets}
    except Exception as error:  # whatever a damaged workbook makes of its reader
        what = f"the workbook cannot be read: {type(error).__name__}: {str(error)[:200]}"
        raise UserError(what, where=str(path), remedy="Save the sheet as CSV.") from error
    filled = {title: rows for title, rows in sheets.items() if any(map(_some, rows))}
    if not filled:
        raise UserError("the workbook holds no rows", where=str(path))
    title, cells = next(iter(filled.items()))
    lines = [row for row in cells if _some(row)]
    width = max(at + 1 for at, value in enumerate(lines[0]) if value is not None)
    names, renamed = _names([_plain(value) for value in lines[0][:width]])
    rows = [dict(zip(names, map(_value, (*row, *[None] * width)), strict=False)) for row in lines[1:]]
    if not rows:
        raise UserError(
            "the sheet holds no rows below its header", where=str(path), remedy=_columns_said(names)
        )
    others = f", the first of {len(filled)} with rows" if len(filled) > 1 else ""
    said = f"Excel, sheet '{title}'{others}{_without_value(cells, written[title])}"
    return Table(names, rows, said, None, renamed)


def _without_value(values: Sequence[Sequence[Any]], written: Sequence[Sequence[Any]]) -> str:
    """How many cells are formulas that no program has computed yet: what they come to is not in the file."""
    number = 0
    for row, formulas in zip(values, written, strict=False):
        for value, formula in zip(row, formulas, strict=False):
            number += value is None and isinstance(formula, str) and formula.startswith("=")
    if not number:
        return ""
    what = "formula has" if number == 1 else "formulas have"
    return f"; {number:,} {what} no value in the file and count as empty (open it in Excel and save it)"


def _some(row: Sequence[Any]) -> bool:
    return any(value is not None and value != "" for value in row)


def _value(value: object) -> JSON:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # Excel has no whole numbers
    return json_value(value)


def _plain(value: object) -> str:
    return "" if value is None else str(_value(value))


# Names of columns


def _names(columns: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Names that a suite can use, each once, and those of the file that had to change: new to old."""
    made: list[str] = []
    for at, column in enumerate(columns, 1):
        name = " ".join("".join(c if c.isprintable() else " " for c in column).split())
        for mark in ("{{", "{%", "{#", "}}"):
            name = name.replace(mark, mark[0] if mark != "}}" else "}")
        name = f"{name}_" if name == "row" else name or f"column_{at}"
        made.append(name)
    counts, seen = Counter(made), Counter[str]()
    for at, name in enumerate(made):
        seen[name] += 1
        if counts[name] > 1 and seen[name] > 1:
            number = seen[name]
            while f"{name}_{number}" in made:
                number += 1
            made[at] = f"{name}_{number}"
    return made, {name: old for name, old in zip(made, columns, strict=True) if name != old}

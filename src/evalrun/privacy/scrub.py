"""Takes texts and rows out of files that are no tables of samples."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evalrun.tracking.plain import document_bytes

ERASED = "<ERASED>"
"""What stands in the place of a text."""


@dataclass(frozen=True, slots=True)
class Scrub:
    """Takes texts and rows out of files that are no tables of samples."""

    texts: Sequence[str]
    ids: frozenset[str]
    runs: frozenset[str] = frozenset()
    """The runs that lost rows: a line that names another run is not about one of them."""
    everything: bool = False
    """All rows go: so do those that the sweep keeps of its data."""

    def file(self, path: Path) -> tuple[bytes | None, int]:
        """The file's new bytes, None where nothing of it goes, and how many lines went."""
        if path.name.endswith(".gz") and self.everything:
            return gzip.compress(b"", mtime=0), 0
        if path.name.endswith(".gz"):
            new, gone = self._lines(gzip.decompress(path.read_bytes()))
            return (None if new is None else gzip.compress(new, mtime=0)), gone
        data = path.read_bytes()
        if ".jsonl" in path.name:
            return self._lines(data)
        if path.suffix == ".json":
            return self._document(data), 0
        if path.suffix == ".parquet":
            return self._table(path), 0
        return self.page(data), 0

    def touches(self, value: Any) -> bool:
        """Whether a row has one of the texts."""
        if self.everything:
            return True
        wanted = set(self.texts)
        return any(text in wanted for text in strings_of(value))

    def _here(self, data: bytes) -> list[str]:
        return [text for text in self.texts if any(form in data for form in forms(text))]

    def _document(self, data: bytes) -> bytes | None:
        here = self._here(data)
        if not here:
            return None
        try:
            return document_bytes(_replaced(orjson.loads(data), here))
        except orjson.JSONDecodeError:
            return self.page(data)

    def _lines(self, data: bytes) -> tuple[bytes | None, int]:
        here = self._here(data)
        kept, gone, changed = [], 0, False
        for line in data.splitlines(keepends=True):
            new = self._line(line, here)
            gone += new is None
            changed = changed or new != line
            kept.append(new or b"")
        return (b"".join(kept) if changed else None), gone

    def _line(self, line: bytes, here: Sequence[str]) -> bytes | None:
        from evalrun.lines import has_checksum, with_checksum

        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            return line if not here else self.page(line, here) or line
        checked = has_checksum(line)
        if checked:
            record.pop("crc32", None)
        named = any(str(record.get(key)) in self.ids for key in ("sample_id", "sample"))
        if named and (not record.get("run") or not self.runs or record["run"] in self.runs):
            return None
        if not here or not any(form in line for text in here for form in forms(text)):
            return line
        whole = set(here)
        if "sample_id" not in record and any(text in whole for text in strings_of(record)):
            return None  # a row that the sweep keeps of its data
        new = orjson.dumps(_replaced(record, here))
        return with_checksum(new) if checked else new + b"\n"

    def _table(self, path: Path) -> bytes | None:
        """A table with a column of sample ids without the rows of the samples."""
        import tempfile

        from evalrun.tracking.parquet import column_names, read_columns, rewrite_batches

        if "sample_id" not in column_names(path):
            return None
        samples = read_columns(path, ["sample_id"]).column(0).to_pylist()
        if not self.ids.intersection(map(str, samples)):
            return None

        def change(batch: Any, _: int) -> Any:
            import pyarrow as pa

            names = batch.column("sample_id").to_pylist()
            return batch.filter(pa.array([str(name) not in self.ids for name in names]))

        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".erase-table-") as folder:
            rewrite_batches(path, Path(folder) / path.name, change)
            return (Path(folder) / path.name).read_bytes()

    def page(self, data: bytes, here: Sequence[str] | None = None) -> bytes | None:
        """Any other text with the texts replaced in all forms that they may have in it."""
        new = data
        for text in self._here(data) if here is None else here:
            for form in forms(text):
                new = new.replace(form, ERASED.encode())
        return None if new == data else new


def forms(text: str) -> list[bytes]:
    """A text as JSON, HTML and plain text have it, the longest first."""
    import html
    import json

    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    shown = {text, plain, json.dumps(text)[1:-1], plain.replace("<", "\\u003c")}
    shown |= {html.escape(text), html.escape(text, quote=False)}
    return sorted((form.encode("utf-8", "surrogatepass") for form in shown), key=len, reverse=True)


def _replaced(value: Any, texts: Sequence[str]) -> Any:
    if isinstance(value, str):
        for text in texts:
            if text in value:
                value = value.replace(text, ERASED)
        return value
    if isinstance(value, Mapping):
        return {_replaced(name, texts): _replaced(item, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, texts) for item in value]
    return value


def stored_forms(text: str) -> set[str]:
    """A text as tables have it: as it is, and as JSON."""
    import json

    return {text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]}


def strings_of(value: Any) -> Iterator[str]:
    """The texts in a value, and whole numbers that are long enough to be somebody's."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_of(item)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000_000:
        yield str(value)

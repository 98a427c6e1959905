"""`evalrun privacy scan`: what personal data lies in a store, a sweep or a file, by file and column.

Every file is looked through in the form it has: Parquet by column, JSON by key, databases by table, texts by
line. Only counts are given: no value is printed anywhere.
"""

from __future__ import annotations

import gzip
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from evalrun.analysis.catalogue import FINDINGS
from evalrun.errors import UserError
from evalrun.privacy.keys import KEYS
from evalrun.privacy.redact import LEAST_INTEGER, STRUCTURE, Redactor
from evalrun.tracking.folder import ASKED, SAMPLES, SweepFolder
from evalrun.tracking.parquet import column_names, iter_batches, read_columns
from evalrun.types import JSON, MetricValue

_TOGETHER = 64
"""Texts that are looked at together: in most there is nothing, which is seen at once."""
_LONGEST_LINE = 2_000_000
_NAMED = 3
"""So many kinds and columns are named beside the count of a run."""
_PROGRAMS = (".css", ".js", ".py", ".pyc", ".lock", ".so", ".gguf", ".safetensors", ".png", ".bin")


@dataclass(frozen=True, slots=True)
class Finding:
    """So many of a kind in a column of a file ("line" for files without columns)."""

    file: str
    column: str
    entity: str
    count: int


@dataclass(slots=True)
class Scanned:
    """What was looked at and found; `unread` are files that could not be looked into, with the reason."""

    files: int = 0
    texts: int = 0
    findings: list[Finding] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All findings."""
        return sum(each.count for each in self.findings)


def scan(paths: Iterable[Path], redactor: Redactor) -> Scanned:
    """Look through files, and folders with all that is in them (but a store's keys)."""
    scanned = Scanned()
    for path in paths:
        if not path.exists():
            raise UserError("there is no such file or folder", where=str(path))
        for file in _files(path):
            _scan_file(file, redactor, scanned)
    scanned.findings.sort(key=lambda each: (each.file, each.column, each.entity))
    return scanned


def more_metrics(metrics: Collection[str], folder: SweepFolder) -> Callable[[str], Sequence[dict[str, JSON]]]:
    """What gates need that a finished run's `run.json` has not: by run id its `privacy.findings`, where
    `metrics`, which they speak of, name it."""

    def more(run_id: str) -> Sequence[dict[str, JSON]]:
        if FINDINGS.name not in metrics or folder.run(run_id).metric(FINDINGS.name) is not None:
            return ()
        from evalrun.privacy import redactor

        said = (folder.read_manifest()["suite"].get("resolved") or {}).get("privacy") or {}
        known = {key: value for key, value in said.items() if key in ("redact", "entities", "recognisers")}
        settings = {} if known.get("redact") == "off" else known
        return (findings_of_run(folder.run_dir(run_id), redactor(settings, None)).document(),)

    return more


def findings_of_run(run: Path, redactor: Redactor) -> MetricValue:
    """`privacy.findings` of a run: what its samples, and what its judges said, hold as they are stored.

    Raises UserError where one of the files cannot be read: nothing is known of it then.
    """
    tables = [run / name for name in (SAMPLES, ASKED) if (run / name).exists()]
    scanned = scan(tables, redactor)
    if scanned.unread:
        file, why = scanned.unread[0]
        raise UserError(f"cannot be searched for personal data: {why}", where=file)
    kinds = Counter[str]()
    for finding in scanned.findings:
        kinds[f"{finding.entity} in {finding.column}"] += finding.count
    note = ", ".join(f"{what}: {count:,}" for what, count in kinds.most_common(_NAMED))
    n = read_columns(run / SAMPLES, ["sample_id"]).num_rows if tables else 0
    return MetricValue(FINDINGS.name, scanned.total, n, FINDINGS.unit, FINDINGS.direction, note=note)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.is_symlink() and KEYS not in file.relative_to(path).parts[:1]:
            yield file


def _scan_file(file: Path, redactor: Redactor, scanned: Scanned) -> None:
    if file.suffix in _PROGRAMS:
        return
    scanned.files += 1
    counts: dict[str, Counter[str]] = {}
    try:
        for column, texts in _texts_of(file):
            counter = counts.setdefault(column, Counter())
            while some := list(islice(texts, _TOGETHER)):
                scanned.texts += len(some)
                for text in some if redactor.may_hold("\n".join(some)) else ():
                    counter.update(redactor.findings(text))
    except (OSError, UserError, sqlite3.Error, ValueError) as error:
        scanned.unread.append((str(file), f"{type(error).__name__}: {error}"[:200]))
    for column, counter in counts.items():
        scanned.findings += [
            Finding(str(file), column, kind, count) for kind, count in counter.items() if count
        ]


def _texts_of(file: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """The texts of a file by column, in parts."""
    suffixes = file.suffixes
    if file.suffix == ".parquet":
        yield from _of_parquet(file)
    elif file.suffix in (".db", ".sqlite", ".sqlite3"):
        yield from _of_database(file)
    elif file.suffix in (".db-wal", ".db-shm"):
        yield from _of_lines(file)
    elif ".jsonl" in suffixes or file.suffix == ".json":
        yield from _of_json(file)
    else:
        yield from _of_lines(file)


def _of_parquet(file: Path) -> Iterator[tuple[str, Iterator[str]]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from evalrun.tracking.arrow import ENCODING

    yield "names of columns", iter(column_names(file))
    for batch in iter_batches(file, 4096):
        for field_, column in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_integer(field_.type) and field_.name.startswith("vars."):
                column = column.cast(pa.string())
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                texts = [text for text in pc.unique(column).to_pylist() if text]
                if (field_.metadata or {}).get(ENCODING) == b"json":  # times in it are no numbers of cards
                    texts = [text for value in texts for _, text in _walked(orjson.loads(value), "")]
                yield field_.name, iter(texts)


def _of_database(file: Path) -> Iterator[tuple[str, Iterator[str]]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for name in names:
            rows = connection.execute(f'SELECT * FROM "{name}"')
            columns = [each[0] for each in rows.description]
            while some := rows.fetchmany(1000):
                for at, column in enumerate(columns):
                    texts = [_decoded(row[at]) for row in some if isinstance(row[at], str | bytes)]
                    yield f"{name}.{column}", iter(texts)


def _decoded(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _of_json(file: Path) -> Iterator[tuple[str, Iterator[str]]]:
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    lines = [data] if file.suffix == ".json" else data.splitlines()
    for line in lines:
        try:
            value = orjson.loads(line)
        except ValueError:
            yield "line", iter([line.decode("utf-8", "replace")])
            continue
        by_column: dict[str, list[str]] = {}
        for column, text in _walked(value, ""):
            by_column.setdefault(column, []).append(text)
        for column, texts in by_column.items():
            yield column, iter(texts)


def _walked(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path or "value", value
    elif isinstance(value, dict):
        for name, item in value.items():
            if not name.isidentifier():
                yield path or "names", name
            if name not in STRUCTURE:
                yield from _walked(item, f"{path}.{name}" if path.count(".") < 2 and path else path or name)
    elif isinstance(value, list):
        for item in value:
            yield from _walked(item, path)
    elif type(value) is int and abs(value) >= LEAST_INTEGER:
        yield path or "value", str(value)


def _of_lines(file: Path) -> Iterator[tuple[str, Iterator[str]]]:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as stream:
        # Lines of a megabyte are programs and pictures that a page holds.
        lines = (line for line in stream if len(line) < _LONGEST_LINE)
        yield "line", (line.decode("utf-8", "replace") for line in lines)

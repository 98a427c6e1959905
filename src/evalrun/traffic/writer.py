"""Rows of production records into a Parquet file, redacted on the way."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import replacing
from evalrun.errors import UserError
from evalrun.traffic.calls import labelled, number
from evalrun.traffic.sample import Row, redacted

if TYPE_CHECKING:
    from evalrun.traffic.main import Wanted

KEY_VARIABLE = "EVALRUN_PSEUDONYM_KEY"
"""The environment variable with the key of pseudonyms, in place of the store's; with neither they hold within
one file only."""

TEXTS = (
    "request_id", "ts", "model", "provider", "operation", "service", "prompt_version", "text", "output",
    "finish_reason", "error", "user_key", "conversation", "trace_id", "span_id", "arm", "feedback", "stratum",
)  # fmt: skip
NUMBERS = ("prompt_tokens", "completion_tokens", "ttft_s", "e2e_s", "weight")
REDACTED = ("messages", "text", "output", "error", "feedback")
BATCH = 2_000


@dataclass(frozen=True)
class Hooks:
    """What is done to texts and to ids of people before anything is written."""

    clean: Callable[[str], str]
    pseudonym: Callable[[str], str] | None = None


def hooks(wanted: Wanted) -> Hooks:
    """What redacts: `none`, `package.module:function`, or a level of `evalrun.privacy`.

    Raises UserError where there is no such thing: nothing is read or written then.
    """
    from evalrun.registry import import_attribute, importable_from

    if wanted.redact == "none":
        return Hooks(str)
    if ":" in wanted.redact:
        importable_from(wanted.base_dir)
        function = import_attribute(wanted.redact)
        return Hooks(lambda text: str(function(text)))
    try:
        build = import_attribute("evalrun.privacy:redactor")
    except UserError as error:
        raise UserError(
            f"there is no redaction '{wanted.redact}'",
            where="redact",
            remedy="Give package.module:function (text to text), or none to keep texts as they are.",
        ) from error
    made = build({"redact": wanted.redact}, wanted.store)
    return Hooks(made, made.pseudonym)


class Writer:
    """Rows into a Parquet file, redacted on the way; a text that cannot be redacted is never written."""

    def __init__(self, out: Path, wanted: Wanted) -> None:
        hooks_ = hooks(wanted)
        self._clean, self._pseudonym = hooks_.clean, hooks_.pseudonym
        own = (*wanted.columns, *wanted.map)
        self._redacted = {*REDACTED, *own}
        self._columns = [name for name in dict.fromkeys(own) if name not in (*TEXTS, *NUMBERS, "messages")]
        self._key = os.environ.get(KEY_VARIABLE, "").encode()[:64]
        self.notes: list[str] = []
        self._out, self._buffer = out, list[Row]()
        self._file: Any = None
        self._anonymous = False
        self._secret = self._key or secrets.token_bytes(32)
        self.rows, self.total, self.squares = 0, 0.0, 0.0

    def __enter__(self) -> Writer:
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", where=str(self._out)) from error
        self._replacing = replacing(self._out)
        self._path = self._replacing.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._flush()
        if self._file is not None:
            self._file.close()
        self._replacing.__exit__(*error)

    def write(self, row: Row) -> None:
        """Take one row."""
        for name in ("user_key", "conversation"):
            if row[name] is not None and self._pseudonym is not None and not self._key:
                row[name] = self._pseudonym(row[name])
            elif row[name] is not None:
                self._anonymous |= not self._key
                row[name] = blake2b(row[name].encode(), digest_size=12, key=self._secret).hexdigest()
        try:
            row = redacted(row, self._redacted, self._clean)
        except Exception as error:
            raise UserError(
                f"a text could not be redacted ({type(error).__name__}): nothing was written"
            ) from error
        self.rows += 1
        self.total += row["weight"]
        self.squares += row["weight"] ** 2
        self._buffer.append(row)
        if len(self._buffer) == BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._file is None:
            if self._anonymous:
                self.notes.append(f"user_key differs from import to import: set {KEY_VARIABLE} to join them")
            self._numeric = {
                name
                for name in self._columns
                if all(isinstance(row[name], int | float | None) for row in self._buffer)
                and any(row[name] is not None for row in self._buffer)
            }
            message = pa.struct([("role", pa.string()), ("content", pa.string())])
            own = [(name, pa.float64() if name in self._numeric else pa.string()) for name in self._columns]
            self._schema = pa.schema(
                [(name, pa.string()) for name in TEXTS]
                + [("messages", pa.list_(message))]
                + [(name, pa.int64() if name.endswith("tokens") else pa.float64()) for name in NUMBERS]
                + own
            )
            self._file = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        for row in self._buffer:
            for name in self._columns:
                value = row[name]
                row[name] = (
                    number(value) if name in self._numeric else None if value is None else labelled(value)
                )
        self._file.write_table(pa.Table.from_pylist([*map(_plain, self._buffer)], schema=self._schema))
        self._buffer.clear()


def _plain(row: Row) -> Row:
    """Texts as UTF-8 can hold them."""
    from evalrun.tracking.plain import plain

    return {name: plain(value) for name, value in row.items()}

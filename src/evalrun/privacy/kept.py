"""Texts as they were, for judges and for scorers that take long: encrypted beside the journal until the sweep
is scored, then destroyed.

Each sweep has a key of its own, which lies in the store and not in the sweep, and is destroyed with the file:
what a backup took of one of the two cannot be read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import open_private, private_folder, write_private
from evalrun.errors import ExitCode, UserError
from evalrun.lines import read_record
from evalrun.privacy.keys import KEYS
from evalrun.privacy.plan import overwrite
from evalrun.runner.journal import encode_record
from evalrun.tracking.columns import text_form
from evalrun.tracking.folder import RAW
from evalrun.types import SampleRecord

if TYPE_CHECKING:
    from evalrun.privacy.redact import Redactor

_KEY_BYTES, _NONCE_BYTES = 32, 12
_HEAD = struct.Struct(">IH")
"""Of each entry: the bytes that follow, and how many of these are the sample's name."""


def can_encrypt() -> bool:
    """Whether the package that encrypts is here."""
    import importlib.util

    return importlib.util.find_spec("cryptography") is not None


def _sweep_of(folder: Path) -> Path:
    """The sweep that a run's folder, or one within it, belongs to."""
    return next(each.parent for each in folder.parents if each.name == "runs")


def _key_path(sweep: Path) -> Path:
    return sweep.parent.parent / KEYS / f"{sweep.name.partition('-')[0]}.raw"


class RawTexts:
    """The records of one cell as they were: appended as they are journalled, found by sample and repeat."""

    def __init__(self, folder: Path, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._path = folder / RAW
        self._cipher = AESGCM(key)
        self._bound = f"{_sweep_of(folder).name}|{folder.name}|".encode()
        self._descriptor = -1
        self._places: dict[bytes, tuple[int, int]] | None = None

    def append(self, record: SampleRecord) -> None:
        """Keep a record."""
        if self._descriptor < 0:
            end = max((at + size for at, size in self._index().values()), default=0)
            self._descriptor = open_private(self._path, os.O_WRONLY | os.O_CREAT)
            os.ftruncate(self._descriptor, end)  # what a killed process left half written
            os.lseek(self._descriptor, end, os.SEEK_SET)
        name, nonce = _name(record.sample_id, record.repeat), os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, encode_record(record), self._bound + name)
        os.write(
            self._descriptor, _HEAD.pack(len(name) + len(nonce + sealed), len(name)) + name + nonce + sealed
        )
        self._places = None

    def find(self, sample_id: str, repeat: int) -> dict[str, Any] | None:
        """The last record of a sample; None where there is none."""
        from cryptography.exceptions import InvalidTag

        name = _name(sample_id, repeat)
        place = self._index().get(name)
        if place is None:
            return None
        with self._path.open("rb") as file:
            file.seek(place[0])
            data = file.read(place[1])
        try:
            line = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._bound + name)
        except InvalidTag:
            raise _lost(self._path, "was altered, or is of another key") from None
        return read_record(line)

    def _index(self) -> Mapping[bytes, tuple[int, int]]:
        """Where each sample's last entry lies: the place of its nonce, and the bytes from there."""
        if self._places is None:
            self._places = {}
            data = self._path.read_bytes() if self._path.exists() else b""
            at = 0
            while at + _HEAD.size <= len(data):
                size, of_name = _HEAD.unpack_from(data, at)
                begin = at + _HEAD.size
                at = begin + size
                if at > len(data):
                    break
                self._places[data[begin : begin + of_name]] = begin + of_name, size - of_name
        return self._places

    def close(self) -> None:
        """Close the file that was appended to."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _name(sample_id: str, repeat: int) -> bytes:
    return f"{sample_id}\x1f{repeat}".encode("utf-8", "surrogatepass")


def _lost(path: Path, what: str) -> UserError:
    return UserError(
        f"the texts that judges and late scorers are to be given cannot be read: the file {what}",
        where=str(path),
        remedy="Put its key back, or run the suite again with --fresh. Nothing was judged by other texts.",
        exit_code=ExitCode.INCOMPLETE,
    )


def raw_texts(folder: Path) -> RawTexts | None:
    """The texts of a run that waits to be scored, as they were; None where none are kept. Raises UserError
    where the key is gone."""
    if not (folder / RAW).is_file():
        return None
    path = _key_path(_sweep_of(folder))
    if not path.is_file():
        raise _lost(folder / RAW, f"has lost its key ({path})")
    return RawTexts(folder, path.read_bytes())


def as_it_was(sample: dict[str, Any], raw: Mapping[str, Any] | None) -> dict[str, Any]:
    """A stored sample (`sweep.stored`) with the texts that it had; `raw` holds its record."""
    if raw is None:
        return sample
    names = ("target", "messages", "prompt", "output", "tool_calls", "likelihood")
    own = {name: raw.get(name) for name in names}
    return {
        **sample,
        **own,
        "answer": text_form(raw.get("answer")),
        "row": {**sample["row"], **raw["vars"]},
        "raw": raw,
    }


class Keeper:
    """Keeps the texts of a sweep whose answers are redacted and scored later."""

    def __init__(self, sweep: Path, redactor: Redactor) -> None:
        self._sweep, self._redactor = sweep, redactor
        path = _key_path(sweep)
        if not path.exists():
            for kept in sweep.glob(f"runs/*/{RAW}"):
                raise _lost(kept, f"has lost its key ({path})")
            private_folder(path.parent)
            write_private(path, os.urandom(_KEY_BYTES))
        self._key = path.read_bytes()

    def end(self, *, finished: bool) -> None:
        """Destroy what is kept, where all runs are `finished`."""
        if finished:
            destroy(self._sweep)

    def cell(self, folder: Path, about: Path | None = None) -> KeptCell:
        """What stands between a cell and its journal. `about` is the run's folder that a judge is asked
        about; one that was asked on other machines keeps nothing, and is judged by what is stored."""
        known = None if about is None or not (about / RAW).exists() else RawTexts(about, self._key)
        return KeptCell(RawTexts(folder, self._key), known, self._redactor)


def destroy(sweep: Path) -> None:
    """Remove what a sweep keeps of texts as they were, and the key: what is left elsewhere cannot be read."""
    for path in sweep.glob(f"runs/**/{RAW}"):
        path.unlink()
    if _key_path(sweep).is_file():
        overwrite(_key_path(sweep))


class KeptCell:
    """One cell: keeps each record as it was, and gives what is journalled in its place."""

    def __init__(self, own: RawTexts, about: RawTexts | None, redactor: Redactor) -> None:
        self.own, self._about, self._redactor = own, about, redactor

    def stored(self, record: SampleRecord) -> SampleRecord:
        """The record as it is stored. What a judge was asked and said is searched for the values of the
        sample that it is about; of a text that was embedded nothing is stored."""
        self.own.append(record)
        if self._about is None:
            return self._redactor.record(record)
        of = self._about.find(record.sample_id, record.repeat)
        if of is None:
            record = replace(record, vars={}, target=None, messages=(), prompt=None)
        return self._redactor.record(record, None if of is None else of["vars"])

"""Files of rows on object storage and on the Hub: `s3://`, `gs://`, `hf://`, and what fsspec knows besides.

Parquet is read row group by row group and never whole: a limit of 100 rows of a file of 50 GB fetches its
first row group. A folder or a pattern (`s3://bucket/rows/*.parquet`) is its files one after the other. Files
of other formats are fetched once into the cache folder. Credentials come from the environment alone.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from evalrun.atomic import replacing
from evalrun.datasets.source import Findings, Record, Source, json_row
from evalrun.errors import ExitCode, UserError
from evalrun.paths import cache_dir
from evalrun.types import JSON

T = TypeVar("T")

_BATCH = 512
_PARQUET = (".parquet", ".pq")
_OF_ARROW = frozenset({"s3", "gs", "gcs"})
"""Read by pyarrow itself; the Hub by huggingface_hub, all others by fsspec."""
_REMEDY = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, AWS_REGION, and for another "
    "server than Amazon's AWS_ENDPOINT_URL.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account.",
    "hf": "Set HF_TOKEN for what is private, HF_ENDPOINT for another server than the Hub.",
}


class RemoteFiles:
    """The file, or the files, at an address. Raises UserError: exit 2 for what is not there or cannot be
    meant, exit 3 for what cannot be reached."""

    def __init__(self, url: str, dataset: str) -> None:
        self.url, self._dataset = url, dataset
        parts = urlsplit(url)
        self.scheme = parts.scheme
        if parts.username or parts.password or re.search(r"(?i)[?&](access_key|secret|token|sig)", url):
            raise UserError(
                "the address of the dataset holds credentials, which would be stored with the results",
                where=f"dataset {dataset}",
                remedy=f"Take them out. {self._remedy}",
            )
        try:
            self.system, root = self._open()
        except (ImportError, ValueError) as error:
            what = f"'{self.scheme}://' cannot be read: {_line(error)}"
            remedy = "Use s3://, gs:// or hf://, or a local file."
            raise UserError(what, where=f"dataset {dataset}", remedy=remedy) from error
        self.files = self.asked(lambda: self._listed(root))
        if not self.files:
            what = "there is no such file" if "*" not in root else "no file is like the pattern"
            raise UserError(what, where=url, remedy=f"Correct the path of dataset {dataset}.")

    @property
    def _remedy(self) -> str:
        return _REMEDY.get({"gcs": "gs"}.get(self.scheme, self.scheme), "Set its credentials.")

    def _open(self) -> tuple[Any, str]:
        from pyarrow import fs

        if self.scheme in _OF_ARROW:
            pattern = self.url.replace("gcs://", "gs://", 1)
            # A pattern's signs are none of an address.
            base, star, rest = pattern.partition("*")
            folder = base.rpartition("/")[0] if star else base
            system, path = fs.FileSystem.from_uri(folder)
            return system, path + (base[len(folder) :] + star + rest if star else "")
        path = self.url.partition("://")[2]
        if self.scheme == "hf":
            from huggingface_hub import HfFileSystem

            return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem())), path
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(self.scheme))), path

    def _listed(self, root: str) -> list[Any]:
        from pyarrow import fs

        if "*" not in root:
            found = self.system.get_file_info(root.rstrip("/"))
            if found.type != fs.FileType.Directory:
                return [found] if found.type == fs.FileType.File else []
            root = f"{root.rstrip('/')}/*.parquet"
        folder, pattern = root.rpartition("/")[::2]
        if "*" in folder:
            what = "a pattern may stand for names of files, not of folders"
            raise UserError(what, where=self.url, remedy="As in s3://bucket/rows/part-*.parquet.")
        inside = self.system.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        kept = (each for each in inside if each.type == fs.FileType.File)
        return sorted((each for each in kept if fnmatch.fnmatch(each.base_name, pattern)), key=_path)

    def asked(self, call: Callable[[], T]) -> T:
        """What a call of the storage gives; its faults are those of the dataset."""
        where = f"dataset {self._dataset}"
        try:
            return call()
        except FileNotFoundError as error:
            remedy = f"Correct the path of dataset {self._dataset}. {self._remedy}"
            raise UserError("there is no such file", where=self.url, remedy=remedy) from error
        except UserError:
            raise
        except ValueError as error:  # pyarrow's ArrowInvalid
            what = f"this is not a whole Parquet file: {_line(error)}"
            raise UserError(what, where=self.url, remedy="It may be torn: write it again.") from error
        except Exception as error:  # each of the clients has errors of its own
            raise UserError(
                f"{self.url} cannot be read: {_line(error)}",
                where=where,
                remedy=self._remedy,
                exit_code=ExitCode.INCOMPLETE,
            ) from error


def _path(info: Any) -> str:
    return str(info.path)


def _line(error: Exception) -> str:
    from evalrun.secrets import scrub

    lines = str(error).strip().splitlines()
    return scrub(lines[0])[:300] if lines else type(error).__name__


class RemoteParquet(Source):
    """Parquet files of one address. Rows are numbered from 1, over all files."""

    repeatable = False

    def __init__(self, remote: RemoteFiles) -> None:
        self._remote = remote

    def place(self, number: int) -> str:
        return f"{self._remote.url}: row {number}"

    def describe(self) -> dict[str, JSON]:
        files = self._remote.files
        changed = max((each.mtime for each in files if each.mtime is not None), default=None)
        return {
            "kind": "object",
            "url": self._remote.url,
            "format": "parquet",
            "files": len(files),
            "bytes": sum(each.size or 0 for each in files),
            "modified": None if changed is None else changed.isoformat(),
        }

    def records(self, findings: Findings) -> Iterator[Record]:
        number = 0
        for info in self._remote.files:
            following = partial(next, self._batches(info.path), None)
            while (batch := self._remote.asked(following)) is not None:
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield number, -1, json_row(row)
                    except ValueError as error:
                        findings.add(str(error), self.place(number))

    def _batches(self, path: str) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with (
            self._remote.system.open_input_file(path) as opened,
            pq.ParquetFile(opened, pre_buffer=False) as file,
        ):
            names = Counter(file.schema_arrow.names)
            repeated = [name for name, count in names.items() if count > 1]
            if repeated:
                what = f"the file has two columns named '{repeated[0]}'"
                raise UserError(what, where=self._remote.url)
            yield from file.iter_batches(batch_size=_BATCH, use_threads=False)


def open_remote(url: str, format_: str | None, dataset: str, local: Callable[[Path], Source]) -> Source:
    """The source of the rows at an address. `local` opens a file that was fetched.

    Raises UserError (see `RemoteFiles`).
    """
    remote = RemoteFiles(url, dataset)
    first = remote.files[0].path
    if format_ == "parquet" or (format_ is None and first.endswith(_PARQUET)):
        return RemoteParquet(remote)
    if len(remote.files) > 1:
        what = "only Parquet may be several files"
        raise UserError(what, where=url, remedy=f"Name one file for dataset {dataset}.")
    return local(remote.asked(lambda: _fetched(remote)))


def _fetched(remote: RemoteFiles) -> Path:
    """The file in the cache folder, fetched when it is not there as it is now."""
    (info,) = remote.files
    name = hashlib.sha256(f"{remote.url} {info.size} {info.mtime_ns}".encode()).hexdigest()[:32]
    target = cache_dir() / "datasets" / f"{name}{''.join(PurePosixPath(info.path).suffixes[-2:])}"
    if not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            replacing(target) as temporary,
            temporary.open("wb") as file,
            remote.system.open_input_stream(info.path) as stream,
        ):
            shutil.copyfileobj(stream, file, 1 << 20)
    return target

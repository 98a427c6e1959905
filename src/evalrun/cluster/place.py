"""Where the segments of a sweep lie: a folder that all nodes share, or a bucket.

Objects are created once and never changed; who reads one checks what it reads by the digest in its name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evalrun.errors import ExitCode, UserError

_BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_TIMEOUT_S = 30
"""Of one request to a store: one that stalls is asked again."""
_RETRY_S = 120
"""How long a request is tried again, with pauses, before it counts as failed."""


def normal(url: str) -> str:
    """The address as every node understands it: a folder by its absolute path. Raises UserError."""
    parts = urlsplit(url)
    if "://" not in url:
        return str(Path(url).expanduser().resolve())
    if parts.scheme not in _BUCKETS or not parts.netloc:
        raise UserError(
            f"'{_hidden(url)}' is no place for segments",
            where="--at",
            remedy="Name a folder that all nodes see, or s3://BUCKET/PREFIX, gs://…, az://….",
        )
    if "@" in parts.netloc or parts.query:
        raise UserError(
            "the address holds a secret or options",
            where=f"--at {_hidden(url)}",
            remedy="Give keys by the store's environment variables (AWS_ACCESS_KEY_ID, …), on each node.",
        )
    return url.rstrip("/")


def _hidden(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url.partition("?")[0])


class Place:
    """A folder or the part of a bucket below a prefix. Paths are relative to it, with `/` between names."""

    def __init__(self, url: str, *, make: bool = False) -> None:
        """`make`: make the folder where it is not there. Raises UserError (exit 3) where it is unusable."""
        self.url = url
        with self._told("opened"):
            self._store = _store(url, make)

    def put_new(self, path: str, data: bytes) -> bool:
        """Create an object; False where it is there already. Raises UserError (exit 3)."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._told("written"):
            try:
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def get(self, path: str) -> bytes | None:
        """The bytes of an object, None where there is none. Raises UserError (exit 3)."""
        import obstore

        with self._told("read"):
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

    def names(self, prefix: str) -> list[str]:
        """The paths of all objects below a prefix, sorted. Raises UserError (exit 3)."""
        import obstore

        with self._told("listed"):
            return sorted(str(meta["path"]) for some in obstore.list(self._store, prefix) for meta in some)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """The faults of a store as one message; of its own text the first line, which holds no secret."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            said = str(error).strip().partition("\n")[0].partition(", source:")[0][:200]
            denied = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
            raise UserError(
                f"{self.url} cannot be {what}: {said or type(error).__name__}",
                where="--at",
                remedy="Give every node the right to list, read and create there."
                if denied
                else "See to it, then run the same command again: it goes on from its segments.",
                exit_code=ExitCode.INCOMPLETE,
            ) from None


def _store(url: str, make: bool) -> Any:
    from obstore.store import LocalStore, from_url

    if "://" not in url:
        if make:
            Path(url).mkdir(parents=True, exist_ok=True)
        return LocalStore(url)
    plain = _endpoint(os.environ).startswith("http://")
    return from_url(
        url,
        client_options={"timeout": timedelta(seconds=_TIMEOUT_S), "allow_http": plain},
        retry_config={"max_retries": 20, "retry_timeout": timedelta(seconds=_RETRY_S)},
    )


def _endpoint(env: Mapping[str, str]) -> str:
    """The address of a store that is not the cloud's own."""
    return env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or env.get("AWS_ENDPOINT") or ""

"""Where the segments of a sweep lie: a folder that all nodes share, or a bucket.

Objects are created once and never changed; who reads one checks what it reads by the digest in its name.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from evalrun.errors import ExitCode, UserError

Made = TypeVar("Made")
_BUCKETS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "GOOGLE_BASE_URL")
"""Addresses of stores that are not the cloud's own."""
_TIMEOUT_S = 30
"""Of one request to a store: one that stalls is asked again."""
FIRST_S, PATIENCE_S = 20.0, 120.0
"""How long a request is made again before it counts as failed: the first one, and those after it."""
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


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
        self.patience_s = FIRST_S
        with self._told("opened"):
            self._store = _store(url, make)

    def put_new(self, path: str, data: bytes) -> bool:
        """Create an object; False where it is there already. Raises UserError (exit 3).

        A store says the same of an object that is there, and of two writers who meet (409): who is told so
        looks, and writes again where there is none.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def create() -> bool:
            try:
                obstore.put(self._store, path, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                try:
                    obstore.get(self._store, path)
                except FileNotFoundError:
                    raise ConnectionError("two writers met") from error
                return False
            return True

        return self._until_done("written", create)

    def get(self, path: str) -> bytes | None:
        """The bytes of an object, None where there is none. Raises UserError (exit 3)."""
        import obstore

        def read() -> bytes | None:
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError:
                return None

        return self._until_done("read", read)

    def names(self, prefix: str) -> list[str]:
        """The paths of all objects below a prefix, sorted. Raises UserError (exit 3)."""
        import obstore

        def listed() -> list[str]:
            return sorted(str(meta["path"]) for some in obstore.list(self._store, prefix) for meta in some)

        return self._until_done("listed", listed)

    def _until_done(self, what: str, call: Callable[[], Made]) -> Made:
        """Do it, and in a bucket again for as long as that may help: nothing that is there is changed, so it
        is safe although it may have been done already."""
        from obstore.exceptions import GenericError

        again = (GenericError, ConnectionError) if "://" in self.url else ()
        end, pause = time.monotonic() + self.patience_s, _PAUSE_S
        with self._told(what):
            while True:
                try:
                    made = call()
                except again:
                    if time.monotonic() + pause > end:
                        raise
                    time.sleep(pause * random.uniform(0.5, 1))
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
                else:
                    self.patience_s = PATIENCE_S
                    return made

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
    plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return from_url(
        url,
        client_options={"timeout": timedelta(seconds=_TIMEOUT_S), "allow_http": plain},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_TIMEOUT_S)},
    )

"""Which catalog a store has: `EVALRUN_CATALOG` (`--catalog`), else its own setting, else a SQLite file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.atomic import write_private
from evalrun.errors import UserError
from evalrun.tracking.plain import document_bytes, read_document
from evalrun.tracking.ulid import PATTERN, new_ulid

if TYPE_CHECKING:
    from evalrun.tracking.database import Place

VARIABLE = "EVALRUN_CATALOG"
SETTING, STORE_ID, SQLITE = "catalog.json", "store-id", "catalog.db"


def catalog_place(root: Path) -> Place:
    """The place of the catalog of the store at `root`. Raises UserError for a setting that is not usable."""
    url = os.environ.get(VARIABLE) or setting(root)
    if url and url != "sqlite":
        from evalrun.tracking.postgres_place import PostgresPlace

        return PostgresPlace(url, store_id(root))
    from evalrun.tracking.sqlite_place import SqlitePlace

    return SqlitePlace(root / SQLITE)


def setting(root: Path) -> str | None:
    """The URL that was set for the store, None where none was."""
    path = root / SETTING
    if not path.exists():
        return None
    url = read_document(path).get("url")
    if not isinstance(url, str):
        raise UserError("names no catalog", where=str(path), remedy="Set it by: evalrun catalog use URL")
    return url


def set_catalog(root: Path, url: str | None) -> None:
    """Set the store's catalog to a PostgreSQL database, or back to the SQLite file (None).

    Raises UserError for a URL with a password in it: it would be stored.
    """
    path = root / SETTING
    if url is None:
        path.unlink(missing_ok=True)
        return
    from evalrun.tracking.postgres_place import read_url

    parsed, _ = read_url(url)
    if parsed.password is not None or "password" in parsed.query:
        raise UserError(
            "the URL holds a password, which is not stored",
            where="catalog",
            remedy="Leave it out; give it in PGPASSWORD, in ~/.pgpass, or with a URL in EVALRUN_CATALOG.",
        )
    write_private(path, document_bytes({"schema_version": 1, "url": url}))


def store_id(root: Path) -> str:
    """What the store is called in a database, wherever its folder is mounted; made when first needed."""
    path = root / STORE_ID
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if not PATTERN.fullmatch(found):
            raise UserError("is no id of a store", where=str(path))
        return found
    made = path.with_name(f".{STORE_ID}.{os.getpid()}")
    write_private(made, new_ulid().encode() + b"\n")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(made, path)  # of several processes one is first, and all read what it wrote
    finally:
        made.unlink(missing_ok=True)
    return path.read_text().strip()

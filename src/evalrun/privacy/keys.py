"""The store's key for pseudonyms: made when it is first needed, 0600, never in a sweep."""

from __future__ import annotations

import os
from pathlib import Path

from evalrun.atomic import private_folder, write_private
from evalrun.errors import UserError

KEYS, PRIVACY_KEY = "keys", "privacy.key"
_BYTES = 32


def key_path(store: Path) -> Path:
    """Where a store keeps it."""
    return store / KEYS / PRIVACY_KEY


def store_key(store: Path, *, make: bool = True) -> bytes:
    """The key of a store. Raises UserError where it is damaged, or missing and not to be made."""
    path = key_path(store)
    if not path.exists():
        if not make:
            raise UserError(
                "the key of this store's pseudonyms is not there",
                where=str(path),
                remedy="Put it back from where you keep it: without it no subject can be looked up.",
            )
        private_folder(path.parent)
        write_private(path, os.urandom(_BYTES))
    key = path.read_bytes()
    if len(key) != _BYTES:
        raise UserError(
            f"the key of this store's pseudonyms is damaged: {len(key)} bytes in place of {_BYTES}",
            where=str(path),
            remedy="Put it back from where you keep it; with another, values get other pseudonyms.",
        )
    return key

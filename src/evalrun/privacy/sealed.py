"""Answers in the cache under the store's key (`privacy: {cache: encrypted}`): neither they nor the requests
that they answer can be read, or guessed and tested, without it."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import orjson

from evalrun.errors import UserError
from evalrun.privacy.kept import can_encrypt
from evalrun.privacy.keys import store_key

_NONCE_BYTES = 12
SEALED = b"\x01"
"""What such an answer begins with; the others are JSON."""


class Seal:
    """What the cache calls: names in the place of keys, and sealed answers."""

    def __init__(self, store: Path) -> None:
        """Raises UserError where the package is missing, or the key is damaged."""
        if not can_encrypt():
            raise UserError(
                "cache: encrypted needs the package cryptography",
                where="privacy.cache",
                remedy="pip install cryptography",
            )
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = store_key(store)
        self._names = hmac.new(key, b"cache: names", hashlib.sha256).digest()
        self._cipher = AESGCM(hmac.new(key, b"cache: answers", hashlib.sha256).digest())

    def name(self, key: bytes) -> bytes:
        """What stands in the place of a request's key: 32 bytes that only the store's key gives."""
        return hmac.new(self._names, key, hashlib.sha256).digest()

    def seal(self, name: bytes, answer: bytes) -> bytes:
        """An answer, encrypted for that name (AES-256-GCM, random nonce)."""
        nonce = os.urandom(_NONCE_BYTES)
        return SEALED + nonce + self._cipher.encrypt(nonce, answer, name)

    def open(self, name: bytes, sealed: bytes) -> bytes:
        """The answer. Raises ValueError where it is not what was sealed for that name."""
        from cryptography.exceptions import InvalidTag

        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, name)
        except InvalidTag:
            raise ValueError("an answer was sealed with another key, or altered") from None

    @staticmethod
    def parts(parts: bytes | None) -> bytes | None:
        """What is kept beside an answer (`KeyMaker.parts`) without the checksums of what was asked."""
        if parts is None:
            return None
        run, sample_id, repeat, seed, *_ = orjson.loads(parts)
        return orjson.dumps((run, sample_id, repeat, seed, [], None, None))

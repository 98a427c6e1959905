"""DSSE envelopes with Ed25519 signatures: a payload, its type, and who signed both.

The protocol: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Keys are those that people
have: OpenSSH's, or PEM. Other tools (cosign, in-toto, securesystemslib) verify what is written here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evalrun.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NAMESPACE = "evalrun"
_MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Signer:
    """A public key and whose it is; `expired` says that it is not to be believed at this moment."""

    name: str
    key: Ed25519PublicKey
    expired: bool = False


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed ("pre-authentication encoding"): type and payload, each with its length."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def envelope(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> dict[str, Any]:
    """A signed envelope as JSON values. The same key and payload give the same envelope."""
    signature = {"keyid": key_id(key.public_key()), "sig": _text(key.sign(pae(payload_type, payload)))}
    return {"payload": _text(payload), "payloadType": payload_type, "signatures": [signature]}


def opened(document: Mapping[str, Any], where: Path) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    """Type, payload and signatures (key id, bytes) of an envelope. Raises UserError where it is none."""
    kind, signatures = document.get("payloadType"), document.get("signatures")
    try:
        payload = base64.b64decode(document["payload"], validate=True)
        if not isinstance(kind, str) or not isinstance(signatures, list):
            raise TypeError("payloadType or signatures")
        read = [(str(s.get("keyid", "")), base64.b64decode(s["sig"], validate=True)) for s in signatures]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError("is no DSSE envelope (payload, payloadType, signatures)", where=str(where)) from None
    return kind, payload, read


def verified(
    payload_type: str, payload: bytes, signatures: Sequence[tuple[str, bytes]], signers: Sequence[Signer]
) -> tuple[str, str]:
    """`valid`, `expired`, `altered` (by a known key, and not of these bytes) or `unknown signer`; and whose
    key it is."""
    from cryptography.exceptions import InvalidSignature

    message, best = pae(payload_type, payload), ("unknown signer", "")
    for keyid, signature in signatures:
        for signer in signers:
            try:
                signer.key.verify(signature, message)
            except InvalidSignature:
                if keyid == key_id(signer.key) and best[0] == "unknown signer":
                    best = ("altered", "")
                continue
            if not signer.expired:
                return "valid", signer.name
            best = ("expired", signer.name)
    return best


def key_id(key: Ed25519PublicKey) -> str:
    """The fingerprint that `ssh-keygen -l` shows."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(_blob(key)).digest()).decode().rstrip("=")


def private_key(file: Path) -> Ed25519PrivateKey:
    """An Ed25519 private key (OpenSSH or PEM) without a passphrase. Raises UserError."""
    serialization, ed25519 = _cryptography()
    data = _bytes(file)
    try:
        openssh = b"BEGIN OPENSSH" in data
        load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
        key = load(data, None)
    except (ValueError, TypeError) as error:
        raise UserError(f"holds no private key that can be read: {error}", where=str(file)) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UserError(
            "is no Ed25519 key", where=str(file), remedy="Make one: ssh-keygen -t ed25519 -f FILE"
        )
    return cast("Ed25519PrivateKey", key)


_SSH_KEY = re.compile(r"(?:^|\s)ssh-ed25519\s+([A-Za-z0-9+/]{40,}={0,2})(?:\s+(\S.*))?$")
_PRINCIPALS = re.compile(r'"([^"]*)"|(\S+)')
_VALID = re.compile(r'valid-(after|before)="?(\d{8})(\d{2}(?:\d{2}){0,2})?Z?"?')


def signers_in(file: Path) -> list[Signer]:
    """The Ed25519 keys of a list of allowed signers, of public SSH keys, or of a PEM file. Raises UserError
    where there is none."""
    serialization, ed25519 = _cryptography()
    data = _bytes(file)
    found: list[Signer] = []
    if b"-----BEGIN PUBLIC KEY" in data:
        try:
            key = serialization.load_pem_public_key(data)
        except ValueError as error:
            raise UserError(f"holds no public key that can be read: {error}", where=str(file)) from None
        found = [Signer(file.name, key)] if isinstance(key, ed25519.Ed25519PublicKey) else []
    for line in data.decode(errors="replace").splitlines():
        match = _SSH_KEY.search(line.strip())
        if match is None or line.lstrip().startswith("#") or "cert-authority" in line[: match.start()]:
            continue
        before = line.strip()[: match.start()]
        spaces = re.search(r'namespaces="([^"]*)"', before)
        if spaces is not None and NAMESPACE not in spaces[1].split(","):
            continue
        try:
            blob = base64.b64decode(match[1])
            key = ed25519.Ed25519PublicKey.from_public_bytes(blob[-32:])
        except (ValueError, binascii.Error):
            continue
        named = _PRINCIPALS.match(before)
        name = (named[1] or named[2]) if named else (match[2] or file.name)
        found.append(Signer(name.partition(",")[0], key, _outside(before)))
    if not found:
        raise UserError("holds no public Ed25519 key", where=str(file))
    return found


def read_json(file: Path) -> Any:
    """A JSON document of at most 32 MB. Raises UserError."""
    data = _bytes(file)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not valid JSON: {error}", where=str(file)) from None


def _outside(options: str) -> bool:
    now = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    for word, day, time in _VALID.findall(options):
        bound = f"{day}{time}".ljust(14, "0")
        if (now < bound) if word == "after" else (now >= bound):
            return True
    return False


def _blob(key: Ed25519PublicKey) -> bytes:
    kind = b"ssh-ed25519"
    return len(kind).to_bytes(4) + kind + (32).to_bytes(4) + key.public_bytes_raw()


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened_file:
            data = opened_file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error
    if len(data) > _MOST_BYTES:
        raise UserError("is larger than 32 MB", where=str(file))
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UserError(
            "attestations need the package 'cryptography'", remedy="pip install 'cryptography>=43'"
        ) from None
    return serialization, ed25519

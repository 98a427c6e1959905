"""Signatures of sweeps by SSH keys, made and checked by OpenSSH's own `ssh-keygen`.

What is signed is `signatures/<n>.json`: the sweep's id, the digests of its manifest and of each `run.json`,
and the head of its trail. The trail's events hold the digests of all other files, so that one signature
covers the folder. Beside it lies `<n>.json.sig`, an ordinary SSH signature of the namespace `evalrun`, which
`ssh-keygen -Y verify` checks without evalrun.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from evalrun.atomic import private_folder, write_private
from evalrun.canonical import canonical_json
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.audit import verify_folder
from evalrun.tracking.events import user_name, utc_now
from evalrun.tracking.folder import (
    ENDED,
    MANIFEST,
    MANIFEST_DIGEST,
    RUN,
    RUN_DIGEST,
    SIGN,
    SIGNATURES,
    SweepFolder,
    file_sha256,
)
from evalrun.tracking.store import Store

NAMESPACE = "evalrun"
"""Keeps these signatures apart from those of files, of git and of whatever else an SSH key signs."""
KIND = "evalrun-signature/1"
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,200}\Z")

Status: TypeAlias = Literal[
    "valid", "superseded", "altered", "unknown signer", "revoked", "expired", "missing", "not signed"
]
"""`superseded`: valid for the sweep as it was then; events of its trail tell what changed since."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature and what became of it. `signer` is who the list of allowed signers says the key is of;
    `claimed` is what the signer wrote."""

    sweep: str
    file: str
    status: Status
    signer: str = ""
    claimed: str = ""
    role: str = ""
    signed_at: str = ""
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether somebody who may vouched for what the folder held then, and holds or tells of today."""
        return self.status in ("valid", "superseded")


def sign(store: Store, folder: SweepFolder, key: Path, identity: str = "", role: str = "") -> Path:
    """Sign a finished, unaltered sweep; the file that was signed. An event of the trail tells of it.

    Raises UserError: where the sweep runs or is not finished, where anything of it was altered (exit 1), and
    in ssh-keygen's words where the key cannot sign.
    """
    identity = identity or _comment(key) or user_name()
    for option, text in (("--as", identity), ("--role", role or "-")):
        if not _TEXT.match(text):
            raise UserError("is a text of at most 200 characters on one line", where=option)
    if folder.status() not in ENDED or folder.is_locked():
        raise UserError(
            "the sweep is not finished: only what will not change is signed", where=folder.path.name
        )
    if broken := verify_folder(folder).broken:
        raise UserError(
            f"not signed: {Path(broken[0].where).name}: {broken[0].what}",
            where=folder.path.name,
            remedy="`evalrun audit verify` names everything that was altered.",
            exit_code=ExitCode.GATE_FAILED,
        )
    with store.changing(folder):
        head = folder.events()[-1]
        statement = {
            "kind": KIND,
            "sweep": folder.ulid,
            "name": folder.manifest().name,
            **_digests(folder),
            "trail": {"seq": head["seq"], "head": head["hash"]},
            "identity": identity,
            "role": role,
            "signed_at": utc_now(),
        }
        data = canonical_json(statement)
        signature = _ssh_sign(key, data)
        place = private_folder(folder.path / SIGNATURES)
        number = 1 + max((int(file.stem) for file in place.glob("*.json") if file.stem.isdigit()), default=0)
        file = place / f"{number}.json"
        write_private(file, data)
        write_private(signature_of(file), signature)
        told = {"sha256": file_sha256(file), "signature_sha256": file_sha256(signature_of(file))}
        folder.append_event(SIGN, {"file": file.name, **told, "identity": identity, "role": role})
    return file


def signature_of(file: Path) -> Path:
    """Where `ssh-keygen -Y sign` puts the signature of a file."""
    return file.with_name(f"{file.name}.sig")


def verify_signatures(folder: SweepFolder, signers: Path, revoked: Path | None = None) -> list[Signature]:
    """Each signature that the trail of a sweep tells of, against a file of allowed signers (ssh-keygen(1),
    ALLOWED SIGNERS) and, if given, one of revoked keys. A sweep without any gives one line that says so.

    Raises UserError where ssh-keygen is missing or a file cannot be read.
    """
    for file in (signers, *([revoked] if revoked else [])):
        _readable(file)
    events = folder.events()
    told = [event["detail"] for event in events if event["action"] == SIGN]
    broken = verify_folder(folder).broken
    found = []
    for detail in told:
        signature = _checked(folder, events, detail, signers, revoked)
        if signature.holds and broken:
            why = f"{Path(broken[0].where).name}: {broken[0].what}"
            signature = Signature(**{**asdict(signature), "status": "altered", "why": why})
        found.append(signature)
    return found or [Signature(folder.ulid, "", "not signed")]


def signed_by(folder: SweepFolder) -> list[Mapping[str, Any]]:
    """Who signed a sweep, by its trail alone: nothing is verified."""
    return [event for event in folder.events() if event["action"] == SIGN]


def _checked(
    folder: SweepFolder,
    events: Sequence[Mapping[str, Any]],
    detail: Mapping[str, Any],
    signers: Path,
    revoked: Path | None,
) -> Signature:
    name = Path(str(detail.get("file"))).name
    file = folder.path / SIGNATURES / name
    if not file.is_file() or not signature_of(file).is_file():
        return Signature(folder.ulid, name, "missing", why="the trail tells of it, and the file is gone")
    data = file.read_bytes()
    statement = _statement(data)
    said = {"claimed": _text(statement, "identity"), "role": _text(statement, "role")}
    said["signed_at"] = _text(statement, "signed_at")
    status, signer, why = _ssh_verify(data, signature_of(file), said["signed_at"], signers, revoked)
    if status == "valid":
        status, why = _against(folder, events, statement)
    return Signature(folder.ulid, name, status, signer, **said, why=why)


def _against(
    folder: SweepFolder, events: Sequence[Mapping[str, Any]], statement: Mapping[str, Any]
) -> tuple[Status, str]:
    """What is signed against the folder: the trail up to the signed head must be the one that is there."""
    trail = statement.get("trail")
    seq = trail.get("seq") if isinstance(trail, Mapping) else None
    if statement.get("kind") != KIND or statement.get("sweep") != folder.ulid:
        return "altered", "it is the signature of something else"
    if type(seq) is not int or not 1 <= seq <= len(events) or events[seq - 1]["hash"] != trail["head"]:  # type: ignore[index]
        return "altered", "the trail is not the one that was signed"
    if _text(statement, "signed_at") < events[seq - 1]["ts"]:
        return "altered", "it says a time before that of what it signs"
    now = _digests(folder)
    if all(statement.get(name) == digest for name, digest in now.items()):
        return "valid", ""
    later = sorted({event["action"] for event in events[seq:] if event["action"] != SIGN})
    if not later:
        return "altered", "the sweep's files are not those that were signed"
    return "superseded", f"valid for the sweep as it was then; since: {', '.join(later)}"


def _digests(folder: SweepFolder) -> dict[str, Any]:
    runs = {run: file_sha256(folder.path / "runs" / run / RUN) for run in folder.run_ids()}
    return {
        MANIFEST_DIGEST: file_sha256(folder.path / MANIFEST),
        "runs": {k: {RUN_DIGEST: v} for k, v in runs.items()},
    }


def _statement(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(statement: Mapping[str, Any], key: str) -> str:
    value = statement.get(key)
    return value if isinstance(value, str) else ""


# OpenSSH


def _ssh_keygen(*words: str | Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    # Times of ssh-keygen are local ones; a passphrase is asked for at the terminal.
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["ssh-keygen", *map(str, words)],
            input=data,
            capture_output=True,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            "signatures need OpenSSH's `ssh-keygen`, which is not here",
            remedy="Install OpenSSH's client (Debian: apt-get install openssh-client).",
        ) from None


def _ssh_sign(key: Path, data: bytes) -> bytes:
    _readable(key)
    done = _ssh_keygen("-Y", "sign", "-f", key, "-n", NAMESPACE, data=data)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["ssh-keygen says nothing"]
        raise UserError(
            f"cannot sign: {said[-1]}",
            where=str(key),
            remedy="Give a private SSH key, or a public one whose private half an agent holds.",
        )
    return done.stdout


def _ssh_verify(
    data: bytes, signature: Path, signed_at: str, signers: Path, revoked: Path | None
) -> tuple[Status, str, str]:
    """Status, signer and why. As git does, a key is held against its times of validity at the time that the
    signature names; one that was lost belongs into the file of revoked keys."""
    whole = _ssh_keygen("-Y", "check-novalidate", "-n", NAMESPACE, "-s", signature, data=data)
    if whole.returncode:
        return "altered", "", _last(whole) or "the signature is not of these bytes"
    when = _ssh_time(signed_at)
    at = ["-O", f"verify-time={when}"] if when else []
    who = _ssh_keygen("-Y", "find-principals", *at, "-s", signature, "-f", signers, data=b"")
    names = who.stdout.decode(errors="replace").splitlines()
    if who.returncode or not names:
        known = _key_of(signature) in signers.read_text(errors="replace").split()
        if known and any(word in who.stderr.lower() for word in (b"expired", b"not yet valid")):
            return "expired", "", "the key was not valid at the time of the signature"
        return "unknown signer", "", "no allowed signer has this key"
    words: list[str | Path] = [
        "-Y",
        "verify",
        *at,
        "-f",
        signers,
        "-I",
        names[0],
        "-n",
        NAMESPACE,
        "-s",
        signature,
    ]
    if _ssh_keygen(*words, data=data).returncode:
        return "unknown signer", "", f"the allowed signer {names[0]} may not sign for '{NAMESPACE}'"
    if revoked is not None and _ssh_keygen(*words, "-r", revoked, data=data).returncode:
        return "revoked", names[0], f"the key stands in {revoked.name}"
    return "valid", names[0], ""


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def _ssh_time(signed_at: str) -> str:
    """The time as ssh-keygen reads it; empty for what is no time."""
    try:
        return datetime.fromisoformat(signed_at).strftime("%Y%m%d%H%M%S")
    except ValueError:
        return ""


def _key_of(signature: Path) -> str:
    """The public key in a signature, as lists of keys write it (PROTOCOL.sshsig: magic, version, key)."""
    import base64
    import binascii

    try:
        blob = base64.b64decode("".join(signature.read_text(errors="replace").split("-----")[2].split()))
        length = int.from_bytes(blob[10:14])
        return base64.b64encode(blob[14 : 14 + length]).decode()
    except (IndexError, binascii.Error):
        return ""


def _comment(key: Path) -> str:
    """The comment of the public key beside a private one: mostly whose it is."""
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    try:
        words = public.read_text().split(maxsplit=2)
    except (OSError, UnicodeDecodeError):
        return ""
    return words[2].strip() if len(words) == 3 else ""


def _readable(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(file)) from error

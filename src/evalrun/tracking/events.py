"""The audit trail of a sweep: `events.jsonl`, one JSON line an event, each with the hash of the one before.

Changing, removing or reordering a line breaks every hash after it. Cutting whole lines off the end does not:
that is seen only by someone who kept the last hash elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.atomic import disk_errors, open_private
from evalrun.canonical import canonical_json
from evalrun.secrets import scrub_json
from evalrun.tracking.plain import plain


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


_ACTOR: ContextVar[str] = ContextVar("evalrun_actor", default="")


@contextlib.contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """While this holds, events that name no actor are by this one: who asked a server, say."""
    before = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(before)


FIRST_HASH = "0" * 64
"""`prev_hash` of the first event."""

_TAIL = 1 << 16


def event_hash(event: Mapping[str, Any]) -> str:
    """SHA-256 over `prev_hash` followed by the canonical JSON of the event without its own `hash`."""
    rest = {key: value for key, value in event.items() if key not in {"hash", "prev_hash"}}
    return hashlib.sha256(str(event["prev_hash"]).encode() + canonical_json(rest)).hexdigest()


def append_event(
    path: Path,
    action: str,
    detail: Mapping[str, Any] | None = None,
    *,
    target: str = "",
    actor: str = "",
    durable: bool = True,
) -> dict[str, Any]:
    """Append an event, durably, and give it back. Several processes may append at once. One that need not be
    `durable` by itself becomes so with the next.

    `detail` is scrubbed of secrets. `actor` is who `acting_as` says, else the current user. A line that a
    crash left torn is no event, and is cut off. Raises UserError (exit 3) when the disk is full.
    """
    with disk_errors(path.parent):
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end, last = _last_event(descriptor)
            event: dict[str, Any] = {
                "seq": last["seq"] + 1 if last else 1,
                "ts": utc_now(),
                "actor": actor or _ACTOR.get() or user_name(),
                "action": action,
                "target": target,
                "detail": scrub_json(plain(dict(detail or {}))),
                "prev_hash": last["hash"] if last else FIRST_HASH,
            }
            event["hash"] = event_hash(event)
            os.ftruncate(descriptor, end)
            _write_at(descriptor, canonical_json(event) + b"\n", end)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return event


def last_event(path: Path) -> dict[str, Any] | None:
    """The newest whole event, read from the end of the file; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        last = _last_event(descriptor)[1]
    finally:
        os.close(descriptor)
    return last if last and last["seq"] else None


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events in order, without checking them. Ends at the first line that is not a whole event."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            event = _parse(line)
            if event is None:
                return
            yield event


def verify_events(path: Path) -> int | None:
    """The number (from 1) of the first event that is not what was written there, or None if all are.

    A missing or empty file is broken at 1, since every sweep begins with an event. A last line without its
    end is what a crash leaves, and was never an event.
    """
    expected, previous = 1, FIRST_HASH
    if not path.exists():
        return 1
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            event = _parse(line)
            if (
                event is None
                or event["seq"] != expected
                or event["prev_hash"] != previous
                or event["hash"] != event_hash(event)
            ):
                return expected
            expected, previous = expected + 1, event["hash"]
    return None if expected > 1 else 1


def user_name() -> str:
    """The login name, or the number of the user where no name is known (containers)."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid:{os.getuid()}"


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _last_event(descriptor: int) -> tuple[int, dict[str, Any] | None]:
    """Where the next event begins, and the one before it. A torn last line is left out."""
    size = os.fstat(descriptor).st_size
    tail, start = b"", size
    while start > 0 and tail.count(b"\n") < 2:
        step = min(_TAIL, start)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    if not whole:
        return 0, None
    event = _parse(whole[whole.rfind(b"\n", 0, -1) + 1 :])
    if event is None:
        # Someone damaged the file. Going on from a made-up hash keeps the break where it is.
        return start + len(whole), {"seq": 0, "hash": hashlib.sha256(whole).hexdigest()}
    return start + len(whole), event


def _parse(line: bytes) -> dict[str, Any] | None:
    """An event with the fields that the chain needs, or None."""
    if not line.endswith(b"\n"):
        return None
    try:
        # The standard library keeps integers beyond 64 bits, which would change the hash as floats.
        event = json.loads(line)
    except ValueError:
        return None
    texts = ("ts", "actor", "action", "target", "prev_hash", "hash")
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in texts):
        return None
    seq = event.get("seq")
    return event if type(seq) is int and 0 < seq < 1 << 53 else None

"""The outbox of a sweep: what each sink was sent, beside the finished folder's results.

`outbox/<sink>.jsonl` has a line for each try, durable before the next: {key, digest, address, state,
words, remote, at}. The last line of a key holds. After `kill -9` at most one item is sent twice, which
sinks make one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import orjson

from evalrun.atomic import disk_errors, open_private, private_folder
from evalrun.errors import ExitCode, UserError
from evalrun.secrets import scrub
from evalrun.sinks.base import WORDS, Item, Partly, Refused, Sink, Unreachable
from evalrun.tracking.folder import SweepFolder

OUTBOX, LOCK = "outbox", "lock"
PATIENCE_S, PAUSE_S = 60.0, 0.1
"""How long `sync` waits for another that sends the same sweep, and how often it looks."""

State = Literal["sent", "waits", "parked"]


@dataclass(frozen=True)
class Receipt:
    """What became of an item: sent, waiting for a server that is not reached, or parked with its words."""

    key: str
    digest: str
    address: str
    state: State
    words: str = ""
    remote: str = ""
    at: str = ""


@dataclass(frozen=True)
class Sent:
    """What a sink got of a sweep: `sent` now, `unchanged` since before, `waiting`, `parked`; last words."""

    sweep: str
    sink: str
    sent: int = 0
    unchanged: int = 0
    waiting: int = 0
    parked: int = 0
    words: str = ""

    def then(self, again: Sent) -> Sent:
        """This try and the next one, as one."""
        return replace(again, sent=self.sent + again.sent, unchanged=again.unchanged - self.sent)


def read_receipts(path: Path, address: str) -> dict[str, Receipt]:
    """The last receipt of each key at this address; a line torn by a crash is left out."""
    receipts: dict[str, Receipt] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            receipt = Receipt(**orjson.loads(line))
        except (ValueError, TypeError):
            continue
        if receipt.address == address:
            receipts[receipt.key] = receipt
    return receipts


def deliver(
    folder: SweepFolder,
    name: str,
    sink: Sink,
    *,
    dry_run: bool = False,
    parked_too: bool = True,
) -> Sent:
    """Send what this sink does not have yet. The first item that cannot be delivered ends the tries of this
    call: the others wait. With `dry_run` nothing is sent or written, and all of them count as waiting;
    without `parked_too` what was refused stays so."""
    path, address = folder.path / OUTBOX / f"{name}.jsonl", sink.address
    known = read_receipts(path, address)
    count = {"sent": 0, "unchanged": 0, "waits": 0, "parked": 0}
    words, reachable = "", not dry_run
    for item in sink.items(folder):
        before = known.get(item.key)
        if before and before.state == "sent" and before.digest == item.digest:
            count["unchanged"] += 1
        elif before and before.state == "parked" and before.digest == item.digest and not parked_too:
            count["parked"] += 1
            words = before.words
        elif not reachable:
            count["waits"] += 1
        else:
            receipt = _attempt(item, address, sink)
            append_receipt(path, receipt)
            count[receipt.state] += 1
            words = receipt.words or words
            reachable = receipt.state != "waits"
    sent = Sent(folder.ulid, name, count["sent"], count["unchanged"], count["waits"], count["parked"], words)
    if sent.sent:
        folder.append_event("sink_sent", {"sink": name, "address": address, "items": sent.sent})
    return sent


@contextlib.contextmanager
def sending(folder: SweepFolder) -> Iterator[None]:
    """Hold the sweep's outbox: what another process is sending is not sent beside it. Raises UserError
    (exit 3) where that takes more than a minute. The kernel frees it when the process ends."""
    with disk_errors(folder.path):
        private_folder(folder.path / OUTBOX)
        descriptor = open_private(folder.path / OUTBOX / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        end = time.monotonic() + PATIENCE_S
        while not _held(descriptor):
            if time.monotonic() > end:
                raise UserError(
                    "another evalrun is sending this sweep", where=str(folder.path),
                    remedy="Wait for it to end, and try again.", exit_code=ExitCode.INCOMPLETE,
                )  # fmt: skip
            time.sleep(PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _attempt(item: Item, address: str, sink: Sink) -> Receipt:
    state: State = "sent"
    words = remote = ""
    try:
        remote = sink.send(item)
    except Partly as partly:
        remote, words = partly.remote, str(partly)
    except Refused as refused:
        state, words = "parked", str(refused)
    except Unreachable as unreachable:
        state, words = "waits", str(unreachable)
    except Exception as error:  # a sink's own fault is no reason to leave the others out
        state, words = "parked", scrub(f"{type(error).__name__}: {error}")[:WORDS]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Receipt(item.key, item.digest, address, state, words, remote, now)


def append_receipt(path: Path, receipt: Receipt) -> None:
    """Write a receipt, durably."""
    with disk_errors(path.parent):
        private_folder(path.parent)
        descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # A line of its own even where a crash tore the one before; empty lines are no receipts.
            os.write(descriptor, b"\n" + orjson.dumps(asdict(receipt)) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""What was sent elsewhere: sinks that can delete are asked to, what they hold is sent to them anew, and what
remains there is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import UserError
from evalrun.privacy.plan import Plan
from evalrun.sinks.base import Refused, Sink, Unreachable
from evalrun.sinks.main import from_targets, of_sweep
from evalrun.sinks.outbox import OUTBOX, Receipt, append_receipt, deliver, read_receipts, sending
from evalrun.tracking.folder import SweepFolder

ERASED_SINCE = "rows were erased since: to be sent anew"
_NAMED = 20
"""So many ids of theirs a certificate names of each sink."""


def withdraw(plan: Plan, folders: Sequence[SweepFolder]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Ask every sink that has something of the erased rows' runs to delete it, and send it anew what changed.

    Returns what came of it by sink, and what is left for people to ask. May be called again.
    """
    done: list[dict[str, Any]] = []
    left: list[dict[str, str]] = []
    for folder in folders:
        for path in sorted((folder.path / OUTBOX).glob("*.jsonl")):
            for address in _addresses(path):
                sent = _sent(path, address)
                if sent:
                    outcome, what = _withdraw_from(plan, folder, path, address, sent)
                    done.append(outcome)
                    left += what
    return done, left


def _withdraw_from(
    plan: Plan, folder: SweepFolder, path: Path, address: str, sent: Mapping[str, Receipt]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    name, words = path.stem, ""
    outcome: dict[str, Any] = {"sweep": folder.ulid, "sink": name, "address": address, "deleted": None}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for key in sent:  # a tombstone: the item counts as not sent, so that what is there is replaced
        append_receipt(path, Receipt(key, "", address, "waits", ERASED_SINCE, sent[key].remote, now))
    try:
        sink = _sink(folder, name, address)
        outcome["deleted"] = _deleted(plan, folder, sink, sent)
        with sending(folder) if sink is not None else nullcontext():
            again = None if sink is None else deliver(folder, name, sink)
        outcome["sent_anew"] = 0 if again is None else again.sent
        words = "" if again is None else again.words
    except (Refused, Unreachable, UserError) as error:
        words = str(error)
    if outcome["deleted"] is not None and not words:
        return outcome, []
    remote = [receipt.remote for receipt in sent.values() if receipt.remote]
    ids = ", ".join(dict.fromkeys(remote[:_NAMED])) + (" …" if len(remote) > _NAMED else "")
    what = f"sweep {folder.ulid} was sent to {name} ({address}){f', its ids there: {ids}' if ids else ''}"
    why = f" It did not do so here: {words}." if words else ""
    return outcome, [{"what": what, "do": f"Ask whoever keeps it to erase it there.{why}"}]


def _deleted(plan: Plan, folder: SweepFolder, sink: Sink | None, sent: Mapping[str, Receipt]) -> int | None:
    """How many things the other side deleted; None where it cannot."""
    if sink is None:
        return None
    runs = dict.fromkeys([*plan.rows.get(folder.ulid, ()), *plan.touched.get(folder.ulid, ())])
    counts = []
    for run_id in runs:
        samples = [(name, at) for name in plan.ids for at in range(folder.run(run_id).repeats or 1)]
        receipt = sent.get(f"run/{run_id}")
        counts.append(sink.withdraw(folder, run_id, receipt.remote if receipt else "", samples))
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _sink(folder: SweepFolder, name: str, address: str) -> Sink | None:
    """The sink of that name and address: the suite's, else one made of both; None where none can be."""
    try:
        own = of_sweep(folder).get(name)
        if own is not None and own.address == address:
            return own
        made = from_targets([f"{name}={address}"])[name]
        return made if made.address == address else None
    except (UserError, KeyError):
        return None


def _sent(path: Path, address: str) -> dict[str, Receipt]:
    """What is there, or was before an erasure that could not reach it."""
    return {
        key: receipt
        for key, receipt in read_receipts(path, address).items()
        if receipt.state == "sent" or receipt.words == ERASED_SINCE
    }


def _addresses(path: Path) -> Iterator[str]:
    seen = set()
    for line in path.read_bytes().splitlines():
        try:
            address = str(orjson.loads(line)["address"])
        except (ValueError, TypeError, KeyError):
            continue
        if address not in seen:
            seen.add(address)
            yield address

"""In which order the runs of a model are made, and the record of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from evalrun.suite.plan import RunSpec
from evalrun.tracking.folder import SweepFolder


def in_order(specs: Sequence[RunSpec], seed: int) -> list[RunSpec]:
    """The runs on an endpoint in the order of their digests with the seed.

    A server drifts: it warms up, or others load it. In the suite's order the first model or prompt would
    meet it in one state and the last in another, in every sweep; in this one it is drawn which comes first,
    another seed draws anew, and leaving cells out changes nothing for the others. Runs follow each other
    whole, so that each has a steady window, and a clock, of its own.
    """
    return sorted(specs, key=lambda spec: hashlib.sha256(f"{seed}\x00{spec.run_id}".encode()).digest())


def order_made(folder: SweepFolder) -> list[dict[str, Any]]:
    """What was run when, by the events of the sweep: one entry for each part of each run, in order.

    `done` of `of` samples were there already when the part began; `finished_at` is None where the part was
    ended before its run was.
    """
    parts: list[dict[str, Any]] = []
    open_parts: dict[str, dict[str, Any]] = {}
    for event in folder.events():
        run = event["target"]
        if event["action"] == "begin_run":
            part = {"run": run, "begun_at": event["ts"], "finished_at": None, **event["detail"]}
            parts.append(part)
            open_parts[run] = part
        elif event["action"] == "finish_run" and run in open_parts:
            open_parts.pop(run)["finished_at"] = event["ts"]
    return parts

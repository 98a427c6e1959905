"""The room's door: sinks of a suite or of `--to`, and sending finished sweeps to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evalrun.errors import Problem, UserError
from evalrun.sinks.base import Sink
from evalrun.sinks.outbox import Sent, deliver, sending
from evalrun.suite.components import SinkSpec
from evalrun.suite.findings import from_pydantic
from evalrun.tracking.folder import SweepFolder

SHARE = 0.02
"""So much of a sweep's own time it waits for its sinks; then they go on without it."""

LONGEST_WAIT_S = 30.0

PAUSES_S = (1.0, 4.0, 16.0, 60.0)
"""How long before what waits for a server is tried again; further tries wait as long as the last."""

TRIES, TRIES_VARIABLE = 5, "EVALRUN_SYNC_TRIES"
"""How often the process that a sweep leaves behind tries, where the variable does not say it."""


def from_entries(entries: Sequence[Any], where: str) -> dict[str, Sink]:
    """Sinks by name, of entries as a suite has them. Raises UserError for what is unknown or wrong."""
    try:
        specs = TypeAdapter(list[SinkSpec]).validate_python(list(entries))
    except ValidationError as error:
        found = from_pydantic(error.errors(), list(entries), SinkSpec)
        raise UserError([Problem(item.what, where, item.remedy) for item in found]) from None
    sinks: dict[str, Sink] = {}
    for spec in specs:
        if spec.id in sinks:
            raise UserError(f"'{spec.id}' is named twice", where=where)
        sinks[spec.id] = spec.build()
    return sinks


def from_targets(targets: Sequence[str], content: bool = False, experiment: str = "") -> dict[str, Sink]:
    """Sinks by name, of texts NAME=VALUE: the value is the sink's short form, such as its URL."""
    from evalrun import registry

    entries = []
    for target in targets:
        name, _, value = target.partition("=")
        known = registry.load("sink", name)
        options: dict[str, Any] = {known.shorthand: value} if value and known.shorthand else {}
        given: dict[str, Any] = {"content": content, "experiment": experiment}
        options |= {key: said for key, said in given.items() if said and key in known.Options.model_fields}
        entries.append({name: options})
    return from_entries(entries, "--to")


def of_sweep(folder: SweepFolder) -> dict[str, Sink]:
    """The sinks that the sweep's own suite names."""
    resolved = folder.read_manifest()["suite"].get("resolved") or {}
    return from_entries(resolved.get("sinks") or (), f"sinks of {folder.path.name}")


def sync(
    folder: SweepFolder, sinks: Mapping[str, Sink], *, dry_run: bool = False, tries: int = 1
) -> list[Sent]:
    """Send what the sinks do not have yet of a sweep: what waits for a server up to `tries` times, with
    longer and longer pauses, in which others may send. Raises UserError where the sweep is at work."""
    if folder.is_locked():
        raise UserError("the sweep is at work", where=str(folder.path), remedy="Send it when it has ended.")
    with nullcontext() if dry_run else sending(folder):
        sent = {name: deliver(folder, name, sink, dry_run=dry_run) for name, sink in sinks.items()}
    for number in range(0 if dry_run else tries - 1):
        waiting = [name for name, done in sent.items() if done.waiting]
        if not waiting:
            break
        time.sleep(PAUSES_S[min(number, len(PAUSES_S) - 1)])
        if not folder.path.is_dir() or folder.is_locked():
            break  # deleted, or taken up again: its end will send it
        with sending(folder):
            for name in waiting:
                sent[name] = sent[name].then(deliver(folder, name, sinks[name], parked_too=False))
    return list(sent.values())


def after_sweep(folder: SweepFolder, took_s: float = 100.0) -> str:
    """Send a sweep to the sinks of its suite in a process of its own, and wait for a small share of the time
    that the sweep took. Returns what is to be said of it; raises nothing."""
    store = str(folder.path.parent.parent)
    command = [sys.executable, "-m", "evalrun", "sync", folder.ulid, "--store", store]
    environment = {TRIES_VARIABLE: str(TRIES), **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    again = f"`evalrun sync {folder.ulid}` sends what is left"
    try:
        child = subprocess.Popen(
            command, env=environment, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        code = child.wait(min(LONGEST_WAIT_S, SHARE * took_s))
    except subprocess.TimeoutExpired:
        return f"sinks: results are being sent; {again}"
    except OSError as error:
        return f"sinks: nothing was sent ({error.strerror}); {again}"
    return "" if code == 0 else f"sinks: not everything was taken; {again}"

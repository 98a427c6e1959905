"""Erasing rows from finished sweeps so that the audit trail still verifies.

What is to go is found first (`find`), and written as a plan (`plan`); then each sweep gets its new files
beside the old ones (`stage`), one event that tells of all of them, and the new ones in the place of the old.
A process that is killed anywhere leaves a plan by which the next one goes on; no file is ever half one and
half the other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from evalrun.atomic import sync, write_private
from evalrun.privacy.plan import CERTIFICATE, Plan, overwrite, plan_path
from evalrun.privacy.stage import stage_sweep, told_of
from evalrun.tracking.audit import ERASE
from evalrun.tracking.events import read_events, utc_now
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


def carry_out(store: Store, plan: Plan) -> dict[str, Any]:
    """Erase what a plan says, or what is left of it; returns the certificate. May be called again."""
    from evalrun.privacy.elsewhere import clean_cache, clean_catalog, clean_pages, unreached
    from evalrun.privacy.kept import destroy
    from evalrun.privacy.sent import withdraw

    folders = {folder.ulid: folder for folder in store.folders()}
    sweeps = []
    for ulid, rows in plan.rows.items():
        folder = folders.get(ulid)
        if folder is None:  # deleted since
            continue
        with folder.lock():
            files = _erase_from(folder, plan, rows)
        store.record(folder)
        sweeps.append({"sweep": ulid, "rows": sum(map(len, rows.values())), "files": files})
        store.index(folder)
    touched = [folders[ulid] for ulid in plan.rows if ulid in folders]
    certificate: dict[str, Any] = {
        "erasure": plan.erasure,
        "at": utc_now(),
        "rule": plan.rule,
        "reason": plan.reason,
        "rows": plan.count,
        "numbers_kept": plan.keep_numbers,
        "sweeps": sweeps,
        "cache_entries": clean_cache(store, plan),
        "databases": clean_catalog(store),
        "pages": clean_pages(store, plan, touched),
    }
    certificate["sinks"], asked = withdraw(plan, touched)
    certificate["unreached"] = [*unreached(store, plan, touched), *asked]
    for folder in touched:
        destroy(folder.path)
        if certificate["sinks"]:  # which leaves events
            store.record(folder)
            store.index(folder)
    said = {"erasure": plan.erasure, "rule": plan.rule, "n": plan.count, "sweeps": sorted(plan.rows)}
    if not any(
        event["action"] == ERASE and event["detail"].get("erasure") == plan.erasure
        for event in read_events(store.events_path)
    ):
        store.append_event(ERASE, said)
    place = plan_path(store, plan.erasure)
    write_private(place.with_name(CERTIFICATE), orjson.dumps(certificate, option=orjson.OPT_INDENT_2))
    overwrite(place)
    return certificate


def _erase_from(folder: SweepFolder, plan: Plan, rows: Mapping[str, Sequence[int]]) -> list[str]:
    """Erase rows from one sweep, or finish what was begun; returns the files that changed."""
    stage = folder.path / f".erase-{plan.erasure}"
    told = [
        event
        for event in folder.events()
        if event["action"] == ERASE and event["detail"].get("erasure") == plan.erasure
    ]
    if not told:
        shutil.rmtree(stage, ignore_errors=True)  # begun, and not told of: made anew
        changes, places, touched = stage_sweep(folder, plan, rows, stage)
        detail = {
            "erasure": plan.erasure,
            "rule": plan.rule,
            "reason": plan.reason,
            "n": sum(map(len, rows.values())),
            "numbers_kept": plan.keep_numbers,
            "files": changes,
            "erased": places,
            **({"touched": touched} if touched else {}),
        }
        told = [folder.append_event(ERASE, detail)]
    if stage.is_dir():
        for new in told_of(stage, salts=True):
            target = folder.path / new.relative_to(stage)
            if new.is_dir() and target.is_dir():  # a table of parts: the old one goes with the stage
                target.rename(stage / f"old-{os.urandom(4).hex()}")
            new.replace(target)
            sync(target.parent)
        shutil.rmtree(stage)
    return [str(each["path"]) for each in told[0]["detail"]["files"]]

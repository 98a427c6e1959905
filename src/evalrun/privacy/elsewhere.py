"""What lies outside the sweeps: the cache, the catalog, pages; and what no erasure here can reach."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from evalrun.atomic import write_private
from evalrun.privacy.plan import Plan
from evalrun.privacy.scrub import Scrub, forms
from evalrun.privacy.sealed import SEALED
from evalrun.tracking.folder import EVENTS, SweepFolder
from evalrun.tracking.store import Store

_PAGES = (".html", ".htm", ".md", ".txt", ".json", ".csv", ".xml")


def clean_cache(store: Store, plan: Plan) -> int:
    """Delete what the cache holds of the samples, so that no freed page has it; returns the entries.

    Entries are found by the sample's id (or the digest of a text that was embedded), and by the answer.
    """
    path = store.root / "cache" / "responses.db"
    if not path.is_file():
        return 0
    ids = set(plan.ids) | {
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16].hex() for text in plan.texts
    }
    outputs = set(plan.outputs)
    with _open(path) as connection:
        keys = []
        for key, value, parts in connection.execute("SELECT key, value, parts FROM response"):
            named = parts is not None and str(orjson.loads(parts)[1]) in ids
            if named or (not value.startswith(SEALED) and orjson.loads(value)[0] in outputs):
                keys.append((key,))
        connection.executemany("DELETE FROM response WHERE key = ?", keys)
        connection.commit()
        _forget_freed(connection)
    return len(keys)


def clean_catalog(store: Store) -> list[str]:
    """Write the databases of the store anew, so that no freed page holds what they held; returns them. A
    catalog on a server is its administrator's."""
    done = []
    for path in sorted(store.root.glob("*.db")):
        with contextlib.suppress(sqlite3.DatabaseError), _open(path) as connection:
            _forget_freed(connection)
            done.append(path.name)
    return done


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        yield connection


def _forget_freed(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def pages_in(places: Sequence[Path], folders: Sequence[SweepFolder]) -> list[Path]:
    """Pages and exports in files and folders that are of these sweeps, by the ids that stand in them."""
    ids = [folder.ulid.encode() for folder in folders]
    found = []
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.suffix in _PAGES:
                data = path.read_bytes()
                if any(each in data or each.lower() in data for each in ids):
                    found.append(path)
    return list(dict.fromkeys(found))


def clean_pages(store: Store, plan: Plan, folders: Sequence[SweepFolder]) -> list[str]:
    """Make reports anew; of other pages the texts are taken out. Returns what was written."""
    scrub = Scrub(plan.texts, frozenset(plan.ids))
    done = []
    for name in plan.pages:
        path = Path(name)
        if not path.is_file():
            continue
        data = path.read_bytes()
        of = [each for each in folders if each.ulid.encode() in data or each.ulid.lower() in path.name]
        if path.suffix == ".html" and len(of) == 1:
            from evalrun.reports.report import write_report

            with contextlib.suppress(Exception):  # of a sweep with nothing left there is no report
                write_report(of[0], path)
        new = scrub.page(path.read_bytes())
        if new is not None:
            write_private(path, new)
        done.append(name)
    return done


def unreached(store: Store, plan: Plan, folders: Sequence[SweepFolder]) -> list[dict[str, str]]:
    """What this erasure could not reach, with what to do about each."""
    left = [
        {
            "what": "backups and copies of this store, of its reports and exports",
            "do": "Erase there too, or let them run out.",
        },
        {
            "what": "digests of whole datasets, suites and earlier files (in manifests and trails)",
            "do": "Nothing: only who holds every other row could test a guess with them.",
        },
    ]
    for folder in folders:
        left += [
            {
                "what": f"sweep {folder.ulid}: {event['action']} at {event['ts']}",
                "do": "The other store has a copy: erase there too.",
            }
            for event in folder.events()
            if event["action"] in ("push", "receive", "pull")
        ]
    said = "The trail cannot be edited; it holds words that were erased elsewhere."
    for path in [store.events_path, *(folder.path / EVENTS for folder in folders)]:
        left += [{"what": f"line {number} of {path}", "do": said} for number in _lines_with(path, plan)]
    by_hand = "It is no sweep's: look into it, and erase by hand."
    left += [{"what": str(path), "do": by_hand} for path in _elsewhere(store, plan)]
    from evalrun.tracking.database import catalog_place

    shown = catalog_place(store.root).shown
    if "://" in shown:
        left.append({"what": f"freed pages of the catalog at {shown}", "do": "VACUUM FULL, by who runs it."})
    return left


def _lines_with(path: Path, plan: Plan) -> list[int]:
    if not path.is_file():
        return []
    wanted = [form for text in plan.texts for form in forms(text)]
    lines = path.read_bytes().splitlines()
    return [number for number, line in enumerate(lines, 1) if any(form in line for form in wanted)]


def _elsewhere(store: Store, plan: Plan) -> list[Path]:
    """Other files of the store that have one of the texts."""
    wanted = [form for text in plan.texts for form in forms(text)]
    skipped = {"sweeps", "cache", "keys", "erasures", "events.jsonl", "engines"}
    found = []
    for path in sorted(store.root.rglob("*")):
        if path.is_file() and path.relative_to(store.root).parts[0] not in skipped:
            data: Any = path.read_bytes()
            if any(form in data for form in wanted):
                found.append(path)
    return found

"""The plan of an erasure: which rows, why, and what of them is looked for; kept until all of it is done."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from evalrun.atomic import private_folder, sync, write_private
from evalrun.frozen import frozen
from evalrun.tracking.store import Store

ERASURES, PLAN, CERTIFICATE = "erasures", "plan.json", "certificate.json"
LEAST_ID = 12
"""Ids and texts of fewer characters are not looked for in other rows."""


@frozen
class Rule:
    """Which rows: those of a subject, those that a query holds for, or those with some ids."""

    kind: Literal["subject", "where", "samples", "retention"]
    value: str = ""
    ids: frozenset[str] = frozenset()


@dataclass(slots=True)
class Plan:
    """What is to be erased. `rows` are places in each run's samples as they are, by sweep and run; `ids` and
    `texts` what is looked for elsewhere: they are gone when the erasure is done."""

    erasure: str
    rule: str
    reason: str
    keep_numbers: bool = False
    rows: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    touched: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Other rows that hold a text of those, as an example: it is taken out, and the row stays."""
    journal_lines: int = 0
    """Rows of runs that are not finished."""

    @property
    def count(self) -> int:
        """All rows."""
        finished = sum(len(places) for runs in self.rows.values() for places in runs.values())
        return finished + self.journal_lines


def plan_path(store: Store, erasure: str) -> Path:
    """Where a plan lies while it is carried out."""
    return store.root / ERASURES / erasure / PLAN


def unfinished(store: Store) -> list[Path]:
    """Plans that were not carried out to the end."""
    return sorted((store.root / ERASURES).glob(f"*/{PLAN}"))


def read_plan(path: Path) -> Plan:
    """A plan from disk."""
    return Plan(**orjson.loads(path.read_bytes()))


def write_plan(store: Store, plan: Plan) -> None:
    """Keep a plan, durably: from here on it is carried out, whatever happens."""
    path = plan_path(store, plan.erasure)
    private_folder(path.parent)
    write_private(path, orjson.dumps(asdict(plan)))


def overwrite(path: Path) -> None:
    """Remove a file whose text is not to be left in a free block of the disk."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync(path.parent)

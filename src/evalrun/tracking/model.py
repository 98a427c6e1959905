"""What `sweep.json` holds.

Reading is tolerant: keys that this version does not know are kept, so that a folder of a later version loses
nothing when it passes through. A later `schema_version` is refused, since what is known may mean something
else there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from evalrun.documents import read
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.tracking.events import utc_now as utc_now
from evalrun.types import JSON

SCHEMA_VERSION = 1

SweepStatus: TypeAlias = Literal["running", "complete", "incomplete", "interrupted", "failed"]
"""`running` also stands in the manifest of a sweep whose process was killed: its lock is then free. `failed`
is one that was asked to the end and got no answer at all."""


def check_version(document: Mapping[str, Any], where: Path) -> None:
    """Raise a UserError for a document that a later evalrun wrote in a form of its own."""
    version = document.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"written by a later evalrun (schema version {version}; this one knows {SCHEMA_VERSION})",
            where=str(where),
            remedy="Upgrade evalrun to read it.",
        )


@frozen
class SuiteSource:
    """The suite as it was read (`text`) and as it was understood (`resolved`)."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "allow"}

    path: str = ""
    text: str = ""
    digest: str = ""
    resolved: JSON = None


@frozen
class PlannedRun:
    """One cell of the matrix. `cell_digest` identifies its work, `ablates` names the prompt of which a part
    is left out; a document has them only where they are known."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "allow"}

    run: str
    model: str
    prompt: str
    dataset: str
    params: dict[str, JSON] = field(default_factory=dict)
    repeats: int = 1
    cell_digest: JSON = None
    ablates: JSON = None


@frozen
class SweepManifest:
    """`sweep.json`: what was asked for, of whom, with what, and how it ended. (What came of it are
    `evalrun.sweep_results.SweepResults`, and `RunResults` in each `run.json`.)

    `served` says by model what its server called itself in its answers (`evalrun.served`).
    `spec_digest` identifies the work (suite, data and prompts): a sweep is taken up again by it.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "allow"}

    sweep: str
    name: str
    project: str
    status: SweepStatus = "running"
    started_at: str = field(default_factory=utc_now)
    finished_at: str | None = None
    spec_digest: str = ""
    suite: SuiteSource = field(default_factory=SuiteSource)
    plan: tuple[PlannedRun, ...] = ()
    provenance: dict[str, JSON] = field(default_factory=dict)
    datasets: dict[str, dict[str, JSON]] = field(default_factory=dict)
    prompts: dict[str, dict[str, JSON]] = field(default_factory=dict)
    models: dict[str, dict[str, JSON]] = field(default_factory=dict)
    served: dict[str, dict[str, JSON]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, JSON] = field(default_factory=dict)
    gates: tuple[dict[str, JSON], ...] = ()
    exit_code: int | None = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def read(cls, data: Mapping[str, Any], where: Path) -> SweepManifest:
        """Check a document that was read from `where`. Raises UserError that names the file and the key."""
        check_version(data, where)
        return read(cls, data, where)

    def document(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The document `given` with every key of its form, and with those that this version does not know."""
        cells = zip(self.plan, given.get("plan") or (), strict=True)
        parts = {
            "suite": _whole(self.suite, given.get("suite") or {}),
            "plan": [_whole(planned, cell) for planned, cell in cells],
        }
        return {"schema_version": self.schema_version, **_whole(self, given), **parts}


_SOMETIMES = ("cell_digest", "ablates")


def _whole(checked: SweepManifest | SuiteSource | PlannedRun, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every such document has, then what else was given."""
    names = [name for name in checked.__match_args__ if name not in _SOMETIMES]
    return {name: getattr(checked, name) for name in names} | {
        name: value for name, value in given.items() if name not in names
    }

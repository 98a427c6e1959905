"""What `sweep.json` holds.

Reading is tolerant: keys that this version does not know are kept, so that a folder of a later version loses
nothing when it passes through. A later `schema_version` is refused, since what is known may mean something
else there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalrun.errors import Problem, UserError
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


class SuiteSource(BaseModel):
    """The suite as it was read (`text`) and as it was understood (`resolved`)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    path: str = ""
    text: str = ""
    digest: str = ""
    resolved: JSON = None


class PlannedRun(BaseModel):
    """One cell of the matrix."""

    model_config = ConfigDict(frozen=True, extra="allow")

    run: str
    model: str
    prompt: str
    dataset: str
    params: dict[str, JSON] = Field(default_factory=dict)
    repeats: int = 1


class SweepManifest(BaseModel):
    """`sweep.json`: what was asked for, of whom, with what, and how it ended. (What came of it are
    `evalrun.sweep_results.SweepResults`, and `RunResults` in each `run.json`.)

    `served` says by model what its server called itself in its answers (`evalrun.served`).
    `spec_digest` identifies the work (suite, data and prompts): a sweep is taken up again by it.
    """

    model_config = ConfigDict(frozen=True, extra="allow", coerce_numbers_to_str=True)

    schema_version: int = SCHEMA_VERSION
    sweep: str
    name: str
    project: str
    status: SweepStatus = "running"
    started_at: str = Field(default_factory=utc_now)
    finished_at: str | None = None
    spec_digest: str = ""
    suite: SuiteSource = Field(default_factory=SuiteSource)
    plan: tuple[PlannedRun, ...] = ()
    provenance: dict[str, JSON] = Field(default_factory=dict)
    datasets: dict[str, dict[str, JSON]] = Field(default_factory=dict)
    prompts: dict[str, dict[str, JSON]] = Field(default_factory=dict)
    models: dict[str, dict[str, JSON]] = Field(default_factory=dict)
    served: dict[str, dict[str, JSON]] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    seeds: dict[str, JSON] = Field(default_factory=dict)
    gates: tuple[dict[str, JSON], ...] = ()
    exit_code: int | None = None

    @classmethod
    def read(cls, data: Mapping[str, Any], where: Path) -> Self:
        """Check a document that was read from `where`. Raises UserError that names the file and the keys."""
        check_version(data, where)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UserError(
                [
                    Problem(f"{'.'.join(map(str, each['loc']))}: {each['msg']}", str(where))
                    for each in error.errors()[:10]
                ]
            ) from error

"""Reads a sweep folder: the manifest and the runs' results, and where their Parquet files are.

Only the documented files are read, so that a folder copied from another machine gives the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalrun.analysis.conclude import Concluded, concluded
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.plain import read_document
from evalrun.types import JSON


class Folder(Protocol):
    """What is needed of `evalrun.tracking.folder.SweepFolder`."""

    @property
    def path(self) -> Path: ...

    def read_manifest(self) -> dict[str, Any]: ...

    def run_ids(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A sweep as it lies on disk. `runs` are in the order of the plan, those without results are missing.

    Without a `path` there are only the documents.
    """

    path: Path | None
    manifest: Mapping[str, JSON]
    runs: Sequence[Mapping[str, JSON]]

    @classmethod
    def of(cls, folder: Folder) -> Source:
        """Read the documents of a sweep folder."""
        runs = [read_document(folder.path / "runs" / run_id / "run.json") for run_id in folder.run_ids()]
        return cls(folder.path, folder.read_manifest(), runs)

    def concluded(self) -> Concluded:
        """The documents typed, with what the runs together came to."""
        return concluded(self.manifest, self.runs, None if self.path is None else SweepFolder(self.path))

    @property
    def suite(self) -> Mapping[str, JSON]:
        """The suite as it was understood; empty where the manifest has none."""
        return (self.manifest.get("suite") or {}).get("resolved") or {}

    @property
    def missing(self) -> list[str]:
        """Planned runs without results."""
        present = {run["run"] for run in self.runs}
        return [each["run"] for each in self.manifest.get("plan") or [] if each["run"] not in present]

    def samples(self, run_id: str) -> Path | None:
        """The samples of a run, if they are there."""
        return self._file(run_id, "samples.parquet")

    def system(self, run_id: str) -> Path | None:
        """The resource readings of a run, if they are there."""
        return self._file(run_id, "system.parquet")

    def _file(self, run_id: str, name: str) -> Path | None:
        if self.path is None:
            return None
        path = self.path / "runs" / run_id / name
        return path if path.is_file() else None

"""Production records as the rows of a suite's dataset: `traffic:`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.datasets.formats import ParquetFile
from evalrun.errors import Problem, UserError
from evalrun.paths import default_store
from evalrun.traffic.main import Wanted, take
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec
    from evalrun.suite.traffic import TrafficSpec


class TrafficSource(ParquetFile):
    """The rows that `take` makes: redacted before they are written, to a file that goes with this object.

    Raises UserError as `take` does.
    """

    def __init__(self, spec: DatasetSpec, base_dir: Path, store: Path | None = None) -> None:
        assert spec.traffic is not None
        self._folder = tempfile.TemporaryDirectory(prefix="evalrun-traffic-")
        path = Path(self._folder.name) / "rows.parquet"
        try:
            self.taken = take(wanted(spec.traffic, base_dir, store), path)
        except UserError as error:
            raise UserError(
                [_placed(problem, spec.id) for problem in error.problems], exit_code=error.exit_code
            ) from None
        super().__init__(path, f"dataset {spec.id}")

    @property
    def warnings(self) -> Sequence[str]:
        """What is wrong with the records, and what the weights are worth."""
        return list(self.taken.sentences())

    def describe(self) -> dict[str, JSON]:
        """The files, and all that was counted."""
        told = asdict(self.taken)
        del told["path"]
        return {"kind": "traffic", **told}


def _placed(problem: Problem, dataset: str) -> Problem:
    where = f"dataset {dataset}" + (f", {problem.where}" if problem.where else "")
    return Problem(problem.what, where, problem.remedy)


def wanted(spec: TrafficSpec, base_dir: Path, store: Path | None = None) -> Wanted:
    """What `take` is asked for by the keys of a suite."""
    kept = store or (default_store() if default_store().is_dir() else None)
    now, sample = datetime.now(UTC), spec.sample
    return Wanted(
        path=[base_dir / each for each in spec.path], source=spec.source, where=spec.where, since=spec.since,
        until=spec.until, late=spec.late or "", unit=spec.unit, n=sample.n, rate=sample.rate,
        strata=sample.strata, always=sample.always,
        seed=now.date().isoformat() if sample.seed == "day" else sample.seed,
        kept=spec.kept, map=spec.map, columns=spec.columns, redact=spec.redact, store=kept,
        base_dir=base_dir, now=now,
    )  # fmt: skip

"""Candidates that are made while a search goes on: asked the rows that are wanted, none of them twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.datasets import Item
from evalrun.errors import ExitCode, UserError
from evalrun.gates.conditions import Gate
from evalrun.runner.journal import read_journal
from evalrun.search_results import SearchResults
from evalrun.sweep.blocks import Followed, Judged, Rows
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.phase import Phase


class Halted(Exception):
    """A stop came, or a model cannot be asked: nothing more is sent."""


class Pool:
    """Asks candidates rows, and says their scores as shares. What journals hold is not asked again."""

    def __init__(self, phase: Phase, units: Sequence[Sequence[Item]], by: Judged) -> None:
        self.units = units
        self._phase, self._by = phase, by
        self.jobs: dict[str, MatrixJob] = {}
        self._followed: dict[str, Followed] = {}
        self._asked: dict[str, set[int]] = {}

    def add(self, job: MatrixJob) -> str:
        """Take a candidate in; its name."""
        if job.name not in self.jobs:
            job.folder.make_run_dirs([job.name])
            self.jobs[job.name] = job
            self._followed[job.name] = Followed(job.folder.run_dir(job.name), [self._by.column])
            self._asked[job.name] = set()
        return job.name

    @property
    def calls(self) -> int:
        """Scores made over all candidates."""
        return sum(map(len, self._asked.values()))

    async def ask(self, names: Sequence[str], at: Sequence[int]) -> dict[str, NDArray[np.float64]]:
        """The shares of units by candidate. Raises Halted where they cannot be had."""
        units = [self.units[index] for index in at]
        rows = Rows(list(chain.from_iterable(units)))
        wanted = []
        for name in names:
            first = not self._asked[name]
            self._asked[name].update(at)
            if not self.jobs[name].folder.is_finished(name):
                earlier = None if first else self._followed[name].earlier
                wanted.append(replace(self.jobs[name], samples=rows, finishes=False, earlier=earlier))
        await run_jobs(self._phase, wanted, together=True)
        if self._phase.stop.requested or self._phase.execution.faults:
            raise Halted
        for name in names:
            self._followed[name].read()
        return {name: self._followed[name].means(units, self._by) for name in names}

    async def finish(self, name: str) -> None:
        """Finish the run of a candidate, over all that it was asked."""
        job = self.jobs[name]
        if not job.folder.is_finished(name):
            rows = Rows(list(chain.from_iterable(self.units[at] for at in sorted(self._asked[name]))))
            await run_jobs(self._phase, [replace(job, samples=rows, earlier=self._followed[name].earlier)])

    async def guarded(self, results: SearchResults | None, guards: Sequence[Gate]) -> SearchResults | None:
        """The results with a winner that holds the guards. The runs of all that are left are finished for it:
        only then are their metrics known."""
        from evalrun.search.guards import guarded

        if results is None or not guards:
            return results
        for name in results.race.left:
            await self.finish(name)
        return guarded(results, guards, self.jobs[results.baseline].folder)

    def records(self, name: str) -> dict[str, Mapping[str, Any]]:
        """What a candidate answered, by sample id."""
        run = self.jobs[name].folder.run_dir(name)
        return {record["sample_id"]: record for record in read_journal(run / "journal.jsonl")}


def needs(package: str, what: str) -> UserError:
    """Said where a package of the extra is missing."""
    return UserError(
        f"{what} needs the package {package}",
        remedy="Install it: pip install 'evalrun-llm[search]'.",
        exit_code=ExitCode.USAGE,
    )

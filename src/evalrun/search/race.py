"""The race as it is asked: blocks of rows to every candidate that is left, and a look after each.

Its state is a function of what the journals of the runs hold, and of the seed: one that was killed goes on
where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from evalrun.analysis.race import Race
from evalrun.canonical import seeded_bytes
from evalrun.datasets import Item
from evalrun.runner.cache import ResponseCache
from evalrun.search.conduct import Searching
from evalrun.search.space import Space, asked_order
from evalrun.search_results import SearchResults
from evalrun.sweep.blocks import Followed, Rows
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.phase import Phase

INTERLEAVED = (
    "candidates were asked in blocks, one after the other, as long as they were left: their speed says "
    "nothing of a steady load, and their scores are over unlike numbers of rows"
)


class AskedRace(Searching):
    """Asks the candidates of a search. `results` are there once it has looked."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._alike = space.alike

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Race until it is over or stopped, then finish the run of every candidate."""
        units = asked_order(jobs[0])
        if len(units) == 0:
            return
        kept = replace(phase, needed_later=frozenset(job.model.id for job in jobs))
        own = jobs[0].folder.path / "answers"
        shares = len(set(self._alike.values())) < len(jobs)
        if shares and phase.cache is None and phase.redact is None:
            kept = replace(kept, cache=ResponseCache(own / "responses.db"))
        try:
            followed = {
                job.name: Followed(job.folder.run_dir(job.name), [self._space.by.column]) for job in jobs
            }
            asked = await self._race(kept, {job.name: job for job in jobs}, units, followed)
            if not phase.stop.requested and not phase.execution.faults:
                phase.execution.warnings.append(INTERLEAVED)
                finishing = [
                    replace(job, samples=asked[job.name], earlier=followed[job.name].earlier) for job in jobs
                ]
                await run_jobs(kept, [job for job in finishing if not job.folder.is_finished(job.name)])
                self._guard(jobs[0])
        finally:
            for job in jobs:
                await phase.providers[job.model.id].close()
            if kept.cache is not None and phase.cache is None:
                await kept.cache.close()
        if not phase.stop.requested and not phase.execution.faults:
            shutil.rmtree(own, ignore_errors=True)

    def _guard(self, job: MatrixJob) -> None:
        if self.results is not None and self._space.guards:
            from evalrun.search.guards import guarded

            self.results = guarded(self.results, self._space.guards, job.folder)

    async def _race(
        self,
        phase: Phase,
        jobs: Mapping[str, MatrixJob],
        units: Sequence[Sequence[Item]],
        followed: Mapping[str, Followed],
    ) -> dict[str, Rows]:
        """Race; the rows that each candidate was asked."""
        spec = self._space.spec
        race = Race(list(jobs), units=len(units), alpha=spec.alpha, within=spec.within)
        asked = {name: Rows(()) for name in jobs}
        at = 0
        while not race.over:
            block = units[at : at + spec.block]
            rows = Rows(list(chain.from_iterable(units[: at + spec.block])))
            # Another order each time, drawn: no candidate always meets the server first.
            order = sorted(race.left, key=lambda name: seeded_bytes(phase.suite.seed, "race", at, name))
            asked |= dict.fromkeys(order, rows)
            todo = [jobs[name] for name in order if not jobs[name].folder.is_finished(name)]
            # From the second block on it is known what a run has: its journal is read on, not anew.
            known = {job.name: followed[job.name].earlier if at else None for job in todo}
            asking = [replace(job, samples=rows, finishes=False, earlier=known[job.name]) for job in todo]
            for wave in self._waves(asking):
                await run_jobs(phase, wave, together=True)
            if phase.stop.requested or phase.execution.faults:
                break
            for name in race.left:
                followed[name].read()
            race.tell({name: followed[name].means(block, self._space.by) for name in race.left})
            at += spec.block
            self.results = self._so_far(race)
            said = f"{len(race.left)} of {len(jobs)} candidates left"
            phase.progress.message(f"{said} after {min(at, len(units)):,} of {len(units):,} rows")
        return asked

    def _waves(self, jobs: Sequence[MatrixJob]) -> Iterator[list[MatrixJob]]:
        """Those that ask what no other does, then those that find their answers given."""
        first = {self._alike[job.name]: job for job in reversed(jobs)}
        yield [job for job in jobs if first[self._alike[job.name]] is job]
        if rest := [job for job in jobs if first[self._alike[job.name]] is not job]:
            yield rest

    def _so_far(self, race: Race) -> SearchResults:
        space, found = self._space, race.result()
        most: dict[bytes, int] = {}
        for each in found.candidates:
            asked = self._alike[each.name]
            most[asked] = max(most.get(asked, 0), each.rows)
        return SearchResults(
            metric=space.by.metric,
            baseline=space.baseline.run_id,
            winner=found.best,
            race=found,
            rows=space.rows,
            data=space.data_digest,
            labels=space.labels(),
            axes=(axes := space.axes()),
            effects=race.effects(axes) if race.over else (),
            optimism=race.optimism() if race.over and not space.spec.hold_out else None,
            shared=found.calls - sum(most.values()),
        )

"""The race as it is asked: blocks of rows to every candidate that is left, and a look after each.

Its state is a function of what the journals of the runs hold, and of the seed: one that was killed goes on
where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.race import Race
from evalrun.canonical import seeded_bytes
from evalrun.datasets import Item
from evalrun.runner.journal import read_journal
from evalrun.search_results import SearchResults
from evalrun.sweep.execute import MatrixJob, Phase, run_jobs
from evalrun.tracking.folder import SAMPLES

if TYPE_CHECKING:
    from evalrun.search.space import Space

INTERLEAVED = (
    "candidates were asked in blocks, one after the other, as long as they were left: their speed says "
    "nothing of a steady load, and their scores are over unlike numbers of rows"
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a dataset, in the order in which they are asked."""

    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


class AskedRace:
    """Asks the candidates of a search. `results` are there once it has looked."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.results: SearchResults | None = None

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Race until it is over or stopped, then finish the run of every candidate."""
        units = _units(list(jobs[0].prepared.datasets[jobs[0].spec.dataset.id]))
        if len(units) == 0:
            return
        kept = replace(phase, needed_later=frozenset(job.model.id for job in jobs))
        try:
            asked = await self._race(kept, {job.name: job for job in jobs}, units)
            if not phase.stop.requested and not phase.execution.faults:
                phase.execution.warnings.append(INTERLEAVED)
                finishing = [replace(job, samples=asked[job.name]) for job in jobs]
                await run_jobs(kept, [job for job in finishing if not job.folder.is_finished(job.name)])
        finally:
            for job in jobs:
                await phase.providers[job.model.id].close()

    def document(self) -> dict[str, Any]:
        """What the race came to, as far as it went."""
        said = {"search": asdict(self.results)} if self.results is not None else {}
        return {"previous": None, **said}

    async def _race(
        self, phase: Phase, jobs: Mapping[str, MatrixJob], units: Sequence[Sequence[Item]]
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
            await run_jobs(phase, [replace(job, samples=rows, finishes=False) for job in todo])
            if phase.stop.requested or phase.execution.faults:
                break
            race.tell({name: self._scores(jobs[name], block) for name in race.left})
            at += spec.block
            self.results = self._so_far(race)
            said = f"{len(race.left)} of {len(jobs)} candidates left"
            phase.progress.message(f"{said} after {min(at, len(units)):,} of {len(units):,} rows")
        return asked

    def _so_far(self, race: Race) -> SearchResults:
        space, found = self._space, race.result()
        return SearchResults(
            metric=space.by.metric,
            baseline=space.baseline.run_id,
            winner=found.best,
            race=found,
            rows=space.rows,
            data=space.data_digest,
            labels=space.labels(),
            optimism=race.optimism() if race.over and not space.spec.hold_out else None,
        )

    def _scores(self, job: MatrixJob, block: Sequence[Sequence[Item]]) -> NDArray[np.float64]:
        """The score of each unit of a block: the mean over its rows and their repeats."""
        known = _read_scores(job.folder.run_dir(job.name), self._space.by.column)
        share = self._space.by.share
        means = []
        for unit in block:
            values = [share(value) for item in unit for value in known.get(item.sample_id, ())]
            means.append(sum(values) / len(values) if values else math.nan)
        return np.asarray(means)


def _units(items: Sequence[Item]) -> list[list[Item]]:
    """Rows that belong together, as one; in the order in which the first of each stands."""
    units: dict[str, list[Item]] = {}
    for item in items:
        name = item.sample_id if item.cluster is None else f"cluster {item.cluster}"
        units.setdefault(name, []).append(item)
    return list(units.values())


def _read_scores(run: Path, column: str) -> dict[str, list[float]]:
    """Scores by sample id, one for each repeat that has one: from the journal, or, finished, the samples."""
    newest: dict[tuple[str, int], float | None] = {}
    if (run / SAMPLES).exists():
        import pyarrow.parquet as pq

        name = f"score.{column}"
        with pq.ParquetFile(run / SAMPLES) as file:
            if name in file.schema_arrow.names:
                table = file.read(columns=["sample_id", "repeat", name]).to_pydict()
                pairs = zip(table["sample_id"], table["repeat"], strict=True)
                newest = dict(zip(pairs, table[name], strict=True))
    else:
        for record in read_journal(run / "journal.jsonl"):
            key = (record["sample_id"], record.get("repeat", 0))
            newest[key] = (record.get("scores") or {}).get(column)
    scores: dict[str, list[float]] = {}
    for (sample_id, _), value in newest.items():
        if value is not None:
            scores.setdefault(sample_id, []).append(value)
    return scores

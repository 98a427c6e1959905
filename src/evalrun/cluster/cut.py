"""The shards of runs, cut one by one, and how far each run is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from evalrun.cluster.gather import Gathered
from evalrun.cluster.shard import Shard, ShardDone
from evalrun.datasets import Item
from evalrun.errors import UserError

if TYPE_CHECKING:
    from evalrun.sweep.matrix_job import MatrixJob


@dataclass(slots=True)
class Run:
    """A run that is being asked: `left` shards are not done of those that are cut, which are all once it is
    `whole`."""

    job: MatrixJob
    gathered: Gathered
    prefix: str
    size: int
    started_at: datetime
    began: float
    left: int = 0
    whole: bool = False
    concluded: bool = False
    results: list[ShardDone] = field(default_factory=list)
    fault: UserError | None = None
    again: dict[str, int] = field(default_factory=dict)
    """How often attempts at shards were lost, and what was asked again for it."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A shard that is being asked, the how manieth time."""

    run: Run
    shard: Shard
    tries: int = 1


class Coming:
    """The shards that are still to be asked, cut one by one."""

    def __init__(self, runs: Sequence[Run], size: int, epoch: str) -> None:
        self.again: list[Flight] = []
        self._size, self._epoch = size, epoch
        self._every = (flight for run in runs for flight in self._of(run))

    def take(self) -> Flight | None:
        """The next one whose run goes on; None where there is none."""
        while True:
            flight = self.again.pop() if self.again else next(self._every, None)
            if flight is None or flight.run.fault is None:
                return flight

    def _of(self, run: Run) -> Iterator[Flight]:
        for shard in self._shards(run):
            run.left += 1
            yield Flight(run, shard)
        run.whole = True

    def _shards(self, run: Run) -> Iterator[Shard]:
        """What is left of a run, cut."""
        spec, done = run.job.spec, run.gathered.done
        rows, number = max(1, self._size // spec.repeats), 0
        items: list[Item] = []
        had: set[tuple[str, int]] = set()
        fresh = not done
        for item in run.job.prepared.dataset(spec):
            keys = {(item.sample_id, repeat) for repeat in range(spec.repeats)}
            if keys <= done:
                continue
            items.append(item)
            had |= keys & done
            if len(items) == rows:
                yield self._cut(run, number, items, had, fresh)
                number, items, had = number + 1, [], set()
        if items:
            yield self._cut(run, number, items, had, fresh)

    def _cut(self, run: Run, number: int, items: list[Item], had: set[tuple[str, int]], fresh: bool) -> Shard:
        spec = run.job.spec
        return Shard(
            spec.run_id,
            number,
            f"{run.prefix}/{self._epoch}-{number:06d}",
            items,
            frozenset(had),
            len(items) * spec.repeats,
            run.size,
            first=number == 0 and fresh,
        )

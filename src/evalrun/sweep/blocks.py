"""Runs that are asked block by block: rows in drawn order, and what is known of their scores after each.

What is known is a function of the journals: a sweep that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.canonical import seeded_bytes
from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.lines import read_record
from evalrun.registry import nearest
from evalrun.runner.journal import Earlier
from evalrun.scoring.base import MetricInfo, Scorer
from evalrun.scoring.pipeline import suite_scorers
from evalrun.tracking.folder import SAMPLES
from evalrun.types import Status

if TYPE_CHECKING:
    from evalrun.suite.load import LoadedSuite


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a dataset, in the order in which they are asked."""

    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Judged:
    """The score that runs are looked at by: the column, its metric, and its bounds."""

    column: str
    metric: str
    low: float
    high: float
    higher: bool

    @property
    def width(self) -> float:
        """From the least to the greatest score."""
        return self.high - self.low

    def share(self, value: float) -> float:
        """A score as the share of what is possible, 1 the best. One outside the bounds is put on them."""
        place = min(1.0, max(0.0, (value - self.low) / self.width))
        return place if self.higher else 1 - place

    def score(self, share: float) -> float:
        """The score of a share."""
        return self.low + self.width * (share if self.higher else 1 - share)


def judged_by(loaded: LoadedSuite, metric: str | None, where: str) -> tuple[Judged, Sequence[Scorer]]:
    """The score that decides, by its name or its metric's (None: the first), and all scorers. Raises
    UserError where nothing can be decided by it while the answers come."""
    scorers = suite_scorers(loaded.suite)
    names: dict[str, tuple[Scorer, MetricInfo]] = {}
    for scorer in scorers:
        info = scorer.metrics()[0]
        names[scorer.name] = names[info.name] = (scorer, info)
    metric = metric or scorers[0].name
    if metric not in names:
        near = nearest(metric, names)
        raise UserError(
            f"'{metric}' is not the mean of a score of this suite, which candidates can be compared by",
            where=where,
            remedy=f"Did you mean '{near}'?" if near else f"There are: {', '.join(names)}.",
        )
    scorer, info = names[metric]
    low, high = info.bounds
    if scorer.late or scorer.asks:
        raise UserError(
            f"the score {scorer.name} is made after all answers are there, and one looks after each block",
            where=where,
            remedy="Decide by a score that is made at once, and look at this one at the end.",
        )
    if low is None or high is None or not low < high:
        raise UserError(
            f"the score {scorer.name} has no bounds, without which no test holds however often one looks",
            where=where,
            remedy="Decide by a score between known bounds, such as one from 0 to 1.",
        )
    return Judged(scorer.name, info.name, low, high, info.direction != "lower"), scorers


def units_of(items: Iterable[Item]) -> list[list[Item]]:
    """Rows that belong together, as one; in the order in which the first of each stands."""
    units: dict[str, list[Item]] = {}
    for item in items:
        name = item.sample_id if item.cluster is None else f"cluster {item.cluster}"
        units.setdefault(name, []).append(item)
    return list(units.values())


def drawn(units: Sequence[Sequence[Item]], seed: int) -> list[Sequence[Item]]:
    """Units in an order that depends on the seed and on each of them alone: a file sorted by its labels is
    not asked label by label."""
    return sorted(units, key=lambda unit: seeded_bytes(seed, "block", unit[0].cluster or unit[0].sample_id))


@dataclass(slots=True)
class Followed:
    """What the journal of a run says of some scores, read on from where it was read last; of a run that is
    finished, its samples."""

    run: Path
    columns: Sequence[str]
    excluded: bool = False
    """Whether answers that no parser could read are left out."""
    _at: int = 0
    _whole: bool = False
    _done: set[tuple[str, int]] = field(default_factory=set)
    _failed: set[tuple[str, int]] = field(default_factory=set)
    _clock_s: float = 0.0
    _scores: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)

    def read(self) -> None:
        """Read what was added."""
        if self._whole:
            return
        if (self.run / SAMPLES).exists():
            self._read_samples()
            return
        journal = self.run / "journal.jsonl"
        size = journal.stat().st_size if journal.exists() else 0
        if size < self._at:  # another one was begun
            self._at = 0
            for known in (self._done, self._failed, self._scores):
                known.clear()
        if size == self._at:
            return
        with journal.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                if (record := read_record(line)) is not None:
                    self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        key = (record["sample_id"], record.get("repeat", 0))
        failed = record.get("status") == Status.FAILED
        (self._done if failed else self._failed).discard(key)
        (self._failed if failed else self._done).add(key)
        self._clock_s = max(self._clock_s, record.get("done_s") or 0.0)
        scores = record.get("scores") or {}
        self._enter(key, record.get("status"), {column: scores.get(column) for column in self.columns})

    def _enter(self, key: tuple[str, int], status: Any, scores: Mapping[str, float | None]) -> None:
        counts = not (self.excluded and status != Status.SCORED)
        for column, value in scores.items():
            of_sample = self._scores.setdefault(column, {}).setdefault(key[0], {})
            of_sample.pop(key[1], None)
            if value is not None and counts:
                of_sample[key[1]] = float(value)

    def _read_samples(self) -> None:
        from evalrun.tracking.parquet import reading

        self._scores.clear()
        with reading(self.run / SAMPLES) as file:
            there = {column: f"score.{column}" for column in self.columns}
            there = {column: name for column, name in there.items() if name in file.schema_arrow.names}
            table = file.read(columns=["sample_id", "repeat", "status", *there.values()]).to_pydict()
        for at, key in enumerate(zip(table["sample_id"], table["repeat"], strict=True)):
            self._enter(key, table["status"][at], {column: table[name][at] for column, name in there.items()})
        self._whole = True

    @property
    def earlier(self) -> Earlier:
        """What is done, as a run that goes on takes it up."""
        return Earlier(set(self._done), self._clock_s, set(self._failed), 0)

    def has_all(self, items: Iterable[Item], repeats: int) -> bool:
        """Whether each of these samples has ended, one way or another."""
        if self._whole:
            return True
        return all(
            key in self._done or key in self._failed
            for item in items
            for key in ((item.sample_id, repeat) for repeat in range(repeats))
        )

    def means(self, units: Sequence[Sequence[Item]], by: Judged) -> NDArray[np.float64]:
        """The share of each unit: the mean over its rows and their repeats, NaN where there is none."""
        known = self._scores.get(by.column, {})
        means = []
        for unit in units:
            values = [by.share(value) for item in unit for value in known.get(item.sample_id, {}).values()]
            means.append(sum(values) / len(values) if values else math.nan)
        return np.asarray(means, dtype=np.float64)

"""The few figures that the report needs of every sample of a run: its score, its cluster, its error.

Text never stays in memory: sample ids and clusters are codes, so a run of 100,000 samples takes a few
megabytes. Ids are hashes of this process, so that the runs of one report can be joined.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.types import Status

STATUS_CODES: Mapping[str, int] = {status.value: code for code, status in enumerate(Status)}
"""Codes of the four endings, in the order of `Status`; the sample browser reads the same."""

_BATCH = 8192
_ERROR_KINDS = 12
_QUOTED = re.compile(r" in( the JSON)? '.*'$", re.DOTALL)
"""The end of a parser's reason that quotes what the model wrote, which differs from sample to sample."""


@dataclass(frozen=True, slots=True)
class RunColumns:
    """Arrays of equal length, one entry a sample and repeat.

    `score` is NaN where the sample has none. `cluster` is None where the dataset names none. `errors` counts
    failed and unparsed samples by (status, kind).
    """

    ids: Any
    score: Any
    cluster: Any | None = None
    errors: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def by_sample(self) -> BySample:
        """The sample ids that have a score, each with the mean score over its repeats."""
        import numpy as np

        scored = ~np.isnan(self.score)
        ids, first, codes = np.unique(self.ids[scored], return_index=True, return_inverse=True)
        means = np.bincount(codes, weights=self.score[scored]) / np.bincount(codes) if len(ids) else first
        clusters = None if self.cluster is None else self.cluster[scored][first]
        return BySample(ids, means, first, clusters)


@dataclass(frozen=True, slots=True)
class BySample:
    """Arrays of equal length, one entry a sample id, sorted by id; `first` is the id's place in the run."""

    ids: Any
    means: Any
    first: Any
    clusters: Any | None


def joined(runs: Sequence[RunColumns]) -> tuple[Any, Any | None]:
    """Scores of the samples that all runs have, shape (n, k), and their clusters (n,) or None.

    Rows stand in the order of the first run: ids are hashes of this process, and an order by them would give
    other resamples each time.
    """
    import numpy as np

    parts = [run.by_sample() for run in runs]
    common = parts[0].ids
    for part in parts[1:]:
        common = np.intersect1d(common, part.ids, assume_unique=True)
    places = [np.searchsorted(part.ids, common) for part in parts]
    order = np.argsort(parts[0].first[places[0]])
    columns = [part.means[place][order] for part, place in zip(parts, places, strict=True)]
    values = np.stack(columns, axis=1).astype(np.float64)
    clusters = parts[0].clusters
    if clusters is None:
        return values, None
    # Numbered by first appearance, since hashes have another order in each process.
    _, first, codes = np.unique(clusters[places[0]][order], return_index=True, return_inverse=True)
    return values, np.argsort(np.argsort(first))[codes]


class _Gathered:
    """Small arrays of the batches read so far."""

    def __init__(self, score: str | None, scored_only: bool) -> None:
        self.score = f"score.{score}" if score else ""
        self.scored_only = scored_only
        self.arrays: dict[str, list[Any]] = {name: [] for name in ("ids", "cluster", "score")}
        self.errors: Counter[tuple[str, str]] = Counter()
        self.clustered = False

    @property
    def columns(self) -> set[str]:
        plain = {"sample_id", "status", "error", "cluster"}
        return plain | {self.score} if self.score else plain

    def take(self, batch: Any) -> None:
        n = batch.num_rows
        self.arrays["ids"].append(hashes(batch, "sample_id"))
        self.arrays["cluster"].append(hashes(batch, "cluster"))
        present = batch.schema.names
        if "cluster" in present and batch.column("cluster").null_count < n:
            self.clustered = True
        self.arrays["score"].append(self._scores(batch))
        if "error" in present and batch.column("error").null_count < n:
            self._count_errors(batch)

    def _scores(self, batch: Any) -> Any:
        scores = floats(batch, self.score)
        if self.scored_only and "status" in batch.schema.names:
            for at, status in enumerate(batch.column("status").to_pylist()):
                if status != Status.SCORED:
                    scores[at] = float("nan")
        return scores

    def _count_errors(self, batch: Any) -> None:
        statuses, errors = batch.column("status").to_pylist(), batch.column("error").to_pylist()
        for status, error in zip(statuses, errors, strict=True):
            if error and status in (Status.FAILED, Status.UNPARSED):
                self.errors[status, _kind(status, error)] += 1

    def result(self) -> RunColumns:
        import numpy as np

        joined = {
            name: np.concatenate(parts) if parts else np.empty(0) for name, parts in self.arrays.items()
        }
        return RunColumns(
            ids=joined["ids"],
            score=joined["score"],
            cluster=joined["cluster"] if self.clustered else None,
            errors=dict(self.errors.most_common(_ERROR_KINDS)),
        )


def _kind(status: str, error: str) -> str:
    """`timeout` of `timeout: no answer within 120 s`; a parser's reason without the output it quotes."""
    if status == Status.FAILED:
        return error.partition(":")[0][:60]
    quoted = _QUOTED.search(error)
    if quoted is None:
        return error[:100]
    return (error[: quoted.start()] + (" in the JSON" if quoted[1] else " in the output"))[:100]


def hashes(batch: Any, name: str) -> Any:
    """Hashes of a column of texts; 0 for null."""
    import numpy as np

    n = batch.num_rows
    if name not in batch.schema.names:
        return np.zeros(n, np.int64)
    return np.fromiter((0 if v is None else hash(v) for v in batch.column(name).to_pylist()), np.int64, n)


def floats(batch: Any, name: str) -> Any:
    """A column of numbers; NaN for null. No pyarrow.compute here: it imports pandas, which is slow."""
    import numpy as np

    n = batch.num_rows
    if not name or name not in batch.schema.names:
        return np.full(n, np.nan)
    values = batch.column(name).to_pylist()
    return np.fromiter((np.nan if v is None else v for v in values), np.float64, n)


def read_columns(path: Path, score: str | None, *, scored_only: bool = False) -> RunColumns:
    """Read a run's `samples.parquet`; `score` names the score that counts (`score.<name>`), if any.

    `scored_only` leaves out the scores of unparsed and refused samples (suite: `unparsed: exclude`).
    """
    import pyarrow.parquet as pq

    gathered = _Gathered(score, scored_only)
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in gathered.columns]
        for batch in file.iter_batches(batch_size=_BATCH, columns=names):
            gathered.take(batch)
    return gathered.result()

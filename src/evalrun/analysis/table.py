"""The samples of one run as columns, which is all that analysis needs of them.

A table of 100,000 samples takes some 15 MB: texts are kept as codes, and answers and targets are read from
the file only when a scorer asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.columns import Coder, IdCoder, read_parquet, texts_of
from evalrun.scoring.base import Labelled, as_text
from evalrun.types import Counts, SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.analysis.columns import Read

STATUS_CODES: Mapping[Status, int] = {status: code for code, status in enumerate(Status)}
"""Codes of the four endings, in the order of `Status`."""

NUMBERS = (
    "ttft_s",
    "e2e_s",
    "tpot_s",
    "client_queue_s",
    "sent_s",
    "done_s",
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
)
"""Columns of measured numbers, NaN where a sample has none."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SampleTable:
    """One entry a sample and repeat, in an order that depends on sample id and repeat only, not on the file.

    `ids` are codes of the sample ids (0 … distinct - 1), `status` codes of STATUS_CODES. `scores` is keyed as
    `SampleRecord.scores`. `clusters` is None where the dataset names none; a sample without a cluster is one
    of its own. `sensitive` holds -1 where the group is missing.
    """

    ids: NDArray[np.int32]
    status: NDArray[np.int8]
    cached: Mask
    warmup: Mask
    attempts: NDArray[np.int32]
    numbers: Mapping[str, Floats]
    scores: Mapping[str, Floats]
    sensitive: Mapping[str, Labelled] = field(default_factory=dict)
    clusters: NDArray[np.int32] | None = None
    source: Path | None = None
    order: NDArray[np.int64] | None = None
    """Position in the source of each entry."""
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """Hashes of the distinct sample ids, sorted; entry i is that of code i. Runs are joined by them."""
    given: tuple[Labelled, Labelled] | None = None
    names: tuple[str, ...] | None = None
    """The sample ids, where they are at hand."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def distinct(self) -> int:
        """Number of sample ids; smaller than the number of samples where there are repeats."""
        return int(self.ids[-1]) + 1 if len(self.ids) else 0

    @cached_property
    def answered(self) -> Mask:
        """Samples that got an answer, parsed or not: all but the failed."""
        return np.not_equal(self.status, STATUS_CODES[Status.FAILED])

    def is_status(self, status: Status) -> Mask:
        """Samples that ended so."""
        return np.equal(self.status, STATUS_CODES[status])

    def number(self, name: str) -> Floats:
        """A column of NUMBERS; all NaN where the file has none."""
        found = self.numbers.get(name)
        return np.full(len(self), np.nan) if found is None else found

    def sample_ids(self) -> Sequence[str]:
        """The sample id of each entry, read from the file when asked for: they are not kept."""
        if self.names is not None:
            return self.names
        if self.source is None or self.order is None:
            return [""] * len(self)
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.source, pre_buffer=False) as file:
            column = file.read(columns=["sample_id"], use_threads=False).column(0).to_pylist()
        return [column[at] for at in self.order.tolist()]

    def with_groups(self, groups: Mapping[str, Mapping[str, str | None]]) -> SampleTable:
        """The table with further columns of groups, each given by sample id."""
        ids = self.sample_ids()
        added = {name: _coded([by_id.get(each) for each in ids]) for name, by_id in groups.items()}
        return replace(self, sensitive={**self.sensitive, **added})

    def texts(self) -> tuple[Labelled, Labelled]:
        """Answers and targets as codes, read from the file when first asked for."""
        return self._texts

    @cached_property
    def _texts(self) -> tuple[Labelled, Labelled]:
        if self.given is not None:
            return self.given
        if self.source is None:
            nothing = Labelled(np.full(len(self), -1, np.int32), ())
            return nothing, nothing
        answers, targets = (texts_of(self.source, name) for name in ("answer", "target"))
        assert self.order is not None
        return (
            Labelled(answers.codes[self.order], answers.labels),
            Labelled(targets.codes[self.order], targets.labels),
        )

    def counts(self) -> Counts:
        """How the samples ended."""
        totals = np.bincount(self.status, minlength=len(STATUS_CODES)).tolist()
        return Counts(
            samples=len(self),
            scored=totals[STATUS_CODES[Status.SCORED]],
            unparsed=totals[STATUS_CODES[Status.UNPARSED]],
            refused=totals[STATUS_CODES[Status.REFUSED]],
            failed=totals[STATUS_CODES[Status.FAILED]],
            cached=int(self.cached.sum()),
            warmup=int(self.warmup.sum()),
            retried=int((self.attempts > 1).sum()),
        )

    @classmethod
    def from_parquet(cls, path: Path, columns: Sequence[str] | None = None) -> SampleTable:
        """Read `samples.parquet`, batch by batch and only the columns that analysis needs.

        `columns` narrows that further, by their names in the file; sample_id, repeat and status are always
        read.
        """
        return cls._made(read_parquet(path, NUMBERS, columns), source=path)

    @classmethod
    def _made(
        cls,
        read: Read,
        source: Path | None = None,
        given: tuple[Labelled, Labelled] | None = None,
        names: Sequence[str] | None = None,
    ) -> SampleTable:
        """The table in its order. Empties `read`, so that no column is held twice."""
        order = np.lexsort((read.repeat, read.ids))
        clusters = None
        if read.clusters is not None:
            clusters = _own_clusters(read.clusters.codes, read.ids, len(read.clusters.labels))[order]
        status = np.array([STATUS_CODES[Status(name)] for name in read.status.labels], np.int8)
        return cls(
            ids=read.ids[order],
            status=status[read.status.codes[order]] if len(status) else np.empty(0, np.int8),
            cached=read.cached[order],
            warmup=read.warmup[order],
            attempts=read.attempts[order],
            numbers={name: read.numbers.pop(name)[order] for name in list(read.numbers)},
            scores={name: read.scores.pop(name)[order] for name in list(read.scores)},
            sensitive={
                name: Labelled(column.codes[order], column.labels) for name, column in read.sensitive.items()
            },
            clusters=clusters,
            source=source,
            order=order if source is not None else None,
            keys=read.keys,
            given=None
            if given is None
            else (
                Labelled(given[0].codes[order], given[0].labels),
                Labelled(given[1].codes[order], given[1].labels),
            ),
            names=None if names is None else tuple(names[at] for at in order.tolist()),
        )

    @classmethod
    def from_records(cls, records: Iterable[SampleRecord]) -> SampleTable:
        """The table of records at hand (small runs, tests)."""
        from evalrun.analysis.columns import Read

        rows = list(records)
        n = len(rows)
        score_names = sorted({name for row in rows for name in row.scores})
        ids = IdCoder()
        ids.add(row.sample_id for row in rows)
        sensitive_names = sorted({name for row in rows for name in row.sensitive})
        read = Read(
            ids=ids.result(),
            keys=ids.keys,
            repeat=np.array([row.repeat for row in rows], np.int32),
            status=_coded([row.status.value for row in rows]),
            cached=np.array([row.cached for row in rows], np.bool_),
            warmup=np.array([row.warmup for row in rows], np.bool_),
            attempts=np.array([row.attempts for row in rows], np.int32),
            numbers={name: _floats([getattr(row, name) for row in rows], n) for name in NUMBERS},
            scores={name: _floats([row.scores.get(name) for row in rows], n) for name in score_names},
            sensitive={name: _coded([row.sensitive.get(name) for row in rows]) for name in sensitive_names},
            clusters=_coded([row.cluster for row in rows])
            if any(row.cluster is not None for row in rows)
            else None,
        )
        texts = [
            _coded([None if value is None else as_text(value) for value in column])
            for column in ([row.answer for row in rows], [row.target for row in rows])
        ]
        return cls._made(read, given=(texts[0], texts[1]), names=[row.sample_id for row in rows])


def _coded(values: Sequence[str | None]) -> Labelled:
    coder = Coder()
    coder.add(values)
    return coder.result()


def _floats(values: Sequence[float | None], n: int) -> Floats:
    return np.fromiter((np.nan if value is None else float(value) for value in values), np.float64, n)


def _own_clusters(codes: NDArray[np.int32], ids: NDArray[np.int32], known: int) -> NDArray[np.int32]:
    """Cluster codes in which every sample id without a cluster is a cluster of its own."""
    return np.where(codes < 0, known + ids, codes).astype(np.int32)

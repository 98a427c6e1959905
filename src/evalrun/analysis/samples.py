"""The samples of one run as columns, read from `samples.parquet` batch by batch: all that analysis needs.

A table of 100,000 samples takes some 15 MB: texts are kept as codes, and answers and targets are read from
the file only when a scorer asks for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.scoring.columns import Labelled, as_text
from evalrun.tracking.parquet import reading
from evalrun.types import Counts, Status

BATCH = 8_192
"""Rows in memory at once while reading. One thread reads, without read-ahead: that keeps memory flat."""

LABEL_CHARACTERS = 200
"""Longer answers and targets are cut when they are read as labels."""

Floats = NDArray[np.float64]


@frozen
class Read:
    """What was read, in the order of the file."""

    ids: NDArray[np.int32]
    keys: NDArray[np.uint64]
    repeat: NDArray[np.int32]
    status: Labelled
    cached: NDArray[np.bool_]
    warmup: NDArray[np.bool_]
    attempts: NDArray[np.int32]
    numbers: dict[str, Floats]
    scores: dict[str, Floats]
    sensitive: dict[str, Labelled]
    clusters: Labelled | None


class Coder:
    """Turns texts that come in batches into codes; in the end the labels are sorted and the codes follow."""

    def __init__(self, longest: int | None = None) -> None:
        """Labels are cut to `longest` characters."""
        self._longest = longest
        self._known: dict[str, int] = {}
        self._parts: list[NDArray[np.int32]] = []

    def add(self, values: Iterable[str | None]) -> None:
        """Code one batch."""
        known = self._known
        codes = [-1 if value is None else known.setdefault(value, len(known)) for value in values]
        self._parts.append(np.array(codes, np.int32))

    def add_arrow(self, column: Any) -> None:
        """Code one batch of an Arrow column, each distinct text once."""
        import pyarrow as pa

        if pa.types.is_null(column.type):
            self._parts.append(np.full(len(column), -1, np.int32))
            return
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        known = self._known
        labels = [
            -1 if label is None else known.setdefault(as_text(label)[: self._longest], len(known))
            for label in column.dictionary.to_pylist()
        ]
        table = np.array([*labels, -1], np.int32)
        self._parts.append(table[plain_values(column.indices, np.int32, -1)])

    def result(self) -> Labelled:
        """All batches as one column."""
        codes = np.concatenate(self._parts) if self._parts else np.empty(0, np.int32)
        labels = sorted(self._known)
        rank = np.empty(len(labels) + 1, np.int32)
        rank[[self._known[label] for label in labels]] = np.arange(len(labels), dtype=np.int32)
        rank[-1] = -1
        return Labelled(rank[codes], tuple(labels))


def read_parquet(path: Path, numbers: Sequence[str], columns: Sequence[str] | None = None) -> Read:
    """Everything of a run's samples that metrics are made from, without prompts, outputs and reasons."""
    with reading(path) as plain:
        wanted = _wanted(plain.schema_arrow.names, numbers, columns)
    if not {"sample_id", "status"} <= {*wanted}:
        raise UserError("is no file of samples: it has no column 'sample_id' or 'status'", where=str(path))
    gatherers = {name: _gatherer(name, numbers) for name in wanted}
    coded = [name for name, gatherer in gatherers.items() if isinstance(gatherer, Coder)]
    with reading(path, coded, like=plain) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=wanted, use_threads=False):
            for name, gatherer in gatherers.items():
                gatherer.add_arrow(batch.column(name))
    # One after the other out of the mapping, so that no column is held twice.
    ids = gatherers["sample_id"]
    made: dict[str, Any] = {name: gatherers.pop(name).result() for name in wanted}
    assert isinstance(ids, IdCoder)
    n = len(made["sample_id"])
    cluster: Labelled | None = made.get("cluster")
    return Read(
        ids=made["sample_id"],
        keys=ids.keys,
        repeat=made.get("repeat", np.zeros(n, np.int32)),
        status=made["status"],
        cached=made.get("cached", np.zeros(n, np.bool_)),
        warmup=made.get("warmup", np.zeros(n, np.bool_)),
        attempts=made.get("attempts", np.ones(n, np.int32)),
        numbers={name: made[name] for name in numbers if name in made},
        scores=_with_prefix(made, "score."),
        sensitive=_with_prefix(made, "sensitive."),
        # The column is always there; without a single label it says that the dataset names no cluster.
        clusters=cluster if cluster is not None and cluster.labels else None,
    )


def _wanted(present: Sequence[str], numbers: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    always = ("sample_id", "repeat", "status")
    also = {*numbers, "cached", "warmup", "attempts", "cluster"}
    return [
        name
        for name in present
        if name in always
        or (
            (name in also or name.startswith(("score.", "sensitive.")))
            and (columns is None or name in columns)
        )
    ]


def _gatherer(name: str, numbers: Sequence[str]) -> Coder | IdCoder | _Values:
    if name == "sample_id":
        return IdCoder()
    if name in ("status", "cluster") or name.startswith("sensitive."):
        return Coder()
    if name in numbers or name.startswith("score."):
        return _Values(np.float64, np.nan)
    return _Values(np.bool_, False) if name in ("cached", "warmup") else _Values(np.int32, 0)


class _Values:
    """Gathers numbers or flags; `missing` stands for null."""

    def __init__(self, kind: type[np.generic], missing: float) -> None:
        self._kind = kind
        self._missing = missing
        self._parts: list[NDArray[Any]] = []

    def add_arrow(self, column: Any) -> None:
        self._parts.append(plain_values(column, self._kind, self._missing))

    def result(self) -> NDArray[Any]:
        return np.concatenate(self._parts) if self._parts else np.empty(0, self._kind)


class IdCoder:
    """Turns sample ids into codes 0 … distinct - 1 that depend on the set of ids and not on their order.

    Only a 64-bit hash of each is held (BLAKE2b, the same in every process); the codes are in the order of the
    hashes. Two of a million ids collide with a chance of 3 in 100 million.
    """

    keys: NDArray[np.uint64]
    """The distinct hashes, sorted, once there is a result: entry i is that of code i."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint64]] = []

    def add_arrow(self, column: Any) -> None:
        """Code one batch of an Arrow column."""
        hashes = b"".join(
            [
                blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                for sample_id in column.to_pylist()
            ]
        )
        self._parts.append(np.frombuffer(hashes, np.dtype("<u8")))

    def result(self) -> NDArray[np.int32]:
        """The codes of all batches."""
        hashes = np.concatenate(self._parts) if self._parts else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        ranked = hashes[order]
        new = np.ones(len(ranked), np.bool_)
        new[1:] = ranked[1:] != ranked[:-1]
        self.keys = ranked[new]
        codes = np.empty(len(ranked), np.int32)
        codes[order] = np.cumsum(new) - 1
        return codes


def plain_values(column: Any, kind: type[np.generic], missing: float) -> NDArray[Any]:
    """An Arrow array of numbers or flags as numpy, with `missing` for null.

    Read from the buffers: `to_numpy` and `fill_null` import pandas, which costs 0.4 s, and Arrow's own casts
    import `pyarrow.compute`.
    """
    import pyarrow as pa

    if pa.types.is_null(column.type):
        return np.full(len(column), missing, kind)
    valid, data = column.buffers()
    if data is None:
        return np.full(len(column), missing, kind)
    place = slice(column.offset, column.offset + len(column))
    if pa.types.is_boolean(column.type):
        values = _bits(data, place).astype(kind)
    else:
        values = np.frombuffer(data, column.type.to_pandas_dtype())[place].astype(kind)
    if column.null_count:
        values[~_bits(valid, place)] = missing
    return values


def _bits(bitmap: Any, place: slice) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[place].astype(np.bool_)


def _with_prefix(columns: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}


def texts_of(path: Path, name: str) -> Labelled:
    """One text column (`answer`, `target`) as codes; labels are cut to LABEL_CHARACTERS."""
    coder = Coder(LABEL_CHARACTERS)
    with reading(path) as file:
        if name not in file.schema_arrow.names:
            return Labelled(np.full(file.metadata.num_rows, -1, np.int32), ())
        for batch in file.iter_batches(batch_size=BATCH, columns=[name], use_threads=False):
            coder.add_arrow(batch.column(0))
    return coder.result()


_ERROR_KINDS = 12
_QUOTED = re.compile(r" in( the JSON)? '.*'$", re.DOTALL)
"""The end of a parser's reason that quotes what the model wrote, which differs from sample to sample."""


def error_counts(path: Path) -> dict[str, dict[str, int]]:
    """The commonest reasons for which samples failed or could not be parsed: {status: {reason: samples}}."""
    counts: Counter[tuple[str, str]] = Counter()
    with reading(path) as file:
        if "error" not in file.schema_arrow.names:
            return {}
        for batch in file.iter_batches(batch_size=BATCH, columns=["status", "error"], use_threads=False):
            if batch.column("error").null_count < batch.num_rows:
                pairs = zip(
                    batch.column("status").to_pylist(), batch.column("error").to_pylist(), strict=True
                )
                counts.update((status, _reason(status, error)) for status, error in pairs if error)
    found: dict[str, dict[str, int]] = {}
    for (status, kind), count in counts.most_common(_ERROR_KINDS):
        if status in (Status.FAILED, Status.UNPARSED):
            found.setdefault(status, {})[kind] = count
    return found


def _reason(status: str, error: str) -> str:
    """`timeout` of `timeout: no answer within 120 s`; a parser's reason without the output it quotes."""
    if status == Status.FAILED:
        return error.partition(":")[0][:60]
    quoted = _QUOTED.search(error)
    if quoted is None:
        return error[:100]
    return (error[: quoted.start()] + (" in the JSON" if quoted[1] else " in the output"))[:100]


STATUS_CODES: Mapping[Status, int] = {status: code for code, status in enumerate(Status)}
"""Codes of the four endings, in the order of `Status`."""

NUMBERS = (
    "ttft_s",
    "e2e_s",
    "tpot_s",
    "client_queue_s",
    "sent_s",
    "done_s",
    "scheduled_s",
    "cached_prompt_tokens",
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
)
"""Columns of measured numbers, NaN where a sample has none."""

SCHEDULED = ("response_s", "ttft_scheduled_s")
"""Times from the moment for which a request was scheduled: made from others, NaN without a schedule."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SampleTable:
    """One entry a sample and repeat, in an order that depends on sample id and repeat only, not on the file.

    `ids` are codes of the sample ids (0 … distinct - 1), `status` codes of STATUS_CODES. `scores` is keyed as
    `SampleRecord.scores`. `clusters` is None where the dataset names none; a sample without a cluster is one
    of its own. `sensitive` holds -1 where the group is missing.
    """

    source: Path
    order: NDArray[np.int64]
    """Position in the source of each entry."""
    ids: NDArray[np.int32]
    keys: NDArray[np.uint64]
    """Hashes of the distinct sample ids, sorted; entry i is that of code i. Runs are joined by them."""
    status: NDArray[np.int8]
    cached: Mask
    warmup: Mask
    attempts: NDArray[np.int32]
    numbers: Mapping[str, Floats]
    scores: Mapping[str, Floats]
    sensitive: Mapping[str, Labelled] = field(default_factory=dict)
    clusters: NDArray[np.int32] | None = None
    weights: Floats | None = None
    """How many rows each entry stands for; None where all count alike."""
    strata: NDArray[np.int32] | None = None

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
        if name in SCHEDULED and name not in self.numbers:
            return self._from_schedule(name)
        found = self.numbers.get(name)
        return np.full(len(self), np.nan) if found is None else found

    def _from_schedule(self, name: str) -> Floats:
        """The time of an answer from the moment for which its request was scheduled."""
        end = self.number("done_s") if name == "response_s" else self.number("sent_s") + self.number("ttft_s")
        return np.where(self.answered, end - self.number("scheduled_s"), np.nan)

    def sample_ids(self) -> Sequence[str]:
        """The sample id of each entry, read from the file when asked for: they are not kept."""
        with reading(self.source) as file:
            column = file.read(columns=["sample_id"], use_threads=False).column(0).to_pylist()
        return [column[at] for at in self.order.tolist()]

    def weighed(self, weight: str, strata: str | None) -> SampleTable:
        """The table with the weights and strata that its input columns of these names hold."""
        names = [f"vars.{name}" for name in (weight, strata) if name]
        with reading(self.source) as file:
            if not set(names) <= set(file.schema_arrow.names):
                return self
            columns = file.read(columns=names, use_threads=False)
        weights = np.array(columns.column(names[0]).to_pylist(), np.float64)[self.order]
        if not len(weights) or float(weights.max() - weights.min()) <= 1e-9 * float(weights.max()):
            return self
        codes = (
            None
            if not strata
            else _coded([*map(str, columns.column(names[1]).to_pylist())]).codes[self.order]
        )
        return replace(self, weights=weights, strata=codes)

    def with_groups(self, groups: Mapping[str, Mapping[str, str | None]]) -> SampleTable:
        """The table with further columns of groups, each given by sample id."""
        ids = self.sample_ids()
        added = {name: _coded([by_id.get(id_) for id_ in ids]) for name, by_id in groups.items()}
        return replace(self, sensitive={**self.sensitive, **added})

    def texts(self) -> tuple[Labelled, Labelled]:
        """Answers and targets as codes, read from the file when first asked for."""
        return self._texts

    @cached_property
    def _texts(self) -> tuple[Labelled, Labelled]:
        answers, targets = (texts_of(self.source, name) for name in ("answer", "target"))
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
        read = read_parquet(path, NUMBERS, columns)
        order = np.lexsort((read.repeat, read.ids))
        clusters = None
        if read.clusters is not None:
            clusters = _own_clusters(read.clusters.codes, read.ids, len(read.clusters.labels))[order]
            clusters = _together(clusters, read.ids[order])
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
            source=path,
            order=order,
            keys=read.keys,
        )


def _coded(values: Sequence[str | None]) -> Labelled:
    coder = Coder()
    coder.add(values)
    return coder.result()


def _own_clusters(codes: NDArray[np.int32], ids: NDArray[np.int32], known: int) -> NDArray[np.int32]:
    """Cluster codes in which every sample id without a cluster is a cluster of its own."""
    return np.where(codes < 0, known + ids, codes).astype(np.int32)


def _together(clusters: NDArray[np.int32], ids: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """The clusters of entries in the order of ids, or None where none of them holds two sample ids."""
    first = np.ones(len(ids), np.bool_)
    first[1:] = ids[1:] != ids[:-1]
    return clusters if len(ids) and int(np.bincount(clusters[first]).max()) > 1 else None

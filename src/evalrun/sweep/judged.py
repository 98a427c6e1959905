"""From what models said about a run to its scores: combined for each sample, joined into `samples.parquet`.

What was said is kept in `judge.parquet`, one row a request, apart from the run's own samples: its tokens,
times and cost are the judge's and enter none of the run's figures but `cost.judge_usd`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import replacing
from evalrun.scoring.asking import AskingScorer, Judged, Key, Reply
from evalrun.scoring.base import Scorer
from evalrun.scoring.derived import Derived
from evalrun.scoring.scorers.judge import Judge
from evalrun.sweep.embedding_work import embedded_texts, text_digest
from evalrun.sweep.judge_work import (
    JudgedRun,
    Task,
    answered,
    judged_text,
    key_of,
    parts_of,
    replies_of,
    samples_of,
)
from evalrun.sweep.judging import Judging, other_run, records_of
from evalrun.tracking.columns import AS_JSON, BOOLEAN, INTEGER, LONG_TEXTS, NUMBER, STRING
from evalrun.tracking.folder import ASKED
from evalrun.types import JSON, MetricValue, Score

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 2048
Said = Sequence[tuple[Task, Mapping[str, Mapping[str, Any]]]]
"""What each task was told: the last record of each of its requests, by id."""


@dataclass(slots=True)
class Bill:
    """What one model was asked for one scorer: requests by how they ended, tokens, seconds, US dollars."""

    scorer: str
    model: str
    requests: int = 0
    cached: int = 0
    failed: int = 0
    unread: int = 0
    asked_again: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    latencies_s: list[float] = field(default_factory=list)

    def add(self, record: Mapping[str, Any]) -> None:
        """One request more."""
        self.requests += 1
        self.cached += bool(record.get("cached"))
        self.failed += record["status"] == "failed"
        self.unread += record["status"] in ("unparsed", "refused")
        self.asked_again += record["sample_id"].endswith("\x1f2")
        self.prompt_tokens += record.get("prompt_tokens") or 0
        self.completion_tokens += record.get("completion_tokens") or 0
        if record.get("cost_usd") is not None:
            self.usd = (self.usd or 0.0) + record["cost_usd"]
        if record.get("e2e_s") is not None:
            self.latencies_s.append(record["e2e_s"])

    def document(self) -> dict[str, JSON]:
        """As JSON, with the median time of the requests that were sent."""
        ordered = sorted(self.latencies_s)
        values = {name: getattr(self, name) for name in self.__slots__ if name != "latencies_s"}
        return {**values, "e2e_s_p50": ordered[len(ordered) // 2] if ordered else None}


def join_verdicts(
    judging: Judging, run: JudgedRun, everything: Sequence[JudgedRun], scorers: Sequence[Scorer]
) -> list[Bill]:
    """Score a run's samples by what was said, rewrite `samples.parquet`, write `judge.parquet`.

    `scorers` are all of the suite's: those derived from others are computed anew.
    """
    said = [
        (task, {record["sample_id"]: record for record in records_of(run.folder, task)})
        for task in judging.tasks
    ]
    bills = []
    for task, records in said:
        bill = Bill(task.scorer.name, task.model)
        for record in records.values():
            bill.add(record)
        bills.append(bill)
    _write_asked(run.folder / ASKED, said)
    verdicts = _Verdicts(judging.scorers, said, _compared_with_itself(judging, run, everything))
    _Joined(verdicts, [each for each in scorers if isinstance(each, Derived)]).rewrite(run.samples)
    return bills


def _compared_with_itself(
    judging: Judging, run: JudgedRun, everything: Sequence[JudgedRun]
) -> frozenset[str]:
    """The scorers of pairs whose other answers are those of this very run."""
    found = set()
    for task in judging.tasks:
        pairwise = getattr(task.scorer.options, "pairwise", None)
        if pairwise is not None and pairwise.column is None and other_run(task, run, everything) is None:
            found.add(task.scorer.name)
    return frozenset(found)


class _Verdicts:
    """The scores of each sample by what models said of it."""

    def __init__(self, scorers: Sequence[AskingScorer], said: Said, alone: frozenset[str]) -> None:
        self.scorers, self._alone = scorers, alone
        self._replies: dict[str, dict[str, dict[Key, dict[str, Reply]]]] = {}
        self._vectors: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        for task, records in said:
            name = task.scorer.name
            if isinstance(task.scorer, Judge):
                of_model = replies_of(records.values(), task.scorer)
                self._replies.setdefault(name, {})[task.model] = of_model
            else:
                self._vectors[name] = records

    def of(self, sample: Mapping[str, Any]) -> dict[str, Score]:
        """The score of every asking scorer; none for a sample without an answer."""
        if not answered(sample):
            return {}
        return {
            scorer.name: self._judged(scorer, sample)
            if isinstance(scorer, Judge)
            else self._similarity(scorer.name, sample)
            for scorer in self.scorers
        }

    def _judged(self, scorer: Judge, sample: Mapping[str, Any]) -> Score:
        if scorer.name in self._alone:
            return Score(None, "this is the run that others are compared with")
        of_models = self._replies.get(scorer.name, {})
        replies = {model: replies.get(key_of(sample), {}) for model, replies in of_models.items()}
        nothing = "" if judged_text(sample, scorer.options.of) else "an answer without text"
        if not nothing and not any(replies.values()):
            return Score(None, "there is nothing to compare it with", {"unscored": 1.0})
        return scorer.judged(Judged(replies, sample["row"], nothing))

    def _similarity(self, name: str, sample: Mapping[str, Any]) -> Score:
        if sample["target"] is None:
            return Score(None, "there is no target")
        texts = embedded_texts(sample)
        if not texts:
            return Score(0.0, "there is no answer to embed")
        own, *others = [self._vector(name, text) for text in texts]
        known = [each for each in others if each is not None]
        if own is None or not known:
            return Score(None, "no embedding was given")
        value = max(cosine(own, other) for other in known)
        return Score(value, f"cosine {value:.3f}")

    def _vector(self, name: str, text: str) -> Any:
        import numpy as np

        from evalrun.providers.embeddings import unpacked

        record = self._vectors[name].get(text_digest(text).hex())
        if record is None or record["status"] != "scored":
            return None
        return np.frombuffer(unpacked(record["output"]), dtype=np.float32).astype(np.float64)


def cosine(one: Any, other: Any) -> float:
    """The cosine of two vectors; 0 where one has no length."""
    size = float((one @ one) * (other @ other)) ** 0.5
    return max(-1.0, min(1.0, float(one @ other) / size)) if size > 0 else 0.0


class _Joined:
    """`samples.parquet` with the new scores among its columns; every other column stays as it is."""

    def __init__(self, verdicts: _Verdicts, derived: Sequence[Derived]) -> None:
        self._verdicts, self._derived = verdicts, derived
        names = [each.name for each in (*verdicts.scorers, *derived)]
        parts = [f"{each.name}.{part}" for each in verdicts.scorers for part in each.parts]
        self._columns = {f"score.{name}": NUMBER for name in (*names, *parts)}
        self._columns |= {f"reason.{name}": STRING for name in names}

    def rewrite(self, path: Path) -> None:
        """Write the file anew, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        samples = samples_of(path)
        with pq.ParquetFile(path) as file:
            schema = self._schema(file.schema_arrow)
            short = [name for name in schema.names if name not in LONG_TEXTS]
            with (
                replacing(path) as temporary,
                pq.ParquetWriter(
                    temporary, schema, compression="zstd", use_dictionary=short, write_statistics=short
                ) as writer,
            ):
                for batch in file.iter_batches(batch_size=BATCH):
                    made = [self._verdicts.of(next(samples)) for _ in range(batch.num_rows)]
                    arrays = self._arrays(schema, batch, made)
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    def _schema(self, old: pa.Schema) -> pa.Schema:
        import pyarrow as pa

        from evalrun.tracking.arrow import arrow_schema

        fields = [each for each in old if each.name not in self._columns]
        at = next((at for at, each in enumerate(fields) if each.name.startswith("sensitive.")), len(fields))
        fields[at:at] = list(arrow_schema(list(self._columns.items()), {}))
        return pa.schema(fields, metadata=old.metadata)

    def _arrays(
        self, schema: pa.Schema, batch: pa.RecordBatch, made: Sequence[Mapping[str, Score]]
    ) -> list[pa.Array]:
        from evalrun.tracking.arrow import arrow_array

        earlier: dict[str, list[Any]] = {}
        if self._derived:
            names = [name for name in batch.schema.names if name.startswith("score.")]
            earlier = {name.removeprefix("score."): batch.column(name).to_pylist() for name in names}
        rows = [
            self._row(each, {name: column[at] for name, column in earlier.items()})
            for at, each in enumerate(made)
        ]
        return [
            arrow_array([row.get(name) for row in rows], self._columns[name])
            if name in self._columns
            else batch.column(name)
            for name in schema.names
        ]

    def _row(self, made: Mapping[str, Score], earlier: Mapping[str, float | None]) -> dict[str, JSON]:
        """The new columns of one sample; what is derived follows from old and new scores."""
        if not made:
            return {}
        scores: dict[str, float | None] = {}
        row: dict[str, JSON] = {}
        for name, score in made.items():
            scores[name] = score.value
            scores |= {f"{name}.{part}": value for part, value in score.parts.items()}
            row[f"reason.{name}"] = score.reason
        for one in self._derived:
            scores[one.name], row[f"reason.{one.name}"] = one.derive({**earlier, **scores})
        return row | {f"score.{name}": value for name, value in scores.items()}


_COLUMNS: Mapping[str, str] = {
    "sample_id": STRING,
    "repeat": INTEGER,
    "scorer": STRING,
    "model": STRING,
    "order": STRING,
    "asked": INTEGER,
    "status": STRING,
    "grade": STRING,
    "reason": STRING,
    "output": STRING,
    "error": STRING,
    "prompt_tokens": INTEGER,
    "completion_tokens": INTEGER,
    "e2e_s": NUMBER,
    "cost_usd": NUMBER,
    "cached": BOOLEAN,
    "attempts": INTEGER,
    "messages": AS_JSON,
}
"""The columns of `judge.parquet`."""


def _write_asked(path: Path, said: Said) -> None:
    """Every request to a judge with what came of it. Of embeddings there is nothing to read."""
    import pyarrow.parquet as pq

    from evalrun.tracking.arrow import arrow_schema

    schema = arrow_schema(list(_COLUMNS.items()), {"evalrun.content": "judge"})
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for row in _asked_rows(said):
            rows.append(row)
            if len(rows) == BATCH:
                writer.write_table(_table(rows, schema))
                rows = []
        writer.write_table(_table(rows, schema))


def _asked_rows(said: Said) -> Iterator[dict[str, Any]]:
    for task, records in said:
        if not isinstance(task.scorer, Judge):
            continue
        for record in records.values():
            sample_id, repeat, order, asked = parts_of(record["sample_id"])
            yield {
                **{name: record.get(name) for name in _COLUMNS},
                "messages": record.get("messages") or record.get("prompt"),
                "sample_id": sample_id,
                "repeat": repeat,
                "scorer": task.scorer.name,
                "model": task.model,
                "order": order,
                "asked": asked,
                "grade": record.get("answer"),
                "reason": (record.get("reasons") or {}).get(task.scorer.name),
            }


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    from evalrun.tracking.arrow import arrow_array

    arrays = [arrow_array([row[name] for row in rows], kind) for name, kind in _COLUMNS.items()]
    return pa.Table.from_arrays(arrays, schema=schema)


def judge_cost(bills: Iterable[Bill]) -> list[MetricValue]:
    """`cost.judge_usd`, where any request had a price; n is the number of those."""
    known = [bill for bill in bills if bill.usd is not None]
    if not known:
        return []
    note = ", ".join(f"{bill.scorer} by {bill.model}: {bill.usd:.6g}" for bill in known)
    total = sum(bill.usd or 0.0 for bill in known)
    asked = sum(bill.requests - bill.cached - bill.failed for bill in known)
    return [MetricValue("cost.judge_usd", total, asked, "usd", "lower", note=note)]

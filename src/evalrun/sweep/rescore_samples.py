"""The samples of a run with new scores: every column stays as it is but those that scoring makes.

Two passes over the file, a batch in memory at a time: the first scores and learns which columns there will
be, the second writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from evalrun.atomic import replacing
from evalrun.scoring.late import LateWorkers
from evalrun.scoring.pipeline import Pipeline, Scored
from evalrun.tracking.columns import AS_JSON, NUMBER, STRING, json_text, text_form
from evalrun.types import Row, Status

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 2048
AT_ONCE = 64
"""So many samples are held at once by scorers that take long."""
_VARS, _SCORE, _REASON, _SENSITIVE = "vars.", "score.", "reason.", "sensitive."
_MADE = {"status": STRING, "answer": STRING, "answer_json": AS_JSON, "error": STRING}
"""Columns that scoring makes, besides scores and reasons."""
_READ = ("status", "output", "target", "target_json", "tool_calls", "likelihood", "error")


def rescore_samples(source: Path, out: Path, pipeline: Pipeline) -> int:
    """Write the samples of `source` to `out` with the scores of this pipeline; returns their number.

    No model is asked. Failed samples stay failed, except those that had an answer which a parser broke on.
    """
    scratch = out.with_name(f"{out.name}.scores")
    try:
        with scratch.open("w+b") as lines:
            names = _score(source, lines, pipeline)
            lines.seek(0)
            return _write(source, out, lines, names)
    finally:
        scratch.unlink(missing_ok=True)


def _score(source: Path, lines: BinaryIO, pipeline: Pipeline) -> tuple[list[str], list[str]]:
    """Score every sample, one JSON line each; returns the names of scores and of reasons."""
    from evalrun.tracking.parquet import column_names, iter_samples

    present = column_names(source)
    wanted = [name for name in present if name in _READ or name.startswith(_VARS)]
    scores: dict[str, None] = {}
    reasons: dict[str, None] = {}
    for scored in _all_scored(iter_samples(source, BATCH, wanted, decode=True), pipeline):
        scores.update(dict.fromkeys(scored.scores))
        reasons.update(dict.fromkeys(scored.reasons))
        line = {
            "status": scored.status.value,
            "answer": scored.answer,
            "error": scored.error,
            "scores": dict(scored.scores),
            "reasons": dict(scored.reasons),
        }
        lines.write(json_text(line).encode() + b"\n")
    return list(scores), list(reasons)


def _all_scored(samples: Iterator[Mapping[str, Any]], pipeline: Pipeline) -> Iterator[Scored]:
    """The samples scored, in their order: in threads where a scorer takes long."""
    if not any(scorer.late for scorer in pipeline.scorers):
        for sample in samples:
            yield _scored(sample, pipeline)
        return
    with LateWorkers(pipeline.scorers) as workers:
        while some := list(islice(samples, AT_ONCE)):
            yield from workers.map(lambda sample: _scored(sample, pipeline), some)


def _scored(sample: Mapping[str, Any], pipeline: Pipeline) -> Scored:
    status, output = Status(sample["status"]), sample.get("output")
    if status is Status.FAILED and output is None:
        return Scored(status, None, sample.get("error"), {}, {})
    row: Row = {name.removeprefix(_VARS): value for name, value in sample.items() if name.startswith(_VARS)}
    typed = sample.get("target_json")
    target = sample.get("target") if typed is None else typed
    refused = status is Status.REFUSED
    tool_calls, likelihood = sample.get("tool_calls"), sample.get("likelihood")
    return pipeline.evaluate(output or "", target, row, refused, tool_calls, likelihood)


def _write(source: Path, out: Path, lines: BinaryIO, names: tuple[list[str], list[str]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = 0
    with pq.ParquetFile(source) as file:
        schema = _schema(file.schema_arrow, names)
        short = [name for name in schema.names if name in _MADE or name.startswith((_SCORE, _SENSITIVE))]
        with (
            replacing(out) as temporary,
            pq.ParquetWriter(
                temporary, schema, compression="zstd", use_dictionary=short, write_statistics=short
            ) as writer,
        ):
            for batch in file.iter_batches(batch_size=BATCH):
                scored = [orjson.loads(line) for line in _take(lines, batch.num_rows)]
                arrays = [_column(field.name, batch, scored) for field in schema]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                written += batch.num_rows
    return written


def _take(lines: BinaryIO, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield lines.readline()


def _schema(old: pa.Schema, names: tuple[list[str], list[str]]) -> pa.Schema:
    """The old columns in their order, with the new scores and reasons in the place of the old ones."""
    import pyarrow as pa

    from evalrun.tracking.arrow import arrow_schema

    made = arrow_schema(
        [
            *_MADE.items(),
            *((_SCORE + name, NUMBER) for name in names[0]),
            *((_REASON + name, STRING) for name in names[1]),
        ],
        {},
    )
    fields = [
        made.field(each.name) if each.name in _MADE else each
        for each in old
        if not each.name.startswith((_SCORE, _REASON))
    ]
    at = next((at for at, each in enumerate(fields) if each.name.startswith(_SENSITIVE)), len(fields))
    fields[at:at] = [made.field(name) for name in made.names if name not in _MADE]
    return pa.schema(fields, metadata=old.metadata)


def _column(name: str, batch: pa.RecordBatch, scored: list[dict[str, Any]]) -> pa.Array:
    from evalrun.tracking.arrow import arrow_array

    if name.startswith(_SCORE):
        return arrow_array([each["scores"].get(name.removeprefix(_SCORE)) for each in scored], NUMBER)
    if name.startswith(_REASON):
        return arrow_array([each["reasons"].get(name.removeprefix(_REASON)) for each in scored], STRING)
    if name == "answer":
        return arrow_array([text_form(each["answer"]) for each in scored], STRING)
    if name == "answer_json":
        values = [None if isinstance(each["answer"], str) else each["answer"] for each in scored]
        return arrow_array(values, AS_JSON)
    if name in _MADE:
        return arrow_array([each[name] for each in scored], STRING)
    return batch.column(name)

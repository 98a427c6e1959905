"""The score stage: reads the samples of a run and writes them with their scores.

Quick scorers score as answers arrive (`Pipeline(when="at once")` in the runner). Every other way in which
scores come about goes through `ScoreStage`: scorers that take long, grades of judges, scores derived from
others, and scoring a finished sweep again. Two passes, a batch in memory at a time: the first writes a line
of scores for each sample beside the file, the second writes the file anew. A stage that is ended goes on
after the last line that it wrote.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson

from evalrun.frozen import frozen
from evalrun.runner.cell import Stop
from evalrun.scoring.base import Scorer
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.reasoning import split_reasoning
from evalrun.sweep.stored import stored_samples
from evalrun.tracking.columns import AS_JSON, NUMBER, STRING, json_text, text_form
from evalrun.tracking.parquet import column_names, rewrite_columns
from evalrun.types import Score, Status

BATCH = 64
"""Samples that are scored before their lines are made durable; a process that is killed loses no more."""
_SCORE, _REASON = "score.", "reason."
_PARSED = {"status": STRING, "answer": STRING, "answer_json": AS_JSON, "error": STRING}
"""Columns that parsing makes."""


class Verdicts(Protocol):
    """What models said about the samples of a run."""

    @property
    def scorers(self) -> Sequence[Scorer]: ...
    def of(self, sample: Mapping[str, Any]) -> Mapping[str, Score]: ...


@frozen
class Scoring:
    """By what samples are scored. With `again` they are parsed anew too, and lose the scores they had."""

    pipeline: Pipeline
    again: bool = False
    verdicts: Verdicts | None = None
    reasons: Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, str]] | None = None
    """What is stored in the place of reasons, of samples whose texts were redacted (given their records)."""

    def scored(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """What one sample is given; nothing where it keeps what it has."""
        status, output = Status(sample["status"]), sample.get("output")
        if status is Status.FAILED and (output is None or not self.again):
            return {"status": status, "error": sample.get("error")} if self.again else {}
        line: dict[str, Any] = {}
        scores: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        if self.again or self.pipeline.active:
            found = self.pipeline.evaluate(
                split_reasoning(output or "")[1],
                sample["target"],
                sample["row"],
                status is Status.REFUSED,
                sample.get("tool_calls"),
                sample.get("likelihood"),
            )
            scores, reasons = dict(found.scores), dict(found.reasons)
            if self.again:
                line = {"status": found.status, "answer": found.answer, "error": found.error}
        for name, score in (self.verdicts.of(sample) if self.verdicts is not None else {}).items():
            scores[name], reasons[name] = score.value, score.reason
            scores |= {f"{name}.{part}": value for part, value in score.parts.items()}
        if not self.again:
            earlier = {
                name.removeprefix(_SCORE): value for name, value in sample.items() if name.startswith(_SCORE)
            }
            everything = {**earlier, **scores}
            self.pipeline.derive(everything, reasons)
            scores |= {each.name: everything[each.name] for each in self.pipeline.derived}
        if self.reasons is not None and "raw" in sample:
            reasons = self.reasons(sample["raw"], reasons)
        return {**line, "scores": scores, "reasons": reasons}

    def expected(self) -> tuple[list[str], list[str]]:
        """The names of scores and of reasons that there are whatever models said, besides those that are
        made."""
        if self.verdicts is None:
            return [], []
        scorers = self.verdicts.scorers
        whole = [*(scorer.name for scorer in scorers), *(each.name for each in self.pipeline.derived)]
        return [*whole, *(f"{scorer.name}.{part}" for scorer in scorers for part in scorer.parts)], whole


def is_deferred(scorers: Sequence[Scorer]) -> bool:
    """Whether some scorer takes so long that it scores when all answers are there."""
    return any(scorer.late for scorer in scorers)


class ScoreStage:
    """Scores the samples in `source` and writes them to `out`, which may be the same file."""

    def __init__(self, source: Path, out: Path, scoring: Scoring, stop: Stop | None = None) -> None:
        self._source, self._out, self._scoring = source, out, scoring
        self._stop = stop or Stop()
        self._scratch = out.with_name(f"{out.name}.{'again' if scoring.again else 'deferred'}")
        self._slow = [each for each in scoring.pipeline.active if each.late]
        self._pool: ThreadPoolExecutor | None = None
        self._ended = False

    async def in_thread(self) -> bool:
        """As `run`, beside the event loop. A cancellation ends what is under way."""
        try:
            return await asyncio.to_thread(self.run)
        except asyncio.CancelledError:
            self._end()
            raise

    def run(self) -> bool:
        """True when all is scored and written; a stop leaves the rest for the next time."""
        with self._scratch.open("a+b") as lines:
            if not self._score(lines):
                return False
            lines.seek(0)
            self._write(lines)
        self._scratch.unlink()
        return True

    def _score(self, lines: BinaryIO) -> bool:
        samples = stored_samples(self._source, () if self._scoring.again else (_SCORE,))
        for _ in range(_whole_lines(lines)):
            next(samples)
        while not self._stop.requested and (batch := list(islice(samples, BATCH))):
            try:
                made = b"".join(self._lines(batch))
            except CancelledError:
                return False
            if self._ended:
                return False
            lines.write(made)
            if self._slow:
                lines.flush()
                os.fsync(lines.fileno())
        if self._pool is not None:
            self._pool.shutdown()
        return not self._stop.requested

    def _lines(self, batch: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
        if not self._slow:
            return map(self._line, batch)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "evalrun-score")
        try:
            return iter(list(self._pool.map(self._line, batch)))
        except BaseException:
            self._end()
            raise

    def _line(self, sample: Mapping[str, Any]) -> bytes:
        return json_text(self._scoring.scored(sample)).encode() + b"\n"

    def _end(self) -> None:
        """Stop at once, from any thread."""
        self._ended = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for scorer in self._slow:
            scorer.abandon()

    def _write(self, lines: BinaryIO) -> None:
        scores, reasons = (dict.fromkeys(names) for names in self._scoring.expected())
        for line in lines:
            found = orjson.loads(line)
            scores |= dict.fromkeys(found.get("scores") or ())
            reasons |= dict.fromkeys(found.get("reasons") or ())
        made = {_SCORE + name: NUMBER for name in scores} | {_REASON + name: STRING for name in reasons}
        dropped: list[str] = []
        if self._scoring.again:
            made |= _PARSED
            dropped = [name for name in column_names(self._source) if name.startswith((_SCORE, _REASON))]
        lines.seek(0)
        rewrite_columns(self._source, self._out, made, map(_row, lines), dropped)


def _row(line: bytes) -> dict[str, Any]:
    """A line of scores as the columns of a sample."""
    found = orjson.loads(line)
    row = {_SCORE + name: value for name, value in (found.get("scores") or {}).items()}
    row |= {_REASON + name: value for name, value in (found.get("reasons") or {}).items()}
    if "status" in found:
        answer = found.get("answer")
        row |= {
            "status": found["status"],
            "error": found["error"],
            "answer": text_form(answer),
            "answer_json": None if isinstance(answer, str) else answer,
        }
    return row


def _whole_lines(file: BinaryIO) -> int:
    """The number of whole lines; a torn one at the end is cut off. The file is then at its end."""
    file.seek(0)
    count, size = 0, 0
    for line in file:
        if line.endswith(b"\n"):
            count, size = count + 1, size + len(line)
    file.truncate(size)
    file.seek(size)
    return count

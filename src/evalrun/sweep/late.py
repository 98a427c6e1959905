"""Scores that take long (running code) are made when a run's answers are all there, in threads.

While the run is asked they would hold up the event loop and take time from the engine that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from evalrun.runner.cell import Stop
from evalrun.runner.journal import read_journal
from evalrun.scoring.base import Scorer
from evalrun.scoring.derived import Derived, derived_in_order
from evalrun.scoring.late import LateWorkers
from evalrun.scoring.pipeline import Pipeline, suite_scorers
from evalrun.suite.schema import Suite
from evalrun.types import Status

BATCH = 64
"""So many samples are scored before they are written; a process that is killed loses no more than these."""


async def score_late(journal: Path, suite: Suite, stop: Stop) -> bool:
    """Score the samples of a finished journal by the scorers that are late. True when all are scored.

    Each sample that has not such a score yet is appended once more with it: its last line counts. The other
    scores stay as they were, but those derived from others are made again. A stop leaves the rest for the
    next time, after what is under way; a cancellation ends that too.
    """
    scorers = suite_scorers(suite)
    late = [scorer for scorer in scorers if scorer.late]
    if not late:
        return True
    workers = LateWorkers(late)
    try:
        return await asyncio.to_thread(_score_all, journal, suite, workers, stop)
    except asyncio.CancelledError:
        workers.end()
        raise


def _score_all(journal: Path, suite: Suite, workers: LateWorkers, stop: Stop) -> bool:
    scorers = suite_scorers(suite)
    pipeline = Pipeline([each.build() for each in suite.parse], workers.scorers)
    todo = _unscored(journal, workers.scorers)

    def line(record: dict[str, Any]) -> bytes | None:
        return None if stop.requested else _scored(record, pipeline, scorers)

    with workers, contextlib.suppress(CancelledError), journal.open("ab") as lines:
        while not stop.requested and (batch := list(islice(todo, BATCH))):
            for made in workers.map(line, batch):
                if made is not None and not workers.ended:
                    lines.write(made)
            lines.flush()
            os.fsync(lines.fileno())
    return not (stop.requested or workers.ended)


def _unscored(journal: Path, late: Sequence[Scorer]) -> Iterator[dict[str, Any]]:
    """Answered samples without all the scores. The journal is read up to where it ended at first: what is
    appended meanwhile is done."""
    records = read_journal(journal)
    done: set[tuple[str, int]] = set()
    size = 0
    for record in records:
        size += 1
        if all(scorer.name in (record.get("scores") or {}) for scorer in late):
            done.add((record["sample_id"], record["repeat"]))
    for record in islice(read_journal(journal), size):
        if record["status"] != Status.FAILED and (record["sample_id"], record["repeat"]) not in done:
            yield record


def _scored(record: dict[str, Any], pipeline: Pipeline, scorers: Sequence[Scorer]) -> bytes:
    found = pipeline.evaluate(
        record.get("output") or "",
        record.get("target"),
        record.get("vars") or {},
        record["status"] == Status.REFUSED,
        record.get("tool_calls"),
        record.get("likelihood"),
    )
    scores: dict[str, float | None] = {**(record.get("scores") or {}), **found.scores}
    reasons: dict[str, str] = {**(record.get("reasons") or {}), **found.reasons}
    for derived in derived_in_order(scorers):
        assert isinstance(derived, Derived)
        scores[derived.name], reasons[derived.name] = derived.derive(scores)
    changed: Mapping[str, Any] = {**record, "scores": scores, "reasons": reasons}
    return orjson.dumps(changed, option=orjson.OPT_APPEND_NEWLINE)

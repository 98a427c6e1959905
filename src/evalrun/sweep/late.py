"""Scores that take long (running code) are made when a run's answers are all there, in threads.

While the run is asked they would hold up the event loop and take time from the engine that is measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from evalrun.runner.journal import read_journal
from evalrun.scoring.base import Scorer
from evalrun.scoring.derived import Derived, derived_in_order
from evalrun.scoring.pipeline import Pipeline, suite_scorers
from evalrun.suite.schema import Suite
from evalrun.types import Status

BATCH = 64
"""So many samples are scored before they are written; a process that is killed loses no more than these."""


def score_late(journal: Path, suite: Suite) -> int:
    """Score the samples of a finished journal by the scorers that are late, and give how many there were.

    Each sample that has not such a score yet is appended once more with it: its last line counts. The other
    scores stay as they were, but those derived from others are made again.
    """
    scorers = suite_scorers(suite)
    late = [scorer for scorer in scorers if scorer.late]
    if not late:
        return 0
    pipeline = Pipeline([each.build() for each in suite.parse], late)
    todo = _unscored(journal, late)
    count = 0
    workers = max(1, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, "evalrun-late") as pool, journal.open("ab") as lines:
        while batch := list(islice(todo, BATCH)):
            for line in pool.map(lambda record: _scored(record, pipeline, scorers), batch):
                lines.write(line)
            lines.flush()
            os.fsync(lines.fileno())
            count += len(batch)
    return count


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

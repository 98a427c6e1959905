"""Between the runner's records and whoever shows progress: keeps the running figures of each run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from evalrun.runner.runfolder import Earlier
from evalrun.types import SampleRecord, Status

UPDATE_INTERVAL_S = 0.1


class Display(Protocol):
    """Shows progress: a live terminal display, plain lines, or nothing."""

    def update(
        self,
        run_id: str,
        done: int,
        scored_mean: float | None,
        errors: int,
        rate: float | None,
        tokens_per_s: float | None,
        phase: str,
    ) -> None: ...

    def message(self, text: str) -> None: ...


@dataclass(slots=True)
class _Running:
    total: int
    done: int = 0
    asked: int = 0
    errors: int = 0
    tokens: int = 0
    score_sum: float = 0.0
    score_n: int = 0
    started: float = 0.0
    shown: float = 0.0


class ProgressAdapter:
    """The runner's observer. `score` names the score whose running mean is shown."""

    def __init__(self, display: Display, score: str) -> None:
        self._display = display
        self._score = score
        self._runs: dict[str, _Running] = {}

    def phase(self, run_id: str, phase: str) -> None:
        """Something happens before the first answer: an engine starts."""
        self._display.update(run_id, 0, None, 0, None, None, phase)

    def message(self, text: str) -> None:
        """Say something beside the progress."""
        self._display.message(text)

    def begin(self, run_id: str, total: int, earlier: Earlier) -> None:
        """A run starts, or goes on with what was done earlier."""
        self._runs[run_id] = _Running(total=total, done=len(earlier.done), started=time.monotonic())
        self._show(run_id, "running")

    def sample(self, run_id: str, record: SampleRecord) -> None:
        """One sample more."""
        run = self._runs[run_id]
        run.done += 1
        if record.status is Status.FAILED:
            run.errors += 1
        else:
            value = record.scores.get(self._score)
            if value is not None:
                run.score_sum += value
                run.score_n += 1
            if not record.cached:
                run.asked += 1
                run.tokens += record.completion_tokens or 0
        now = time.monotonic()
        if now - run.shown >= UPDATE_INTERVAL_S:
            run.shown = now
            self._show(run_id, "running")

    def end(self, run_id: str) -> None:
        """A run is finished and its results are on disk."""
        self._show(run_id, "done")

    def _show(self, run_id: str, phase: str) -> None:
        run = self._runs[run_id]
        elapsed = time.monotonic() - run.started
        rate = run.asked / elapsed if run.asked and elapsed > 0 else None
        self._display.update(
            run_id,
            run.done,
            run.score_sum / run.score_n if run.score_n else None,
            run.errors,
            rate,
            run.tokens / elapsed if run.tokens and elapsed > 0 else None,
            phase,
        )

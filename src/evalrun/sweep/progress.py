"""Between the runner's records and whoever shows progress: keeps the running figures of each run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evalrun.reports.progress import News, Phase, Progress
from evalrun.runner.journal import Earlier
from evalrun.types import SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.sinks.prometheus import Metrics

UPDATE_INTERVAL_S = 0.1


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
    causes: Counter[str] = field(default_factory=Counter)
    last: dict[str, str] = field(default_factory=dict)

    @property
    def cause(self) -> str:
        """The last failure of the kind that most failures are of."""
        return self.last[self.causes.most_common(1)[0][0]] if self.causes else ""


class ProgressAdapter:
    """The runner's observer. `score` names the score whose running mean is shown; `metrics` counts too;
    `redact` gives a record as it may be shown."""

    def __init__(
        self,
        display: Progress,
        score: str,
        metrics: Metrics | None = None,
        redact: Callable[[SampleRecord], SampleRecord] | None = None,
    ) -> None:
        self._redact = redact
        self._display = display
        self._metrics = metrics
        self._score = score
        self._runs: dict[str, _Running] = {}

    def phase(self, run_id: str, phase: Phase) -> None:
        """Something happens before the first answer: an engine starts."""
        self._display.update(News(run_id, phase))

    def message(self, text: str) -> None:
        """Say something beside the progress."""
        self._display.message(text)

    def begin(self, run_id: str, total: int, earlier: Earlier) -> None:
        """A run starts, or goes on with what was done earlier."""
        if self._metrics is not None:
            self._metrics.begin(run_id, total)
        self._runs[run_id] = _Running(total=total, done=len(earlier.done), started=time.monotonic())
        self._show(run_id, "running")

    def asking(self, run_id: str, endpoint: str, in_flight: Callable[[], int]) -> None:
        """A run asks an endpoint: how many requests it has there, to be looked up at any moment."""
        if self._metrics is not None:
            self._metrics.asking(run_id, endpoint, in_flight)

    def sample(self, run_id: str, record: SampleRecord) -> None:
        """One sample more."""
        if self._metrics is not None:
            self._metrics.sample(run_id, record)
        run = self._runs[run_id]
        run.done += 1
        if record.status is Status.FAILED:
            run.errors += 1
            shown = record if self._redact is None else self._redact(record)
            cause = shown.error or "failed"
            kind = cause.partition(":")[0]
            run.causes[kind] += 1
            run.last[kind] = cause
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

    def refresh(self, run_id: str) -> None:
        """Show how a run stands now, also where that was shown a moment ago: it may be the last."""
        self._show(run_id, "running")

    def end(self, run_id: str) -> None:
        """A run is finished and its results are on disk."""
        self._show(run_id, "done")

    def _show(self, run_id: str, phase: Phase) -> None:
        run = self._runs[run_id]
        elapsed = time.monotonic() - run.started
        rate = run.asked / elapsed if run.asked and elapsed > 0 else None
        self._display.update(
            News(
                run_id,
                phase,
                done=run.done,
                score=run.score_sum / run.score_n if run.score_n else None,
                errors=run.errors,
                cause=run.cause,
                rate=rate,
                tokens_per_s=run.tokens / elapsed if run.tokens and elapsed > 0 else None,
            )
        )

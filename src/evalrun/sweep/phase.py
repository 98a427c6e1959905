"""What the cells of one phase of a sweep share, and how one of them is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.providers.base import Provider
from evalrun.providers.batch_api import batch_api_of
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Observer, Purse, Stop
from evalrun.runner.journal import Earlier, Journal, RunFolder
from evalrun.runner.limits import (
    Throttle,
)
from evalrun.runner.neighbours import Neighbours
from evalrun.runner.processes import JustRead
from evalrun.runner.watch import LoadOnce, Watch
from evalrun.suite.components import ModelSpec
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.estimate import Spending
from evalrun.sweep.prepare import PreparedSweep
from evalrun.sweep.progress import ProgressAdapter
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.privacy.kept import Keeper
    from evalrun.runner.load.level_run import LevelPlan, LevelRun
    from evalrun.sweep.matrix_job import MatrixJob
    from evalrun.types import SampleRecord


@dataclass(slots=True)
class Execution:
    """What became of the cells. `faults` are the reasons why runs could not be completed, `taken_over` the
    samples of earlier parts of the sweep."""

    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[UserError] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    taken_over: int = 0
    warnings: list[str] = field(default_factory=list)
    oldest_cached: float | None = None
    """When the oldest answer was stored that came from the cache (Unix seconds)."""


class Conduct(Protocol):
    """What asks the runs of a sweep in another way than each one whole, here and at once.

    One whose runs have all their rows in the end says so by `whole = True`.
    """

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Ask and finish the runs. `jobs` are all, the finished ones too."""
        ...

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """The figures of a run that is about to be finished, with the intervals that hold for it."""
        ...

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """The verdicts of the gates, where it has decided any."""
        ...

    def document(self) -> Mapping[str, Any]:
        """What the manifest says of it at the end."""
        ...


@frozen
class Services:
    """What all cells of a sweep share."""

    prepared: PreparedSweep
    folder: SweepFolder
    cache: ResponseCache | None
    progress: ProgressAdapter
    stop: Stop
    spending: Spending | None = None
    """What is spent, where the suite has a budget."""
    neighbours: Neighbours | None = None
    """Who else evaluates on this machine."""
    conduct: Conduct | None = None


@frozen
class Phase:
    """What the cells of one phase share. The engines of models in `needed_later` run on after it."""

    suite: Suite
    providers: Mapping[str, Provider]
    cache: ResponseCache | None
    observer: Observer
    progress: ProgressAdapter
    stop: Stop
    execution: Execution
    needed_later: Set[str] = frozenset()
    purse: Purse | None = None
    in_flight: int | None = None
    """How many requests every run has in flight whose model and suite say nothing, so that their speeds can
    be compared. None: as many as the endpoint bears."""
    neighbours: Neighbours | None = None
    just_read: JustRead = field(default_factory=JustRead)
    redact: Callable[[SampleRecord], SampleRecord] | None = None
    """What is journalled in the place of a record."""
    keeper: Keeper | None = None
    """Keeps records as they were, where they are scored later."""

    async def ask(
        self,
        cell: Cell,
        folder: RunFolder,
        earlier: Earlier,
        options: CellOptions,
        throttle: Throttle,
        watch: Watch | None = None,
        plan: LevelPlan | None = None,
        about: Path | None = None,
    ) -> LevelRun | CellRun:
        """Ask what is left of a cell, or all of a level of load, which has a `plan`. `about` is the folder of
        the run that a judge is asked about."""
        total = len(cell.samples) * cell.repeats if plan is None else plan.expected
        self.progress.begin(cell.run_id, total, earlier)
        if earlier.damaged:
            lines = "line is" if earlier.damaged == 1 else "lines are"
            what = f"{cell.run_id}: {earlier.damaged} {lines} damaged in {folder.journal}"
            self.execution.warnings.append(f"{what}; the samples they stood for were asked again")
        if throttle.budget is not None:
            throttle.budget.begin_run()
        kept = None if self.keeper is None else self.keeper.cell(folder.path, about)
        redact = self.redact if kept is None else kept.stored
        journal = Journal(folder.journal, aside=plan is not None, redact=redact)
        context = CellContext(journal, self.cache, throttle, self.observer, self.stop, self.purse)
        run: LevelRun | CellRun
        batches = batch_api_of(cell.provider)
        if plan is None and batches is not None:
            from evalrun.runner.batched import BatchedRun

            say = self.progress.message
            run = BatchedRun(cell, options, context, earlier, api=batches, folder=folder.path, say=say)
        elif plan is None:
            run = CellRun(cell, options, context, earlier)
        else:
            from evalrun.runner.load.level_run import LevelRun
            from evalrun.runner.load.search import SearchRun

            kind = SearchRun if plan.level.role == "search" else LevelRun
            run = kind(cell, options, context, plan)
        try:
            self.progress.asking(cell.run_id, cell.provider.endpoint, lambda: run.in_flight)
            async with watch or contextlib.nullcontext():
                await run.run()
        finally:
            self.progress.asking(cell.run_id, cell.provider.endpoint, int)  # none: 0
            self.progress.refresh(cell.run_id)
            await journal.close(whole=run.complete)
            if kept is not None:
                kept.own.close()
        return run

    def options(self, model: ModelSpec, *, stream: bool = False, warmup: int = 0) -> CellOptions:
        """How a model is asked."""
        performance = self.suite.performance
        return CellOptions(
            stream=stream,
            warmup=warmup,
            timeout_s=model.timeout_s or performance.timeout_s,
            retries=performance.retries,
            seed=self.suite.seed,
            tolerate=self.suite.errors.stop_above,
            patient=self.suite.errors.bears_all,
        )


class Job(Protocol):
    """What one model is asked: a run of the matrix, or what a judge is asked about a run."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> ModelSpec: ...
    async def run(self, phase: Phase, provider: Provider, throttle: Throttle, load: LoadOnce) -> None: ...

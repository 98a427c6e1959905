"""Scoring a finished sweep again by scorers that ask a model: the same phase as after a run's own answers.

What was asked is journalled in the child sweep, which is taken up again where it was ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import Provider, ProviderContext, create
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Stop
from evalrun.sweep.aside import Judgement, drop_journals
from evalrun.sweep.judge_prepare import prepare_judging
from evalrun.sweep.judge_work import JudgedRun
from evalrun.sweep.judged import join_verdicts
from evalrun.sweep.judging import Asked, Judging, Phase, ask_about
from evalrun.sweep.kinship import kinship
from evalrun.sweep.progress import ProgressAdapter
from evalrun.tracking.folder import SAMPLES, SweepFolder
from evalrun.tracking.parquet import column_names
from evalrun.types import SampleRecord

if TYPE_CHECKING:
    from evalrun.reports.progress import Progress
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.schema import Suite
    from evalrun.tracking.store import Store


def judging_of(
    suite: Suite, pipeline: Pipeline, parent: SweepFolder, file: Path, store: Store
) -> Judging | None:
    """What the scorers ask of models; None where they ask nothing. Raises UserError; sends nothing.

    Paths of the suite's own models start at the suite's folder, those of the file's judges at the file's.
    """
    if not any(scorer.asks for scorer in pipeline.scorers):
        return None
    manifest = parent.read_manifest()
    wanted = {name for scorer in pipeline.scorers if scorer.asks for name in scorer.models}  # type: ignore[attr-defined]

    def context(folder: Path) -> ProviderContext:
        return ProviderContext(folder.resolve(), store.root / "engines", suite.deterministic, suite.seed)

    beside_suite = context(Path(manifest["suite"]["path"]).parent)
    providers: dict[str, Provider] = {
        model.id: create(model, beside_suite) for model in suite.models if model.id in wanted
    }
    columns: dict[str, Sequence[str]] = {}
    for run in manifest["plan"]:
        names = column_names(parent.samples_path(run["run"]))
        columns[run["dataset"]] = [name[5:] for name in names if name.startswith("vars.")]
    return prepare_judging(suite, pipeline.scorers, context(file.parent), providers, columns)


class Rejudging:
    """The asking of a child sweep, and what came of it."""

    def __init__(self, judging: Judging, suite: Suite, pipeline: Pipeline, child: SweepFolder) -> None:
        self._judging, self._suite, self._pipeline, self._child = judging, suite, pipeline, child
        self._runs: list[JudgedRun] = []
        self.identities: dict[str, dict[str, Any]] = {}

    def ask(self, plan: Sequence[Mapping[str, Any]], store: Store, display: Progress | None) -> None:
        """Ask about all runs that are not finished. Raises the first fault (exit 3)."""
        self._runs = [
            JudgedRun(
                run["run"],
                folder := self._child.run_dir(run["run"]),
                folder / SAMPLES,
                run["model"],
                run["prompt"],
                run["dataset"],
                run.get("params") or {},
            )
            for run in plan
            if (self._child.samples_path(run["run"])).exists()
        ]
        todo = [run for run in self._runs if not self._child.is_finished(run.run_id)]
        if display is not None:
            display.start([])
        try:
            asked = asyncio.run(self._ask(todo, store, display))
        finally:
            if display is not None:
                display.stop()
        if asked.faults:
            raise asked.faults[0]
        if len(asked.done) < len(todo):
            raise UserError("the judging was interrupted", exit_code=ExitCode.INTERRUPTED)
        self.identities = asked.identities

    async def _ask(self, todo: Sequence[JudgedRun], store: Store, display: Progress | None) -> Asked:
        cache = ResponseCache(store.root / "cache" / "responses.db")
        progress = None
        if display is not None:
            progress = ProgressAdapter(display, self._judging.scorers[0].name)
        phase = Phase(self._judging, self._suite, cache, progress or _Nobody(), progress, Stop())
        try:
            return await ask_about(phase, todo, self._runs)
        finally:
            await self._judging.close()
            await cache.close()

    def judgement(self, run_id: str, model: str, identities: Mapping[str, Mapping[str, Any]]) -> Judgement:
        """Join the scores of a run; returns what its analysis is to say of them."""
        run = next(each for each in self._runs if each.run_id == run_id)
        bills = join_verdicts(self._judging, run, self._runs, self._pipeline.scorers)
        judged = next(each for each in self._suite.models if each.id == model)
        return Judgement(bills, kinship(self._judging, judged, {**identities, **self.identities}))

    def finished(self, run_id: str) -> None:
        """The run is finished: its journals are not needed any more."""
        drop_journals(self._child.run_dir(run_id))


class _Nobody:
    """Who is told of samples where nothing is shown."""

    def sample(self, run_id: str, record: SampleRecord) -> None:
        """Nothing."""

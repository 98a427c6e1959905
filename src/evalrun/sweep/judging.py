"""The phase after a run's answers: models are asked about them, and what they say becomes scores.

It begins when all runs have been asked, so that a judge's engine is started once for all of them, and never
beside one that is being measured. Its requests go through the runner's own machinery with a journal for each
scorer and model in the run's folder: a process that is killed loses and pays nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import Provider
from evalrun.runner.cache import ResponseCache
from evalrun.runner.cell import Cell, CellContext, CellOptions, CellRun, Observer, Stop
from evalrun.runner.journal import Earlier, Journal, RunFolder, read_journal
from evalrun.runner.limits import AdaptiveLimit, EndpointBudget, FixedLimit, Limit, Throttle
from evalrun.suite.components import ModelSpec
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.plan import RunSpec
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.embedding_work import EmbeddingTask
from evalrun.sweep.judge_work import PARAMS, JudgedRun, Task, Work
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.scoring.asking import AskingScorer
    from evalrun.sweep.progress import ProgressAdapter

JUDGE = "judge"
"""The folder of the journals within a run's, while it is judged."""


@dataclass(frozen=True, slots=True)
class Judging:
    """What scorers of a suite ask of models, checked and ready. `providers` are by model id; those of models
    that are cells too are the same ones. `digest` is over the prompts."""

    scorers: tuple[AskingScorer, ...]
    tasks: tuple[Task, ...]
    models: Mapping[str, ModelSpec]
    providers: Mapping[str, Provider]
    digest: str

    @property
    def model_ids(self) -> frozenset[str]:
        """The models that are asked."""
        return frozenset(self.models)

    async def close(self) -> None:
        """Stop every engine that was started for it."""
        for provider in self.providers.values():
            await provider.close()


@dataclass(frozen=True, slots=True)
class Phase:
    """What the phase works with. `begun` tells progress that a task begins: name, requests, what is done."""

    judging: Judging
    suite: Suite
    cache: ResponseCache | None
    observer: Observer
    progress: ProgressAdapter | None
    stop: Stop


@dataclass(slots=True)
class Asked:
    """What became of it: the runs that every task is done for, and the faults that kept others from it."""

    done: list[JudgedRun] = field(default_factory=list)
    faults: list[UserError] = field(default_factory=list)
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)


async def ask_about(phase: Phase, runs: Sequence[JudgedRun], everything: Sequence[JudgedRun]) -> Asked:
    """Ask all models about the runs; endpoints side by side, the models of one after each other.

    `everything` are all runs of the sweep whose samples are on disk, for scorers that compare runs.
    """
    asked = Asked()
    done: dict[str, int] = {run.run_id: 0 for run in runs}
    places: dict[str, dict[str, list[Task]]] = {}
    for task in phase.judging.tasks:
        provider = phase.judging.providers[task.model]
        place = "local" if provider.endpoint.startswith("local:") else provider.endpoint
        places.setdefault(place, {}).setdefault(task.model, []).append(task)
    async with asyncio.TaskGroup() as group:
        for models in places.values():
            group.create_task(_ask_place(phase, models, runs, everything, asked, done))
    asked.done = [run for run in runs if done[run.run_id] == len(phase.judging.tasks)]
    return asked


async def _ask_place(
    phase: Phase,
    models: Mapping[str, list[Task]],
    runs: Sequence[JudgedRun],
    everything: Sequence[JudgedRun],
    asked: Asked,
    done: dict[str, int],
) -> None:
    limits: dict[int | None, Limit] = {}
    for model_id, tasks in models.items():
        if phase.stop.requested:
            return
        provider = phase.judging.providers[model_id]
        spec = phase.judging.models[model_id]
        try:
            if phase.progress is not None and runs:
                phase.progress.phase(progress_name(runs[0].run_id, tasks[0]), "starting")
            await provider.start()
            asked.identities[model_id] = provider.identity()
            for task in tasks:
                for run in runs:
                    if phase.stop.requested:
                        return
                    other = other_run(task, run, everything)
                    budget = EndpointBudget.of([spec.limits])
                    ask = _Ask(phase, task, run, limits, budget)
                    if await ask.all(other):
                        done[run.run_id] += 1
        except UserError as fault:
            asked.faults.append(fault)
        finally:
            await provider.close()


def other_run(task: Task, run: JudgedRun, everything: Sequence[JudgedRun]) -> Path | None:
    """The samples that a run is compared with; None where its scorer compares with no run, or with itself.

    Raises UserError where that run has no answers.
    """
    pairwise = getattr(task.scorer.options, "pairwise", None)
    if pairwise is None or pairwise.column is not None:
        return None
    wanted = (pairwise.model or run.model, pairwise.prompt or run.prompt)
    if wanted == (run.model, run.prompt):
        return None
    for other in everything:
        same = other.dataset == run.dataset and dict(other.params) == dict(run.params)
        if (other.model, other.prompt) == wanted and same:
            return other.samples
    raise UserError(
        f"run {run.run_id} is compared with the answers of {wanted[0]} to {wanted[1]}, which are not there",
        where=f"scorer {task.scorer.name}",
        remedy="Run that cell too, or compare with another.",
        exit_code=ExitCode.INCOMPLETE,
    )


_ANY = DatasetSpec(id="samples", rows=[{}])


class _Ask:
    """One task about one run."""

    def __init__(
        self,
        phase: Phase,
        task: Task,
        run: JudgedRun,
        limits: dict[int | None, Limit],
        budget: EndpointBudget | None,
    ) -> None:
        self._phase, self._task, self._run = phase, task, run
        self._inner = phase.judging.providers[task.model]
        self._model = phase.judging.models[task.model]
        self._provider = task.provider(self._inner)
        self._folder = RunFolder(task_folder(run.folder, task))
        self._folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fixed = self._model.concurrency or self._provider.default_concurrency
        if fixed not in limits:
            limits[fixed] = FixedLimit(fixed) if fixed else AdaptiveLimit()
        self._throttle = Throttle(limits[fixed], budget)

    async def all(self, other: Path | None) -> bool:
        """Ask, and ask again what gave no grade. True when nothing is left to ask."""
        earlier = self._folder.open(self._provider.identity())
        try:
            name = progress_name(self._run.run_id, self._task)
            first = await asyncio.to_thread(self._task.first, self._run, other)
            if not await self._pass(name, first, earlier):
                return False
            records = list(read_journal(self._folder.journal))
            again = self._task.second(records)
            return again is None or await self._pass(f"{name} again", again, earlier)
        finally:
            self._folder.close()
            with contextlib.suppress(OSError):
                self._folder.system.unlink()
            if self._provider is not self._inner:
                await self._provider.close()

    async def _pass(self, name: str, work: Work, earlier: Earlier) -> bool:
        present = {item.sample_id for item in work}
        done = {key for key in earlier.done if key[0] in present}
        earlier = Earlier(done, earlier.clock_s)
        if self._phase.progress is not None:
            self._phase.progress.begin(name, len(work), earlier)
        params = judge_params(self._task, self._model, self._phase.suite, work)
        prompt = PromptSpec(id=self._task.scorer.name, text="-")
        spec = RunSpec(name, self._model, prompt, _ANY, params, {}, 1)
        cell = Cell(spec, work, work.renderer, self._provider, work.pipeline)  # type: ignore[arg-type]
        journal = Journal(self._folder.journal)
        cell_run = CellRun(
            cell,
            self._options(),
            CellContext(journal, self._phase.cache, self._throttle, self._phase.observer, self._phase.stop),
            earlier,
        )
        try:
            await cell_run.run()
        finally:
            await journal.close()
        if self._phase.progress is not None and cell_run.complete:
            self._phase.progress.end(name)
        return cell_run.complete

    def _options(self) -> CellOptions:
        suite = self._phase.suite
        return CellOptions(
            stream=False,
            warmup=0,
            timeout_s=self._model.timeout_s or suite.performance.timeout_s,
            retries=suite.performance.retries,
            seed=suite.seed,
            tolerate=suite.errors.tolerate,
        )


def judge_params(task: Task, model: ModelSpec, suite: Suite, work: Work) -> dict[str, JSON]:
    """The generation parameters of a judge. Those of a model under `models` are for its own answers."""
    if isinstance(task, EmbeddingTask):
        return {}
    of_model = {} if any(each.id == model.id for each in suite.models) else model.params
    params = {**PARAMS, **of_model, **work.params}
    if "max_completion_tokens" in params:
        params.pop("max_tokens", None)
    return params


def progress_name(run_id: str, task: Task) -> str:
    """What a task about a run is called where progress is shown."""
    name = f"{run_id} · {task.scorer.name}"
    return name if len(task.scorer.models) == 1 else f"{name} by {task.model}"


def task_folder(run: Path, task: Task) -> Path:
    """Where a task's journal is."""
    return run / JUDGE / task.slug


def records_of(run: Path, task: Task) -> Iterable[dict[str, Any]]:
    """What a task journalled about a run."""
    return read_journal(task_folder(run, task) / "journal.jsonl")

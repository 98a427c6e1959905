"""Judges: found and checked before anything is sent, estimated, and asked about runs, as cells like any
other.

The runner asks them as it asks every cell, with its journal, cache, limits and budget.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import private_folder
from evalrun.canonical import digest
from evalrun.errors import Problem, UserError
from evalrun.providers.base import Embeds, Provider, ProviderContext, capability, create
from evalrun.registry import nearest
from evalrun.runner.limits import CHARACTERS_PER_TOKEN
from evalrun.scoring.asking import AskingScorer
from evalrun.scoring.base import Scorer
from evalrun.scoring.scorers.embedding import EmbeddingSimilarity
from evalrun.scoring.scorers.judge import GIVEN, Judge, judge_prompt
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.phase import Phase
from evalrun.sweep.questions import (
    AnsweredRun,
    EmbeddingTask,
    JudgeTask,
    Round,
    Task,
    compared_samples,
)
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.prompts import Prompt
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.plan import RunSpec
    from evalrun.suite.schema import Suite
    from evalrun.sweep.estimate import JudgeEstimate, RunEstimate
    from evalrun.sweep.prepare import PreparedSweep


import asyncio

from evalrun.runner.cell import Cell, asked_price
from evalrun.runner.journal import RunFolder, read_journal
from evalrun.runner.limits import Throttle
from evalrun.runner.watch import LoadOnce
from evalrun.suite.components import ModelSpec
from evalrun.suite.plan import RunSpec
from evalrun.suite.schema import Suite
from evalrun.sweep.prepare import PreparedSweep
from evalrun.tracking.folder import SAMPLES, SweepFolder

PARAMS: Mapping[str, JSON] = {"temperature": 0, "max_tokens": 256}
"""What a judge is asked with where neither its model nor the scorer says otherwise."""
LOOKED_AT = 50
"""Rows whose targets are measured for an estimate."""
INSTRUCTIONS = 600
"""Characters of a judge's prompt besides question, reference and answers."""


@dataclass(frozen=True, slots=True)
class Judging:
    """What scorers of a suite ask of models, checked and ready. `providers` are by model id; those of models
    that are cells too are the same ones. `digest` is over the prompts."""

    scorers: tuple[AskingScorer, ...]
    tasks: tuple[Task, ...]
    models: Mapping[str, ModelSpec]
    providers: Mapping[str, Provider]
    digest: str

    async def close(self) -> None:
        """Stop every engine that was started for it."""
        for provider in self.providers.values():
            await provider.close()


def judge_params(task: Task, model: ModelSpec, suite: Suite, params: Mapping[str, JSON]) -> dict[str, JSON]:
    """The generation parameters of a judge. Those of a model under `models` are for its own answers."""
    if isinstance(task, EmbeddingTask):
        return {}
    of_model = {} if any(each.id == model.id for each in suite.models) else model.params
    merged = {**PARAMS, **of_model, **params}
    if "max_completion_tokens" in merged:
        merged.pop("max_tokens", None)
    return merged


def answered_run(folder: SweepFolder, spec: RunSpec) -> AnsweredRun:
    """A run whose samples are on disk, as judges see it."""
    path = folder.run_dir(spec.run_id)
    return AnsweredRun(
        spec.run_id, path, path / SAMPLES, spec.model.id, spec.prompt.id, spec.dataset.id, spec.params
    )


async def judge_runs(
    phase: Phase, judging: Judging, runs: Sequence[AnsweredRun], everything: Sequence[AnsweredRun]
) -> list[AnsweredRun]:
    """Ask all models about the runs; returns the runs about which nothing is left to ask.

    `everything` are all runs of the sweep whose samples are on disk, for scorers that compare runs.
    """
    jobs = [
        JudgeJob(task, run, judging.models[task.model], everything) for task in judging.tasks for run in runs
    ]
    await run_jobs(phase, jobs)
    left = {job.about.run_id for job in jobs if not job.complete}
    return [run for run in runs if run.run_id not in left]


@dataclass(slots=True)
class JudgeJob:
    """What one model is asked about one run for one scorer. `complete` when nothing is left to ask."""

    task: Task
    about: AnsweredRun
    model: ModelSpec
    everything: Sequence[AnsweredRun]
    complete: bool = False

    @property
    def name(self) -> str:
        """What it is called where progress is shown."""
        return self.task.name(self.about.run_id, self.task.rounds[0])

    async def run(self, phase: Phase, provider: Provider, throttle: Throttle, load: LoadOnce) -> None:
        """Ask round by round: the last ones ask again what gave no grade."""
        other = compared_samples(self.task, self.about, self.everything)
        asked = self.task.provider(provider)
        try:
            for at, round_ in enumerate(self.task.rounds):
                before = self._folder(self.task.rounds[at - 1]) if round_.asked > 1 else None
                if phase.stop.requested or not await self._round(
                    phase, asked, throttle, round_, before, other
                ):
                    return
            self.complete = True
        finally:
            if asked is not provider:
                await asked.close()

    def _folder(self, round_: Round) -> RunFolder:
        return RunFolder(self.task.folder(self.about.folder, round_))

    async def _round(
        self,
        phase: Phase,
        provider: Provider,
        throttle: Throttle,
        round_: Round,
        before: RunFolder | None,
        other: Any,
    ) -> bool:
        records = _records_of(before) if before is not None else ()
        questions = await asyncio.to_thread(self.task.questions, self.about, other, round_, records)
        if not len(questions):
            return True
        folder = self._folder(round_)
        private_folder(folder.path)
        earlier = folder.open(provider.identity())
        name = self.task.name(self.about.run_id, round_)
        params = judge_params(self.task, self.model, phase.suite, questions.params)
        cell = Cell(
            name,
            questions,
            questions.renderer,
            provider,
            questions.reader,
            params,
            price=asked_price(self.model, provider),
        )
        try:
            if phase.keeper is not None and isinstance(self.task, EmbeddingTask):
                phase = replace(phase, cache=None)  # its entries are named by texts as they were
            options = phase.options(self.model)
            asked = await phase.ask(cell, folder, earlier, options, throttle, about=self.about.folder)
        finally:
            folder.close()
            folder.system.unlink(missing_ok=True)
        if asked.complete:
            phase.progress.end(name)
        return asked.complete


def _records_of(folder: RunFolder) -> Iterator[Mapping[str, Any]]:
    """What a judge was asked and said, as it was where that is kept."""
    from evalrun.privacy.kept import raw_texts

    kept = raw_texts(folder.path)
    for record in read_journal(folder.journal):
        raw = None if kept is None else kept.find(record["sample_id"], record.get("repeat", 0))
        yield (
            record
            if raw is None
            else {**record, **{name: raw[name] for name in ("messages", "prompt", "output")}}
        )


def prepare_judging(
    suite: Suite,
    scorers: Sequence[Scorer],
    context: ProviderContext,
    providers: Mapping[str, Provider],
    columns: Mapping[str, Sequence[str]],
) -> Judging:
    """Everything that the suite's asking scorers need. `providers` are those of the suite's models, by id,
    `columns` those of its datasets. Raises UserError with all problems; sends nothing."""
    asking = tuple(scorer for scorer in scorers if isinstance(scorer, AskingScorer))
    known = {model.id: model for model in (*suite.models, *suite.judges)}
    problems: list[Problem] = []
    made: dict[str, Provider] = {}
    tasks: list[Task] = []
    prompts: dict[str, str] = {}
    for scorer in asking:
        for model_id in scorer.models:
            if model_id not in known:
                remedy = _nearest(model_id, known, "List it under judges.")
                problems.append(
                    Problem(f"there is no model '{model_id}' to ask", f"scorer {scorer.name}", remedy)
                )
                continue
            try:
                if model_id not in made:
                    made[model_id] = providers.get(model_id) or create(known[model_id], context)
                task, prompt = _task(scorer, made[model_id], context.base_dir)
            except UserError as error:
                problems += error.problems
                continue
            if suite.privacy is not None and not suite.privacy.sees_raw(model_id):
                task.redacted = True
                problems += _apart(task, suite.privacy.judges)
            tasks.append(task)
            if prompt is not None:
                prompts[f"{scorer.name}--{model_id}"] = prompt.digest
                for name, present in columns.items():
                    where = f"scorer {scorer.name}, dataset {name}"
                    problems += prompt.check([*present, *GIVEN], where)
        problems += _unknown_names(scorer, columns, suite)
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    models = {model_id: known[model_id] for model_id in made}
    return Judging(asking, tuple(tasks), models, made, digest(prompts))


def _apart(task: Task, judges: object) -> Iterator[Problem]:
    """A vector is found again by its text: a model of embeddings is given what the scorer is given."""
    if isinstance(task, EmbeddingTask) and isinstance(judges, dict):
        remedy = "Say it of all: judges: redacted."
        yield Problem(f"'{task.model}' makes embeddings", f"privacy.judges.{task.model}", remedy)


def _task(scorer: AskingScorer, provider: Provider, base_dir: Path) -> tuple[Task, Prompt | None]:
    from evalrun.prompts import compile_prompt

    where, model_id = f"scorer {scorer.name}", provider.spec.id
    embeds = getattr(provider.spec.options, "embeddings", None)
    if isinstance(scorer, EmbeddingSimilarity):
        if capability(provider, Embeds) is None or embeds is False:
            remedy = (
                "Set embeddings: true for it, under judges." if embeds is False else "Name another model."
            )
            raise UserError(f"model '{model_id}' makes no embeddings", where=where, remedy=remedy)
        return EmbeddingTask(scorer, model_id), None
    assert isinstance(scorer, Judge)
    if not provider.measured or embeds:
        raise UserError(f"model '{model_id}' cannot judge: it answers no prompts", where=where)
    spec = judge_prompt(scorer.options, scorer.name, base_dir)
    prompt = compile_prompt(spec, base_dir, getattr(provider.spec.options, "api", "chat"))
    structured = scorer.options.structured and "json_schema" in provider.supports
    return JudgeTask(scorer, model_id, prompt, structured), prompt


def _unknown_names(
    scorer: AskingScorer, columns: Mapping[str, Sequence[str]], suite: Suite
) -> Iterator[Problem]:
    """Columns, models and prompts that a scorer names and nothing has."""
    where, options = f"scorer {scorer.name}", scorer.options
    pairwise = getattr(options, "pairwise", None)
    for column in filter(None, [getattr(options, "human", None), getattr(pairwise, "column", None)]):
        for name, present in columns.items():
            if column not in present:
                remedy = _nearest(column, present, f"Columns: {', '.join(present)}.")
                yield Problem(f"dataset {name} has no column '{column}'", where, remedy)
    for section, known in (("model", suite.models), ("prompt", suite.prompts)):
        wanted, ids = getattr(pairwise, section, None), [each.id for each in known]
        if wanted is not None and wanted not in ids:
            remedy = _nearest(wanted, ids, f"There are: {', '.join(ids)}.")
            yield Problem(f"the suite has no {section} '{wanted}' to compare with", where, remedy)


def _nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    near = nearest(name, known)
    return f"Did you mean '{near}'?" if near else otherwise


def planned_requests(prepared: PreparedSweep) -> list[tuple[str, int]]:
    """For progress: what judges will be asked at first about every run, by the names of the cells. Embeddings
    are not known before."""
    if prepared.judging is None:
        return []
    return [
        (task.name(spec.run_id, round_), requests // sum(each.asked == 1 for each in task.rounds))
        for spec in prepared.specs
        for task in prepared.judging.tasks
        if isinstance(task, JudgeTask) and (requests := _requests(prepared, spec, task))
        for round_ in task.rounds
        if round_.asked == 1
    ]


def estimate_judges(prepared: PreparedSweep, runs: Sequence[RunEstimate]) -> tuple[JudgeEstimate, ...]:
    """Requests, tokens and cost of every task about every run; answers are taken as long as they may be."""
    assert prepared.judging is not None
    return tuple(
        _estimate(prepared, spec, run, task)
        for spec, run in zip(prepared.specs, runs, strict=True)
        for task in prepared.judging.tasks
    )


def _requests(prepared: PreparedSweep, spec: RunSpec, task: Task) -> int:
    samples = spec.requests(prepared.loaded.suite, len(prepared.datasets[spec.dataset.id]))
    if not isinstance(task, JudgeTask):
        return 2 * samples  # answer and target; texts that are the same are sent once
    pairwise = task.scorer.options.pairwise
    if pairwise is not None and pairwise.column is None:
        other = (pairwise.model or spec.model.id, pairwise.prompt or spec.prompt.id)
        if other == (spec.model.id, spec.prompt.id):
            return 0
    return samples * len(task.scorer.orders)


def _estimate(prepared: PreparedSweep, spec: RunSpec, run: RunEstimate, task: Task) -> JudgeEstimate:
    from evalrun.sweep.estimate import JudgeEstimate

    assert prepared.judging is not None
    requests = _requests(prepared, spec, task)
    asked = run.requests or 1
    answer = (run.max_completion_tokens or 0) / asked
    targets = [len(str(item.target)) for item in islice(iter(prepared.datasets[spec.dataset.id]), LOOKED_AT)]
    target = sum(targets) / len(targets) / CHARACTERS_PER_TOKEN if targets else 0.0
    model = prepared.judging.models[task.model]
    price = asked_price(model, prepared.judging.providers[task.model])
    if isinstance(task, JudgeTask):
        answers = answer * (2 if task.scorer.pairwise else 1)
        shown = INSTRUCTIONS / CHARACTERS_PER_TOKEN + run.prompt_tokens / asked + target + answers
        tokens = requests * shown
        params = judge_params(task, model, prepared.loaded.suite, {})
        limit = params.get("max_tokens") or params.get("max_completion_tokens") or 0
        completion = requests * (limit if isinstance(limit, int) else 0)
    else:
        tokens, completion = requests * (answer + target) / 2, 0
    return JudgeEstimate(
        run=spec.run_id,
        scorer=task.scorer.name,
        model=task.model,
        requests=requests,
        prompt_tokens=round(tokens),
        max_completion_tokens=completion,
        usd=price.usd(tokens, completion) if price is not None else None,
    )


_FAMILIES = re.compile(
    r"(?<![a-z])(claude|command-?[ar]|deepseek|falcon|gemini|gemma|gpt|granite|grok|llama|ministral|mistral|mixtral"
    r"|nemotron|olmo|phi|qwen|smollm|yi)(?![a-z])",
    re.IGNORECASE,
)
_SAME_FAMILY = {"mixtral": "mistral", "ministral": "mistral"}


def lineage_notes(
    judging: Judging, judged: ModelSpec, identities: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What must be said beside a judge's figures, by scorer: that judge and judged are the same model, or of
    one family; such grades are known to be too good."""
    notes = {}
    for scorer in judging.scorers:
        if isinstance(scorer, Judge):
            related = [_related(judging.models[model], judged, identities) for model in scorer.models]
            if any(related):
                notes[scorer.name] = "; ".join(filter(None, related))
    return notes


def _related(judge: ModelSpec, judged: ModelSpec, identities: Mapping[str, Mapping[str, Any]]) -> str:
    if _same(judge, judged, identities):
        return f"judge and judged are the same model ({judge.id}): models favour their own answers"
    families = {_family(each) for each in (judge, judged)}
    if len(families) == 1 and (family := families.pop()) is not None:
        return f"judge {judge.id} and the judged model are both of the family {family}, and may favour it"
    return ""


def _same(judge: ModelSpec, judged: ModelSpec, identities: Mapping[str, Mapping[str, Any]]) -> bool:
    if judge.id == judged.id or (judge.model is not None and _bare(judge.model) == _bare(judged.model)):
        return True
    weights = [identities.get(each.id, {}).get("weights_sha256") for each in (judge, judged)]
    return weights[0] is not None and weights[0] == weights[1]


def _bare(name: str | None) -> str:
    """A model's name without the owner before it."""
    return (name or "").rpartition("/")[2].casefold()


def _family(spec: ModelSpec) -> str | None:
    found = _FAMILIES.search(f"{spec.model or ''}")
    if found is None:
        return None
    name = found[1].casefold()
    return _SAME_FAMILY.get(name, name)

"""What scorers that ask models need, found and checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.canonical import digest
from evalrun.errors import Problem, UserError
from evalrun.registry import nearest
from evalrun.scoring.asking import AskingScorer
from evalrun.scoring.base import Scorer

if TYPE_CHECKING:
    from evalrun.prompts import Prompt
    from evalrun.providers.base import Provider, ProviderContext
    from evalrun.scoring.scorers.judge import Judge
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.schema import Suite
    from evalrun.sweep.judge_work import Task
    from evalrun.sweep.judging import Judging


def asks(scorers: Sequence[Scorer]) -> bool:
    """Whether any scorer asks a model."""
    return any(scorer.asks for scorer in scorers)


def prepare_judging(
    suite: Suite,
    scorers: Sequence[Scorer],
    context: ProviderContext,
    providers: Mapping[str, Provider],
    columns: Mapping[str, Sequence[str]],
) -> Judging:
    """Everything that the suite's asking scorers need. `providers` are those of the suite's models, by id,
    `columns` those of its datasets. Raises UserError with all problems; sends nothing."""
    from evalrun.sweep.judging import Judging

    asking = tuple(scorer for scorer in scorers if isinstance(scorer, AskingScorer))
    known = {model.id: model for model in (*suite.models, *suite.judges)}
    problems: list[Problem] = []
    made: dict[str, Provider] = {}
    tasks: list[Task] = []
    prompts: dict[str, str] = {}
    for scorer in asking:
        for model_id in scorer.models:
            if model_id not in known:
                problems.append(_unknown(scorer, model_id, known))
                continue
            try:
                if model_id not in made:
                    made[model_id] = providers.get(model_id) or _created(known[model_id], context)
                task, prompt = _task(scorer, made[model_id], context.base_dir)
            except UserError as error:
                problems += error.problems
                continue
            tasks.append(task)
            if prompt is not None:
                prompts[task.slug] = prompt.digest
                problems += _check(prompt, scorer, columns)
        problems += _unfit_columns(scorer, columns, suite)
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    models = {model_id: known[model_id] for model_id in made}
    return Judging(asking, tuple(tasks), models, made, digest(prompts))


def _created(spec: ModelSpec, context: ProviderContext) -> Provider:
    from evalrun.providers.base import create

    return create(spec, context)


def _unknown(scorer: AskingScorer, model_id: str, known: Mapping[str, object]) -> Problem:
    near = nearest(model_id, known)
    remedy = f"Did you mean '{near}'?" if near else "List it under judges."
    return Problem(f"there is no model '{model_id}' to ask", f"scorer {scorer.name}", remedy)


def _task(scorer: AskingScorer, provider: Provider, base_dir: Path) -> tuple[Task, Prompt | None]:
    from evalrun.scoring.scorers.judge import Judge
    from evalrun.sweep.embedding_work import EmbeddingTask
    from evalrun.sweep.judge_work import JudgeTask

    where, model_id = f"scorer {scorer.name}", provider.spec.id
    embeds = getattr(provider.spec.options, "embeddings", None)
    if not isinstance(scorer, Judge):
        if "embeddings" not in provider.supports or embeds is False:
            remedy = (
                "Set embeddings: true for it, under judges." if embeds is False else "Name another model."
            )
            raise UserError(f"model '{model_id}' makes no embeddings", where=where, remedy=remedy)
        return EmbeddingTask(scorer, model_id), None
    if not provider.measured or embeds:
        raise UserError(f"model '{model_id}' cannot judge: it answers no prompts", where=where)
    prompt = _prompt(scorer, provider, base_dir)
    structured = scorer.options.structured and "json_schema" in provider.supports
    return JudgeTask(scorer, model_id, prompt, structured), prompt


def _prompt(scorer: Judge, provider: Provider, base_dir: Path) -> Prompt:
    from evalrun.prompts import compile_prompt
    from evalrun.scoring.scorers.judge import judge_prompt

    spec = judge_prompt(scorer.options, scorer.name, base_dir)
    return compile_prompt(spec, base_dir, getattr(provider.spec.options, "api", "chat"))


def _check(prompt: Prompt, scorer: AskingScorer, columns: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    from evalrun.scoring.scorers.judge import GIVEN

    for name, present in columns.items():
        yield from prompt.check([*present, *GIVEN], f"scorer {scorer.name}, dataset {name}")


def _unfit_columns(
    scorer: AskingScorer, columns: Mapping[str, Sequence[str]], suite: Suite
) -> Iterator[Problem]:
    where, options = f"scorer {scorer.name}", scorer.options
    pairwise = getattr(options, "pairwise", None)
    wanted = [getattr(options, "human", None), getattr(pairwise, "column", None)]
    for column in filter(None, wanted):
        for name, present in columns.items():
            if column not in present:
                near = nearest(column, present)
                remedy = f"Did you mean '{near}'?" if near else f"Columns: {', '.join(present)}."
                yield Problem(f"dataset {name} has no column '{column}'", where, remedy)
    for section, wanted_id in (
        ("model", getattr(pairwise, "model", None)),
        ("prompt", getattr(pairwise, "prompt", None)),
    ):
        ids = [each.id for each in (suite.models if section == "model" else suite.prompts)]
        if wanted_id is not None and wanted_id not in ids:
            near = nearest(wanted_id, ids)
            remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(ids)}."
            yield Problem(f"the suite has no {section} '{wanted_id}' to compare with", where, remedy)

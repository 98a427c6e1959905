"""What judges would be asked, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from evalrun.runner.limits import CHARACTERS_PER_TOKEN
from evalrun.scoring.scorers.judge import Judge
from evalrun.suite.plan import RunSpec
from evalrun.sweep.embedding_work import EmbeddingTask
from evalrun.sweep.estimate import JudgeEstimate, RunEstimate
from evalrun.sweep.judge_work import JudgeTask, Task, Work
from evalrun.sweep.judging import judge_params, progress_name

if TYPE_CHECKING:
    from evalrun.suite.values import PriceSpec
    from evalrun.sweep.prepare import PreparedSweep

LOOKED_AT = 50
"""Rows whose targets are measured."""
INSTRUCTIONS = 600
"""Characters of a judge's prompt besides question, reference and answers."""


def planned_requests(prepared: PreparedSweep) -> list[tuple[str, int]]:
    """The requests of every judge about every run, by the name that progress shows them under."""
    assert prepared.judging is not None
    return [
        (progress_name(spec.run_id, task), _requests(prepared, spec, task))
        for spec in prepared.specs
        for task in prepared.judging.tasks
        if not isinstance(task, EmbeddingTask) and _requests(prepared, spec, task)
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
    samples = len(prepared.datasets[spec.dataset.id]) * spec.repeats
    if not isinstance(task.scorer, Judge):
        return 2 * samples  # answer and target; texts that are the same are sent once
    pairwise = task.scorer.options.pairwise
    if pairwise is not None and pairwise.column is None:
        other = (pairwise.model or spec.model.id, pairwise.prompt or spec.prompt.id)
        if other == (spec.model.id, spec.prompt.id):
            return 0
    return samples * len(task.scorer.orders)


def _estimate(prepared: PreparedSweep, spec: RunSpec, run: RunEstimate, task: Task) -> JudgeEstimate:
    assert prepared.judging is not None
    requests = _requests(prepared, spec, task)
    asked = run.requests or 1
    answer = (run.max_completion_tokens or 0) / asked
    targets = [len(str(item.target)) for item in islice(iter(prepared.datasets[spec.dataset.id]), LOOKED_AT)]
    target = sum(targets) / len(targets) / CHARACTERS_PER_TOKEN if targets else 0.0
    model = prepared.judging.models[task.model]
    if isinstance(task, JudgeTask):
        answers = answer * (2 if task.scorer.pairwise else 1)
        shown = INSTRUCTIONS / CHARACTERS_PER_TOKEN + run.prompt_tokens / asked + target + answers
        tokens = requests * shown
        params = judge_params(task, model, prepared.loaded.suite, Work(tuple, 0, None, None, {}))
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
        usd=_usd(model.price, tokens, completion),
    )


def _usd(price: PriceSpec | None, prompt: float, completion: float) -> float | None:
    if price is None:
        return None
    return (prompt * price.input_per_million_usd + completion * price.output_per_million_usd) / 1e6

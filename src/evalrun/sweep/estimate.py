"""What a sweep would send: samples, requests, tokens and cost, without sending anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from evalrun.suite.plan import RunSpec
from evalrun.sweep.prepare import PreparedSweep
from evalrun.types import Ask, Message

CHARACTERS_PER_TOKEN = 4.0
"""A rule of thumb for English under common tokenisers; the estimate says that it is one."""
MESSAGE_OVERHEAD_TOKENS = 4
RENDERED_ROWS = 200
"""Rows rendered to estimate the mean prompt length; the rest are taken to be like them."""


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """One run of the plan. Tokens are estimates; `usd` is None where the model has no price."""

    run: str
    model: str
    prompt: str
    dataset: str
    params: dict[str, Any]
    samples: int
    requests: int
    prompt_tokens: int
    max_completion_tokens: int | None
    usd: float | None


@dataclass(frozen=True, slots=True)
class JudgeEstimate:
    """What one scorer asks one model about one run. `requests` is the most without asking again."""

    run: str
    scorer: str
    model: str
    requests: int
    prompt_tokens: int
    max_completion_tokens: int
    usd: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """All runs of a plan, and what is asked about them."""

    name: str
    runs: tuple[RunEstimate, ...]
    judges: tuple[JudgeEstimate, ...] = ()

    def document(self) -> dict[str, Any]:
        """As plain JSON values, with totals."""
        every: tuple[RunEstimate | JudgeEstimate, ...] = (*self.runs, *self.judges)
        costs = [each.usd for each in every if each.usd is not None]
        return {
            "name": self.name,
            "runs": [asdict(run) for run in self.runs],
            "judges": [asdict(judge) for judge in self.judges],
            "total": {
                "runs": len(self.runs),
                "requests": sum(run.requests for run in self.runs),
                "judge_requests": sum(judge.requests for judge in self.judges),
                "prompt_tokens": sum(run.prompt_tokens for run in self.runs),
                "max_completion_tokens": _sum_known([run.max_completion_tokens for run in self.runs]),
                "usd": sum(costs) if costs else None,
            },
        }


def _sum_known(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def estimate(prepared: PreparedSweep) -> Estimate:
    """Estimate every run of a prepared sweep."""
    runs = tuple(_estimate_run(prepared, spec) for spec in prepared.specs)
    judges: tuple[JudgeEstimate, ...] = ()
    if prepared.judging is not None:
        from evalrun.sweep.judging import estimate_judges

        judges = estimate_judges(prepared, runs)
    return Estimate(prepared.loaded.suite.name, runs, judges)


def _estimate_run(prepared: PreparedSweep, spec: RunSpec) -> RunEstimate:
    dataset = prepared.datasets[spec.dataset.id]
    renderer = prepared.renderer(spec)
    lengths = []
    for item in islice(iter(dataset), RENDERED_ROWS):
        rendered = renderer.render(item)
        lengths.append(_tokens(rendered.messages, rendered.prompt) * _texts(rendered.ask))
    requests = len(dataset) * spec.repeats
    prompt_tokens = round(requests * sum(lengths) / len(lengths)) if lengths else 0
    limit = spec.params.get("max_tokens") if spec.prompt.ask is None else 1
    completion = requests * limit if isinstance(limit, int) else None
    price = spec.model.price
    usd = None
    if price is not None and completion is not None:
        usd = price.usd(prompt_tokens, completion)
    return RunEstimate(
        run=spec.run_id,
        model=spec.model.id,
        prompt=spec.prompt.id,
        dataset=spec.dataset.id,
        params=dict(spec.params),
        samples=len(dataset),
        requests=requests,
        prompt_tokens=prompt_tokens,
        max_completion_tokens=completion,
        usd=usd,
    )


def _texts(ask: Ask | None) -> int:
    """How often the prompt is read for a sample: once for each option that is scored behind it."""
    return len(ask.options) if ask is not None and ask.options and ask.via == "prompt_logprobs" else 1


def _tokens(messages: tuple[Message, ...], prompt: str | None) -> float:
    if prompt is not None:
        return len(prompt) / CHARACTERS_PER_TOKEN
    return sum(
        len(message.content) / CHARACTERS_PER_TOKEN + MESSAGE_OVERHEAD_TOKENS
        for message in messages
        if isinstance(message.content, str)
    )

"""Whether models can give what prompts ask of them, and rows hold what models answer from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from evalrun.errors import Problem
from evalrun.providers.base import Provider, ReadsRows, capability, likelihood_problem

if TYPE_CHECKING:
    from evalrun.datasets import Dataset
    from evalrun.suite.plan import RunSpec


def prompts_beyond_models(specs: tuple[RunSpec, ...], providers: Mapping[str, Provider]) -> Iterator[Problem]:
    """Prompts that ask a model for what its provider cannot give."""
    for spec in specs:
        provider = providers.get(spec.model.id)
        if provider is not None and (problem := _without_tokens(spec, provider)) is not None:
            yield problem
        if spec.prompt.ask is not None and provider is not None:
            problem = likelihood_problem(provider, spec.prompt.ask.via)
            if problem is not None:
                yield replace(problem, what=f"prompt {spec.prompt.id}: {problem.what}")


def _without_tokens(spec: RunSpec, provider: Provider) -> Problem | None:
    """Why a model cannot be asked for the likelihoods of a published task."""
    from evalrun.suite.tasks import TaskDataset

    if not (isinstance(spec.dataset, TaskDataset) and spec.dataset.asks_likelihoods):
        return None
    if "token_ids" in provider.supports:
        return None
    problem = likelihood_problem(provider, "prompt_logprobs")
    what = problem.what if problem else f"provider '{spec.model.provider}' cannot be asked by token ids"
    remedy = "Ask it by openai_compatible, vllm or llamacpp with api: completions, or set ask: written."
    return Problem(f"task {spec.dataset.id}: {what}", f"model {spec.model.id}", remedy)


def models_without_columns(
    specs: tuple[RunSpec, ...], providers: Mapping[str, Provider], datasets: Mapping[str, Dataset]
) -> Iterator[Problem]:
    """Models that answer from the rows, and rows without what they need."""
    for model, name in dict.fromkeys((spec.model.id, spec.dataset.id) for spec in specs):
        provider, dataset = providers.get(model), datasets.get(name)
        if provider is not None and dataset is not None:
            reader, columns = capability(provider, ReadsRows), (*dataset.columns, *dataset.partial)
            if reader is not None and (problem := reader.check(columns, f"dataset {name}")) is not None:
                yield replace(problem, what=f"model {model}: {problem.what}")

"""The prompts of a suite, compiled and tried out on the rows that they will be shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from itertools import islice
from typing import TYPE_CHECKING

from evalrun.errors import Problem, Problems, UserError
from evalrun.frozen import frozen
from evalrun.prompts import Api, Prompt, Renderer, compile_prompt, open_pool
from evalrun.sandbox import reaches_by_computed_names
from evalrun.sweep.examples import bound

if TYPE_CHECKING:
    from evalrun.datasets import Dataset
    from evalrun.suite.components import ModelSpec
    from evalrun.suite.load import LoadedSuite
    from evalrun.suite.plan import RunSpec

_TRIED_ROWS = 8


def api_of(model: ModelSpec) -> Api:
    """Which of the two, chat or completions, a model is asked through."""
    api: Api = getattr(model.options, "api", "chat")
    return api


@frozen
class Compiled:
    """The prompts of a suite by (prompt id, api), what renders them by (prompt id, dataset id, api), and
    the digests of the few-shot examples by "prompt id/dataset id"."""

    prompts: dict[tuple[str, str], Prompt] = field(default_factory=dict)
    renderers: dict[tuple[str, str, str], Renderer] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)


def compile_prompts(
    loaded: LoadedSuite, specs: tuple[RunSpec, ...], datasets: Mapping[str, Dataset], problems: Problems
) -> Compiled:
    compiled = Compiled()
    for spec in specs:
        api = api_of(spec.model)
        key = (spec.prompt.id, api)
        if key not in compiled.prompts:
            with problems.collect():
                compiled.prompts[key] = compile_prompt(spec.prompt, loaded.base_dir, api)
        dataset, prompt = datasets.get(spec.dataset.id), compiled.prompts.get(key)
        place = (spec.prompt.id, spec.dataset.id, api)
        if dataset is None or prompt is None or place in compiled.renderers:
            continue
        before = len(problems.found)
        problems.found.extend(
            prompt.check(dataset.columns, f"dataset {dataset.id}", dataset.partial, dataset.binary)
        )
        said = prompt.left_empty(dataset.nulls)
        dataset.warnings.extend(text for text in said if text not in dataset.warnings)
        with problems.collect():
            pool = None
            if spec.prompt.few_shot is not None and spec.prompt.few_shot.shown:
                pool = open_pool(spec.dataset, spec.prompt.few_shot, loaded.base_dir, loaded.suite.seed)
                compiled.examples[f"{prompt.id}/{dataset.id}"] = pool.digest
            compiled.renderers[place] = bound(prompt, pool, loaded, spec.dataset, dataset)
            if len(problems.found) == before:
                _try_out(prompt, compiled.renderers[place], dataset)
    return compiled


def _try_out(prompt: Prompt, renderer: Renderer, dataset: Dataset) -> None:
    """Render the first rows, and all where a template makes up the names that it looks up: what the sandbox
    refuses must be known before anything is sent. Raises UserError."""
    every = any(map(reaches_by_computed_names, prompt.source.values()))
    for item in islice(iter(dataset), None if every else _TRIED_ROWS):
        renderer.render(item)


def emptied(
    specs: Sequence[RunSpec], datasets: Mapping[str, Dataset], compiled: Compiled
) -> Iterator[Problem]:
    """The prompts of which nothing is left when their parts are left out, by the first row."""
    for spec in specs:
        key = (spec.prompt.id, spec.dataset.id, api_of(spec.model))
        item = next(iter(datasets.get(spec.dataset.id) or ()), None)
        if not spec.prompt.without or key not in compiled.renderers or item is None:
            continue
        with suppress(UserError):
            rendered = compiled.renderers[key].render(item)
            texts = [message.content for message in rendered.messages] or [rendered.prompt]
            if all(isinstance(text, str) and not text.strip() for text in texts):
                yield Problem(
                    f"without {spec.prompt.without} nothing is left of the prompt",
                    f"prompt {spec.prompt.ablates}, ablate",
                    "Keep what is always there, such as the row's own text, outside the sections.",
                )

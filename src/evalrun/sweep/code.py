"""What code takes part in a sweep that is not evalrun's own, by digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun import registry
from evalrun.providers.base import Pinned, Provider, capability
from evalrun.suite.components import PYTHON
from evalrun.types import JSON
from evalrun.usercode import code_digests

if TYPE_CHECKING:
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.schema import Suite


def scoring_code(suite: Suite, pipeline: Pipeline, base_dir: Path) -> dict[str, str]:
    """The digests of scorers and parsers that are not evalrun's own, with the modules that they import.

    They are the suite's (`python:`, also within other scorers) and those of other packages.
    """
    parsers = [*suite.parse, *(each for prompt in suite.prompts for each in prompt.parse or ())]
    sections: list[JSON] = [each.resolved() for each in (*parsers, *suite.scorers)]
    own = [registry.import_attribute(target) for target in _python_targets(sections)]
    return code_digests([*own, *pipeline.scorers, *pipeline.parsers], base_dir)


def _python_targets(value: JSON) -> Iterator[str]:
    """What components name by `python:`, at any depth: a scorer may hold parsers and another scorer."""
    if isinstance(value, Mapping):
        target = value.get(PYTHON)
        if isinstance(target, str):
            yield target
        for each in value.values():
            yield from _python_targets(each)
    elif isinstance(value, list):
        for each in value:
            yield from _python_targets(each)


def code_of_models(providers: Mapping[str, Provider]) -> dict[str, JSON]:
    """The digests of the functions that stand in a model's place."""
    return {
        f"model {name}": pinned.pins()
        for name, provider in providers.items()
        if provider.spec.provider == PYTHON and (pinned := capability(provider, Pinned)) is not None
    }

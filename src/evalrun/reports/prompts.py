"""The prompts of a sweep beside their scores: text, system message and worked examples, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.details import texts_of
from evalrun.reports.view import RunView
from evalrun.types import JSON

MOST_SCORES = 6
MOST_LETTERS = 20_000
"""Longer prompts are cut: the whole text stands under Provenance."""


@frozen
class PromptView:
    """A prompt: the scores of its runs, each with what it is of, and its text. `anchor` names the text on the
    page; `against` is that of the best prompt, from which differences are marked; "" for the best itself."""

    name: str
    scores: Sequence[tuple[str, str]]
    text: str
    anchor: str
    against: str = ""


def prompts(
    by_dataset: Mapping[str, Sequence[RunView]], documents: Mapping[str, Mapping[str, JSON]]
) -> list[PromptView]:
    """Every prompt that was ranked, in the order of its best run on the first dataset that has it."""
    ranked = [run for runs in by_dataset.values() for run in runs]
    models, named = len({run.model for run in ranked}) > 1, len(by_dataset) > 1
    views: list[PromptView] = []
    for name in dict.fromkeys(run.results.prompt for run in ranked):
        source = documents.get(name, {}).get("source")
        if not source:
            continue
        own = [run for run in ranked if run.results.prompt == name]
        scores = [
            (", ".join([run.model] * models + [run.dataset] * named) or run.dataset,
             numbers.measured(run.primary.value, run.primary.ci_low, run.primary.ci_high, run.primary.unit))
            for run in own
            if run.primary is not None and run.primary.value is not None
        ]  # fmt: skip
        best = views[0].anchor if views else ""
        views.append(PromptView(name, scores[:MOST_SCORES], _text(source), f"prompt-{len(views)}", best))
    return views


def _text(source: JSON) -> str:
    """A prompt's parts one under the other, each under its name where there are several."""
    if not isinstance(source, Mapping):
        return str(source)[:MOST_LETTERS]
    parts = texts_of(source)
    told = (f"[{name}]\n{text}" if len(parts) > 1 else text for name, text in parts)
    return "\n\n".join(told)[:MOST_LETTERS]

"""The prompts of a sweep beside their scores: text, system message and worked examples, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.frozen import frozen
from evalrun.reports import numbers
from evalrun.reports.details import texts_of
from evalrun.reports.source import AskedBy
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
    by_dataset: Mapping[str, Sequence[RunView]],
    documents: Mapping[str, Mapping[str, JSON]],
    asked: Sequence[AskedBy] = (),
) -> list[PromptView]:
    """Every prompt that was ranked, in the order of its best run on the first dataset that has it. `asked`
    are the suite's entries: who speaks, and which worked examples are shown."""
    entries = {each.id: each for each in asked}
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
        views.append(
            PromptView(
                name, scores[:MOST_SCORES], _text(source, entries.get(name)), f"prompt-{len(views)}", best
            )
        )
    return views


def _text(source: JSON, asked: AskedBy | None) -> str:
    """A prompt's parts one under the other, each under its name or who speaks where there are several; worked
    examples, which stand before the last message, as what they are."""
    examples = asked.few_shot.sentence if asked and asked.few_shot else ""
    parts = texts_of(source) if isinstance(source, Mapping) else [("", str(source))]
    several = len(parts) > 1 or bool(examples)
    told = [f"[{_speaker(name, asked)}]\n{text}" if several else text for name, text in parts]
    if examples:
        told.insert(len(told) - 1, f"[few-shot]\n{examples}")
    return "\n\n".join(told)[:MOST_LETTERS]


def _speaker(name: str, asked: AskedBy | None) -> str:
    """`system` for `messages.0`, whose place in the suite says who speaks."""
    _, _, place = name.partition("messages.")
    roles = asked.roles if asked else []
    return roles[int(place)] if place.isdecimal() and int(place) < len(roles) else name or "text"

"""Whether a judge judges itself, or one of its family: such grades are known to be too good."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec
    from evalrun.sweep.judging import Judging

_FAMILIES = re.compile(
    r"(?<![a-z])(claude|command-?[ar]|deepseek|falcon|gemini|gemma|gpt|granite|grok|llama|ministral|mistral|mixtral"
    r"|nemotron|olmo|phi|qwen|smollm|yi)(?![a-z])",
    re.IGNORECASE,
)
_KIN = {"mixtral": "mistral", "ministral": "mistral"}


def kinship(
    judging: Judging, judged: ModelSpec, identities: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """What must be said beside a judge's figures, by scorer: that judge and judged are the same or akin."""
    from evalrun.scoring.scorers.judge import Judge

    notes = {}
    for scorer in judging.scorers:
        if not isinstance(scorer, Judge):
            continue
        found = [
            note
            for model_id in scorer.models
            if (note := _relation(judging.models[model_id], judged, identities))
        ]
        if found:
            notes[scorer.name] = "; ".join(found)
    return notes


def _relation(judge: ModelSpec, judged: ModelSpec, identities: Mapping[str, Mapping[str, Any]]) -> str:
    if _same(judge, judged, identities):
        return f"judge and judged are the same model ({judge.id}): models favour their own answers"
    families = {_family(each) for each in (judge, judged)}
    if len(families) == 1 and (family := families.pop()) is not None:
        return f"judge {judge.id} and the judged model are both of the family {family}, and may favour it"
    return ""


def _same(judge: ModelSpec, judged: ModelSpec, identities: Mapping[str, Mapping[str, Any]]) -> bool:
    if judge.id == judged.id or (judge.model is not None and _plain(judge.model) == _plain(judged.model)):
        return True
    weights = [identities.get(each.id, {}).get("weights_sha256") for each in (judge, judged)]
    return weights[0] is not None and weights[0] == weights[1]


def _plain(name: str | None) -> str:
    """A model's name without the owner before it."""
    return (name or "").rpartition("/")[2].casefold()


def _family(spec: ModelSpec) -> str | None:
    found = _FAMILIES.search(f"{spec.model or ''}")
    if found is None:
        return None
    name = found[1].casefold()
    return _KIN.get(name, name)

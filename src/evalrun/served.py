"""What served a model, as its server names it in answers: the model's name and its build
(`system_fingerprint`). A model that changed behind its endpoint shows here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evalrun.results import AnsweredBy, RunResults

KINDS: Mapping[str, str] = {"models": "served model", "fingerprints": "system_fingerprint"}


def served_by_model(runs: Iterable[RunResults]) -> dict[str, dict[str, list[str]]]:
    """By the ids of models what their runs' servers called themselves; nothing where they did not, or where
    all answers came from the cache."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for kind, names in as_served(run.details.answered_by).items():
            if names:
                known = found.setdefault(run.model, {}).setdefault(kind, [])
                known += [name for name in names if name not in known]
    return {model: {kind: sorted(names) for kind, names in kinds.items()} for model, kinds in found.items()}


def served_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What changed from one side to the other, both as one entry of `served_by_model`: `served model a,
    before b`; empty where nothing did. What one side does not name is no change."""
    changes = []
    for kind, word in KINDS.items():
        one, other = before.get(kind) or [], after.get(kind) or []
        if one and other and set(one) != set(other):
            changes.append(f"{word} {', '.join(other)}, before {', '.join(one)}")
    return "; ".join(changes)


def as_served(answered: AnsweredBy) -> dict[str, list[str]]:
    """Of one run, as an entry of `served_by_model`."""
    return {kind: sorted(filter(None, getattr(answered, kind))) for kind in KINDS}

"""The metadata of a Hugging Face model card: `model-index`, as the Hub reads it.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Values are those of `run.json`; intervals and
n stand in the card's tables, since the metadata has no place for them.
"""

from __future__ import annotations

from typing import Any

from evalrun.evidence.document import Answers
from evalrun.evidence.facts import Facts, scored


def front(facts: Facts, answers: Answers) -> dict[str, Any]:
    """The front matter: licence and language as answered, and a result for each dataset."""
    said: dict[str, Any] = {}
    if licence := answers.text("licence"):
        said["license"] = licence
    if answers.text("language"):
        language = answers.said["language"]
        said["language"] = language if isinstance(language, list) else [language]
    said["tags"] = ["evalrun"]
    said["model-index"] = [{"name": _name(facts), "results": _results(facts)}]
    return said


def _name(facts: Facts) -> str:
    run = facts.runs[0]
    return str((facts.manifest.models.get(run.model) or {}).get("model") or run.model)


def _results(facts: Facts) -> list[dict[str, Any]]:
    results = []
    for run in facts.runs:
        source = (facts.manifest.datasets.get(run.dataset) or {}).get("source") or {}
        dataset = {"name": run.dataset, "type": str(source.get("hub") or run.dataset)}
        dataset |= {key: str(source[key]) for key in ("config", "split", "revision") if source.get(key)}
        metrics = [
            {"type": m.name, "name": m.name, "value": m.value}
            for m in scored(facts, run)
            if m.value is not None
        ]
        if metrics:
            task = {"type": "text-generation", "name": "Text Generation"}
            results.append({"task": task, "dataset": dataset, "metrics": metrics})
    return results

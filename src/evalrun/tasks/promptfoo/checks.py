"""Assertions as checks of the scorer `assertions`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evalrun.scoring.scorers.assertions import CHECKS, SET
from evalrun.tasks.promptfoo.notes import CODE, Notes
from evalrun.tasks.reading import as_list, as_number, parse_yaml, text_of

MODEL_GRADED = ("llm-rubric", "g-eval", "factuality", "model-graded-factuality", "model-graded-closedqa")
_TYPES = {
    *CHECKS, *MODEL_GRADED, "agent-rubric", "answer-relevance", "classifier", "contains-html",
    "contains-sql", "context-faithfulness", "context-recall", "context-relevance",
    "conversation-relevance", "cost", "eval", "finish-reason", "fn", "gleu", "grade", "guardrails",
    "is-html", "is-valid-function-call", "is-valid-openai-function-call",
    "is-valid-openai-tools-call", "javascript", "latency", "max-score", "meteor", "moderation",
    "perplexity", "perplexity-score", "pi", "python", "ruby", "search-rubric", "select-best", "similar",
    "tool-call-f1", "trajectory", "webhook",
}  # fmt: skip
"""What stands before a colon in a cell of assertions; any other text is what the answer must equal."""


def check_of(notes: Notes, check: Any, values: Mapping[str, Any], at: int, row: str) -> dict[str, Any] | None:
    """An assertion with its variables filled in; None for one that is left out, or is a rubric."""
    if isinstance(check, str):
        check = expected(check)
    if not isinstance(check, dict) or "type" not in check:
        notes.leave(f"tests[{at}].assert", "is no assertion")
        return None
    kind = str(check["type"])
    if kind == "llm-rubric" and isinstance(check.get("value"), str):
        notes.rubrics.setdefault(row, []).append(str(notes.filled(check["value"], values)))
        for key in check.keys() - {"type", "value"}:
            notes.leave(f"assertion {kind}: {key}", "the judge is a scorer of its own, alike for each test")
        return None
    kept = {key: check[key] for key in ("weight", "threshold", "metric") if check.get(key) is not None}
    for key in check.keys() - {
        "type",
        "value",
        "weight",
        "threshold",
        "metric",
        "assert",
    }:
        notes.leave(f"assertion {kind}: {key}", "has no counterpart here")
    if kind == SET:
        parts = as_list(check.get("assert"), "assert-set")
        inner = [made for part in parts if (made := check_of(notes, part, values, at, row))]
        if len(inner) < len(parts):
            notes.leave("assertion assert-set", "a part is not taken over: the rest decides it alone")
        return {"type": SET, **kept, "assert": inner} if inner else None
    if kind.removeprefix("not-") not in CHECKS:
        notes.leave(f"assertion {kind}", why_not(kind))
        return None
    value = check.get("value")
    if isinstance(value, str) and value.startswith("file://"):
        path = notes.base / value.removeprefix("file://")
        if path.suffix in CODE or not path.is_file():
            notes.leave(
                f"assertion {kind}: {value}",
                "is code" if path.suffix in CODE else "there is no such file",
            )
            return None
        text = text_of(path)
        value = parse_yaml(text, path) if path.suffix in (".json", ".yaml", ".yml") else text
    if kind.removeprefix("not-") in ("is-json", "contains-json") and isinstance(value, str) and value.strip():
        value = parse_yaml(value, notes.path)
    notes.checks += 1
    return {"type": kind, **({"value": notes.filled(value, values)} if value is not None else {}), **kept}


def why_not(kind: str) -> str:
    """Why a type of assertion is not taken over, and what to use instead."""
    base = kind.removeprefix("not-")
    if base in MODEL_GRADED:
        return "a model grades it: add the scorer judge with the rubric's text"
    if base in ("similar",):
        return "needs a model of embeddings: add {threshold: {scorer: embedding}}"
    if base in ("cost", "latency"):
        metric = "cost.usd" if base == "cost" else "performance.e2e_s.p95"
        return f"cost and time are metrics of the run: add a gate on {metric}"
    if base in ("javascript", "python", "ruby", "webhook"):
        return "is code: name a function of yours by the scorer python"
    return "there is no such check here"


def expected(text: str) -> dict[str, Any]:
    """`contains: x`, `levenshtein(3): x`, or a text that the answer must equal."""
    match = re.match(r"^(not-)?([a-z][a-z-]*[a-z])(?:\(([\d.]+)\))?(?::([\s\S]*))?$", text.strip())
    alone = ("is-json", "is-xml", "is-sql", "is-refusal", "contains-json")
    if match is None or match[2] not in _TYPES or (match[4] is None and match[2] not in alone):
        return {"type": "equals", "value": text}
    kind = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}.get(match[2], match[2])
    value: Any = (match[4] or "").strip()
    if kind.endswith(("-any", "-all")):
        value = [part.strip() for part in value.split(",")]
    check: dict[str, Any] = {"type": (match[1] or "") + kind}
    if value not in ("", None):
        check["value"] = value
    if match[3]:
        check["threshold"] = as_number(match[3], text)
    return check

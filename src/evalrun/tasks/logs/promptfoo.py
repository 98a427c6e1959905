"""promptfoo: the JSON of `promptfoo eval -o results.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalrun.tasks.logs.model import (
    ImportedResults,
    ImportedRun,
    ImportedSample,
    as_text,
    file_digest,
    number,
    score_name,
)


def read_promptfoo(path: Path) -> ImportedResults:
    """The JSON of `promptfoo eval -o results.json`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    body = document["results"]
    rows = body["results"] if isinstance(body, dict) else body
    description = (document.get("config") or {}).get("description") if isinstance(document, dict) else None
    results = ImportedResults(
        "promptfoo", str(description or path.stem), path, [], {path.name: file_digest(path)}
    )
    runs: dict[tuple[str, str], ImportedRun] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for at, row in enumerate(rows):
        provider = row.get("provider") or {}
        model = str(provider.get("label") or provider.get("id") if isinstance(provider, dict) else provider)
        label = (row.get("prompt") or {}).get("label") or (row.get("prompt") or {}).get("raw") or "prompt"
        prompt = f"prompt{row['promptIdx'] + 1}" if isinstance(row.get("promptIdx"), int) else str(label)[:40]
        run = runs.setdefault((model, prompt), ImportedRun(model, prompt, "tests", []))
        name = (
            f"{int(row['testIdx']):04d}"
            if isinstance(row.get("testIdx"), int)
            else as_text(row.get("vars"))[:60]
        )
        key = (model, prompt, name)
        run.samples.append(_promptfoo_sample(row, name, seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
        if row.get("latencyMs") is not None and not run.notes:
            run.notes = ["times are promptfoo's latencyMs"]
        del at
    results.runs = list(runs.values())
    return results


def _promptfoo_sample(row: Mapping[str, Any], name: str, repeat: int) -> ImportedSample:
    response = row.get("response") or {}
    usage = response.get("tokenUsage") or row.get("tokenUsage") or {}
    cached = bool(response.get("cached"))
    output = response.get("output")
    error = row.get("error") if output is None else None
    grading = row.get("gradingResult") or {}
    latency = row.get("latencyMs")
    scores: dict[str, float | None] = {
        "score": number(row.get("score")),
        "passed": number(bool(row.get("success"))),
    }
    scores |= {
        f"score.{score_name(key)}": number(value) for key, value in (row.get("namedScores") or {}).items()
    }
    if error is not None:
        scores = {}
    raw = (row.get("prompt") or {}).get("raw")
    return ImportedSample(
        sample_id=name,
        repeat=repeat,
        output=None if output is None else as_text(output),
        scores=scores,
        row={str(key): value for key, value in (row.get("vars") or {}).items()},
        prompt=None if raw is None else as_text(raw),
        error=None if error is None else f"application: {str(error)[:500]}",
        reasons={"score": str(grading.get("reason") or "")[:400]},
        prompt_tokens=usage.get("prompt"),
        completion_tokens=usage.get("completion"),
        e2e_s=latency / 1000 if latency and not cached else None,
        cost_usd=row.get("cost") if not cached else None,
    )

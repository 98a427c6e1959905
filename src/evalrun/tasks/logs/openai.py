"""openai/evals: the JSON lines of `oaieval … --record_path`."""

from __future__ import annotations

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
from evalrun.tasks.reading import json_lines


def read_openai(path: Path) -> ImportedResults:
    """The JSON lines of `oaieval … --record_path`."""
    events = list(json_lines(path))
    spec = next(each["spec"] for each in events if "spec" in each)
    report: dict[str, Any] = next((each["final_report"] for each in events if "final_report" in each), {})
    model = str((spec.get("completion_fns") or [spec.get("model", "model")])[0])
    name = str(spec.get("eval_name") or spec.get("base_eval") or path.stem)
    samples: dict[str, ImportedSample] = {}
    left: dict[str, int] = {}
    for event in events:
        if "sample_id" not in event:
            continue
        name_ = str(event["sample_id"])
        if not _openai_event(samples.setdefault(name_, ImportedSample(name_, None, {})), event):
            kind = str(event.get("type"))
            left[kind] = left.get(kind, 0) + 1
    for sample in samples.values():
        if sample.output is None and sample.error is None:
            sample.error = "missing: no answer was recorded"
    own: dict[str, tuple[float | None, float | None]] = {}
    if number(report.get("accuracy")) is not None:
        own["match"] = (number(report["accuracy"]), None)
    results = ImportedResults("openai-evals", name, path, [], {path.name: file_digest(path)})
    results.runs = [ImportedRun(model, name, name, list(samples.values()), own)]
    results.left_out = [
        {"what": f"{count} events of type {kind}", "why": "no counterpart"} for kind, count in left.items()
    ]
    if not report:
        why = "the record has no final_report: the eval did not end, or the file is cut"
        results.left_out.append({"what": "what was not finished", "why": why})
    return results


def _openai_event(sample: ImportedSample, event: Mapping[str, Any]) -> bool:
    """Enter one event into its sample; whether it has a counterpart."""
    data, kind = event.get("data") or {}, event.get("type")
    if kind == "sampling":
        said = data.get("sampled")
        sample.output = as_text(said[0] if isinstance(said, list) and said else said)
        prompt = data.get("prompt")
        if isinstance(prompt, list):
            sample.messages = [{"role": str(m.get("role")), "content": m.get("content")} for m in prompt]
        else:
            sample.prompt = as_text(prompt)
    elif kind == "match":
        sample.scores["match"] = float(bool(data.get("correct")))
        sample.target = data.get("expected")
        if sample.output is None and data.get("sampled") is not None:
            sample.output = as_text(data["sampled"])
    elif kind == "metrics":
        numbers = {score_name(key): number(value) for key, value in data.items()}
        sample.scores |= {key: value for key, value in numbers.items() if value is not None}
    elif kind == "error":
        sample.error = f"application: {as_text(data)[:500]}"
    else:
        return False
    return True

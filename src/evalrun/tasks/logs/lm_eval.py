"""lm_eval: `--output_path … --log_samples`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalrun.suite.tasks import metric_name
from evalrun.tasks.logs.model import (
    ImportedResults,
    ImportedRun,
    ImportedSample,
    as_text,
    file_digest,
    number,
)
from evalrun.tasks.reading import json_lines


def read_lm_eval(path: Path) -> ImportedResults:
    """A folder of `--output_path … --log_samples`, or one of its results files."""
    folder = path if path.is_dir() else path.parent
    found = sorted(folder.rglob("results_*.json")) if path.is_dir() else [path]
    if not found:
        raise ValueError("there is no results_*.json; lm_eval writes them with --output_path --log_samples")
    results = ImportedResults("lm-eval", path.resolve().name, path, [], {})
    for file in found:
        document = json.loads(file.read_text(encoding="utf-8"))
        results.digests[file.name] = file_digest(file)
        stamp = file.stem.removeprefix("results_")
        model = str(document.get("model_name") or document.get("config", {}).get("model") or "model")
        for task, values in document["results"].items():
            samples = file.with_name(f"samples_{task}_{stamp}.jsonl")
            if not samples.is_file():
                if task not in document.get("group_subtasks", {}) or not document["group_subtasks"][task]:
                    results.left_out.append(
                        {"what": f"task {task}", "why": "no samples were logged (--log_samples)"}
                    )
                continue
            results.digests[samples.name] = file_digest(samples)
            results.runs.append(_lm_eval_run(model, task, values, document, samples))
    return results


def _lm_eval_run(
    model: str, task: str, values: Mapping[str, Any], document: Mapping[str, Any], file: Path
) -> ImportedRun:
    by_document: dict[Any, ImportedSample] = {}
    seen: dict[str, int] = {}
    for row in json_lines(file):
        sample = by_document.get(row["doc_id"])
        if sample is None:
            digest = str(row.get("doc_hash") or row["doc_id"])[:12]
            seen[digest] = seen.get(digest, 0) + 1
            again = f"-{seen[digest]}" if seen[digest] > 1 else ""
            sample = by_document[row["doc_id"]] = _lm_eval_sample(f"{task}-{digest}{again}", row)
        for metric in row.get("metrics") or ():
            name = metric_name(f"{metric},{row.get('filter', 'none')}")
            sample.scores[name] = number(row.get(metric))
            if sample.scores[name] is None:
                sample.reasons[name] = (
                    f"not applicable: a figure of all documents together: {str(row.get(metric))[:200]}"
                )
            else:
                sample.reasons[name] = f"read: {str(row.get('filtered_resps'))[:200]}"
    own = {}
    for key, value in values.items():
        metric, comma, of = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            own[metric_name(key)] = (number(value), number(values.get(f"{metric}_stderr,{of}")))
    higher = document.get("higher_is_better", {}).get(task, {})
    lower = frozenset(name for name in own if higher.get(name.partition(".")[0]) is False)
    said = (document.get("n-samples") or {}).get(task, {}).get("effective")
    notes = []
    if isinstance(said, int) and said != len(by_document):
        notes.append(f"{file.name} holds {len(by_document):,} of the {said:,} documents that lm_eval counted")
    samples = list(by_document.values())
    return ImportedRun(model, "lm_eval", task, samples, own, lower, notes=notes)


def _lm_eval_sample(name: str, row: Mapping[str, Any]) -> ImportedSample:
    doc = row.get("doc")
    columns = doc if isinstance(doc, dict) else {"doc": doc}
    arguments = row.get("arguments") or {}
    first = arguments.get("gen_args_0", {}).get("arg_0") if isinstance(arguments, dict) else arguments[0][0]
    resps = row.get("resps") or [[""]]
    told = resps[0][0] if resps and resps[0] else ""
    several = len(resps) > 1 or isinstance(told, list)
    return ImportedSample(
        sample_id=name,
        output=as_text(resps) if several else as_text(told),
        scores={},
        row={**columns, "doc_id": row["doc_id"]},
        target=row.get("target"),
        prompt=first if isinstance(first, str) else None if first is None else as_text(first),
    )

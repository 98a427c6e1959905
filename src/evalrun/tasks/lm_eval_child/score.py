"""Answers scored and aggregated as lm_eval's evaluator does it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from .build import Built, size_of
from .values import number, plain


def score(built: Built, job: dict[str, Any]) -> dict[str, Any]:
    """Values of one run: aggregated by lm_eval, with its standard errors, and per document in a file."""
    task, name = built.tasks[job["task"]], job["task"]
    answers: dict[int, list[list[Any]]] = {}
    with Path(job["answers"]).open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            answers[entry["doc_id"]] = entry["resps"]
    kept = [instance for instance in built.instances[name] if instance.doc_id in answers]
    by_document: dict[int, list[Any]] = defaultdict(list)
    for instance in kept:
        by_document[instance.doc_id].append(instance)
    for doc_id, together in by_document.items():
        together.sort(key=lambda instance: instance.idx)
        for instance, resps in zip(together, answers[doc_id], strict=True):
            instance.resps = [tuple(each) if isinstance(each, list) else each for each in resps]
            instance.filtered_resps = {}
    raw: dict[tuple[str, str], list[Any]] = defaultdict(list)
    values: dict[int, dict[str, Any]] = {doc_id: {"values": {}, "answers": {}} for doc_id in by_document}
    if kept:
        everything, task._instances = task._instances, kept
        try:
            task.apply_filters()
            _process(task, kept, by_document, size_of(task, built.limit), raw, values)
        finally:
            task._instances = everything
    with Path(job["out"]).open("w", encoding="utf-8") as file:
        for doc_id, entry in values.items():
            file.write(json.dumps({"doc_id": doc_id, **entry}, ensure_ascii=True, default=str) + "\n")
    metrics, size = _aggregate(task, raw, job.get("bootstrap", 100_000))
    return {"metrics": metrics, "sample_len": size, "documents": len(values)}


def _process(task: Any, kept: list[Any], by_document: Any, limit: int | None, raw: Any, values: Any) -> None:
    for filter_key in kept[0].filtered_resps:
        for doc_id, doc in task.doc_iterator(limit=limit):
            if doc_id not in by_document:
                continue
            requests = by_document[doc_id]
            filtered = [request.filtered_resps[filter_key] for request in requests]
            for metric, value in task.process_results(doc, filtered).items():
                raw[metric, filter_key].append(value)
                values[doc_id]["values"][f"{metric},{filter_key}"] = plain(value)
            if task.OUTPUT_TYPE == "generate_until":
                values[doc_id]["answers"][filter_key] = plain(filtered[0] if len(filtered) == 1 else filtered)


def _aggregate(task: Any, raw: Any, iterations: int) -> tuple[dict[str, Any], int]:
    """As lm_eval's evaluator does it: metric and standard error by `metric,filter`, and the number of
    documents."""
    from lm_eval.api.metrics import mean, stderr_for_metric

    found: dict[str, Any] = {}
    size = 0
    functions = task.aggregation()
    for (metric, filter_key), items in raw.items():
        function = functions.get(metric, mean)
        found[f"{metric},{filter_key}"] = number(function(items))
        size = max(size, len(items))
        error: Any = "N/A"
        if iterations > 0:
            few = metric in ("bleu", "chrf", "chrf++", "ter")
            of = stderr_for_metric(
                metric=function, bootstrap_iters=min(iterations, 100) if few else iterations
            )
            error = number(of(items)) if of and len(items) > 1 else "N/A"
        found[f"{metric}_stderr,{filter_key}"] = error
    return found, size


def aggregate(built: Built, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The aggregates of an entry's groups from the results of its tasks, children before parents."""
    metrics: dict[str, Any] = {name: dict(each) for name, each in results.items()}
    found = {}
    for name in sorted(built.groups, key=lambda each: len(built.groups[each].get_all_groups())):
        group = built.groups[name]
        metrics[name] = group.aggregate(metrics)
        if group.has_aggregation:
            found[name] = {
                key: number(value)
                for key, value in metrics[name].items()
                if "," in key or key == "sample_len"
            }
    return found

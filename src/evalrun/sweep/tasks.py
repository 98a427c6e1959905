"""Runs of published tasks: from their answers to lm_eval's scores, and from those to results."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.analysis.run import RunAnalysis
from evalrun.scoring.tasks import CORPUS, TaskMetric, value_of
from evalrun.suite.tasks import WRITTEN, metric_name
from evalrun.sweep.stored import stored_samples
from evalrun.tasks.documents import DOC_ID
from evalrun.types import JSON, MetricValue, Score, Status

if TYPE_CHECKING:
    from evalrun.suite.plan import RunSpec
    from evalrun.tasks.plan import TaskCells, TaskPlan
    from evalrun.tracking.folder import SweepFolder

Z95 = 1.959963984540054
"""So many standard errors to either side are 95 % of a normal distribution."""

NOT_COMPARABLE = (
    "not comparable to lm_eval: the server has no /tokenize and the model names no tokenizer, so texts were "
    "sent as texts and cut by characters"
)


@dataclass(frozen=True, slots=True)
class TaskScores:
    """What lm_eval made of a run's answers: `document` is kept in `run.json`; `values` are by sample."""

    document: dict[str, Any]
    scorers: Sequence[TaskMetric]
    values: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()

    def of(self, sample: Mapping[str, Any]) -> Mapping[str, Score]:
        """The scores of one sample."""
        values = self.values.get(sample["sample_id"])
        if values is None:
            return {}
        scores = {}
        for scorer in self.scorers:
            if scorer.key not in values:
                continue
            value, reason = value_of(values[scorer.key])
            if not scorer.is_mean:  # a perplexity falls as the log-likelihoods of its documents rise
                value, reason = None, CORPUS
            if reason == CORPUS:
                reason = f"{reason}: {_short(values[scorer.key])}"
            else:
                answer = self.answers.get(sample["sample_id"], {}).get(scorer.key.partition(",")[2])
                reason = f"read: {_short(answer)}" if answer is not None else "scored by lm_eval"
            scores[scorer.name] = Score(value, reason)
        return scores


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:199] + "…"


def score_run(plan: TaskPlan, cells: TaskCells, samples: Path) -> TaskScores:
    """Let lm_eval score the answers of a finished run. Documents without an answer are left out."""
    if cells.output_type == WRITTEN:
        return _written_scores(cells, samples)
    with tempfile.TemporaryDirectory(dir=plan.folder) as folder:
        answers, out = Path(folder, "answers.jsonl"), Path(folder, "values.jsonl")
        asked, answered, notes = _write_answers(cells, samples, answers)
        said = plan.lm_eval.ask(
            "score",
            key=cells.key,
            task=cells.task,
            answers=str(answers),
            out=str(out),
            bootstrap=_bootstrap(cells),
        )
        ids = {doc_id: sample_id for sample_id, doc_id in cells.documents.doc_ids.items()}
        values, filtered = {}, {}
        with out.open("rb") as file:
            for line in file:
                entry = orjson.loads(line)
                values[ids[entry["doc_id"]]] = entry["values"]
                filtered[ids[entry["doc_id"]]] = entry["answers"]
    names = [metric_name(key) for key in said["metrics"] if not key.partition(",")[0].endswith("_stderr")]
    headline = cells.dataset.headline
    if headline not in names and names:
        headline = names[0]  # pass_at_k, which is named in the task, gives pass@1
    document = {
        "name": cells.task,
        "entry": cells.key,
        "metrics": said["metrics"],
        "sample_len": said["sample_len"],
        "documents": asked,
        "answered": answered,
        "headline": headline,
        "exact": not notes,
        "source": cells.documents.source,
    }
    return TaskScores(document, _scorers(cells, said["metrics"], values), values, filtered, tuple(notes))


def _bootstrap(cells: TaskCells) -> int:
    return int(cells.described.get("bootstrap", 100_000))


def _scorers(
    cells: TaskCells, metrics: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]
) -> list[TaskMetric]:
    known = {str(each["key"]): each for each in cells.dataset.metrics}
    keys = [key for key in metrics if not key.partition(",")[0].endswith("_stderr")]
    headline = cells.dataset.headline
    keys.sort(key=lambda key: metric_name(key) != headline)
    scorers = []
    for key in keys:
        of = [each[key] for each in values.values() if key in each]
        numbers = [float(each) for each in of if isinstance(each, bool | int | float)]
        fraction = bool(numbers) and len(numbers) == len(of) and all(0 <= each <= 1 for each in numbers)
        mean = sum(numbers) / len(numbers) if numbers and len(numbers) == len(of) else None
        is_mean = _alike(mean, metrics[key])
        entry = {"key": key, **known.get(key, {}), "fraction": fraction and is_mean, "is_mean": is_mean}
        scorers.append(TaskMetric(entry))
    return scorers


def _write_answers(cells: TaskCells, samples: Path, out: Path) -> tuple[int, int, list[str]]:
    """One line a document that has all its answers, in lm_eval's order; how many documents were asked and how
    many have them, and what is to be said of them."""
    repeats = int(cells.described["repeats"])
    by_document: dict[str, dict[int, list[Any]]] = {}
    characters = False
    asked = set()
    for sample in stored_samples(samples):
        asked.add(sample["sample_id"])
        likelihood = sample.get("likelihood")
        if likelihood is not None and likelihood.get("via") == "characters":
            characters = True
        if sample["status"] == Status.FAILED:
            continue
        by_document.setdefault(sample["sample_id"], {})[int(sample.get("repeat") or 0)] = _resps(sample)
    complete = 0
    with out.open("w", encoding="utf-8") as file:
        for sample_id, doc_id in cells.documents.doc_ids.items():
            answers = by_document.get(sample_id)
            if answers is None or len(answers) < repeats:
                continue
            complete += 1
            resps = [list(each) for each in zip(*(answers[at] for at in range(repeats)), strict=True)]
            file.write(json.dumps({DOC_ID: doc_id, "resps": resps}) + "\n")
    return len(asked), complete, [NOT_COMPARABLE] if characters else []


def _resps(sample: Mapping[str, Any]) -> list[Any]:
    """What lm_eval's model object would have given for each request about a document."""
    likelihood = sample.get("likelihood")
    if likelihood is None:
        return [sample.get("output") or ""]
    if likelihood["kind"] == "rolling":
        return [likelihood["logprob"]]
    return [[each["logprob"], bool(each["greedy"])] for each in likelihood["pairs"]]


def _written_scores(cells: TaskCells, samples: Path) -> TaskScores:
    """Letters read by evalrun's own parser."""
    from evalrun.scoring.base import Unparsed
    from evalrun.scoring.parsers.letters import LetterFinder

    key = f"acc.{WRITTEN}"
    choices = {}
    for line in cells.documents._lines():
        document = orjson.loads(line)
        choices[document["id"]] = document["choices"]
    values: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, Any]] = {}
    asked = set()
    for sample in stored_samples(samples):
        asked.add(sample["sample_id"])
        if sample["status"] == Status.FAILED:
            continue
        try:
            letter = LetterFinder(choices[sample["sample_id"]], None).find(sample.get("output") or "")
        except Unparsed as unparsed:
            letter, read = "", f"unparsed: {unparsed.reason}"
        else:
            read = letter
        right = sample["target"] if isinstance(sample["target"], list) else [sample["target"]]
        values[sample["sample_id"]] = {key: float(letter in right)}
        answers[sample["sample_id"]] = {"": read}
    scores = [each[key] for each in values.values()]
    metrics = {key: sum(scores) / len(scores)} if scores else {}
    document = {
        "name": cells.task,
        "entry": cells.key,
        "metrics": metrics,
        "sample_len": len(scores),
        "documents": len(asked),
        "answered": len(scores),
        "headline": key,
        "exact": False,
        "source": cells.documents.source,
    }
    return TaskScores(document, [TaskMetric({"key": key, "higher": True, "fraction": True})], values, answers)


def enter_task(analysis: RunAnalysis, scores: TaskScores) -> RunAnalysis:
    """The metrics with lm_eval's own values and standard errors; the intervals stay evalrun's."""
    said = scores.document["metrics"]
    by_name = {scorer.name: scorer.key for scorer in scores.scorers}
    note = _note(scores.document)
    metrics = []
    for metric in analysis.metrics:
        key = by_name.get(metric.name)
        if key is None or metric.slice or scores.document["headline"] == f"acc.{WRITTEN}":
            metrics.append(metric)
            continue
        metrics.append(_with_values(metric, said, key, scores, note))
    warnings = (*analysis.warnings, *scores.notes, *([note] if note else ()))
    return replace(analysis, metrics=metrics, warnings=warnings)


def _with_values(
    metric: MetricValue, said: Mapping[str, JSON], key: str, scores: TaskScores, note: str
) -> MetricValue:
    name, _, of = key.partition(",")
    value, error = said.get(key), said.get(f"{name}_stderr,{of}")
    n = sum(key in each for each in scores.values.values())
    # The interval is that of a mean over documents: of no use for a figure that is none.
    known = metric.n == n and _alike(metric.value, value)
    told = "; ".join(part for part in (metric.note if known else "", *scores.notes, note) if part)
    return replace(
        metric,
        value=value if isinstance(value, int | float) else None,
        se=float(error) if isinstance(error, int | float) else None,
        n=n,
        ci_low=metric.ci_low if known else None,
        ci_high=metric.ci_high if known else None,
        method=metric.method if known else "",
        note=told,
    )


def _alike(mean: float | None, value: JSON) -> bool:
    return (
        mean is not None and isinstance(value, int | float) and abs(mean - value) <= 1e-9 * max(1, abs(value))
    )


def _note(document: Mapping[str, Any]) -> str:
    if document["answered"] == document["documents"] or document["headline"] == f"acc.{WRITTEN}":
        return ""
    return f"{document['answered']:,} of {document['documents']:,} documents; lm-eval would have stopped"


def group_results(plan: TaskPlan, folder: SweepFolder, specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """The aggregates of groups as lm_eval has them, for every model and point of the matrix whose tasks are
    all finished."""
    runs: dict[tuple[str, str, bytes], dict[str, Mapping[str, Any]]] = {}
    params: dict[tuple[str, str, bytes], Mapping[str, JSON]] = {}
    done = {run["run"]: run for run in folder.runs()}
    for spec in specs:
        cells, run = plan.of(spec), done.get(spec.run_id)
        task = (run or {}).get("task")
        if cells is None or not task:
            continue
        point = orjson.dumps(dict(spec.swept), option=orjson.OPT_SORT_KEYS)
        for key in _keys(plan, cells):
            place = (key, spec.model.id, point)
            runs.setdefault(place, {})[cells.task] = task
            params[place] = dict(spec.swept)
    return list(_aggregated(plan, runs, params))


def _keys(plan: TaskPlan, cells: TaskCells) -> Iterator[str]:
    """The entries one of whose groups has this task: it may have come by its own name first."""
    variant = cells.key.partition("-")[2]
    for key, groups in plan.groups.items():
        if key.partition("-")[2] == variant and any(
            cells.task in group["tasks"] for group in groups.values()
        ):
            yield key


def _aggregated(
    plan: TaskPlan,
    runs: Mapping[tuple[str, str, bytes], Mapping[str, Mapping[str, Any]]],
    params: Mapping[tuple[str, str, bytes], Mapping[str, JSON]],
) -> Iterator[dict[str, Any]]:
    for (key, model, point), tasks in runs.items():
        whole = {
            name for name, group in plan.groups[key].items() if all(task in tasks for task in group["tasks"])
        }
        if not whole:
            continue
        results = {
            name: {**task["metrics"], "sample_len": task["sample_len"]} for name, task in tasks.items()
        }
        said = plan.lm_eval.ask("aggregate", key=key, results=results)["groups"]
        exact = all(task["exact"] and task["answered"] == task["documents"] for task in tasks.values())
        higher = {
            each["key"]: each["higher"]
            for cells in plan.cells
            if cells.task in tasks
            for each in cells.described["metrics"]
        }
        for name, values in said.items():
            if name not in whole:
                continue
            yield {
                "group": name,
                "dataset": name,
                "model": model,
                "prompt": "lm_eval",
                "params": dict(params[key, model, point]),
                "tasks": plan.groups[key][name]["tasks"],
                "exact": exact,
                "metrics": [
                    _group_metric(name_, values, higher.get(name_, True))
                    for name_ in values
                    if _is_value(name_)
                ],
            }


def _is_value(key: str) -> bool:
    return "," in key and not key.partition(",")[0].endswith("_stderr")


def _group_metric(key: str, values: Mapping[str, Any], higher: bool) -> dict[str, Any]:
    """A figure of a group: lm_eval's value and standard error, and the interval that these give."""
    metric, _, of = key.partition(",")
    value, error = values[key], values.get(f"{metric}_stderr,{of}")
    if not isinstance(error, int | float) or not isinstance(value, int | float):
        error = None
    return {
        "name": metric_name(key),
        "slice": {},
        "value": value if isinstance(value, int | float) else None,
        "n": int(values.get("sample_len") or 0),
        "se": error,
        "ci_low": None if error is None else value - Z95 * error,
        "ci_high": None if error is None else value + Z95 * error,
        "method": "" if error is None else "normal",
        "unit": "score",
        "direction": "higher" if higher else "lower",
    }

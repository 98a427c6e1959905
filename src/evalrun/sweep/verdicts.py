"""From what models said about a run to its scores, and the record of what they were asked.

What was said is kept in `judge.parquet`, one row a request, apart from the run's own samples: its tokens,
times and cost are the judge's and enter none of the run's figures but `cost.judge_usd`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evalrun.analysis.definitions import definition
from evalrun.results import Definition, JudgeBill
from evalrun.runner.journal import read_journal
from evalrun.scoring.asking import AskingScorer, Judged, Reply
from evalrun.scoring.base import COMPARED_WITH
from evalrun.scoring.scorers.judge import Judge
from evalrun.sweep.questions import (
    AnsweredRun,
    Round,
    Task,
    compared_samples,
    embedded_texts,
    judged_text,
    text_digest,
)
from evalrun.sweep.stored import Key, is_answered, key_of
from evalrun.tracking.columns import AS_JSON, BOOLEAN, INTEGER, NUMBER, STRING
from evalrun.tracking.folder import ASKED
from evalrun.tracking.parquet import write_rows
from evalrun.types import MetricValue, Score, Status

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.sweep.judging import Judging

Records: TypeAlias = Mapping[Key, Mapping[str, Any]]
"""The last record of each request, by the sample that it is about."""


class RunVerdicts:
    """What all models said about one run: the scores that follow, the bills, and `judge.parquet`."""

    def __init__(self, judging: Judging, run: AnsweredRun, everything: Sequence[AnsweredRun]) -> None:
        """Read what was journalled. `everything` are the runs of the sweep that are answered."""
        self.scorers: Sequence[AskingScorer] = judging.scorers
        self._run = run
        self._said: list[tuple[Task, Round, Records]] = [
            (task, round_, _records(task.folder(run.folder, round_)))
            for task in judging.tasks
            for round_ in task.rounds
        ]
        self._alone = {
            task.scorer.name
            for task in judging.tasks
            if (pairwise := getattr(task.scorer.options, "pairwise", None)) is not None
            and pairwise.column is None
            and compared_samples(task, run, everything) is None
        }
        self._replies: dict[str, dict[str, dict[Key, dict[str, Reply]]]] = {}
        for task, round_, records in self._said:
            if isinstance(task.scorer, Judge):
                of_model = self._replies.setdefault(task.scorer.name, {}).setdefault(task.model, {})
                _add_replies(of_model, task.scorer, round_, records)

    def bills(self) -> list[JudgeBill]:
        """What each task came to, in their order."""
        asked: dict[tuple[str, str], list[tuple[int, Mapping[str, Any]]]] = {}
        for task, round_, records in self._said:
            of_task = asked.setdefault((task.scorer.name, task.model), [])
            of_task += [(round_.asked, record) for record in records.values()]
        return [_bill(*name, of_task) for name, of_task in asked.items()]

    def of(self, sample: Mapping[str, Any]) -> dict[str, Score]:
        """The score of every asking scorer; none for a sample without an answer."""
        if not is_answered(sample):
            return {}
        return {
            scorer.name: self._judged(scorer, sample)
            if isinstance(scorer, Judge)
            else self._similarity(scorer.name, sample)
            for scorer in self.scorers
        }

    def _judged(self, scorer: Judge, sample: Mapping[str, Any]) -> Score:
        if scorer.name in self._alone:
            return Score(None, COMPARED_WITH)
        of_models = self._replies.get(scorer.name, {})
        replies = {model: replies.get(key_of(sample), {}) for model, replies in of_models.items()}
        nothing = "" if judged_text(sample, scorer.options.of) else "an answer without text"
        if not nothing and not any(replies.values()):
            return Score(None, "there is nothing to compare it with", {"unscored": 1.0})
        return scorer.judged(Judged(replies, sample["row"], nothing))

    def _similarity(self, name: str, sample: Mapping[str, Any]) -> Score:
        if sample["target"] is None:
            return Score(None, "there is no target")
        texts = embedded_texts(sample)
        if not texts:
            return Score(0.0, "there is no answer to embed")
        records = next(records for task, _, records in self._said if task.scorer.name == name)
        own, *others = [_vector(records.get((text_digest(text), 0))) for text in texts]
        known = [each for each in others if each is not None]
        if own is None or not known:
            said = (records.get((text_digest(text), 0)) for text in texts)
            why = next((str(record["error"]) for record in said if record and record.get("error")), "")
            return Score(None, f"no embedding was given{': ' if why else ''}{why}")
        value = max(cosine(own, other) for other in known)
        return Score(value, f"cosine {value:.3f}")

    def write(self) -> None:
        """Write every request to a judge with what came of it. Of embeddings there is nothing to read."""
        write_rows(self._run.folder / ASKED, _COLUMNS, self._rows(), "judge")

    def _rows(self) -> Iterator[dict[str, Any]]:
        for task, round_, records in self._said:
            if not isinstance(task.scorer, Judge):
                continue
            for record in records.values():
                yield {
                    **{name: record.get(name) for name in _COLUMNS},
                    "messages": record.get("messages") or record.get("prompt"),
                    "scorer": task.scorer.name,
                    "model": task.model,
                    "order": round_.order,
                    "asked": round_.asked,
                    "grade": record.get("answer"),
                    "reason": (record.get("reasons") or {}).get(task.scorer.name),
                }


def _records(folder: Path) -> Records:
    return {key_of(record): record for record in read_journal(folder / "journal.jsonl")}


def _add_replies(
    replies: dict[Key, dict[str, Reply]], scorer: Judge, round_: Round, records: Records
) -> None:
    """Add what was said in a round to what was said before: the last question's reply counts."""
    for key, record in records.items():
        of_sample = replies.setdefault(key, {})
        before = of_sample.get(round_.order)
        code = scorer.menu.code(record.get("answer")) if record["status"] == Status.SCORED else None
        reason = (record.get("reasons") or {}).get(scorer.name, "")
        if not reason and before is not None:
            reason = before.reason
        fault = "" if code is not None else record.get("error") or "no grade"
        if record["status"] == Status.FAILED and before is not None:
            fault = f"{before.fault}; asked again, {fault}"
        of_sample[round_.order] = Reply(code, reason, fault, round_.asked)


def _bill(scorer: str, model: str, asked: Sequence[tuple[int, Mapping[str, Any]]]) -> JudgeBill:
    """What requests came to, each with the number of its question: endings, tokens, seconds, dollars."""
    records = [record for _, record in asked]
    statuses = [record["status"] for record in records]
    costs = [record["cost_usd"] for record in records if record.get("cost_usd") is not None]
    seconds = sorted(record["e2e_s"] for record in records if record.get("e2e_s") is not None)
    return JudgeBill(
        scorer=scorer,
        model=model,
        requests=len(records),
        cached=sum(bool(record.get("cached")) for record in records),
        failed=statuses.count(Status.FAILED),
        unread=statuses.count(Status.UNPARSED) + statuses.count(Status.REFUSED),
        asked_again=sum(number > 1 for number, _ in asked),
        prompt_tokens=sum(record.get("prompt_tokens") or 0 for record in records),
        completion_tokens=sum(record.get("completion_tokens") or 0 for record in records),
        usd=sum(costs) if costs else None,
        e2e_s_p50=seconds[len(seconds) // 2] if seconds else None,
    )


def _vector(record: Mapping[str, Any] | None) -> Any:
    import numpy as np

    from evalrun.providers.embeddings import unpacked

    if record is None or record["status"] != Status.SCORED:
        return None
    return np.frombuffer(unpacked(record["output"]), dtype=np.float32).astype(np.float64)


def cosine(one: Any, other: Any) -> float:
    """The cosine of two vectors; 0 where one has no length."""
    size = float((one @ one) * (other @ other)) ** 0.5
    return max(-1.0, min(1.0, float(one @ other) / size)) if size > 0 else 0.0


_COLUMNS: Mapping[str, str] = {
    "sample_id": STRING,
    "repeat": INTEGER,
    "scorer": STRING,
    "model": STRING,
    "order": STRING,
    "asked": INTEGER,
    "status": STRING,
    "grade": STRING,
    "reason": STRING,
    "output": STRING,
    "error": STRING,
    "prompt_tokens": INTEGER,
    "completion_tokens": INTEGER,
    "e2e_s": NUMBER,
    "cost_usd": NUMBER,
    "cached": BOOLEAN,
    "attempts": INTEGER,
    "messages": AS_JSON,
}
"""The columns of `judge.parquet`."""


def enter_judgement(
    analysis: RunAnalysis, bills: Sequence[JudgeBill], notes: Mapping[str, str]
) -> tuple[RunAnalysis, list[str]]:
    """The analysis of a run with what its judges cost and what to beware of; the latter as warnings too."""
    metrics = []
    for metric in analysis.metrics:
        note = "" if metric.slice else notes.get(metric.name, "")
        joined = "; ".join(each for each in (metric.note, note) if each)
        metrics.append(replace(metric, note=joined))
    cost = judge_cost(bills)
    defined = {metric.name: Definition.of(definition(metric.name)) for metric in cost}
    details = replace(
        analysis.details, judges=tuple(bills), definitions={**analysis.details.definitions, **defined}
    )
    entered = replace(analysis, metrics=[*metrics, *cost], details=details)
    return entered, [f"{scorer}: {note}" for scorer, note in notes.items()]


def judge_cost(bills: Iterable[JudgeBill]) -> list[MetricValue]:
    """`cost.judge_usd`, where any request had a price; n is the number of those. It names its scorer where
    one alone asked."""
    known = [bill for bill in bills if bill.usd is not None]
    if not known:
        return []
    note = ", ".join(f"{bill.scorer} by {bill.model}: {bill.usd:.6g}" for bill in known)
    total = sum(bill.usd or 0.0 for bill in known)
    asked = sum(bill.requests - bill.cached - bill.failed for bill in known)
    scorers = {bill.scorer for bill in known}
    scorer = scorers.pop() if len(scorers) == 1 else ""
    return [MetricValue("cost.judge_usd", total, asked, "usd", "lower", note=note, scorer=scorer)]

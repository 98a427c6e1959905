"""What judges and embedding models are asked about the samples of a run, and how what they say is read.

A task is one scorer with one of its models. What it asks about a run is a cell (two for pairs of answers, one
in each order) whose samples are those of the run; where a grade could not be read, one more asks again.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.datasets import Item
from evalrun.errors import ExitCode, UserError
from evalrun.prompts.rendering import Rendered
from evalrun.providers.base import Provider
from evalrun.runner.records import ReadsAnswers
from evalrun.runner.source import Renders
from evalrun.scoring.asking import AskingScorer
from evalrun.scoring.base import alternatives, as_text
from evalrun.scoring.pipeline import Scored
from evalrun.scoring.scorers.embedding import EmbeddingSimilarity
from evalrun.scoring.scorers.judge import ASK_AGAIN, Judge
from evalrun.scoring.scorers.judge_grades import Menu, read_verdict
from evalrun.sweep.stored import Key, is_answered, key_of, question_of, stored_samples
from evalrun.types import JSON, Message, Row, Status

if TYPE_CHECKING:
    from evalrun.prompts import Prompt


@dataclass(frozen=True, slots=True)
class AnsweredRun:
    """A run whose answers are on disk, and the cell of the matrix that it is."""

    run_id: str
    folder: Path
    samples: Path
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """One cell of a task about a run: the order of a pair ("" where there is none), and the number of the
    question: 2 asks again what gave no grade."""

    order: str = ""
    asked: int = 1

    @property
    def label(self) -> str:
        """As part of a name: "", "ab", "again", "ab again"."""
        return " ".join([*([self.order] if self.order else []), *(["again"] if self.asked > 1 else [])])


@dataclass(frozen=True, slots=True)
class Questions:
    """What a cell needs: its samples, what makes requests of them, what reads the answers, the parameters."""

    items: Callable[[], Iterator[Item]]
    count: int
    renderer: Renders
    reader: ReadsAnswers
    params: Mapping[str, JSON]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        return self.items()


class Task(ABC):
    """One scorer with one of its models."""

    rounds: Sequence[Round] = (Round(),)

    def __init__(self, scorer: AskingScorer, model: str) -> None:
        self.scorer, self.model = scorer, model
        self.redacted = False
        """Whether the model is given what is stored of texts, where others are given them as they were."""

    def folder(self, run: Path, round_: Round) -> Path:
        """Where the journal of a cell is, within the folder of the run that it is about."""
        name = "--".join((self.scorer.name, self.model, *round_.label.split()))
        return run / JUDGE / name

    def name(self, run_id: str, round_: Round) -> str:
        """What a cell is called where progress is shown."""
        name = f"{run_id} · {self.scorer.name}"
        by = "" if len(self.scorer.models) == 1 else f" by {self.model}"
        return f"{name}{by} {round_.label}".rstrip()

    def provider(self, inner: Provider) -> Provider:
        """What answers the requests."""
        return inner

    @abstractmethod
    def questions(
        self, run: AnsweredRun, other: Path | None, round_: Round, before: Iterable[Mapping[str, Any]]
    ) -> Questions:
        """What is asked about a run. `other` are the samples that its answers are compared with, `before` the
        records of the round before, for one that asks again."""


JUDGE = "judge"
"""The folder of the journals within a run's, while it is judged."""


class JudgeTask(Task):
    """A judge and one of its models."""

    scorer: Judge

    def __init__(self, scorer: Judge, model: str, prompt: Prompt, structured: bool) -> None:
        super().__init__(scorer, model)
        self._prompt, self._structured = prompt, structured
        self._renderer = prompt.bind(None, 0)
        self.rounds = [Round(order, asked) for order in scorer.orders for asked in (1, 2)]

    def questions(
        self, run: AnsweredRun, other: Path | None, round_: Round, before: Iterable[Mapping[str, Any]]
    ) -> Questions:
        """A request for each sample with something to judge; then what gave no grade on the menu once more,
        with what the judge had said, for the grade alone."""
        reader = _GradeReader(self.scorer)
        if round_.asked > 1:
            again = _unread(before)
            renderer = _AskAgain(self.scorer.menu)
            return Questions(again.__iter__, len(again), renderer, reader, self._params(reason=False))
        texts = _others(other, self) if other is not None else {}

        def items() -> Iterator[Item]:
            for sample in stored_samples(run.samples, redacted=self.redacted):
                if (item := self._item(sample, texts, round_.order)) is not None:
                    yield item

        count = sum(1 for _ in items())
        return Questions(items, count, self._renderer, reader, self._params(reason=True))

    def _item(self, sample: Mapping[str, Any], texts: Mapping[Key, str], order: str) -> Item | None:
        options = self.scorer.options
        text = judged_text(sample, options.of)
        if not text or not is_answered(sample):
            return None
        target, row = sample["target"], sample["row"]
        wanted = options.reference is not False and target is not None
        values: dict[str, JSON] = {
            "question": question_of(sample),
            "answer": text,
            "reference": " | ".join(as_text(alternative) for alternative in alternatives(target))
            if wanted
            else "",
            "grades": self.scorer.menu.said,
            "example": self.scorer.menu.example(),
        }
        if order:
            against = self._against(sample, texts)
            if not against:
                return None
            first, second = (text, against) if order == "ab" else (against, text)
            values |= {"first": first, "second": second}
        if not (self._prompt.reads_whole_row or self._prompt.uses_row):
            row = {name: value for name, value in row.items() if name in self._prompt.reads}
        name, repeat = key_of(sample)
        return Item(name, 0, {**row, "row": row, **values}, repeat=repeat)

    def _against(self, sample: Mapping[str, Any], texts: Mapping[Key, str]) -> str:
        pairwise = self.scorer.options.pairwise
        if pairwise is not None and pairwise.column is not None:
            return as_text(sample["row"].get(pairwise.column)).strip()
        return texts.get(key_of(sample), "")

    def _params(self, *, reason: bool) -> dict[str, JSON]:
        schema = {"name": "verdict", "strict": True, "schema": self.scorer.menu.schema(reason)}
        structured = {"response_format": {"type": "json_schema", "json_schema": schema}}
        return {**(structured if self._structured else {}), **self.scorer.options.params}


def judged_text(sample: Mapping[str, Any], of: str) -> str:
    """What is judged of a sample; "" where there is nothing."""
    return (sample.get("output" if of == "output" else "answer") or "").strip()


def _others(path: Path, task: JudgeTask) -> dict[Key, str]:
    """The answers that those of a run are compared with."""
    of, samples = task.scorer.options.of, stored_samples(path, redacted=task.redacted)
    return {key_of(sample): judged_text(sample, of) for sample in samples if is_answered(sample)}


def _unread(records: Iterable[Mapping[str, Any]]) -> list[Item]:
    """The questions that gave no grade; of a question asked more than once its last record counts."""
    last = {key_of(record): record for record in records}
    return [
        Item(
            sample_id,
            0,
            {
                "messages": record.get("messages") or [],
                "prompt": record.get("prompt"),
                "said": record.get("output") or "",
            },
            repeat=repeat,
        )
        for (sample_id, repeat), record in last.items()
        if record["status"] in (Status.UNPARSED, Status.REFUSED)
    ]


class _GradeReader:
    """Reads the grade of a judge's answer. A request without one is unparsed."""

    def __init__(self, scorer: Judge) -> None:
        self._menu: Menu = scorer.menu
        self._name = scorer.name

    def evaluate(
        self,
        output: str,
        target: JSON,
        row: Row,
        refused: bool = False,
        tool_calls: JSON = None,
        likelihood: JSON = None,
    ) -> Scored:
        """The grade as an answer, its reason, and no score."""
        verdict = read_verdict(output, self._menu)
        reasons = {self._name: verdict.reason} if verdict.reason else {}
        if verdict.code is None:
            status = Status.REFUSED if refused else Status.UNPARSED
            fault = "the judge declined to answer" if refused else verdict.fault
            return Scored(status, None, fault, {}, reasons)
        return Scored(Status.SCORED, self._menu.labels[verdict.code], None, {}, reasons)


class _AskAgain:
    """Renders the first question, what was said, and what is wanted."""

    def __init__(self, menu: Menu) -> None:
        self._again = ASK_AGAIN.format(grades=menu.said, example=menu.example_again())

    def render(self, item: Item) -> Rendered:
        """Messages, or one text for a completions endpoint."""
        said = item.row["said"]
        if item.row["prompt"] is not None:
            return Rendered((), f"{item.row['prompt']}\n\n{said}\n\n{self._again}\n")
        messages = [Message(message["role"], message["content"]) for message in item.row["messages"]]
        if said.strip():
            return Rendered((*messages, Message("assistant", said), Message("user", self._again)), None)
        # An assistant that says nothing is refused by some servers.
        last = Message("user", f"{messages[-1].content}\n\n{self._again}")
        return Rendered((*messages[:-1], last), None)


class EmbeddingTask(Task):
    """Embeddings of the answers and targets of a run, each distinct text once."""

    scorer: EmbeddingSimilarity

    def provider(self, inner: Provider) -> Provider:
        """The model's embeddings, gathered into requests of many texts."""
        from evalrun.providers.embeddings import EmbeddingProvider

        return EmbeddingProvider(inner, self.scorer.options.batch)

    def questions(
        self, run: AnsweredRun, other: Path | None, round_: Round, before: Iterable[Mapping[str, Any]]
    ) -> Questions:
        """A request for each distinct text."""

        def items() -> Iterator[Item]:
            seen: set[str] = set()
            for sample in stored_samples(run.samples):
                for text in embedded_texts(sample):
                    name = text_digest(text)
                    if name not in seen:
                        seen.add(name)
                        yield Item(name, 0, {"text": text})

        return Questions(items, sum(1 for _ in items()), _TextAlone(), _VectorReader(), {})


def embedded_texts(sample: Mapping[str, Any]) -> list[str]:
    """The answer first, then the acceptable targets; empty where one of the two is missing."""
    if sample["status"] != Status.SCORED or sample["target"] is None:
        return []
    targets = [as_text(alternative).strip() for alternative in alternatives(sample["target"])]
    answer = (sample.get("answer") or "").strip()
    targets = [target for target in targets if target]
    return [answer, *targets] if answer and targets else []


def text_digest(text: str) -> str:
    """Names a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16].hex()


class _TextAlone:
    def render(self, item: Item) -> Rendered:
        """The text alone."""
        return Rendered((), item.row["text"])


class _VectorReader:
    """Keeps an embedding as it is: the output is the vector."""

    def evaluate(self, output: str, *_: Any, **__: Any) -> Scored:
        return Scored(Status.SCORED, None, None, {}, {})


def compared_samples(task: Task, run: AnsweredRun, everything: Sequence[AnsweredRun]) -> Path | None:
    """The samples that a run is compared with; None where its scorer compares with no run, or with itself.

    Raises UserError where that run has no answers.
    """
    pairwise = getattr(task.scorer.options, "pairwise", None)
    if pairwise is None or pairwise.column is not None:
        return None
    wanted = (pairwise.model or run.model, pairwise.prompt or run.prompt)
    if wanted == (run.model, run.prompt):
        return None
    for other in everything:
        same = other.dataset == run.dataset and dict(other.params) == dict(run.params)
        if (other.model, other.prompt) == wanted and same:
            return other.samples
    raise UserError(
        f"run {run.run_id} is compared with the answers of {wanted[0]} to {wanted[1]}, which are not there",
        where=f"scorer {task.scorer.name}",
        remedy="Run that cell too, or compare with another.",
        exit_code=ExitCode.INCOMPLETE,
    )

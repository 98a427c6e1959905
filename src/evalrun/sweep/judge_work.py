"""What a model is asked about the samples of a run: requests made from `samples.parquet`, and their replies.

A task is one scorer with one model. Its requests have the shape of a run (items, a renderer, a pipeline), so
that the runner's own machinery asks them. The id of an item says which sample it is about.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.datasets import Item
from evalrun.prompts import Prompt
from evalrun.prompts.rendering import Rendered
from evalrun.providers.base import Provider
from evalrun.scoring.asking import AskingScorer, Key, Reply
from evalrun.scoring.base import alternatives, as_text
from evalrun.scoring.pipeline import Scored
from evalrun.scoring.scorers.judge import ASK_AGAIN, Judge
from evalrun.scoring.scorers.judge_grades import Menu, read_verdict
from evalrun.tracking.parquet import column_names, iter_samples
from evalrun.types import JSON, Message, Row, Status

PARAMS: Mapping[str, JSON] = {"temperature": 0, "max_tokens": 256}
"""What a judge is asked with where neither its model nor the scorer says otherwise."""

_VARS = "vars."
_READ = ("sample_id", "repeat", "status", "output", "answer", "target", "target_json", "messages", "prompt")


@dataclass(frozen=True, slots=True)
class Work:
    """A stream of requests: what the runner needs of a dataset, and what goes with it."""

    items: Callable[[], Iterable[Item]]
    count: int
    renderer: Any
    pipeline: Any
    params: Mapping[str, JSON]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items())


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run whose answers are there, and the cell of the matrix that it is."""

    run_id: str
    folder: Path
    samples: Path
    model: str
    prompt: str
    dataset: str
    params: Mapping[str, JSON] = field(default_factory=dict)


class Task(ABC):
    """One scorer with one of its models."""

    def __init__(self, scorer: AskingScorer, model: str) -> None:
        self.scorer, self.model = scorer, model

    @property
    def slug(self) -> str:
        """Names the task's folder within a run's."""
        return f"{self.scorer.name}--{self.model}"

    def provider(self, inner: Provider) -> Provider:
        """What answers the requests."""
        return inner

    @abstractmethod
    def first(self, run: JudgedRun, other: Path | None) -> Work:
        """The requests about a run."""

    def second(self, records: Iterable[Mapping[str, Any]]) -> Work | None:
        """What is asked again, given the records of the first requests; None where nothing is."""
        return None


def samples_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's samples: what was asked and said, `row` (the dataset's columns) and the target."""
    present = column_names(path)
    wanted = [name for name in present if name in _READ or name.startswith(_VARS)]
    for sample in iter_samples(path, 512, wanted, decode=True):
        row = {name.removeprefix(_VARS): value for name, value in sample.items() if name.startswith(_VARS)}
        typed = sample.get("target_json")
        yield {**sample, "row": row, "target": sample.get("target") if typed is None else typed}


def key_of(sample: Mapping[str, Any]) -> Key:
    """Which sample a row is."""
    return sample["sample_id"], int(sample.get("repeat") or 0)


def question_of(sample: Mapping[str, Any]) -> str:
    """What the model was asked: the last message of the user, or the text of the prompt."""
    for message in reversed(sample.get("messages") or []):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return sample.get("prompt") or ""


def judged_text(sample: Mapping[str, Any], of: str) -> str:
    """What is judged of a sample; "" where there is nothing."""
    return (sample.get("output" if of == "output" else "answer") or "").strip()


def answered(sample: Mapping[str, Any]) -> bool:
    """Whether there was an answer at all."""
    return bool(sample["status"] != Status.FAILED.value)


class JudgeTask(Task):
    """A judge and one of its models."""

    scorer: Judge

    def __init__(self, scorer: Judge, model: str, prompt: Prompt, structured: bool) -> None:
        super().__init__(scorer, model)
        self._prompt, self._structured = prompt, structured
        self._renderer = prompt.bind(None, 0)

    def first(self, run: JudgedRun, other: Path | None) -> Work:
        """A request for each sample with something to judge; of pairs one in each order."""

        def items() -> Iterator[Item]:
            texts = _others(other, self.scorer) if other is not None else None
            for sample in samples_of(run.samples):
                yield from self._items(sample, texts)

        count = sum(1 for _ in items())
        return Work(items, count, self._renderer, _Reader(self.scorer), self._params(reason=True))

    def _items(self, sample: Mapping[str, Any], texts: Mapping[Key, str] | None) -> Iterator[Item]:
        options = self.scorer.options
        text = judged_text(sample, options.of)
        if not text or not answered(sample):
            return
        target = sample["target"]
        wanted = options.reference is not False and target is not None
        values: dict[str, JSON] = {
            "question": question_of(sample),
            "answer": text,
            "reference": _reference(target) if wanted else "",
            "grades": self.scorer.menu.said,
            "example": self.scorer.menu.example(),
        }
        row = (
            sample["row"]
            if self._prompt.reads_whole_row or self._prompt.uses_row
            else {name: value for name, value in sample["row"].items() if name in self._prompt.reads}
        )
        name, repeat = key_of(sample)
        for order in self.scorer.orders:
            pair: dict[str, JSON] = {}
            if order:
                against = self._against(sample, texts)
                if not against:
                    return
                first, second = (text, against) if order == "ab" else (against, text)
                pair = {"first": first, "second": second}
            yield Item(item_id(name, repeat, order), 0, {**row, "row": row, **values, **pair})

    def _against(self, sample: Mapping[str, Any], texts: Mapping[Key, str] | None) -> str:
        pairwise = self.scorer.options.pairwise
        if pairwise.column is not None:
            return as_text(sample["row"].get(pairwise.column)).strip()
        return (texts or {}).get(key_of(sample), "")

    def second(self, records: Iterable[Mapping[str, Any]]) -> Work | None:
        """Once more what gave no grade on the menu, with what the judge had said; then only the grade."""
        unread: dict[str, Mapping[str, Any]] = {}
        for record in records:
            if parts_of(record["sample_id"])[3] == 1:
                unread[record["sample_id"]] = record
        wanted = [each for each in unread.values() if each["status"] in ("unparsed", "refused")]
        if not wanted:
            return None

        def items() -> Iterator[Item]:
            for record in wanted:
                name, repeat, order, _ = parts_of(record["sample_id"])
                row = {
                    "messages": record.get("messages") or [],
                    "prompt": record.get("prompt"),
                    "said": record.get("output") or "",
                }
                yield Item(item_id(name, repeat, order, 2), 0, row)

        menu = self.scorer.menu
        return Work(items, len(wanted), _AskAgain(menu), _Reader(self.scorer), self._params(reason=False))

    def _params(self, *, reason: bool) -> dict[str, JSON]:
        schema = {"name": "verdict", "strict": True, "schema": self.scorer.menu.schema(reason)}
        structured = {"response_format": {"type": "json_schema", "json_schema": schema}}
        return {**(structured if self._structured else {}), **self.scorer.options.params}


def _reference(target: JSON) -> str:
    return " | ".join(as_text(each) for each in alternatives(target))


def _others(path: Path, scorer: Judge) -> dict[Key, str]:
    """The answers that those of a run are compared with."""
    return {
        key_of(sample): judged_text(sample, scorer.options.of)
        for sample in samples_of(path)
        if answered(sample)
    }


def item_id(sample_id: str, repeat: int, order: str, asked: int = 1) -> str:
    """The id of a request about a sample."""
    return f"{sample_id}\x1f{repeat}\x1f{order}\x1f{asked}"


def parts_of(name: str) -> tuple[str, int, str, int]:
    """Sample id, repeat, order and number of the question."""
    sample_id, repeat, order, asked = name.rsplit("\x1f", 3)
    return sample_id, int(repeat), order, int(asked)


class _Reader:
    """In the place of a pipeline: reads the grade. A request without one is unparsed."""

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
        """The verdict as an answer, its reason, and no score."""
        verdict = read_verdict(output, self._menu)
        reasons = {self._name: verdict.reason} if verdict.reason else {}
        if verdict.code is None:
            status = Status.REFUSED if refused else Status.UNPARSED
            fault = "the judge declined to answer" if refused else verdict.fault
            return Scored(status, None, fault, {}, reasons)
        return Scored(Status.SCORED, self._menu.labels[verdict.code], None, {}, reasons)


class _AskAgain:
    """In the place of a renderer: the first question, what was said, and what is wanted."""

    def __init__(self, menu: Menu) -> None:
        self._again = ASK_AGAIN.format(grades=menu.said, example=menu.example_again())

    def render(self, item: Item) -> Rendered:
        """Messages, or one text for a completions endpoint."""
        said = item.row["said"]
        if item.row["prompt"] is not None:
            return Rendered((), f"{item.row['prompt']}\n\n{said}\n\n{self._again}\n")
        messages = [Message(each["role"], each["content"]) for each in item.row["messages"]]
        if said.strip():
            return Rendered((*messages, Message("assistant", said), Message("user", self._again)), None)
        # An assistant that says nothing is refused by some servers.
        last = Message("user", f"{messages[-1].content}\n\n{self._again}")
        return Rendered((*messages[:-1], last), None)


def replies_of(records: Iterable[Mapping[str, Any]], scorer: Judge) -> dict[Key, dict[str, Reply]]:
    """What was said about each sample by order, from the records of a task: the last question's reply."""
    found: dict[Key, dict[str, Reply]] = {}
    for record in records:
        name, repeat, order, asked = parts_of(record["sample_id"])
        replies = found.setdefault((name, repeat), {})
        before = replies.get(order)
        if before is not None and before.asked > asked:
            continue
        code = scorer.menu.code(record.get("answer")) if record["status"] == "scored" else None
        reason = (record.get("reasons") or {}).get(scorer.name, "")
        if not reason and before is not None:
            reason = before.reason
        fault = "" if code is not None else record.get("error") or "no grade"
        if record["status"] == "failed" and before is not None:
            fault = f"{before.fault}; asked again, {fault}"
        replies[order] = Reply(code, reason, fault, asked)
    return found

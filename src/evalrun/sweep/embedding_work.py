"""What an embedding model is asked about the samples of a run: their distinct texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalrun.datasets import Item
from evalrun.prompts.rendering import Rendered
from evalrun.providers.base import Provider
from evalrun.scoring.base import alternatives, as_text
from evalrun.scoring.pipeline import Scored
from evalrun.scoring.scorers.embedding import EmbeddingSimilarity
from evalrun.sweep.judge_work import JudgedRun, Task, Work, samples_of
from evalrun.types import Status


class EmbeddingTask(Task):
    """Embeddings of the answers and targets of a run, each distinct text once."""

    scorer: EmbeddingSimilarity

    def provider(self, inner: Provider) -> Provider:
        """The model's embeddings, gathered into requests of many texts."""
        from evalrun.providers.embeddings import EmbeddingProvider

        return EmbeddingProvider(inner, self.scorer.options.batch)

    def first(self, run: JudgedRun, other: Path | None) -> Work:
        """A request for each distinct text."""

        def items() -> Iterator[Item]:
            seen: set[bytes] = set()
            for sample in samples_of(run.samples):
                for text in embedded_texts(sample):
                    digest = text_digest(text)
                    if digest not in seen:
                        seen.add(digest)
                        yield Item(digest.hex(), 0, {"text": text})

        return Work(items, sum(1 for _ in items()), _TextRenderer(), _Vectors(), {})


def embedded_texts(sample: Mapping[str, Any]) -> list[str]:
    """The answer first, then the acceptable targets; empty where one of the two is missing."""
    if sample["status"] != Status.SCORED.value or sample["target"] is None:
        return []
    targets = [as_text(each).strip() for each in alternatives(sample["target"])]
    answer = (sample.get("answer") or "").strip()
    targets = [each for each in targets if each]
    return [answer, *targets] if answer and targets else []


def text_digest(text: str) -> bytes:
    """Names a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


class _TextRenderer:
    def render(self, item: Item) -> Rendered:
        """The text alone."""
        return Rendered((), item.row["text"])


class _Vectors:
    """In the place of a pipeline: an embedding is kept as it is."""

    def evaluate(self, output: str, *_: Any, **__: Any) -> Scored:
        """The output is the vector."""
        return Scored(Status.SCORED, None, None, {}, {})

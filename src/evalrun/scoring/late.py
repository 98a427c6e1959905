"""Threads for scorers that take long, such as running code, and an end to them before they are done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from evalrun.scoring.base import Scorer

Given = TypeVar("Given")
Made = TypeVar("Made")


class LateWorkers:
    """As many threads as there are cores. Leaving by an exception, and `end`, stop what is under way."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = scorers
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "evalrun-late")
        self.ended = False

    def map(self, function: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """The results in their order. After `end` none, or an exception, and they are not to be trusted."""
        return self._pool.map(function, given)

    def end(self) -> None:
        """Stop at once, from any thread."""
        self.ended = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for scorer in self.scorers:
            scorer.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.end()
        self._pool.shutdown(wait=True)

"""The rows of a level: in an order that the seed draws, and again from the start where they run out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from evalrun.canonical import seeded_bytes
from evalrun.datasets import Item
from evalrun.runner.source import Samples


@dataclass(frozen=True, slots=True)
class Passes:
    """The k-th pass over the rows is their repeat k. All levels have the same rows in the same order.

    `limit` is how many are handed out, None for as many as are taken.
    """

    items: tuple[Item, ...]
    limit: int | None

    @classmethod
    def of(cls, samples: Samples, seed: int, limit: int | None) -> Passes:
        """Draw the order."""
        return cls(tuple(sorted(samples, key=lambda item: seeded_bytes(seed, "rows", item.sample_id))), limit)

    def __len__(self) -> int:
        return len(self.items) if self.limit is None else self.limit

    def __iter__(self) -> Iterator[Item]:
        left = self.limit
        for number in count() if self.items else ():
            for item in self.items:
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield replace(item, repeat=number)

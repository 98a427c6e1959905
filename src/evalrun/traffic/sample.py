"""Which records are taken: by a hash of their id, so that every machine takes the same; and their weights.

A rate takes what hashes below it; a number takes the smallest hashes of each stratum, a simple random sample.
The weight of a row is one over the chance that it had: that of head sampling times that of ours.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

from evalrun.errors import UserError
from evalrun.types import JSON

Row: TypeAlias = dict[str, Any]

ALWAYS = "always"
"""The stratum of rows that are taken whatever their hash; each stands for itself."""
MOST_STRATA = 100


def place(seed: str, request_id: str) -> float:
    """A number in [0, 1) that depends on the seed and the id alone."""
    key = seed.encode()[:64]
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8, key=key).digest()) / 2**64


@dataclass(frozen=True)
class Stratum:
    """One stratum: `of` records matched, `n` were taken."""

    name: str
    of: int
    n: int


@dataclass
class Sampling:
    """Takes rows that are offered. `n` (over all strata) and `rate` exclude each other; neither takes all.

    `keep` is called with each row that is taken, its `weight` and `stratum` set: as it comes, or with `n` at
    the end.
    """

    keep: Callable[[Row], None]
    n: int | None = None
    rate: float | None = None
    seed: str = "0"
    strata: Sequence[str] = ()
    _heaps: dict[str, list[tuple[float, str, Row]]] = field(default_factory=dict)
    _of: dict[str, int] = field(default_factory=dict)
    _taken: dict[str, int] = field(default_factory=dict)

    def offer(self, request_id: str, make: Callable[[], Row], stratum: str, always: bool) -> None:
        """Look at one record; `make` gives its row, whose `kept` is the share that head sampling kept, where
        it is wanted. Raises UserError for too many strata."""
        name = ALWAYS if always else stratum
        self._of[name] = self._of.get(name, 0) + 1
        if len(self._of) > MOST_STRATA:
            raise UserError(
                f"there are more than {MOST_STRATA} strata ({', '.join(self.strata)})",
                remedy="Name columns with few values.",
            )
        if always or (self.n is None and self.rate is None):
            self._take(make(), name, 1.0)
            return
        at = place(self.seed, request_id)
        if self.n is None:
            if self.rate is not None and at < self.rate:
                self._take(make(), name, self.rate)
            return
        heap = self._heaps.setdefault(name, [])
        if len(heap) < self.n:
            heapq.heappush(heap, (-at, request_id, make()))
        elif (-at, request_id) > heap[0][:2]:
            heapq.heapreplace(heap, (-at, request_id, make()))

    def absorb(self, other: Sampling) -> None:
        """What another looked at, of other records: the smallest hashes of both are those of all."""
        for name, theirs in other._heaps.items():
            known = {entry[1]: entry for entry in (*self._heaps.get(name, ()), *theirs)}
            self._heaps[name] = heapq.nlargest(self.n or 0, known.values(), key=lambda entry: entry[:2])[::-1]
        for own, count in ((self._of, other._of), (self._taken, other._taken)):
            for name, number in count.items():
                own[name] = own.get(name, 0) + number

    def _take(self, row: Row, stratum: str, chance: float) -> None:
        self._taken[stratum] = self._taken.get(stratum, 0) + 1
        row["weight"] = 1 / (chance * row.pop("kept"))
        row["stratum"] = stratum
        self.keep(row)

    def finish(self) -> tuple[Stratum, ...]:
        """Take what a number of rows asks for; how many were taken of each stratum."""
        shares = allocate({name: len(heap) for name, heap in self._heaps.items()}, self.n or 0)
        taken = []
        for name, heap in self._heaps.items():
            chosen = heapq.nlargest(shares[name], heap, key=lambda entry: entry[:2])
            taken += [(row, name, shares[name] / self._of[name]) for _, _, row in chosen]
        for row, name, chance in sorted(taken, key=lambda each: (each[0]["ts"] or "", each[0]["request_id"])):
            self._take(row, name, chance)
        self._heaps.clear()
        return tuple(Stratum(name, of, self._taken.get(name, 0)) for name, of in sorted(self._of.items()))


def allocate(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """`n` rows over strata of these sizes: alike for all, what a small one cannot use for the others."""
    shares = dict.fromkeys(sizes, 0)
    left = n
    for at, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        shares[name] = min(sizes[name], left // (len(sizes) - at))
        left -= shares[name]
    return shares


def redacted(row: Row, names: Container[str], clean: Callable[[str], str]) -> Row:
    """The row with every text in these columns redacted, however deep it stands."""
    return {name: _redact(value, clean) if name in names else value for name, value in row.items()}


def _redact(value: JSON, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_redact(item, clean) for item in value]
    if isinstance(value, dict):
        return {key: _redact(item, clean) for key, item in value.items()}
    return value

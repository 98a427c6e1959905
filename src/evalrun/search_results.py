"""What a search came to, as `sweep.json` has it under `search`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """Where a race stands after a block: scores made so far over all candidates, and the e-value (as its
    common logarithm) against each candidate that was still in."""

    block: int
    calls: int
    against: dict[str, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What became of one candidate. `mean` is over its `rows`, all of them search rows.

    `against` is the common logarithm of the e-value against it; `out` says after which block it was dropped,
    `aside` why it was set aside without being shown to be worse.
    """

    name: str
    rows: int
    mean: float | None
    against: float
    out: int | None = None
    aside: str = ""


@dataclass(frozen=True, slots=True)
class RaceResult:
    """How a race went. `left` are the candidates that could not be told from the best; `best` is the one
    of them with the highest mean. `calls` of `grid` scores were made; `ended` says why it ended."""

    alpha: float
    within: float
    candidates: tuple[Candidate, ...]
    steps: tuple[Step, ...]
    left: tuple[str, ...]
    best: str | None
    calls: int
    grid: int
    ended: str


@dataclass(frozen=True, slots=True)
class SearchResults:
    """A search as its end says: the race, and who was compared with whom on the rows held out.

    `held_out` rows were held out of `rows`; `looks` is how often a search looked at them, this one included.
    `sweep` is the sweep of the race where that is another one, `data` the digest of all rows; `labels` are
    the candidates' short names. Where nothing was held out, `optimism` is by how much the winner's score on
    the rows that chose it is too high.
    """

    metric: str
    baseline: str
    winner: str | None
    race: RaceResult
    rows: int
    data: str
    sweep: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    held_out: int = 0
    looks: int = 0
    optimism: float | None = None

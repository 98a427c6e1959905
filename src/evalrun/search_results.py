"""What a search came to, as `sweep.json` has it under `search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from evalrun.frozen import frozen
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.sweep_results import Standing


@frozen
class Step:
    """Where a race stands after a block: scores made so far over all candidates, and the e-value (as its
    common logarithm) against each candidate that was still in."""

    block: int
    calls: int
    against: dict[str, float]


@frozen
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


@frozen
class LevelEffect:
    """One value of an axis: the mean of its `candidates` over the first `n` units, which all candidates were
    asked, and its paired difference from the axis's first value, with interval and p (None for that one).
    Seen on rows that choose; nothing is corrected."""

    axis: str
    value: JSON
    candidates: int
    n: int
    mean: float
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None


@frozen
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


@frozen
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
    shared: int = 0
    """Scores for which nothing was sent: another candidate, which differs by its parsers alone, had asked."""
    made: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    """What candidates are that the search made itself: `params` of a trial, `prompt` of a proposal."""
    refused: tuple[str, ...] = ()
    """Why proposals went back to their writer."""
    axes: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    """Where candidates lie on the axes of the search, by their names."""
    effects: tuple[LevelEffect, ...] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    """Of parameters that were tried from ranges: their share in what the trials' values differ by, as Optuna
    estimates it."""
    unguarded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which guards candidates that were left did not hold, and so were not chosen."""


def contract(found: SearchResults, standings: Sequence[Standing]) -> dict[str, Any]:
    """What scripts lean on: winner, baseline, calls, who is left, and the difference on the rows held out."""
    race = found.race
    against = difference_held_out(found, standings)
    held_out: dict[str, float | None] | None = None
    if found.held_out:
        held_out = {"n": found.held_out, "difference": None, "ci_low": None, "ci_high": None, "p": None}
        if against is not None:
            held_out = dict(zip(("difference", "ci_low", "ci_high", "p", "n"), against, strict=True))
        elif found.winner == found.baseline:
            held_out["difference"] = 0.0
    return {
        "winner": found.winner,
        "baseline": found.baseline,
        "calls": race.calls,
        "calls_full_grid": race.grid,
        "alive": list(race.left),
        "dropped": [each.name for each in race.candidates if each.out is not None],
        "held_out": held_out,
    }


def difference_held_out(
    found: SearchResults, standings: Sequence[Standing]
) -> tuple[float, float | None, float | None, float | None, int] | None:
    """Winner minus baseline on the rows held out, with its interval, p and n. None where nothing says it."""
    if not found.held_out or found.winner == found.baseline:
        return None
    rows = [each for each in standings if each.run in (found.winner, found.baseline)]
    against = next((each for each in rows if each.difference is not None), None)
    if against is None or against.difference is None:
        return None
    # A standing says best minus run.
    sign = 1 if against.run == found.baseline else -1
    ends = sorted(sign * end for end in (against.ci_low, against.ci_high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    return sign * against.difference, low, high, against.p, against.n

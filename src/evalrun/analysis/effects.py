"""Within one sweep: who is best, and who cannot be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evalrun.analysis.intervals import Estimate
from evalrun.analysis.matrix import Matrix, bounds_of, by_dataset, matrix
from evalrun.analysis.measures import Measure, RunInfo, RunSamples
from evalrun.analysis.simultaneous import tied_set
from evalrun.types import JSON, Direction


@dataclass(frozen=True, slots=True)
class Place:
    """One run of a standing: its mean over the samples that all runs have, and how it stands to the best.

    `behind` is best - mean with bounds that hold for all pairs of runs at once; `p` is corrected likewise.
    """

    run: RunInfo
    mean: Estimate
    behind: float
    behind_low: float | None
    behind_high: float | None
    p: float
    tied: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The runs of one dataset from best to worst, over the `n` samples that all of them have.

    The best, and all whose `tied` is set, cannot be told apart.
    """

    metric: str
    unit: str
    direction: Direction
    dataset: str
    n: int
    places: tuple[Place, ...]
    sentence: str

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        return {
            **asdict(self),
            "places": [{**asdict(each), "run": each.run.document()} for each in self.places],
            "best": self.places[0].run.run if self.places else None,
            "tied": [each.run.run for each in self.places if each.tied],
        }


def standings(runs: Sequence[RunSamples], measure: Measure, *, alpha: float, seed: int) -> list[Standing]:
    """A standing for every dataset that several runs of the sweep have."""
    found = []
    for dataset, group in by_dataset(runs).items():
        data = matrix(group, measure)
        if len(group) < 2 or len(data.values) < 2:
            continue
        found.append(_standing(dataset, group, measure, data, alpha, seed))
    return found


def _standing(
    dataset: str, runs: Sequence[RunSamples], measure: Measure, data: Matrix, alpha: float, seed: int
) -> Standing:
    result = tied_set(data.values, data.clusters, direction=measure.direction, alpha=alpha, seed=seed)
    places = []
    for at in result.order:
        bounds = None if at == result.best else result.pairs.interval(result.best, at, 1 - alpha)
        places.append(
            Place(
                runs[at].info,
                data.estimate(data.values[:, at], bounds_of(measure)),
                result.pairs.difference(result.best, at),
                None if bounds is None else bounds[0],
                None if bounds is None else bounds[1],
                result.p[at],
                at in result.tied,
            )
        )
    sentence = _told(runs[result.best].info.run, len(result.tied), len(runs), len(data.values), data.dropped)
    return Standing(
        measure.name, measure.unit, measure.direction, dataset, len(data.values), tuple(places), sentence
    )


def _told(best: str, tied: int, runs: int, n: int, dropped: int) -> str:
    if tied == runs:
        text = f"the {runs} runs cannot be told apart on {n} samples"
    elif tied == 1:
        text = f"{best} is better than the other {runs - 1} on {n} samples"
    else:
        text = f"{best} looks best; {tied - 1} of the other {runs - 1} cannot be told from it on {n} samples"
    return text + (f" ({dropped} that not all runs have are left out)" if dropped else "")

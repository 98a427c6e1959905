"""The scores of a training's checkpoints over its steps, as the sweeps that evaluated them concluded."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from evalrun.analysis.conclude import concluded
from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.sweep_results import CheckpointLine, StepCurve
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import TrainingFolder, name_of
from evalrun.training.evaluated import QualityLine, StepValue, quality, sweeps_of

FEWEST = 2
"""Steps from which on a sweep compares them."""


def quality_of(store: Store, folder: TrainingFolder, metric: str | None = None) -> list[QualityLine]:
    """A metric (by default the one that the newest sweep decides by) over the steps of a training.

    Of the newest sweep that compared steps of it, sample by sample; where there is none, of whatever runs
    there are, each with its own interval. Raises UserError for a metric that none of them has.
    """
    names = {folder.ulid, name_of(folder), folder.training().name}
    known: set[str] = set()
    for sweep in sweeps_of(store, folder):
        lines = [line for line in _lines(sweep) if line.training in names]
        known |= {curve.metric for line in lines for curve in line.curves}
        found = [
            _quality(sweep, line, curve)
            for line in lines
            if len(line.curves[0].points) >= FEWEST and (curve := _chosen(line, metric)) is not None
        ]
        if found:
            return found
    try:
        return quality(store, folder, metric)
    except UserError:
        near = nearest(metric or "", known)
        if not known:
            raise
        remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(sorted(known))}."
        raise UserError(f"no checkpoint of '{name_of(folder)}' has a '{metric}'", remedy=remedy) from None


def _lines(sweep: SweepFolder) -> Sequence[CheckpointLine]:
    with contextlib.suppress(UserError, OSError):
        return concluded(sweep.read_manifest(), (), None).results.checkpoints
    return ()


def _chosen(line: CheckpointLine, metric: str | None) -> StepCurve | None:
    return next((curve for curve in line.curves if metric in (None, curve.metric)), None)


def _quality(sweep: SweepFolder, line: CheckpointLine, curve: StepCurve) -> QualityLine:
    values = tuple(
        StepValue(
            step=point.step, value=point.value, ci_low=point.low, ci_high=point.high, n=point.n,
            sweep=sweep.ulid, run=point.run, verdict=point.verdict, behind=point.behind,
            behind_low=point.behind_low, behind_high=point.behind_high,
        )
        for point in curve.points
        if point.value is not None
    )  # fmt: skip
    # The sentence speaks of the first curve, the one that decides.
    sentence = line.sentence if curve is line.curves[0] else ""
    return QualityLine(
        curve.metric,
        line.prompt,
        line.dataset,
        curve.unit,
        curve.direction,
        values,
        curve.best,
        curve.worth,
        sentence,
    )

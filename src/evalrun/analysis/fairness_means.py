"""Means by group through fairlearn's MetricFrame, one frame for a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.fairness_groups import GroupColumn
from evalrun.analysis.fairness_measures import Measure

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEW_VALUES = 50
"""fairlearn is given at most so many distinct values a measure: a MetricFrame takes some 10 us for each."""


@dataclass(frozen=True, slots=True)
class Split:
    """A measure and the groups of a column; `codes` has one a unit, -1 where the group is missing.

    `within` is the level of a control column that the units are restricted to.
    """

    groups: GroupColumn
    measure: Measure
    codes: Ints
    within: Mapping[str, str] = field(default_factory=dict)


def group_means(splits: Sequence[Split]) -> list[dict[int, float]]:
    """Means by group code, through one MetricFrame of fairlearn; a group without data is not there.

    Each split is one value of the control feature, so that a run costs one frame and not one a measure. Equal
    values of one group are one weighted row. Measures with many values (times) are averaged directly.

    fairlearn is imported here only: that takes seconds.
    """
    means: list[dict[int, float]] = [{} for _ in splits]
    framed = []
    for at, split in enumerate(splits):
        if len(split.codes) == 0:
            continue
        if len(np.unique(split.measure.units.values)) <= _FEW_VALUES:
            framed.append(at)
        else:
            for code in np.unique(split.codes):
                means[at][int(code)] = float(split.measure.units.values[split.codes == code].mean())
    if framed:
        for at, found in zip(framed, _framed([splits[at] for at in framed]), strict=True):
            means[at] = found
    return means


def _framed(splits: Sequence[Split]) -> list[dict[int, float]]:
    from fairlearn.metrics import MetricFrame

    def average(y_true: Floats, y_pred: Floats, weight: Floats) -> float:
        return float(np.average(y_pred, weights=weight))

    means: list[dict[int, float]] = [{} for _ in splits]
    values, codes, which, weight = _weighted_rows(splits)
    # The groups are integer codes: labels of any kind, odd characters and None cannot mislead it.
    frame = MetricFrame(
        metrics=average,
        y_true=values,
        y_pred=values,
        sensitive_features=codes,
        control_features=which,
        sample_params={"weight": weight},
    )
    for (at, code), value in frame.by_group.items():
        if not np.isnan(value):
            means[at][int(code)] = float(value)
    return means


def _weighted_rows(splits: Sequence[Split]) -> tuple[Floats, Ints, Ints, Ints]:
    """The distinct (value, group code, number of the split), and how many units have each."""
    values = np.concatenate([split.measure.units.values for split in splits])
    codes = np.concatenate([split.codes for split in splits])
    which = np.repeat(np.arange(len(splits)), [len(split.codes) for split in splits])
    order = np.lexsort((values, codes, which))
    values, codes, which = values[order], codes[order], which[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(values) != 0) | (np.diff(codes) != 0) | (np.diff(which) != 0)
    starts = np.flatnonzero(new)
    return values[starts], codes[starts], which[starts], np.diff(np.append(starts, len(order)))

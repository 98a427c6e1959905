"""The columns that figures of all samples are made of, apart from the scorers: who compares or shows figures
need not load these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.frozen import frozen
from evalrun.scoring.info import MetricInfo
from evalrun.types import JSON

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@frozen
class Labelled:
    """A column of text as integer codes into a sorted list of distinct labels; -1 where there is none."""

    codes: NDArray[np.int32]
    labels: tuple[str, ...]


@frozen
class ScoreColumns:
    """What the corpus part of a scorer is computed from; every array has one entry a sample that counts.

    `value` and `parts` are the scores that `score` gave (NaN where it could not say). `answered` is False
    for unparsed and refused samples. `answers` and `targets` are read from the store when they are first
    asked for, because most scorers need neither.
    """

    value: NDArray[np.float64]
    parts: Mapping[str, NDArray[np.float64]]
    status: NDArray[np.int8]
    texts: Callable[[], tuple[Labelled, Labelled]]
    """Gives (answers, targets)."""


@frozen
class Interval:
    """An interval that has a formula of its own; `method` names it."""

    se: float
    low: float
    high: float
    method: str


@frozen
class Smooth:
    """A figure whose standard error comes from what each sample does to it (its influence; Hampel 1974, the
    infinitesimal jackknife of Jaeckel 1972), so that it holds for clusters too: their influences add up.

    `influence`, shape (n,), and `centre` are on the scale on which the figure is near to normal: "fisher-z"
    (atanh), "logit", "log" or "plain". `weights`, summing to 1, are the samples' shares in a ratio of sums
    (default 1/n each). `pseudo` samples that the centre was drawn in by add `extra`, the sum of their squared
    influences. `note` stands beside the figure, whether it has an interval or not.
    """

    value: float
    influence: NDArray[np.float64]
    centre: float
    scale: str = "plain"
    weights: NDArray[np.float64] | None = None
    pseudo: float = 0.0
    extra: float = 0.0
    note: str = ""

    def own_scale(self) -> NDArray[np.float64]:
        """The influences on the figure itself."""
        value = self.value
        slope = {"fisher-z": 1 - value * value, "logit": value * (1 - value), "log": value}
        return self.influence * slope.get(self.scale, 1.0)


@frozen
class Corpus:
    """Figures of a whole set of samples that are a function of sums over the samples.

    Every sample is of one of K kinds (`kinds`, one code a sample), and a sample of kind j adds row j of
    `statistics` (K x k) to the sums. `figures` maps sums of shape (..., k) to values of shape (..., m), with
    NaN where a figure is undefined; the m names are `names`. That is enough for point values, for averages
    over repeats, and for bootstrap intervals without touching a sample again (macro F1 from confusion counts,
    BLEU from n-gram counts). `shares` lists figures that are a plain proportion: figure name to (index of the
    hits, index of the trials) among the sums; they get a Wilson interval. `sizes` maps a figure to the index
    of the sum that is its n, where that is not the number of samples. `fixed` holds figures that are no
    function of sums, with an interval that holds for independent samples or none, and `smooth` those with the
    influence of each sample (in the order of `kinds`); `figures` may give NaN for either. `tests` are shares
    whose p against one half (two-sided exact binomial test) is told: figure name to (index of the hits, index
    of the trials). `least_of` are figures that are the lesser of two others: the columns of these, which may
    stand behind those that have names. A bootstrap of the lesser itself is biased low where the two are near.
    """

    kinds: NDArray[np.int64]
    statistics: NDArray[np.float64]
    figures: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    names: tuple[str, ...]
    infos: Mapping[str, MetricInfo]
    shares: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, JSON] = field(default_factory=dict)
    fixed: Mapping[str, tuple[float, Interval | None]] = field(default_factory=dict)
    smooth: Mapping[str, Smooth] = field(default_factory=dict)
    tests: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    least_of: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def as_text(value: JSON) -> str:
    """A value as text: text as it is, null as "", else compact JSON, the form in which it is stored."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, a value of numpy
        return json.dumps(plain_value(value), ensure_ascii=False, separators=(",", ":"), default=str)


def plain_value(value: Any) -> JSON:
    """A value that a parser or scorer of somebody's own made, as JSON has it: numbers and arrays of numpy and
    the like become Python's own, tuples and sets lists."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {
            key if type(key) is str else str(plain_value(key)): plain_value(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain_value(item) for item in sorted(value, key=str)]
    if hasattr(value, "tolist"):
        return plain_value(value.tolist())
    if isinstance(value, bool | int | float | str):
        return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
    return value

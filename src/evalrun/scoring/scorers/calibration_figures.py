"""The expected calibration error from sums by bin. Imported only when a run is analysed (it needs numpy)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, MetricInfo

Floats = NDArray[np.float64]


def calibration_error(confidence: Floats, right: Floats, bins: int, info: MetricInfo) -> Corpus | None:
    """Over samples: the sum over bins of |sum of confidences - hits| / n. None without samples.

    Bins are (0, 1/bins], …: a confidence on the edge counts in the lower one, and 0 in the first.
    """
    n = len(confidence)
    if n == 0:
        return None
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    statistics = np.zeros((n, bins + 1))
    statistics[np.arange(n), place] = confidence - right
    statistics[:, bins] = 1.0

    def figures(sums: Floats) -> Floats:
        found: Floats = np.abs(sums[..., :bins]).sum(axis=-1) / sums[..., bins]
        return found[..., None]

    return Corpus(np.arange(n, dtype=np.int64), statistics, figures, (info.name,), {info.name: info})

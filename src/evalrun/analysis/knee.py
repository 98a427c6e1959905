"""Where throughput stops rising with load: the break of two straight lines.

A description of the curve and no promise: capacity is what keeps the promise (`load_curve`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST = 5
"""Levels at least."""
FLAT, BETTER, NEAR_PEAK = 0.25, 0.5, 0.85
"""The second line rises at most so much of the first; the squared error falls by at least so much against one
line; throughput at the break is at least so much of the highest."""


def knee(loads: Sequence[float], throughput: Sequence[float]) -> float | None:
    """The load at which two lines through (load, throughput) meet, both scaled to [0, 1] (as guidellm 0.8
    does); None for fewer than five levels, or where the curve has no such break."""
    order = np.argsort(loads)
    x, y = np.asarray(loads, float)[order], np.asarray(throughput, float)[order]
    if len(x) < LEAST or x[0] == x[-1] or y.min() == y.max():
        return None
    low, span = x[0], x[-1] - x[0]
    peak = float(y.max() / (y.max() - y.min()))
    floor = float(y.min() / (y.max() - y.min()))
    x, y = (x - low) / span, (y - y.min()) / (y.max() - y.min())
    whole = _line(x, y)[2]
    rising, flat = min(
        ((_line(x[:cut], y[:cut]), _line(x[cut:], y[cut:])) for cut in range(2, len(x) - 1)),
        key=lambda pair: pair[0][2] + pair[1][2],
    )
    error = rising[2] + flat[2]
    if rising[0] <= 0 or flat[0] > FLAT * rising[0] or error > (1 - BETTER) * whole:
        return None
    at = (flat[1] - rising[1]) / (rising[0] - flat[0])
    if not 0 <= at <= 1 or rising[0] * at + rising[1] + floor < NEAR_PEAK * peak:
        return None
    return float(low + at * span)


def _line(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Slope, intercept and squared error of the least-squares line."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float(((y - slope * x - intercept) ** 2).sum())

"""Accuracy without labels, from how sure the answers are: confidence-based performance estimation (CBPE).

A confidence is calibrated on rows whose answers were scored (isotonic regression: of rows with such a
confidence this share was right). The accuracy of other rows is then the mean of their calibrated
confidences. That holds while rows are asked in another mix, and not where what is right for them has changed
(concept drift): it is an estimate, and is called so (after NannyML's CBPE).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.results import Estimate

Floats = NDArray[np.float64]

LEAST_ROWS = 50
DRAWS, MOST_ROWS = 200, 20_000
"""Bootstrap draws, and the rows a side that are drawn from at most."""
NAMES = ("confidence", "probability")
NOTE = "estimated from confidences; void where what is right for alike rows has changed"


def estimated_accuracy(confidence: Floats, right: Floats, live: Floats, seed: int = 0) -> Estimate:
    """The accuracy of rows with confidences `live`, shape (m,), calibrated on `confidence` and `right`,
    shape (n,), 0 or 1; with a percentile interval of 200 draws of both sides. No value with fewer than 50
    rows on a side, or where all are right, or none."""
    from sklearn.isotonic import IsotonicRegression

    known = np.isfinite(confidence) & np.isfinite(right)
    confidence, right, live = confidence[known], right[known], live[np.isfinite(live)]
    if min(len(right), len(live)) < LEAST_ROWS or right.min() == right.max():
        return Estimate(None, len(live), note="too few scored rows to calibrate by")
    rng = np.random.default_rng(seed)

    def made(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence[one], right[one])
        return float(fitted.predict(live[other]).mean())

    value = made(np.arange(len(right)), np.arange(len(live)))
    sizes = [min(MOST_ROWS, len(side)) for side in (right, live)]
    drawn = np.array(
        [
            made(rng.integers(len(right), size=sizes[0]), rng.integers(len(live), size=sizes[1]))
            for _ in range(DRAWS)
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, len(live), float(drawn.std(ddof=1)), float(low), float(high), "CBPE", NOTE)


def confidences(
    reference: Mapping[str, Any], live: Mapping[str, Any], named: str = ""
) -> Iterator[tuple[str, str]]:
    """Columns of confidence that both sides have, each with the reference's column of what was right: that of
    the same scorer (`score.likelihood.confidence` and `.right`), else its first score of 0 and 1."""
    binary = [name for name, values in reference.items() if name.startswith("score.") and _is_binary(values)]
    for name, values in reference.items():
        if not (name == named if named else name.rpartition(".")[2] in NAMES) or name not in live:
            continue
        if not all(_is_share(side) for side in (values, live[name])):
            continue
        own = f"{name.rpartition('.')[0]}.right"
        right = own if own in binary else next((each for each in binary), None)
        if right is not None:
            yield name, right


def _is_share(values: Any) -> bool:
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        return False
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() >= 0 and known.max() <= 1)


def _is_binary(values: Any) -> bool:
    return _is_share(values) and bool(np.isin(values[np.isfinite(values)], (0.0, 1.0)).all())

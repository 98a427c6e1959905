"""What a metric means, apart from the scorers, so that who shows metrics need not load them."""

from __future__ import annotations

from evalrun.frozen import frozen
from evalrun.types import Direction


@frozen
class MetricInfo:
    """What a metric means: shown as a tooltip beside every number and in docs/metrics.md.

    `definition` is whole sentences with the formula. `bounds` are the least and greatest possible values,
    None where there is none. `neutral`, of a metric that measures a bias, is its value without any.
    """

    name: str
    unit: str
    direction: Direction
    definition: str
    bounds: tuple[float | None, float | None] = (None, None)
    neutral: float | None = None


def fraction(name: str, definition: str, direction: Direction = "higher") -> MetricInfo:
    """A metric between 0 and 1."""
    return MetricInfo(name, "fraction", direction, definition, (0.0, 1.0))

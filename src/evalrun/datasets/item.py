"""One row as the rest of evalrun sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from evalrun.types import JSON, hot_value


@hot_value
class Item:
    """A selected row of a dataset.

    `row` holds the source columns and the derived ones. `position` counts from 0 in the order of
    selection and identifies nothing: `sample_id` does. `target` is None where the dataset names none.
    `base` is the id that the versions of a sample share, None where there are no versions.
    """

    sample_id: str
    position: int
    row: Mapping[str, JSON]
    target: JSON = None
    sensitive: Mapping[str, str | None] = field(default_factory=dict)
    cluster: str | None = None
    base: str | None = None

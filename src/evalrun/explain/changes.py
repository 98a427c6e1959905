"""Which part's weight changed from one run to another, over the samples that were explained in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalrun.analysis.correction import holm
from evalrun.analysis.paired import paired_difference
from evalrun.errors import UserError
from evalrun.explain.kept import sample_texts
from evalrun.explanations import Explained, Explanation
from evalrun.tracking.folder import SweepFolder


@dataclass(frozen=True, slots=True)
class Change:
    """The weight of a part in nats in both runs, means over the `n` samples that have it in both; interval
    and p of the paired difference, None for fewer than two samples; `p_corrected` is Holm's over all."""

    unit: str
    part: str
    n: int
    before: float
    after: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_corrected: float | None = None


def changes(a: tuple[SweepFolder, Explained], b: tuple[SweepFolder, Explained]) -> list[Change]:
    """The parts of both, those whose weight changed most first. Marked sections are the same by their name,
    everything else by what it says. Raises UserError where no sample was explained in both."""
    of_a, of_b = ({_key(one): one for one in each.samples} for _, each in (a, b))
    both = [key for key in of_a if key in of_b]
    if not both:
        raise UserError(
            "no sample was explained in both runs by the same method and target",
            where=f"{a[1].run}, {b[1].run}",
            remedy="Name a sample of both, or explain both runs first.",
        )
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for key in both:
        before = _weights(a[0], a[1].run, of_a[key])
        after = _weights(b[0], b[1].run, of_b[key])
        for part in before.keys() & after.keys():
            pairs.setdefault(part, []).append((before[part], after[part]))
    found = [_change(part, values) for part, values in sorted(pairs.items())]
    adjusted = holm([change.p for change in found])
    made = [
        Change(c.unit, c.part, c.n, c.before, c.after, c.difference, c.ci_low, c.ci_high, c.p, p)
        for c, p in zip(found, adjusted, strict=True)
    ]
    return sorted(made, key=lambda change: -abs(change.difference))


def _key(one: Explanation) -> tuple[str, int, str, str]:
    return one.sample_id, one.repeat, one.method, one.target


def _weights(folder: SweepFolder, run_id: str, one: Explanation) -> dict[tuple[str, str], float]:
    """The weight of each part of a sample; of parts that say the same the sum."""
    texts = sample_texts(folder, run_id, one)
    found: dict[tuple[str, str], float] = {}
    for unit in one.units:
        if unit.value is not None:
            part = unit.level, unit.name or " ".join(texts.of(unit).split())
            found[part] = found.get(part, 0.0) + unit.value
    return found


def _change(part: tuple[str, str], values: Sequence[tuple[float, float]]) -> Change:
    before, after = np.array(values).T
    result = paired_difference(before, after)
    several = len(values) > 1
    return Change(
        part[0], part[1], len(values), float(before.mean()), float(after.mean()),
        float((after - before).mean()),
        result.ci_low if several else None, result.ci_high if several else None,
        result.p if several else None,
    )  # fmt: skip

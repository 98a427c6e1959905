"""How far people who labelled the same items agree: percent, Cohen's kappa, Krippendorff's alpha.

Intervals are percentile bootstraps over items: what is drawn anew is what was labelled, not who labelled it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.scorers import judge_agreement as tables
from evalrun.scoring.scorers.judge_agreement import Level

Floats = NDArray[np.float64]

DRAWS, SEED, LEAST = 2_000, 7, 10
"""Draws of the bootstrap, its seed, and the items below which there is no interval."""

ALIKE = "all answers are the same: there is no disagreement to expect, so alpha is not defined"


def agreement(
    answers: Mapping[str, Mapping[str, Any]], level: Level, values: Sequence[Any] = ()
) -> dict[str, Any]:
    """Agreement on items: `answers` has for each item the answer of each person (gaps are left out).

    `level` is that of Krippendorff's distance; for ordinal and interval answers are numbers. `values` are the
    possible answers in order (others that were given come after them). Raises ValueError for such a level
    with answers that are no numbers. Returns `items` (with two answers or more), `percent` (of pairs of
    answers to one item that are the same), `alpha`, `kappa` (of two people alone), `people`; figures have
    value, ci_low, ci_high, note.
    """
    given = {
        str(each) if level == "nominal" else float(each) for one in answers.values() for each in one.values()
    }
    known = [str(each) if level == "nominal" else float(each) for each in values]
    menu = [each for each in known if each in given] + sorted(given - set(known), key=str)
    if level != "nominal":
        menu = sorted(given)
    place = {value: at for at, value in enumerate(menu)}
    coded = [
        {person: place[str(v) if level == "nominal" else float(v)] for person, v in one.items()}
        for one in answers.values()
    ]
    shared = [one for one in coded if len(one) > 1]
    counts = np.array([np.bincount([*one.values()], minlength=len(menu)) for one in shared], np.float64)
    found: dict[str, Any] = {
        "items": len(shared),
        "percent": None,
        "alpha": _empty("no item has two answers"),
    }
    found["kappa"] = None
    if len(shared):
        found["percent"] = _percent(counts)
        steps = np.array(menu if level != "nominal" else range(len(menu)), np.float64)
        found["alpha"] = _figure(
            tables.coincidences(counts), lambda summed: tables.alpha(summed, level, steps), ALIKE
        )
        people = sorted({person for one in coded for person in one})
        if len(people) == 2:
            found["kappa"] = _kappa(shared, people, len(menu), ordered=level != "nominal")
    found["people"] = _people(coded)
    return found


def _empty(note: str) -> dict[str, Any]:
    return {"value": None, "ci_low": None, "ci_high": None, "note": note}


def _percent(counts: Floats) -> float:
    same = (counts * (counts - 1)).sum()
    n = counts.sum(-1)
    return float(same / (n * (n - 1)).sum())


def _figure(parts: Floats, figure: Any, undefined: str) -> dict[str, Any]:
    """A figure of summed tables, one table an item: shape (items, V, V)."""
    value = float(figure(parts.sum(0)))
    if np.isnan(value):
        return _empty(undefined)
    if len(parts) < LEAST:
        return {**_empty(f"fewer than {LEAST} items: no interval"), "value": value}
    drawn = np.random.default_rng(SEED).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), DRAWS)
    flat = parts.reshape(len(parts), -1)
    values = figure((drawn.astype(np.float64) @ flat).reshape(DRAWS, *parts.shape[1:]))
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975])
    return {"value": value, "ci_low": float(low), "ci_high": float(high), "note": ""}


def _kappa(
    shared: Sequence[Mapping[str, int]], people: Sequence[str], size: int, *, ordered: bool
) -> dict[str, Any]:
    one, other = people
    parts = np.zeros((len(shared), size, size))
    for at, each in enumerate(shared):
        parts[at, each[one], each[other]] = 1
    return _figure(parts, lambda table: tables.kappa(table, quadratic=ordered), "both gave one answer only")


def _people(coded: Sequence[Mapping[str, int]]) -> list[dict[str, Any]]:
    """For each person: how many they answered, and how often they said what most of the others did."""
    answered: Counter[str] = Counter()
    with_most: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for one in coded:
        for person, value in one.items():
            answered[person] += 1
            others = Counter(v for who, v in one.items() if who != person)
            top = others.most_common(2)
            if top and (len(top) == 1 or top[0][1] > top[1][1]):
                compared[person] += 1
                with_most[person] += value == top[0][0]
    return [
        {"person": person, "answers": n, "compared": compared[person],
         "with_majority": with_most[person] / compared[person] if compared[person] else None}
        for person, n in sorted(answered.items())
    ]  # fmt: skip

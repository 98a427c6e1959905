"""Differences between groups in everyday words, for readers who are no statisticians.

"right 9 points less often than for standard [4, 14]; by chance one would see up to 5"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalrun.reports.charts.groups import contrasts_of, groups_of
from evalrun.reports.numbers import NONE, count, fixed, quantity
from evalrun.reports.view import RunView, Table

Z = 1.96
ALPHA = 0.05
SURE = 0.01
_RIGHT = ("exact_match", "accuracy", "choice", "multiple_choice", "contains", "number", "quasi_exact_match")


def p_value(value: float | None) -> str:
    """A p value as text: three decimals, "< 0.001" below."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def says_right(metric: str, unit: str) -> bool:
    """Whether the metric is a share of answers that are right, so that it may be called that."""
    return unit == "fraction" and metric.rpartition(".")[2] in _RIGHT


def plain_table(run: RunView, column: str, metric: str, shown: str) -> Table:
    """One row a group of the run: how often right, and what that amounts to beside the others."""
    found = ((run.details.get("groups") or {}).get(column) or {}).get("metrics", {}).get(metric) or {}
    unit = str(found.get("unit") or "")
    right = says_right(metric, unit)
    contrasts = {str(each["group"]): each for each in contrasts_of(run, column, metric)}
    if len(contrasts) == 2 and all(each["against"] == "the rest" for each in contrasts.values()):
        one, other = contrasts
        contrasts = {one: {**contrasts[one], "against": other}, other: {**contrasts[other], "against": one}}
        reference = ""
    else:
        reference = _reference(contrasts)
    rows = []
    for each in groups_of(run, column, metric):
        group = str(each["group"])
        value = _share(each["value"]) if right else quantity(each["value"], unit)
        words = _group_words(
            each, contrasts.get(group), metric if not right else "", unit, reference == group
        )
        rows.append((group, count(each["n"]), value, words))
    title = "answers right" if right else metric
    return Table(
        f"{run.label} by {shown}, in words", (shown, "n", title, "in words"), rows, frozenset({1, 2})
    )


def _reference(contrasts: Mapping[str, Mapping[str, Any]]) -> str:
    """The group that the others are held against; empty where each is held against the rest."""
    return next((str(each["against"]) for each in contrasts.values() if each["against"] != "the rest"), "")


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _group_words(
    group: Mapping[str, Any], contrast: Mapping[str, Any] | None, metric: str, unit: str, reference: bool
) -> str:
    if reference:
        return "The group that the others are held against."
    if group["group"] == "(missing)":
        return "Samples without a group: compared with nothing."
    if not group["n"]:
        return "No samples."
    if not group["compared"]:
        return "Too few samples to say anything."
    if contrast is None or contrast["value"] is None:
        return "Compared with nothing: no other group is large enough."
    return contrast_words(contrast, metric, unit)


def contrast_words(contrast: Mapping[str, Any], metric: str, unit: str) -> str:
    """A contrast as a sentence; `metric` is empty for shares of right answers."""
    value, low, high = contrast["value"], contrast["low"], contrast["high"]
    against = "all other groups" if contrast["against"] == "the rest" else str(contrast["against"])
    size = abs(value)
    if value == 0:
        lead = f"The same as for {against}"
    elif not metric:
        lead = f"Right {_points(size)} {'more' if value > 0 else 'less'} often than for {against}"
    else:
        amount = _points(size) if unit == "fraction" else quantity(size, unit)
        lead = f"{amount} {'higher' if value > 0 else 'lower'} than for {against}"
    scale = 100 if unit == "fraction" else 1
    ends = "" if low is None or high is None else f" {_range(value, low, high, scale, unit)}"
    chance = _by_chance(contrast, unit)
    return f"{lead}{ends}{chance}. {_verdict(contrast)}"


def _points(value: float) -> str:
    number = _whole(100 * value)
    return f"{number} point{'' if number == '1' else 's'}"


def _whole(value: float) -> str:
    """Whole points; one decimal below one."""
    return f"{value:.0f}" if value >= 0.95 or value == 0 else f"{value:.1f}"


def _range(value: float, low: float, high: float, scale: float, unit: str) -> str:
    """The interval, turned so that it goes with the size that the sentence gives."""
    ends = (low, high) if value >= 0 else (-high, -low)
    if unit == "fraction":
        return "[" + ", ".join(fixed(scale * end, 0) for end in ends) + "]"
    return "[" + ", ".join(quantity(end, unit) for end in ends) + "]"


def _by_chance(contrast: Mapping[str, Any], unit: str) -> str:
    """How large a difference chance alone gives: 19 times in 20 no larger than 1.96 standard errors."""
    se = contrast.get("se")
    if not se:
        return ""
    expected = Z * se
    shown = f"{_whole(100 * expected)}" if unit == "fraction" else quantity(expected, unit)
    return f"; by chance one would see up to {shown}"


def _verdict(contrast: Mapping[str, Any]) -> str:
    p = contrast.get("p_holm")
    if p is None:
        return ""
    if p < SURE:
        return "Hardly chance."
    if p < ALPHA:
        return "Unlikely to be chance alone."
    alone = contrast.get("p")
    if alone is not None and alone < ALPHA:
        return "May be chance: among several groups one looks so different easily."
    return "May well be chance."

"""Forest plot of a comparison: how much each run changed, with its interval, around a line at nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.analysis.comparison import Compared
from evalrun.reports.charts.theme import base
from evalrun.reports.numbers import fixed
from evalrun.reports.view import Chart, Table

MOST = 60
"""Pairs that are drawn; the table has them all."""

COLOURS = {"better": "var(--good)", "higher": "var(--good)", "worse": "var(--bad)", "lower": "var(--bad)"}
SHAPES = {
    "better": "triangle-up",
    "higher": "triangle-up",
    "worse": "triangle-down",
    "lower": "triangle-down",
    "equivalent": "diamond",
    "inconclusive": "circle",
}


def differences(key: str, metric: str, rows: Sequence[tuple[str, Compared]], table: Table) -> Chart | None:
    """The differences of one metric, labelled; None where none has an interval. `table` stands behind it."""
    drawn = [
        (label, each)
        for label, each in rows
        if each.result.difference is not None
        and each.result.ci_low is not None
        and each.result.ci_high is not None
    ]
    if not drawn:
        return None
    better = {"higher": "Right of 0 is better. ", "lower": "Left of 0 is better. ", "none": ""}
    more = f" The first {MOST} are drawn." if len(drawn) > MOST else ""
    return Chart(
        key=key,
        title=f"Difference in {metric}",
        alt=f"Forest plot of the difference in {metric} for {len(drawn)} pairs of runs, with 95 % intervals.",
        spec=_spec(metric, drawn[:MOST]),
        table=table,
        note=f"{better[drawn[0][1].direction]}Bars are 95 % intervals of each difference alone.{more}",
        wide=True,
    )


def _row(label: str, each: Compared) -> dict[str, Any]:
    return {
        "run": label, "v": each.result.difference, "low": each.result.ci_low, "high": each.result.ci_high,
        "n": each.result.n, "verdict": each.verdict.word, "said": each.verdict.sentence,
        "text": fixed(each.result.difference, 3, sign=True),
    }  # fmt: skip


def _spec(metric: str, drawn: Sequence[tuple[str, Compared]]) -> dict[str, Any]:
    labels = [label for label, _ in drawn]
    words = list(SHAPES)
    y = {
        "field": "run", "type": "nominal", "sort": labels, "title": None,
        "axis": {"labelLimit": 360, "ticks": False, "domain": False},
    }  # fmt: skip
    x = {
        "field": "v", "type": "quantitative", "title": f"difference in {metric}",
        "scale": {"zero": True, "nice": True}, "axis": {"tickCount": 6},
    }  # fmt: skip
    verdict = {"field": "verdict", "type": "nominal", "legend": None}
    colours = [COLOURS.get(word, "var(--soft)") for word in words]
    colour = {**verdict, "scale": {"domain": words, "range": colours}}
    shape = {**verdict, "scale": {"domain": words, "range": list(SHAPES.values())}}
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "text", "title": "difference"},
        {"field": "n", "title": "pairs"}, {"field": "verdict", "title": "verdict"},
        {"field": "said", "title": ""},
    ]  # fmt: skip
    layers = [
        {"data": {"values": [{"zero": 0}]}, "mark": {"type": "rule", "strokeDash": [4, 3]},
         "encoding": {"x": {"field": "zero", "type": "quantitative"}}},
        {"mark": {"type": "rule", "strokeWidth": 2},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour}},
        {"mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
         "encoding": {"y": y, "x": x, "color": colour, "shape": shape, "tooltip": tooltip}},
    ]  # fmt: skip
    values = [_row(label, each) for label, each in drawn]
    return base(26 * len(labels) + 10, data={"values": values}, layer=layers)

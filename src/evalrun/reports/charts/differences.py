"""Forest plot of a comparison: how much each run changed, with its interval, around a line at nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.analysis.comparison import Compared
from evalrun.analysis.effects import Place, Standing
from evalrun.reports.charts.theme import base
from evalrun.reports.numbers import count, decimals_for, fixed, interval, plural
from evalrun.reports.view import Chart, Table
from evalrun.reports.visible import visible

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
        spec=_spec(metric, [_row(label, each) for label, each in drawn[:MOST]]),
        table=table,
        note=f"{better[drawn[0][1].direction]}Bars are 95 % intervals of each difference alone.{more}",
        wide=True,
    )


def behind_best(key: str, standing: Standing) -> Chart | None:
    """How far the runs of a standing are from its best, with bounds that hold for all pairs at once; None
    where none has any, or all are alike."""
    places = [
        each for each in standing.places if each.behind_low is not None and each.behind_high is not None
    ]
    if not any(each.behind_low != each.behind_high for each in places):
        return None
    best = visible(standing.places[0].run.run)
    side = "right" if standing.direction == "lower" else "left"
    more = f" The first {MOST} are drawn." if len(places) > MOST else ""
    return Chart(
        key=key,
        title=f"How far from {best}, {visible(standing.dataset)}",
        alt=f"Forest plot of {standing.metric} minus that of {best} for {plural(len(places), 'run')}, with "
        "95 % intervals.",
        spec=_spec(standing.metric, [_place(each, standing.n) for each in places[:MOST]]),
        table=_places(standing, best, places),
        note=f"Run minus best: {side} of 0 is worse. Bars are 95 % intervals that hold for all pairs of runs "
        f"at once; a circle cannot be told from the best.{more}",
        wide=True,
    )


def _places(standing: Standing, best: str, places: Sequence[Place]) -> Table:
    rows = []
    for each in places:
        row = _place(each, standing.n)
        half = (row["high"] - row["low"]) / 2
        ends = interval(row["low"], row["high"], decimals_for(half), sign=True)
        rows.append(
            (row["run"], fixed(row["v"], decimals_for(half), sign=True), ends, count(row["n"]), row["said"])
        )
    columns = ("run", f"difference in {standing.metric}", "95 % interval", "pairs", "reads as")
    title = f"{standing.metric} of each run minus that of {best}, {visible(standing.dataset)}"
    return Table(title, columns, rows, frozenset({1, 2, 3}))


def _place(each: Place, n: int) -> dict[str, Any]:
    word = "inconclusive" if each.tied else "worse"
    said = "not shown to be behind the best" if each.tied else "behind the best"
    low = None if each.behind_high is None else -each.behind_high
    high = None if each.behind_low is None else -each.behind_low
    return {
        "run": visible(each.run.run), "v": -each.behind, "low": low, "high": high, "n": n, "verdict": word,
        "said": said, "text": fixed(-each.behind, 3, sign=True),
    }  # fmt: skip


def _row(label: str, each: Compared) -> dict[str, Any]:
    return {
        "run": label, "v": each.result.difference, "low": each.result.ci_low, "high": each.result.ci_high,
        "n": each.result.n, "verdict": each.verdict.word, "said": each.verdict.sentence,
        "text": fixed(each.result.difference, 3, sign=True),
    }  # fmt: skip


def _spec(metric: str, values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    labels = [row["run"] for row in values]
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
    return base(26 * len(labels) + 10, data={"values": list(values)}, layer=layers)

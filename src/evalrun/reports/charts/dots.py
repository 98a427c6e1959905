"""Charts of points with intervals: levels of every axis, how far runs are from the best, differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evalrun.analysis.comparison import Compared
from evalrun.analysis.standings import DatasetStandings, Place
from evalrun.reports.charts.theme import base, run_scale, shape_scale
from evalrun.reports.numbers import count, decimals_for, fixed, interval, plural
from evalrun.reports.standings import equal
from evalrun.reports.view import Chart, RunView, Table, plain_value
from evalrun.reports.visible import visible

if TYPE_CHECKING:
    from evalrun.results import AxisEffect


def level_chart(key: str, effects: Sequence[AxisEffect]) -> Chart:
    """One row a level of an axis: its mean over all the rest, with the interval. `effects` is not empty."""
    metric = effects[0].metric
    rows = [_level_row(effect, at) for effect in effects for at in range(len(effect.levels))]
    axes = ", ".join(f"{each.axis} (spread {fixed(each.spread)})" for each in effects)
    return Chart(
        key=key,
        title=f"{metric} by each axis",
        alt=f"Dot plot of mean {metric} with 95 % intervals for every value of {axes}.",
        spec=_level_spec(rows, metric, len(effects)),
        table=Table(
            f"Mean {metric} of each value of each axis",
            ("axis", "value", metric, "95 % interval", "n"),
            [(row["axis"], row["level"], row["text"], row["ends"], count(row["n"])) for row in rows],
            frozenset({2, 4}),
        ),
        note="Averages over all combinations of the other axes that every value has. Those "
        "intervals are of each mean alone: whether two differ stands in the tables.",
    )


def _level_row(effect: AxisEffect, at: int) -> dict[str, Any]:
    mean = effect.levels[at].mean
    half = None if mean.low is None or mean.high is None else (mean.high - mean.low) / 2
    decimals = decimals_for(half)
    return {
        "axis": visible(effect.axis), "level": visible(plain_value(effect.levels[at].value)), "v": mean.value,
        "low": mean.low, "high": mean.high, "n": mean.n, "text": fixed(mean.value, decimals),
        "ends": interval(mean.low, mean.high, decimals),
    }  # fmt: skip


def _level_spec(rows: Sequence[dict[str, Any]], metric: str, axes: int) -> dict[str, Any]:
    # One axis after the other down the page; facets of Vega-Lite do not take the width of their box.
    values = [{**row, "name": f"{row['axis']}: {row['level']}"} for row in rows]
    y = {
        "field": "name", "type": "nominal", "title": None, "sort": [row["name"] for row in values],
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)"},
    }  # fmt: skip
    x = {
        "field": "v", "type": "quantitative", "title": metric, "scale": {"zero": False, "nice": True},
        "axis": {"tickCount": 6, "format": ".2~f"},
    }  # fmt: skip
    shape = {"field": "axis", "type": "nominal", "legend": None}
    tooltip = [
        {"field": "name", "title": "value"}, {"field": "text", "title": metric},
        {"field": "ends", "title": "95 % interval"}, {"field": "n", "title": "n"},
    ]  # fmt: skip
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 1.5, "color": "var(--run-0)"},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "color": "var(--run-0)"},
         "encoding": {"y": y, "x": x, "shape": shape, "tooltip": tooltip}},
    ]  # fmt: skip
    return base(26 * len(values) + 8 * axes, data={"values": values}, layer=layers)


SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+.2~f')"
"""Labels of an axis of differences: signs, but no plus before zero."""

MOST_RUNS = 20
"""Runs that are drawn, the best first; the table has them all."""


def forest(
    key: str, dataset: str, runs: Sequence[RunView], *, named: bool, wide: bool = True
) -> Chart | None:
    """Differences of ranked runs to the best; None where fewer than two were compared with it."""
    compared = [run for run in runs if run.difference is not None]
    if len(compared) < 2 or runs[0].primary is None or equal(runs):
        return None
    metric, best = runs[0].primary.name, runs[0]
    rows = [_forest_row(run) for run in compared[:MOST_RUNS]]
    tied = sum(run.standing == "tied" for run in compared)
    more = f" The {MOST_RUNS} best of {len(compared)} are drawn." if len(compared) > MOST_RUNS else ""
    return Chart(
        key=key,
        title=f"How far from {best.label}{f', {dataset}' if named else ''}",
        alt=f"Forest plot of {metric} minus that of {best.label} for {len(compared)} runs, with 95 % "
        f"intervals; {tied} of them reach 0.",
        spec=_forest_spec(compared[:MOST_RUNS], rows, metric),
        table=_forest_table(compared, metric),
        note="Difference over the same samples, with 95 % intervals that hold for all pairs of runs at once. "
        f"Hollow marks: it may well be nothing.{more}",
        wide=wide,
    )


def _forest_row(run: RunView) -> dict[str, Any]:
    value, low, high = behind(run)
    return {
        "run": run.label, "v": value, "low": low, "high": high, "tied": run.standing == "tied",
        "text": _text(run), "n": run.difference.n if run.difference else 0,
    }  # fmt: skip


def behind(run: RunView) -> tuple[float, float | None, float | None]:
    """The run minus the best, with its bounds: a worse run stands below zero."""
    assert run.difference is not None
    low, high = run.difference.low, run.difference.high
    return -run.difference.mean, None if high is None else -high, None if low is None else -low


def _text(run: RunView) -> str:
    value, low, high = behind(run)
    decimals = decimals_for(None if low is None or high is None else (high - low) / 2)
    return f"{fixed(value, decimals, sign=True)} {interval(low, high, decimals, sign=True)}".strip()


def _forest_spec(runs: Sequence[RunView], rows: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    labels = [run.label for run in runs]
    y = {
        "field": "run", "type": "nominal", "title": None, "sort": labels,
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)", "grid": False},
    }  # fmt: skip
    x = {
        "field": "v", "type": "quantitative", "title": f"difference in {metric}",
        "scale": {"zero": True, "nice": True}, "axis": {"tickCount": 6, "labelExpr": SIGNED},
    }  # fmt: skip
    colour = {"field": "run", "type": "nominal", "scale": run_scale(runs, labels), "legend": None}
    shape = {"field": "run", "type": "nominal", "scale": shape_scale(runs, labels), "legend": None}
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "text", "title": "difference"},
        {"field": "n", "title": "pairs"},
    ]  # fmt: skip
    hollow = {"condition": {"test": "datum.tied", "value": 0}, "value": 1}
    layers = [
        {"data": {"values": [{"zero": 0}]},
         "mark": {"type": "rule", "color": "var(--soft)", "strokeWidth": 1.25},
         "encoding": {"x": {"field": "zero", "type": "quantitative"}}},
        {"mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour}},
        {"mark": {"type": "point", "size": 80, "opacity": 1, "filled": False, "strokeWidth": 1.75,
                  "fill": "var(--paper)"},
         "encoding": {"y": y, "x": x, "stroke": colour, "shape": shape, "tooltip": tooltip}},
        {"mark": {"type": "point", "size": 80, "filled": True},
         "encoding": {"y": y, "x": x, "color": colour, "shape": shape, "opacity": hollow,
                      "tooltip": tooltip}},
    ]  # fmt: skip
    return base(26 * len(labels) + 10, data={"values": list(rows)}, layer=layers)


def _forest_table(runs: Sequence[RunView], metric: str) -> Table:
    rows = []
    for run in runs:
        assert run.difference is not None
        p = run.difference.p
        rows.append(
            (run.label, _text(run), "< 0.001" if p < 0.001 else fixed(p, 3), count(run.difference.n),
             "not distinguishable" if run.standing == "tied" else "behind", run.difference.method)
        )  # fmt: skip
    columns = ("run", f"difference in {metric}", "p, corrected", "pairs", "reads as", "how")
    return Table("Difference of each run to the best", columns, rows, frozenset({2, 3}))


PAIRS = 60
"""Pairs that are drawn; the table has them all."""

VERDICT_COLOURS = {
    "better": "var(--good)",
    "higher": "var(--good)",
    "worse": "var(--bad)",
    "lower": "var(--bad)",
}
VERDICT_SHAPES = {
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
    more = f" The first {PAIRS} are drawn." if len(drawn) > PAIRS else ""
    return Chart(
        key=key,
        title=f"Difference in {metric}",
        alt=f"Forest plot of the difference in {metric} for {len(drawn)} pairs of runs, with 95 % intervals.",
        spec=_difference_spec(metric, [_difference_row(label, each) for label, each in drawn[:PAIRS]]),
        table=table,
        note=f"{better[drawn[0][1].direction]}Bars are 95 % intervals of each difference alone.{more}",
        wide=True,
    )


def behind_best(key: str, standing: DatasetStandings) -> Chart | None:
    """How far the runs of a standing are from its best, with bounds that hold for all pairs at once; None
    where none has any, or all are alike."""
    places = [
        each for each in standing.places if each.behind_low is not None and each.behind_high is not None
    ]
    if not any(each.behind for each in places):
        return None
    best = visible(standing.places[0].run.run)
    side = "right" if standing.direction == "lower" else "left"
    more = f" The first {PAIRS} are drawn." if len(places) > PAIRS else ""
    return Chart(
        key=key,
        title=f"How far from {best}, {visible(standing.dataset)}",
        alt=f"Forest plot of {standing.metric} minus that of {best} for {plural(len(places), 'run')}, with "
        "95 % intervals.",
        spec=_difference_spec(standing.metric, [_place(each, standing.n) for each in places[:PAIRS]]),
        table=_places(standing, best, places),
        note=f"Run minus best: {side} of 0 is worse. Bars are 95 % intervals that hold for all pairs of runs "
        f"at once; a circle cannot be told from the best.{more}",
        wide=True,
    )


def _places(standing: DatasetStandings, best: str, places: Sequence[Place]) -> Table:
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


def _difference_row(label: str, each: Compared) -> dict[str, Any]:
    return {
        "run": label, "v": each.result.difference, "low": each.result.ci_low, "high": each.result.ci_high,
        "n": each.result.n, "verdict": each.verdict.word, "said": each.verdict.sentence,
        "text": fixed(each.result.difference, 3, sign=True),
    }  # fmt: skip


def _difference_spec(metric: str, values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    labels = [row["run"] for row in values]
    words = list(VERDICT_SHAPES)
    y = {
        "field": "run", "type": "nominal", "sort": labels, "title": None,
        "axis": {"labelLimit": 360, "ticks": False, "domain": False},
    }  # fmt: skip
    x = {
        "field": "v", "type": "quantitative", "title": f"difference in {metric}",
        "scale": {"zero": True, "nice": True}, "axis": {"tickCount": 6},
    }  # fmt: skip
    verdict = {"field": "verdict", "type": "nominal", "legend": None}
    colours = [VERDICT_COLOURS.get(word, "var(--soft)") for word in words]
    colour = {**verdict, "scale": {"domain": words, "range": colours}}
    shape = {**verdict, "scale": {"domain": words, "range": list(VERDICT_SHAPES.values())}}
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

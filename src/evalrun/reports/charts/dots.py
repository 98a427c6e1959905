"""Charts of points with intervals: levels of every axis, how far runs are from the best, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalrun.reports.charts.theme import base, dots, nominal, run_scale, shape_scale
from evalrun.reports.numbers import count, figure, fixed, interval, measured, p_value, plural
from evalrun.reports.view import Chart, RunView, Table, behind, equal, verdict_word
from evalrun.reports.visible import visible
from evalrun.sweep_results import AxisEffect, Level
from evalrun.tracking.naming import plain_value

if TYPE_CHECKING:
    from evalrun.analysis.compare import Compared
    from evalrun.analysis.standings import DatasetStandings


def level_chart(key: str, effects: Sequence[AxisEffect]) -> Chart:
    """One row a level of an axis: its mean over all the rest, with the interval. `effects` is not empty."""
    metric = effects[0].metric
    rows = [_level(effect, level) for effect in effects for level in effect.levels]
    axes = ", ".join(f"{each.axis} (spread {fixed(each.spread)})" for each in effects)
    x = {
        "field": "v", "type": "quantitative", "title": metric, "scale": {"zero": False, "nice": True},
        "axis": {"tickCount": 6, "format": ".2~f"},
    }  # fmt: skip
    colour = {"value": "var(--run-0)"}
    shape = {"field": "axis", "type": "nominal", "legend": None}
    tooltip = {"name": "value", "text": metric, "ends": "95 % interval", "n": "n"}
    # One axis after the other down the page; facets of Vega-Lite do not take the width of their box.
    layers = dots("name", [row["name"] for row in rows], x, {"color": colour}, {"shape": shape}, tooltip)
    return Chart(
        key=key,
        title=f"{metric} by each axis",
        alt=f"Dot plot of mean {metric} with 95 % intervals for every value of {axes}.",
        spec=base(26 * len(rows) + 8 * len(effects), data={"values": rows}, layer=layers),
        table=Table(
            f"Mean {metric} of each value of each axis",
            ("axis", "value", metric, "95 % interval", "n"),
            [(row["axis"], row["level"], row["text"], row["ends"], count(row["n"])) for row in rows],
            frozenset({2, 4}),
        ),
        note="Averages over all combinations of the other axes that every value has. Those "
        "intervals are of each mean alone: whether two differ stands in the tables.",
    )


def _level(effect: AxisEffect, level: Level) -> dict[str, Any]:
    mean, axis, name = level.mean, visible(effect.axis), visible(plain_value(level.value))
    return {
        "axis": axis, "level": name, "name": f"{axis}: {name}", "v": mean.value, "low": mean.low,
        "high": mean.high, "n": mean.n, "text": figure(mean.value, mean.low, mean.high),
        "ends": interval(mean.low, mean.high),
    }  # fmt: skip


SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+.2~f')"
"""Labels of an axis of differences: signs, but no plus before zero."""

MOST_RUNS = 20
"""Runs that are drawn, the best first; the table has them all."""

MOST_PAIRS = 60
"""Pairs that are drawn; the table has them all."""


def forest(
    key: str, dataset: str, runs: Sequence[RunView], *, named: bool, wide: bool = True, least: int = 2
) -> Chart | None:
    """Differences of ranked runs to the best; None where fewer than `least` were compared with it."""
    compared = [run for run in runs if run.difference is not None]
    if len(compared) < least or runs[0].primary is None or equal(runs):
        return None
    metric, best, drawn = runs[0].primary.name, runs[0], compared[:MOST_RUNS]
    labels = [run.label for run in drawn]
    rows = [_run_row(run) for run in compared]
    tied = sum(run.standing == "tied" for run in compared)
    more = f" The {MOST_RUNS} best of {len(compared)} are drawn." if len(compared) > MOST_RUNS else ""
    columns = ("run", f"difference in {metric}", "p, corrected", "pairs", "reads as", "how")
    cells = [[row[name] for name in ("run", "text", "p", "pairs", "verdict", "how")] for row in rows]
    return Chart(
        key=key,
        title=f"How far from {best.label}{f', {dataset}' if named else ''}",
        alt=f"Forest plot of {metric} minus that of {best.label} for {len(compared)} runs, with 95 % "
        f"intervals; {tied} of them reach 0.",
        spec=_forest(
            metric, rows[:MOST_RUNS], nominal("run", run_scale(drawn, labels)),
            nominal("run", shape_scale(drawn, labels)),
        ),
        table=Table("Difference of each run to the best", columns, cells, frozenset({2, 3})),
        note="Difference over the same samples, with 95 % intervals that hold for all pairs of runs at once. "
        f"Hollow marks are tied: it may well be nothing.{more}",
        wide=wide,
    )  # fmt: skip


def _run_row(run: RunView) -> dict[str, Any]:
    assert run.place is not None
    value, low, high = behind(run.place)
    return {
        "run": run.label, "v": value, "low": low, "high": high, "verdict": run.standing,
        "tied": run.standing == "tied", "text": measured(value, low, high, sign=True),
        "p": p_value(run.place.p), "pairs": count(run.place.n), "how": run.place.method,
    }  # fmt: skip


def _forest(
    metric: str, rows: Sequence[Mapping[str, Any]], colour: Mapping[str, Any], shape: Mapping[str, Any]
) -> dict[str, Any]:
    """Differences around a line at nothing; tied ones are hollow."""
    labels = [row["run"] for row in rows]
    x = {
        "field": "v", "type": "quantitative", "title": "difference",
        "scale": {"zero": True, "nice": True}, "axis": {"tickCount": 6, "labelExpr": SIGNED},
    }  # fmt: skip
    tooltip = {"run": "run", "text": "difference", "pairs": "pairs", "verdict": "verdict"}
    filled = {"condition": {"test": "datum.tied", "value": 0}, "value": 1}
    rule, point = dots("run", labels, x, {"color": colour}, {"shape": shape, "opacity": filled}, tooltip)
    hollow = {"type": "point", "size": 80, "filled": False, "strokeWidth": 1.75, "fill": "var(--paper)"}
    encoding = {name: each for name, each in point["encoding"].items() if name not in ("color", "opacity")}
    nothing = {
        "data": {"values": [{"zero": 0}]}, "mark": {"type": "rule", "strokeWidth": 1.25},
        "encoding": {"x": {"field": "zero", "type": "quantitative"}},
    }  # fmt: skip
    layers = [nothing, rule, {"mark": hollow, "encoding": {**encoding, "stroke": colour}}, point]
    return base(26 * len(labels) + 10, data={"values": list(rows)}, layer=layers)


_VERDICTS = {
    "better": ("var(--good)", "triangle-up"), "higher": ("var(--good)", "triangle-up"),
    "worse": ("var(--bad)", "triangle-down"), "lower": ("var(--bad)", "triangle-down"),
    "behind": ("var(--bad)", "triangle-down"), "equivalent": ("var(--soft)", "diamond"),
    "tied": ("var(--soft)", "circle"),
}  # fmt: skip


def _by_verdict(metric: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    colours, shapes = zip(*_VERDICTS.values(), strict=True)
    domain = list(_VERDICTS)
    return _forest(
        metric, rows, nominal("verdict", {"domain": domain, "range": colours}),
        nominal("verdict", {"domain": domain, "range": shapes}),
    )  # fmt: skip


def differences(key: str, metric: str, rows: Sequence[tuple[str, Compared]], table: Table) -> Chart | None:
    """The differences of one metric, labelled; None where none has an interval. `table` stands behind it."""
    drawn = [(label, each) for label, each in rows if None not in (each.result.ci_low, each.result.ci_high)]
    if not drawn:
        return None
    better = {"higher": "Right of 0 is better. ", "lower": "Left of 0 is better. ", "none": ""}
    more = f" The first {MOST_PAIRS} are drawn." if len(drawn) > MOST_PAIRS else ""
    together = " for all differences together" if any(each.result.tests > 1 for _, each in drawn) else ""
    return Chart(
        key=key,
        title=f"Difference in {metric}",
        alt=f"Forest plot of the difference in {metric} for {len(drawn)} pairs of runs, with 95 % intervals.",
        spec=_by_verdict(metric, [_pair_row(label, each) for label, each in drawn[:MOST_PAIRS]]),
        table=table,
        note=f"{better[drawn[0][1].direction]}Bars are 95 % intervals{together}.{more}",
        wide=True,
    )


def _pair_row(label: str, each: Compared) -> dict[str, Any]:
    result, word = each.result, verdict_word(each.verdict)
    change = (result.difference, result.ci_low, result.ci_high)
    return {
        "run": label, "v": change[0], "low": change[1], "high": change[2], "pairs": count(result.n),
        "verdict": word, "tied": word == "tied", "text": measured(*change, each.unit, sign=True),
    }  # fmt: skip


def behind_best(key: str, standing: DatasetStandings) -> Chart | None:
    """How far the runs of a standing are from its best, with bounds that hold for all pairs at once; None
    where none has any, or all are alike."""
    places = [place for place in standing.places if None not in (place.behind_low, place.behind_high)]
    if not any(place.behind for place in places):
        return None
    best = visible(standing.places[0].run.run)
    rows: list[dict[str, Any]] = []
    for place in places:
        value, low, high = -place.behind, -(place.behind_high or 0.0), -(place.behind_low or 0.0)
        rows.append({
            "run": visible(place.run.run), "v": value, "low": low, "high": high, "pairs": count(standing.n),
            "verdict": "tied" if place.tied else "behind", "tied": place.tied,
            "text": measured(value, low, high, standing.unit, sign=True),
        })  # fmt: skip
    side = "right" if standing.direction == "lower" else "left"
    more = f" The first {MOST_PAIRS} are drawn." if len(places) > MOST_PAIRS else ""
    return Chart(
        key=key,
        title=f"How far from {best}, {visible(standing.dataset)}",
        alt=f"Forest plot of {standing.metric} minus that of {best} for {plural(len(places), 'run')}, with "
        "95 % intervals.",
        spec=_by_verdict(standing.metric, rows[:MOST_PAIRS]),
        table=Table(
            f"{standing.metric} of each run minus that of {best}, {visible(standing.dataset)}",
            ("run", f"difference in {standing.metric}", "pairs", "reads as"),
            [[row["run"], row["text"], row["pairs"], row["verdict"]] for row in rows],
            frozenset({1, 2}),
        ),
        note=f"Run minus best: {side} of 0 is worse. Bars are 95 % intervals that hold for all pairs of runs "
        f"at once; hollow marks are tied with the best.{more}",
        wide=True,
    )

"""Charts over the steps of a training: a metric with its band, losses, gaps between groups beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.reports.charts.theme import (
    COLOURS,
    DASHES,
    LINE_LEGEND,
    base,
    level_rule,
    padded,
    reaching,
    tips,
)
from evalrun.reports.numbers import measured, significant
from evalrun.reports.view import Chart, Table
from evalrun.reports.visible import visible
from evalrun.sweep_results import CheckpointLine, GapCurve, StepCurve

VERDICTS: Mapping[str, str] = {
    "take": "diamond", "looks best": "square", "tied": "circle", "behind": "triangle-down",
}  # fmt: skip
"""What is said of a step, and the shape of its point."""


def verdict_of(curve: StepCurve, step: int, verdict: str) -> str:
    """What is said of a step: to take, with the best mean, tied with that, behind it, or not comparable."""
    if verdict == "incomparable":
        return "not comparable"
    if step == curve.best:
        return "take"
    return "looks best" if step == curve.looks_best else "behind" if verdict == "behind" else "tied"


def curve_chart(key: str, curve: StepCurve, chance: float | None = None) -> Chart:
    """A metric over the steps, with its band for all steps at once, and its level of chance."""
    rows = [
        {
            "step": point.step,
            "value": point.value,
            "low": point.low,
            "high": point.high,
            "verdict": verdict_of(curve, point.step, point.verdict),
            "score": measured(point.value, point.low, point.high, curve.unit),
        }
        for point in curve.points
        if point.value is not None
    ]
    values = [
        value for point in curve.points for value in (point.value, point.low, point.high) if value is not None
    ]
    y = _y("value", reaching(values, chance))
    x = _x([row["step"] for row in rows])
    shown = [word for word in VERDICTS if any(row["verdict"] == word for row in rows)]
    shape = {
        "field": "verdict", "type": "nominal", "title": None,
        "scale": {"domain": shown, "range": [VERDICTS[word] for word in shown]},
    }  # fmt: skip
    colour = {"value": COLOURS[0]}
    band = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}
    point = {
        "x": x, "y": y, "color": colour, "shape": shape,
        "tooltip": tips({"step": "step", "score": curve.metric, "verdict": "verdict"}),
    }  # fmt: skip
    layers = [
        *level_rule("y", y, chance),
        {"mark": {"type": "area", "opacity": 0.18}, "encoding": band},
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y, "color": colour}},
        {"mark": {"type": "point", "filled": True, "size": 90, "opacity": 1}, "encoding": point},
    ]
    better = {"higher": "Higher is better. ", "lower": "Lower is better. "}.get(curve.direction, "")
    table = [[f"{row['step']:,}", str(row["score"]), str(row["verdict"])] for row in rows]
    return Chart(
        key=key,
        title=visible(curve.metric),
        alt=visible(f"{curve.metric} over the steps of the training, with bounds."),
        spec=base(200, data={"values": rows}, layer=layers),
        table=Table("Points", ["step", curve.metric, "verdict"], table, frozenset({0, 1})),
        note=f"{better}The band holds for all steps at once (95 %), n = {curve.n:,}.",
        wide=key.endswith("-0"),
    )


def loss_chart(key: str, line: CheckpointLine) -> Chart | None:
    """What the training logged beside evalrun's negative log-likelihood; None where nothing is known."""
    kinds = {"training loss": "train_loss", "evaluation loss": "eval_loss", "nll per token": "nll"}
    rows = [
        {"step": point.step, "value": value, "series": name}
        for point in line.losses
        for name, field in kinds.items()
        if (value := getattr(point, field)) is not None
    ]
    if not rows:
        return None
    table = [
        [
            f"{point.step:,}",
            *(significant(getattr(point, field)) for field in kinds.values()),
            significant(point.gap),
        ]
        for point in line.losses
    ]
    return Chart(
        key=key,
        title="Losses",
        alt="Training loss, evaluation loss and negative log-likelihood over steps.",
        spec=_lines(rows, [name for name in kinds if any(row["series"] == name for row in rows)]),
        table=Table("Losses", ["step", *kinds, "gap"], table, frozenset(range(5))),
        note="The training loss is a mean since the log before it, under dropout; the gap is nll minus it.",
    )


def gap_chart(key: str, gap: GapCurve) -> Chart:
    """The gap between groups over the steps, beside what chance alone gives."""
    chance = "95 % of chance"
    rows = [
        {"step": point.step, "value": value, "series": name}
        for point in gap.points
        for name, value in (("gap", point.value), (chance, point.chance_p95))
        if value is not None
    ]
    table = [
        [
            f"{p.step:,}", measured(p.value, p.low, p.high, gap.unit), significant(p.chance_p95),
            significant(p.p),
        ]
        for p in gap.points
    ]  # fmt: skip
    columns = ["step", "gap, bounds for all steps at once", chance, "p, corrected for the steps"]
    return Chart(
        key=key,
        title=visible(f"Gap of {gap.metric} by {gap.column}"),
        alt=visible(f"Gap of {gap.metric} between groups of {gap.column} over steps."),
        spec=_lines(rows, ["gap", chance]),
        table=Table("Gaps", columns, table, frozenset(range(4))),
        note="Best minus worst group. 19 of 20 sweeps of equal groups stay below the dashed line.",
    )


def _lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    x, y = _x([row["step"] for row in rows]), _y("value", [row["value"] for row in rows])
    colour = {
        "field": "series", "type": "nominal", "title": None, "legend": LINE_LEGEND,
        "scale": {"domain": list(names), "range": list(COLOURS[: len(names)])},
    }  # fmt: skip
    dash = {**colour, "scale": {"domain": list(names), "range": [list(d) for d in DASHES[: len(names)]]}}
    tooltip = tips({"series": "series", "step": "step", "value": "value"})
    encoding = {"x": x, "y": y, "color": colour}
    return base(
        160,
        data={"values": list(rows)},
        layer=[
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**encoding, "strokeDash": dash}},
            {
                "mark": {"type": "point", "filled": True, "size": 40},
                "encoding": {**encoding, "tooltip": tooltip},
            },
        ],
    )


def _x(steps: Sequence[Any]) -> dict[str, Any]:
    return {
        "field": "step", "type": "quantitative", "title": "step",
        "scale": {"domain": [min(steps, default=0), max(steps, default=1)], "nice": False, "padding": 12},
        "axis": {"grid": False, "tickCount": 8, "format": ",d", "tickMinStep": 1},
    }  # fmt: skip


def _y(field: str, values: Sequence[float]) -> dict[str, Any]:
    return {
        "field": field, "type": "quantitative", "title": None,
        "scale": {"domain": padded(values) if values else [0, 1], "nice": False, "zero": False},
        "axis": {"tickCount": 4, "format": "~g"},
    }  # fmt: skip

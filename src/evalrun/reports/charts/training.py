"""The charts of trainings: quality with bands, loss, learning rate, gradient norm, tokens/s and the rest, all
over one axis of steps with marks where checkpoints were written.

Series are thinned for drawing: the least and the greatest of each stretch stay, so that no spike is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.reports import numbers
from evalrun.reports.charts.theme import COLOURS, DASHES, LINE_LEGEND, base, padded
from evalrun.reports.numbers import plural
from evalrun.reports.view import PALETTE, Chart, Table
from evalrun.reports.visible import visible
from evalrun.training.evaluated import QualityLine
from evalrun.training.series import MOST_POINTS, Series, drawable, role_of

MOST_OTHERS = 12
_FEW = 60
_ROLES: Mapping[str, str] = {
    "loss": "Loss", "learning_rate": "Learning rate", "grad_norm": "Gradient norm",
    "tokens_per_s": "Tokens/s",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is drawn of a training. Its loss is not drawn from the step on at which it `diverged`: trainers
    log 0.0 there."""

    name: str
    series: Series
    checkpoints: Sequence[int]
    quality: Sequence[QualityLine]
    steps: int
    diverged: int | None = None


def training_charts(trainings: Sequence[Drawn]) -> Iterator[Chart]:
    """The charts of one training, or of several over one another; `folded` ones are for those who ask."""
    shown = trainings[:PALETTE]
    axis = _Axis.of(shown)
    if any(each.quality for each in shown):
        yield _quality_chart(shown, axis)
    told = set[str]()
    for role, title in _ROLES.items():
        wanted = ("loss", "eval_loss") if role == "loss" else (role,)
        lines = [
            (each, metric)
            for each in shown
            for named in wanted
            if (metric := each.series.named(named)) is not None
        ]
        told |= {metric for _, metric in lines}
        yield from _series_chart(f"series-{role}", title, lines, axis)
    names = dict.fromkeys(name for each in shown for name in each.series.names)
    others = [name for name in names if name not in told and not _is_dull(name)]
    for at, metric in enumerate(others[:MOST_OTHERS]):
        lines = [(each, metric) for each in shown if metric in each.series.names]
        yield from _series_chart(f"other-{at}", metric, lines, axis, folded=True)


def _is_dull(name: str) -> bool:
    """What a trainer logs of its own speed, or counts."""
    ends = ("_runtime", "_per_second", "/runtime", "/epoch", "total_flos")
    return name.endswith(ends) or role_of(name) == "tokens"


@dataclass(frozen=True, slots=True)
class _Axis:
    """What all charts of the page share: the steps, the colours of trainings, the marks of checkpoints."""

    last: int
    names: Sequence[str]
    marks: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, trainings: Sequence[Drawn]) -> _Axis:
        marks = [
            {"step": step, "training": visible(each.name), "what": f"checkpoint {step:,}"}
            for each in trainings
            for step in each.checkpoints
        ]
        names = [visible(each.name) for each in trainings]
        return cls(max([1, *(each.steps for each in trainings)]), names, marks)

    @property
    def x(self) -> dict[str, Any]:
        """The axis of steps, the same in every chart."""
        return {
            "field": "step", "type": "quantitative", "title": "step",
            "scale": {"domain": [0, self.last], "nice": False},
            "axis": {"grid": False, "tickCount": 8, "format": ",d", "tickMinStep": 1},
        }  # fmt: skip

    @property
    def colour(self) -> dict[str, Any]:
        """A colour for each training; a legend where there are several."""
        scale = {"domain": list(self.names), "range": list(COLOURS[: len(self.names)])}
        legend = LINE_LEGEND if len(self.names) > 1 else None
        return {"field": "training", "type": "nominal", "title": None, "scale": scale, "legend": legend}

    def rules(self) -> dict[str, Any]:
        """Upright lines where checkpoints are."""
        tooltip = _tips("what", "training")
        mark = {"type": "rule", "strokeDash": [3, 3], "opacity": 0.45}
        return {
            "data": {"values": list(self.marks)},
            "mark": mark,
            "encoding": {"x": self.x, "tooltip": tooltip},
        }


def _y(scale: Mapping[str, Any]) -> dict[str, Any]:
    # One width of the labels, so that the axes of steps stand below one another.
    axis = {"tickCount": 4, "minExtent": 60, "maxExtent": 60, "format": "~g"}
    return {"field": "value", "type": "quantitative", "title": None, "scale": scale, "axis": axis}


def _dashes(labels: Sequence[str]) -> dict[str, Any]:
    scale = {"domain": list(labels), "range": [list(DASHES[at % len(DASHES)]) for at in range(len(labels))]}
    legend = LINE_LEGEND if len(labels) > 1 else None
    return {"field": "metric", "type": "nominal", "title": None, "scale": scale, "legend": legend}


def _tips(*fields: str) -> list[dict[str, str]]:
    return [{"field": name, "title": name} for name in fields]


def _series_chart(
    key: str, title: str, lines: Sequence[tuple[Drawn, str]], axis: _Axis, *, folded: bool = False
) -> Iterator[Chart]:
    """The chart of some series; none where nothing of them can be drawn."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for training, metric in lines:
        steps, values, left_out = _finite(training, metric)
        if left_out:
            notes.append(f"{metric} of {training.name}: {left_out} not drawn.")
        about = {"training": visible(training.name), "metric": visible(metric)}
        pairs = zip(steps, values, strict=True)
        rows += [{"step": step, "value": value, **about} for step, value in pairs]
    if not rows:
        return
    drawn = [row["value"] for row in rows]
    log = title == "Loss" and bool(drawn) and min(drawn) > 0
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    names = ", ".join(dict.fromkeys(training.name for training, _ in lines))
    table = [
        [row["training"], row["metric"], f"{row['step']:,}", f"{row['value']:.6g}"]
        for row in rows[:MOST_POINTS]
    ]
    yield Chart(
        key=key,
        title=visible(title),
        alt=visible(f"{title} over steps: {names}."),
        spec=_series_spec(rows, metrics, axis, log=log),
        table=Table("Points", ["training", "metric", "step", "value"], table, frozenset({2, 3})),
        note=visible(" ".join([*notes, *(["The scale is logarithmic."] if log else [])])),
        wide=True,
        folded=folded,
    )


def _finite(training: Drawn, metric: str) -> tuple[list[int], list[float], str]:
    """What can be drawn of a series, thinned; and what cannot, in words."""
    diverged = training.diverged if role_of(metric) == "loss" else None
    steps, values, unfit = drawable(training.series, metric, diverged)
    left_out = []
    if unfit:
        left_out.append(plural(unfit, "value that is NaN or infinite", "values that are NaN or infinite"))
    if diverged is not None:
        left_out.append(f"what it logged after it diverged at step {diverged:,}")
    return steps, values, " and ".join(left_out)


def _series_spec(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], axis: _Axis, *, log: bool
) -> dict[str, Any]:
    values = [row["value"] for row in rows]
    linear = {"domain": padded(values) if values else [0, 1], "nice": False, "zero": False}
    logarithmic = (
        {"type": "log", "domain": [min(values) / 1.1, max(values) * 1.1], "nice": False} if log else {}
    )
    encoding = {
        "x": axis.x,
        "y": _y(logarithmic or linear),
        "color": axis.colour,
        "tooltip": _tips("training", "metric", "step", "value"),
    }
    dashed = {**encoding, "strokeDash": _dashes(metrics)}
    layers = [axis.rules(), {"mark": {"type": "line", "strokeWidth": 1.5, "clip": True}, "encoding": dashed}]
    if len(rows) <= _FEW * max(1, len(metrics)):
        layers.append({"mark": {"type": "point", "filled": True, "size": 22}, "encoding": encoding})
    return base(150, data={"values": list(rows)}, layer=layers)


def _quality_chart(trainings: Sequence[Drawn], axis: _Axis) -> Chart:
    rows = [
        {
            "training": visible(training.name), "metric": visible(line.label), "step": each.step,
            "value": each.value, "low": each.ci_low, "high": each.ci_high, "n": each.n,
            "run": visible(each.run),
            "score": numbers.measured(each.value, each.ci_low, each.ci_high, line.unit),
        }
        for training in trainings
        for line in training.quality
        for each in line.values
    ]  # fmt: skip
    first = next(line for training in trainings for line in training.quality)
    better = {"higher": "Higher is better. ", "lower": "Lower is better. "}.get(first.direction, "")
    table = [
        [str(row["training"]), str(row["metric"]), f"{row['step']:,}", str(row["score"]), f"{row['n']:,}"]
        for row in rows
    ]
    columns = ["training", "line", "step", "value, 95 % interval", "n"]
    return Chart(
        key="quality",
        title=visible(f"{first.metric} of the checkpoints"),
        alt=visible(f"{first.metric} over steps with 95 % intervals."),
        spec=_quality_spec(rows, axis),
        table=Table("Scores", columns, table, frozenset({2, 4})),
        note=better + (_TOGETHER if any(each.verdict for each in first.values) else _APART),
        wide=True,
    )


_TOGETHER = "Bands are 95 % intervals for all steps at once."
_APART = "Bands are 95 % intervals of each step by itself: no sweep compared these steps sample by sample."


def _quality_spec(rows: Sequence[Mapping[str, Any]], axis: _Axis) -> dict[str, Any]:
    values = [value for row in rows for key in ("value", "low", "high") if (value := row[key]) is not None]
    labels = list(dict.fromkeys(str(row["metric"]) for row in rows))
    y = _y({"domain": padded(values), "nice": False, "zero": False})
    band = {"x": axis.x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "detail": {"field": "metric"}}
    line = {"x": axis.x, "y": y, "color": axis.colour}
    tooltip = _tips("training", "step", "score", "n", "run")
    return base(
        220,
        data={"values": list(rows)},
        layer=[
            axis.rules(),
            {
                "mark": {"type": "area", "opacity": 0.18},
                "encoding": {**band, "color": {**axis.colour, "legend": None}},
            },
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**line, "strokeDash": _dashes(labels)}},
            {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": {**line, "tooltip": tooltip}},
        ],
    )

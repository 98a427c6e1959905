"""Distributions of latency: the share of answers that took at most so long, and where the middle lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports.charts.theme import LINE_LEGEND, base, dash_scale, run_scale, shape_scale
from evalrun.reports.numbers import NONE, count, seconds
from evalrun.reports.view import Chart, RunView, Table

LINES = 6
"""With more runs than this a line each would be a tangle; then each run is a bar of its percentiles."""

NAMES = {
    "e2e_s": ("End-to-end time", "from sending the request to the last of the answer"),
    "ttft_s": ("Time to first token", "from sending the request to the first of the answer"),
    "tpot_s": ("Time per output token", "after the first one"),
}
TIME_AXIS = {"tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 10}
_STATISTICS = ("p50", "p90", "p95", "p99")


def latency(key: str, measure: str, dataset: str, runs: Sequence[RunView], *, named: bool) -> Chart | None:
    """The chart of one latency ("e2e_s", "ttft_s", "tpot_s") for the runs of a dataset; None without data."""
    measured = [run for run in runs if _cdf(run, measure)]
    if not measured:
        return None
    title, meaning = NAMES[measure]
    lines = len(measured) <= LINES
    spec = _curves(measured, measure) if lines else _ranges(measured, measure)
    form = "Cumulative distribution" if lines else "Percentile ranges"
    note = f"Share of answers that took at most so long, {meaning}."
    if not lines:
        note = f"Bar: middle half of the answers; line: 10th to 95th percentile; mark: median, {meaning}."
    return Chart(
        key=key,
        title=f"{title}{f', {dataset}' if named else ''}",
        alt=f"{form} of {title.lower()} for {len(measured)} runs; medians: {_medians(measured, measure)}.",
        spec=spec,
        table=_table(measured, measure, title),
        note=note,
        wide=not lines,
        folded=not lines and measure != "e2e_s",
    )


def _cdf(run: RunView, measure: str) -> tuple[list[float], list[float]] | None:
    found = (run.details.get("latency") or {}).get(measure) or {}
    cdf = found.get("cdf") or {}
    return (cdf["x"], cdf["p"]) if cdf.get("x") else None


def _quantile(run: RunView, measure: str, share: float) -> float:
    xs, ps = _cdf(run, measure) or ([0.0], [1.0])
    return next((x for x, p in zip(xs, ps, strict=True) if p >= share), xs[-1])


def _medians(runs: Sequence[RunView], measure: str) -> str:
    shown = [f"{run.label} {seconds(_quantile(run, measure, 0.5))}" for run in runs[:LINES]]
    return ", ".join(shown)


def _unit(runs: Sequence[RunView], measure: str) -> tuple[float, str]:
    """Milliseconds where all is below a second."""
    greatest = max(_quantile(run, measure, 0.95) for run in runs)
    return (1000.0, "ms") if greatest < 1 else (1.0, "s")


def _curves(runs: Sequence[RunView], measure: str) -> dict[str, Any]:
    factor, unit = _unit(runs, measure)
    rows = []
    for run in runs:
        xs, ps = _cdf(run, measure) or ([], [])
        rows.append({"run": run.label, "x": xs[0] * factor, "p": 0.0})
        rows += [{"run": run.label, "x": x * factor, "p": p} for x, p in zip(xs, ps, strict=True)]
    labels = list(dict.fromkeys(run.label for run in runs))
    # A few stragglers must not squeeze everything else into a corner.
    end = max(_quantile(run, measure, 0.99) for run in runs) * factor
    start = min(_quantile(run, measure, 0.0) for run in runs) * factor
    start = 0.0 if start < end / 3 else start - (end - start) * 0.05
    legend = LINE_LEGEND if len(labels) > 1 else None
    named = {"field": "run", "type": "nominal", "title": None, "legend": legend}
    colour = {**named, "scale": run_scale(runs, labels)}
    dash = {**named, "scale": dash_scale(runs, labels)}
    x = {
        "field": "x",
        "type": "quantitative",
        "title": unit,
        "scale": {"domain": [start, end], "nice": True},
        "axis": TIME_AXIS,
    }
    y = {
        "field": "p", "type": "quantitative", "title": "share of answers", "scale": {"domain": [0, 1]},
        "axis": {"format": "%", "tickCount": 5},
    }  # fmt: skip
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "p", "title": "share of answers", "format": ".0%"},
        {"field": "x", "title": f"took at most ({unit})", "format": ",.3~r"},
    ]  # fmt: skip
    layers = [
        {
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "clip": True},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 200, "opacity": 0, "clip": True},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
    ]
    return base(260, data={"values": rows}, layer=layers)


def _ranges(runs: Sequence[RunView], measure: str) -> dict[str, Any]:
    factor, unit = _unit(runs, measure)
    rows = [
        {"run": run.label, **{f"p{round(s * 100)}": _quantile(run, measure, s) * factor
                              for s in (0.1, 0.25, 0.5, 0.75, 0.95)}}
        for run in runs
    ]  # fmt: skip
    labels = list(dict.fromkeys(run.label for run in runs))
    y = {
        "field": "run", "type": "nominal", "title": None, "sort": {"field": "p50", "order": "ascending"},
        "axis": {"ticks": False, "domain": False, "labelColor": "var(--ink)"},
    }  # fmt: skip
    colour = {"field": "run", "type": "nominal", "scale": run_scale(runs, labels), "legend": None}
    shape = {"field": "run", "type": "nominal", "scale": shape_scale(runs, labels), "legend": None}
    tooltip = [{"field": "run", "title": "run"}] + [
        {"field": f"p{p}", "title": f"{p}th percentile ({unit})", "format": ",.3~r"}
        for p in (10, 25, 50, 75, 95)
    ]

    def x(name: str) -> dict[str, Any]:
        return {
            "field": name,
            "type": "quantitative",
            "title": unit,
            "scale": {"zero": True},
            "axis": TIME_AXIS,
        }

    layers = [
        {"mark": {"type": "rule", "strokeWidth": 1.5},
         "encoding": {"y": y, "x": x("p10"), "x2": {"field": "p95"}, "color": colour}},
        {"mark": {"type": "rule", "strokeWidth": 7, "opacity": 0.45},
         "encoding": {"y": y, "x": x("p25"), "x2": {"field": "p75"}, "color": colour, "tooltip": tooltip}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
         "encoding": {"y": y, "x": x("p50"), "color": colour, "shape": shape, "tooltip": tooltip}},
    ]  # fmt: skip
    return base(22 * len(labels), data={"values": rows}, layer=layers)


def _table(runs: Sequence[RunView], measure: str, title: str) -> Table:
    rows = []
    for run in runs:
        figures = [run.figure(f"performance.{measure}.{name}") for name in (*_STATISTICS, "max")]
        n = next((figure.n for figure in figures if figure), 0)
        rows.append((run.label, *(seconds(f.value) if f else NONE for f in figures), count(n)))
    columns = ("run", *_STATISTICS, "max", "n timed")
    return Table(f"{title} by run", columns, rows, frozenset(range(1, len(columns))))

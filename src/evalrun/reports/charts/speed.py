"""Charts of speed: distributions of latency, and throughput and time against concurrency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports import numbers
from evalrun.reports.charts.theme import LINE_LEGEND, base, dash_scale, run_scale, shape_scale
from evalrun.reports.leaderboard import REQUESTS, TOKENS
from evalrun.reports.numbers import NONE, count, metric_interval, seconds, significant
from evalrun.reports.view import Chart, RunView, Table
from evalrun.results import Curve, like_loads
from evalrun.types import MetricValue

LINES = 6
"""With more runs than this a line each would be a tangle; then each run is a bar of its percentiles."""

NAMES = {
    "e2e_s": ("End-to-end time", "from sending the request to the last of the answer"),
    "ttft_s": ("Time to first token", "from sending the request to the first of the answer"),
    "tpot_s": ("Time per output token", "after the first one"),
    "icl_s": ("Time between chunks", "from one chunk of an answer to the next"),
}
_PARTS = {"icl_s": "gaps"}
"""What a distribution is of, where it is not of answers."""
TIME_AXIS = {"tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 10}
_STATISTICS = ("p50", "p90", "p95", "p99")


def latency(key: str, measure: str, dataset: str, runs: Sequence[RunView], *, named: bool) -> Chart | None:
    """The chart of one latency (a key of NAMES) for the runs of a dataset; None without data."""
    measured = [run for run in runs if _cdf(run, measure)]
    if not measured:
        return None
    title, meaning = NAMES[measure]
    lines = len(measured) <= LINES
    spec = _curves(measured, measure) if lines else _ranges(measured, measure)
    form = "Cumulative distribution" if lines else "Percentile ranges"
    parts = _PARTS.get(measure, "answers")
    note = f"Share of {parts} that took at most so long, {meaning}."
    if not lines:
        note = f"Bar: middle half of the {parts}; line: 10th to 95th percentile; mark: median, {meaning}."
    return Chart(
        key=key,
        title=f"{title}{f', {dataset}' if named else ''}",
        alt=f"{form} of {title.lower()} for {len(measured)} runs; medians: {_medians(measured, measure)}.",
        spec=spec,
        table=_latency_table(measured, measure, title),
        note=" ".join(part for part in (note, _asked(measured)) if part),
        wide=not lines,
        folded=not lines and measure != "e2e_s",
    )


def _asked(runs: Sequence[RunView]) -> str:
    """Under what load the times were measured."""
    loads = list(dict.fromkeys(run.results.load_words for run in runs if run.results.load_words))
    if not loads:
        return ""
    shown = ", ".join(loads[:LINES]) + (", …" if len(loads) > LINES else "")
    unlike = "" if like_loads(loads) else ": unlike loads, so the runs are not compared by it"
    return f"Asked {shown}{unlike}."


def _cdf(run: RunView, measure: str) -> Curve | None:
    found = run.details.latency.get(measure)
    return found.cdf if found and found.cdf.x else None


def _quantile(run: RunView, measure: str, share: float) -> float:
    cdf = _cdf(run, measure) or Curve((0.0,), (1.0,))
    return next((x for x, p in zip(cdf.x, cdf.p, strict=True) if p >= share), cdf.x[-1])


def _medians(runs: Sequence[RunView], measure: str) -> str:
    shown = [f"{run.label} {seconds(_quantile(run, measure, 0.5))}" for run in runs[:LINES]]
    return ", ".join(shown)


def _latency_unit(runs: Sequence[RunView], measure: str) -> tuple[float, str]:
    """Milliseconds where all is below a second."""
    greatest = max(_quantile(run, measure, 0.95) for run in runs)
    return (1000.0, "ms") if greatest < 1 else (1.0, "s")


def _curves(runs: Sequence[RunView], measure: str) -> dict[str, Any]:
    factor, unit = _latency_unit(runs, measure)
    share = f"share of {_PARTS.get(measure, 'answers')}"
    rows = []
    for run in runs:
        if (cdf := _cdf(run, measure)) is not None:
            points = [(cdf.x[0], 0.0), *zip(cdf.x, cdf.p, strict=True)]
            rows += [{"run": run.label, "x": x * factor, "p": p} for x, p in points]
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
        "field": "p", "type": "quantitative", "title": share, "scale": {"domain": [0, 1]},
        "axis": {"format": "%", "tickCount": 5},
    }  # fmt: skip
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "p", "title": share, "format": ".0%"},
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
    factor, unit = _latency_unit(runs, measure)
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


def _latency_table(runs: Sequence[RunView], measure: str, title: str) -> Table:
    rows = []
    for run in runs:
        figures = [run.metric(f"performance.{measure}.{name}") for name in (*_STATISTICS, "max")]
        n = next((figure.n for figure in figures if figure), 0)
        rows.append((run.label, *(seconds(f.value) if f else NONE for f in figures), count(n)))
    columns = ("run", *_STATISTICS, "max", "n timed")
    return Table(f"{title} by run", columns, rows, frozenset(range(1, len(columns))))


P95 = "performance.e2e_s.p95"
LOAD_LINES = 8


def concurrency_of(run: RunView) -> int | None:
    """How many requests were in flight at most, where that was fixed."""
    given = run.results.load.get("concurrency") if "load" in run.params else run.params.get("concurrency")
    if given is None and "load" not in run.params:
        watched = run.results.timings.concurrency
        given = None if watched.adaptive else watched.final
    return int(given) if isinstance(given, (int, float)) else None


def load_charts(at: int, dataset: str, runs: Sequence[RunView], *, named: bool) -> list[Chart]:
    """Output rate and 95th percentile of time by concurrency; empty unless some model ran at two levels."""
    lines = _lines(runs)
    if not lines:
        return []
    where = f", {dataset}" if named else ""
    throughput = TOKENS if any(run.value(TOKENS) for _, line in lines for run in line) else REQUESTS
    unit = "output tokens/s" if throughput == TOKENS else "requests/s"
    found = [
        _load_chart(f"load-rate-{at}", f"Throughput against concurrency{where}", unit, throughput, lines),
        _load_chart(f"load-time-{at}", f"Time against concurrency{where}", "95th percentile, end to end (s)",
                    P95, lines),
    ]  # fmt: skip
    return [chart for chart in found if chart is not None]


def _lines(runs: Sequence[RunView]) -> list[tuple[str, list[RunView]]]:
    """Runs that are alike but for their concurrency, by name, each with two levels or more."""
    grouped: dict[str, list[RunView]] = {}
    for run in runs:
        if concurrency_of(run) is not None:
            others = [
                f"{key}={value}" for key, value in run.params.items() if key not in ("concurrency", "load")
            ]
            grouped.setdefault(" · ".join([run.prompt, run.model, *others]), []).append(run)
    kept = [
        (name, sorted(group, key=lambda run: concurrency_of(run) or 0))
        for name, group in grouped.items()
        if len({concurrency_of(run) for run in group}) > 1
    ]
    plain = [" · ".join((group[0].prompt, group[0].model)) for _, group in kept]
    if len(set(plain)) == len(plain):
        kept = [(name, group) for name, (_, group) in zip(plain, kept, strict=True)]
    return sorted(kept, key=lambda line: line[0])[:LOAD_LINES]


def _load_chart(
    key: str, title: str, unit: str, metric: str, lines: Sequence[tuple[str, list[RunView]]]
) -> Chart | None:
    points = [(name, run, figure) for name, line in lines for run in line if (figure := run.metric(metric))]
    points = [point for point in points if point[2].value is not None]
    if len(points) < 2:
        return None
    return Chart(
        key=key,
        title=title,
        alt=f"Line chart of {unit} against requests in flight at most, for {len(lines)} lines of runs.",
        spec=_load_spec(lines, points, unit),
        table=_load_table(points, unit),
        note="Requests in flight at most, by what was set. Bars are 95 % intervals where there are any.",
    )


def _load_spec(
    lines: Sequence[tuple[str, list[RunView]]], points: Sequence[tuple[str, RunView, MetricValue]], unit: str
) -> dict[str, Any]:
    names = [name for name, _ in lines]
    runs = [line[0] for _, line in lines]
    colours = {"domain": names, "range": run_scale(runs, [run.label for run in runs])["range"]}
    dashes = {"domain": names, "range": dash_scale(runs, [run.label for run in runs])["range"]}
    legend = LINE_LEGEND if len(names) > 1 else None
    rows = [
        {"line": name, "c": concurrency_of(run), "v": figure.value, "low": figure.ci_low,
         "high": figure.ci_high, "n": figure.n,
         "text": f"{numbers.metric(figure)} {metric_interval(figure)}".strip()}
        for name, run, figure in points
    ]  # fmt: skip
    x = {
        "field": "c", "type": "quantitative", "title": "requests in flight at most",
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 14},
        "axis": {"values": sorted({concurrency_of(run) or 0 for _, run, _ in points}), "grid": False},
    }  # fmt: skip
    y = {"field": "v", "type": "quantitative", "title": unit, "scale": {"zero": True},
         "axis": {"tickCount": 5}}  # fmt: skip
    colour = {"field": "line", "type": "nominal", "title": None, "scale": colours, "legend": legend}
    dash = {"field": "line", "type": "nominal", "title": None, "scale": dashes, "legend": legend}
    tooltip = [
        {"field": "line", "title": "runs"}, {"field": "c", "title": "in flight at most"},
        {"field": "text", "title": unit}, {"field": "n", "title": "n"},
    ]  # fmt: skip
    layers = [
        {"mark": {"type": "line", "strokeWidth": 2},
         "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash}},
        {"mark": {"type": "rule", "strokeWidth": 1.25},
         "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": colour, "tooltip": tooltip}},
    ]  # fmt: skip
    return base(240, data={"values": rows}, layer=layers)


def _load_table(points: Sequence[tuple[str, RunView, MetricValue]], unit: str) -> Table:
    rows = []
    for name, run, figure in points:
        shown = significant(figure.value) if figure.unit == "tokens/s" else numbers.metric(figure)
        time = run.metric(P95)
        rows.append(
            (name, count(concurrency_of(run)), shown, metric_interval(figure) or NONE,
             seconds(time.value) if time else NONE, count(figure.n))
        )  # fmt: skip
    columns = ("runs", "in flight at most", unit, "95 % interval", "95th percentile of time", "n")
    return Table(f"{unit} by concurrency", columns, rows, frozenset({1, 2, 4, 5}))

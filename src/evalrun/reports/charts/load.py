"""Throughput and latency against concurrency, where runs differ in how many requests were in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports.charts.theme import LINE_LEGEND, base, dash_scale, run_scale
from evalrun.reports.numbers import NONE, count, quantity, seconds, significant
from evalrun.reports.standings import REQUESTS, TOKENS
from evalrun.reports.view import Chart, Figure, RunView, Table

P95 = "performance.e2e_s.p95"
LINES = 8


def concurrency_of(run: RunView) -> int | None:
    """How many requests were in flight at most, where that was fixed."""
    given = run.params.get("concurrency")
    if given is None:
        watched = run.timings.get("concurrency") or {}
        given = None if watched.get("adaptive") else watched.get("final")
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
        _chart(f"load-rate-{at}", f"Throughput against concurrency{where}", unit, throughput, lines),
        _chart(f"load-time-{at}", f"Time against concurrency{where}", "95th percentile, end to end (s)", P95,
               lines),
    ]  # fmt: skip
    return [chart for chart in found if chart is not None]


def _lines(runs: Sequence[RunView]) -> list[tuple[str, list[RunView]]]:
    """Runs that are alike but for their concurrency, by name, each with two levels or more."""
    grouped: dict[str, list[RunView]] = {}
    for run in runs:
        if concurrency_of(run) is not None:
            others = [f"{key}={value}" for key, value in run.params.items() if key != "concurrency"]
            grouped.setdefault(" · ".join([run.prompt, run.model, *others]), []).append(run)
    kept = [
        (name, sorted(group, key=lambda run: concurrency_of(run) or 0))
        for name, group in grouped.items()
        if len({concurrency_of(run) for run in group}) > 1
    ]
    plain = [" · ".join((group[0].prompt, group[0].model)) for _, group in kept]
    if len(set(plain)) == len(plain):
        kept = [(name, group) for name, (_, group) in zip(plain, kept, strict=True)]
    return sorted(kept, key=lambda line: line[0])[:LINES]


def _chart(
    key: str, title: str, unit: str, metric: str, lines: Sequence[tuple[str, list[RunView]]]
) -> Chart | None:
    points = [(name, run, figure) for name, line in lines for run in line if (figure := run.figure(metric))]
    points = [point for point in points if point[2].value is not None]
    if len(points) < 2:
        return None
    return Chart(
        key=key,
        title=title,
        alt=f"Line chart of {unit} against requests in flight at most, for {len(lines)} lines of runs.",
        spec=_spec(lines, points, unit),
        table=_table(points, unit),
        note="Requests in flight at most, by what was set. Bars are 95 % intervals where there are any.",
    )


def _spec(
    lines: Sequence[tuple[str, list[RunView]]], points: Sequence[tuple[str, RunView, Figure]], unit: str
) -> dict[str, Any]:
    names = [name for name, _ in lines]
    runs = [line[0] for _, line in lines]
    colours = {"domain": names, "range": run_scale(runs, [run.label for run in runs])["range"]}
    dashes = {"domain": names, "range": dash_scale(runs, [run.label for run in runs])["range"]}
    legend = LINE_LEGEND if len(names) > 1 else None
    rows = [
        {"line": name, "c": concurrency_of(run), "v": figure.value, "low": figure.low, "high": figure.high,
         "text": f"{figure.text} {figure.interval}".strip(), "n": figure.n}
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


def _table(points: Sequence[tuple[str, RunView, Figure]], unit: str) -> Table:
    rows = []
    for name, run, figure in points:
        shown = (
            quantity(figure.value, figure.unit) if figure.unit != "tokens/s" else significant(figure.value)
        )
        time = run.figure(P95)
        rows.append(
            (name, count(concurrency_of(run)), shown, figure.interval or NONE,
             seconds(time.value) if time else NONE, count(figure.n))
        )  # fmt: skip
    columns = ("runs", "in flight at most", unit, "95 % interval", "95th percentile of time", "n")
    return Table(f"{unit} by concurrency", columns, rows, frozenset({1, 2, 4, 5}))

"""What the machine did over time: processor and memory of the engine and of evalrun itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from evalrun.reports.charts.theme import LINE_LEGEND, base, dash_scale, run_scale
from evalrun.reports.numbers import NONE, fixed, seconds, size
from evalrun.reports.view import Chart, RunView, Table

POINTS = 160
"""Readings drawn per run and line; longer series are averaged down to so many."""

DRAWN = 8
MB = 1e6

_ROLES = (("engine", "engine_pss_bytes", "engine_cpu_s"), ("evalrun", "client_pss_bytes", "client_cpu_s"))


def read_system(path: Path) -> list[dict[str, Any]]:
    """The readings of a run, in order of time."""
    import pyarrow.parquet as pq

    # Not pq.read_table, which imports pandas.
    with pq.ParquetFile(path) as file:
        rows: list[dict[str, Any]] = [row for batch in file.iter_batches() for row in batch.to_pylist()]
    return sorted((row for row in rows if row.get("t_s") is not None), key=lambda row: row["t_s"])


def resources(runs: Sequence[RunView], readings: Mapping[str, list[dict[str, Any]]]) -> list[Chart]:
    """Charts of processor use and memory, each for the engines where they were measured, else for evalrun."""
    drawn = [run for run in runs if len(readings.get(run.run, ())) > 1][:DRAWN]
    charts = []
    for role, memory, cpu in _ROLES:
        for what, series in (
            ("CPU", {run.run: _cpu(readings[run.run], cpu) for run in drawn}),
            ("memory", {run.run: _memory(readings[run.run], memory) for run in drawn}),
        ):
            having = [run for run in drawn if series[run.run]]
            if having:
                charts.append(_chart(role, what, having, series))
    return charts


def _cpu(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Processors in use between readings: seconds of processor time a second."""
    known = [(row["t_s"], row[name]) for row in rows if row.get(name) is not None]
    rates = [
        (now, max(0.0, (used - before_used) / (now - before)))
        for (before, before_used), (now, used) in pairwise(known)
        if now > before
    ]
    return _thinned(rates)


def _memory(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return _thinned([(row["t_s"], row[name] / MB) for row in rows if row.get(name) is not None])


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS points: means of neighbours. Times count from the first reading."""
    if not points:
        return []
    start = points[0][0]
    step = -(-len(points) // POINTS)
    thinned = []
    for at in range(0, len(points), step):
        part = points[at : at + step]
        mean = sum(value for _, value in part) / len(part)
        thinned.append((part[-1][0] - start, mean))
    return thinned


def _chart(
    role: str, what: str, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]]
) -> Chart:
    unit = "processors in use" if what == "CPU" else "memory (MB)"
    rows = [{"run": run.full, "t": round(t, 2), "v": v} for run in runs for t, v in series[run.run]]
    labels = [run.full for run in runs]
    colour = {
        "field": "run", "type": "nominal", "title": None, "scale": run_scale(runs, labels),
        "legend": LINE_LEGEND if len(runs) > 1 else None,
    }  # fmt: skip
    dash = {
        "field": "run", "type": "nominal", "title": None, "scale": dash_scale(runs, labels),
        "legend": LINE_LEGEND if len(runs) > 1 else None,
    }  # fmt: skip
    tooltip = [
        {"field": "run", "title": "run"}, {"field": "t", "title": "time (s)"},
        {"field": "v", "title": unit, "format": ",.3~r"},
    ]  # fmt: skip
    encoding = {
        "x": {"field": "t", "type": "quantitative", "title": "seconds since the run began",
              "axis": {"grid": False, "tickCount": 6}},
        "y": {"field": "v", "type": "quantitative", "title": unit, "scale": {"zero": True},
              "axis": {"tickCount": 4}},
    }  # fmt: skip
    layers = [
        {"mark": {"type": "line", "strokeWidth": 1.5},
         "encoding": {**encoding, "color": colour, "strokeDash": dash}},
        {"mark": {"type": "point", "filled": True, "size": 120, "opacity": 0},
         "encoding": {**encoding, "tooltip": tooltip}},
    ]  # fmt: skip
    return Chart(
        key=f"resources-{role}-{what.lower()}",
        title=f"{what[0].upper()}{what[1:]} of {'the engine' if role == 'engine' else role}",
        alt=f"Line chart of {unit} by {role} over time for {len(runs)} runs.",
        spec=base(150, data={"values": rows}, layer=layers),
        table=_table(role, what, runs, series),
    )


def _table(
    role: str, what: str, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]]
) -> Table:
    rows = []
    for run in runs:
        values = [value for _, value in series[run.run]]
        mean, peak = sum(values) / len(values), max(values)
        shown = (fixed(mean, 2), fixed(peak, 2)) if what == "CPU" else (size(mean * MB), size(peak * MB))
        last = series[run.run][-1][0] if series[run.run] else None
        rows.append((run.full, *shown, seconds(last) if last else NONE))
    columns = ("run", f"mean {what}", f"peak {what} (of the points drawn)", "measured for")
    return Table(f"{what} of {role}", columns, rows, frozenset({1, 2, 3}))

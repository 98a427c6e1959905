"""What the machine did over time: processor and memory of the engine and of evalrun itself, and whatever else
was read while the run ran (an engine's key-value cache, requests waiting in it, an accelerator)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from evalrun.reports.charts.theme import LINE_LEGEND, base, dash_scale, run_scale
from evalrun.reports.numbers import NONE, fixed, seconds, significant, size
from evalrun.reports.view import Chart, RunView, Table
from evalrun.reports.visible import visible

POINTS = 160
"""Readings drawn per run and line; longer series are averaged down to so many."""

DRAWN = 8
MB = 1e6

MOST_OTHERS = 12
"""Charts of other readings, so that a sampler of very many figures does not drown the page."""

_ROLES = (("engine", "engine_pss_bytes", "engine_cpu_s"), ("evalrun", "client_pss_bytes", "client_cpu_s"))


def read_system(path: Path) -> list[dict[str, Any]]:
    """The readings of a run, in order of time; those of the engine's start are apart from it."""
    import pyarrow.parquet as pq

    # Not pq.read_table, which imports pandas.
    with pq.ParquetFile(path) as file:
        rows: list[dict[str, Any]] = [row for batch in file.iter_batches() for row in batch.to_pylist()]
    during = (row for row in rows if row.get("t_s") is not None and row.get("phase") != "load")
    return sorted(during, key=lambda row: row["t_s"])


_KNOWN = {
    "t_s",
    "phase",
    "loop_lag_s",
    "cgroup_peak_bytes",
    *(name for _, *names in _ROLES for name in names),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What is drawn in one chart: whose it is, its title and its unit; `factor` scales what was read."""

    key: str
    title: str
    unit: str
    factor: float = 1.0

    def written(self, value: float) -> str:
        """A value as drawn, with its unit."""
        if self.unit.endswith("(MB)"):
            return size(value * MB)
        return fixed(value, 2) if abs(value) < 100 else significant(value)


def resources(runs: Sequence[RunView], readings: Mapping[str, list[dict[str, Any]]]) -> list[Chart]:
    """Charts of processor use and memory of the engine and of evalrun, and of every other reading."""
    drawn = [run for run in runs if len(readings.get(run.run, ())) > 1][:DRAWN]
    charts = []
    for role, memory, cpu in _ROLES:
        who = "the engine" if role == "engine" else role
        for what, series in (
            (Reading(f"{role}-cpu", f"CPU of {who}", "processors in use"),
             {run.run: _cpu(readings[run.run], cpu) for run in drawn}),
            (Reading(f"{role}-memory", f"Memory of {who}", "memory (MB)", 1 / MB),
             {run.run: _plain(readings[run.run], memory, 1 / MB) for run in drawn}),
        ):  # fmt: skip
            charts += _drawn(what, drawn, series)
    for name in _others([readings[run.run] for run in drawn])[:MOST_OTHERS]:
        what = _reading(name)
        series = {run.run: _plain(readings[run.run], name, what.factor) for run in drawn}
        charts += _drawn(what, drawn, series)
    return charts


def _drawn(
    what: Reading, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]]
) -> list[Chart]:
    having = [run for run in runs if series[run.run]]
    return [_chart(what, having, series)] if having else []


def _others(readings: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Further columns of numbers that say something: not those that never left zero."""
    found: dict[str, bool] = {}
    for rows in readings:
        for row in rows:
            for name, value in row.items():
                if name not in _KNOWN and isinstance(value, (int, float)) and not isinstance(value, bool):
                    found[name] = found.get(name, False) or value != 0
    return [name for name, moved in found.items() if moved]


_UNITS = (
    ("_bytes", "memory (MB)", 1 / MB), ("_mb", "memory (MB)", 1.0), ("_percent", "percent", 1.0),
    ("_share", "share", 1.0), ("_ratio", "share", 1.0), ("_usage", "share", 1.0), ("_watts", "watts", 1.0),
    ("_w", "watts", 1.0), ("_celsius", "degrees Celsius", 1.0), ("_s", "seconds", 1.0),
)  # fmt: skip
_WORDS = {"kv": "KV", "gpu": "GPU", "cpu": "CPU", "pss": "memory", "rss": "memory"}


def _reading(name: str) -> Reading:
    """How a column is called and in what unit it is drawn, from its name."""
    stem, unit, factor = next(
        ((name.removesuffix(end), unit, factor) for end, unit, factor in _UNITS if name.endswith(end)),
        (name, "count", 1.0),
    )
    words = [_WORDS.get(word, word) for word in visible(stem).replace(".", "_").split("_") if word]
    title = " ".join(words) or name
    return Reading(visible(name), title[0].upper() + title[1:], unit, factor)


def _cpu(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Processors in use between readings: seconds of processor time a second."""
    known = [(row["t_s"], row[name]) for row in rows if row.get(name) is not None]
    rates = [
        (now, max(0.0, (used - before_used) / (now - before)))
        for (before, before_used), (now, used) in pairwise(known)
        if now > before
    ]
    return _thinned(rates)


def _plain(rows: Sequence[dict[str, Any]], name: str, factor: float) -> list[tuple[float, float]]:
    return _thinned(
        [(row["t_s"], row[name] * factor) for row in rows if isinstance(row.get(name), (int, float))]
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS points: means of neighbours. Times before 0 are the engine's loading."""
    if not points:
        return []
    step = -(-len(points) // POINTS)
    thinned = []
    for at in range(0, len(points), step):
        part = points[at : at + step]
        mean = sum(value for _, value in part) / len(part)
        thinned.append((part[-1][0], mean))
    return thinned


def _chart(what: Reading, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]]) -> Chart:
    unit = what.unit
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
        key=f"resources-{what.key}",
        title=what.title,
        alt=f"Line chart of {what.title}, {unit}, over time for {len(runs)} runs.",
        spec=base(150, data={"values": rows}, layer=layers),
        table=_table(what, runs, series),
    )


def _table(what: Reading, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]]) -> Table:
    rows = []
    for run in runs:
        values = [value for _, value in series[run.run]]
        mean, peak = sum(values) / len(values), max(values)
        shown = (what.written(mean), what.written(peak))
        last = series[run.run][-1][0] if series[run.run] else None
        rows.append((run.full, *shown, seconds(last) if last else NONE))
    columns = ("run", f"mean, {what.unit}", "peak of the points drawn", "measured for")
    return Table(what.title, columns, rows, frozenset({1, 2, 3}))

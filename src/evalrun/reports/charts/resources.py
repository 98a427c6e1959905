"""What the machine did over time: processor and memory of the engine and of evalrun itself, and whatever else
was read while the run ran (an engine's key-value cache, requests waiting in it, an accelerator)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.reports.charts.theme import LINE_LEGEND, base, dash_scale, run_scale
from evalrun.reports.numbers import NONE, fixed, seconds, significant, size
from evalrun.reports.view import Chart, RunView, Table
from evalrun.reports.visible import visible
from evalrun.tracking.parquet import iter_samples

POINTS = 160
"""Readings drawn per run and line; longer series are averaged down to so many."""

DRAWN = 8
MANY_READINGS = 200
"""Runs, the best first, whose readings are looked at."""
MB = 1e6

MOST_OTHERS = 12
"""Charts of readings that are not named here: a sampler of very many must not drown the page."""

SHORTEST_S = 0.2
"""A rate over less time than this is noise: the reading is taken together with the next one."""


def read_system(path: Path) -> list[dict[str, Any]]:
    """The readings of a run, in order of time; those of the engine's start are apart from it. None where the
    file is damaged: a report does without."""
    try:
        rows = list(iter_samples(path))
    except UserError:
        return []
    during = (row for row in rows if row.get("t_s") is not None and row.get("phase") != "load")
    return sorted(during, key=lambda row: row["t_s"])


@frozen
class Reading:
    """What is drawn in one chart: its title and unit; `factor` scales what was read, of a `rate` the increase
    a second. `folded` ones are for those who want them."""

    key: str
    title: str
    unit: str
    factor: float = 1.0
    rate: bool = False
    folded: bool = False

    def written(self, value: float) -> str:
        """A value as drawn, with its unit."""
        if self.unit.endswith("(MB)"):
            return size(value * MB)
        return fixed(value, 2) if abs(value) < 100 else significant(value)


_CPU, _MEMORY, _TOKENS = "processors in use", "memory (MB)", "tokens/s"
READINGS: Mapping[str, Reading] = {
    "engine_cpu_s": Reading("engine-cpu", "CPU of the engine", _CPU, rate=True),
    "engine_pss_bytes": Reading("engine-memory", "Memory of the engine", _MEMORY, 1 / MB),
    "engine.kv_cache_usage": Reading("kv-cache", "Key-value cache in use", "share"),
    "engine.requests_running": Reading("running", "Requests that the engine works on", "requests"),
    "engine.requests_waiting": Reading("waiting", "Requests that wait in the engine", "requests"),
    "client_cpu_s": Reading("evalrun-cpu", "CPU of evalrun", _CPU, rate=True, folded=True),
    "client_pss_bytes": Reading("evalrun-memory", "Memory of evalrun", _MEMORY, 1 / MB, folded=True),
    "engine.generation_tokens": Reading("generated", "Tokens generated", _TOKENS, rate=True, folded=True),
    "engine.prompt_tokens": Reading("computed", "Prompt tokens computed", _TOKENS, rate=True, folded=True),
    "engine.prefix_cache_hits": Reading(
        "cache-hits", "Prompt tokens found in the engine's cache", _TOKENS, rate=True, folded=True
    ),
    "engine.preemptions": Reading("preemptions", "Preemptions", "per second", rate=True, folded=True),
    "engine_read_bytes": Reading("engine-read", "Read by the engine", "MB/s", 1 / MB, True, True),
    "engine_written_bytes": Reading("engine-written", "Written by the engine", "MB/s", 1 / MB, True, True),
    "client_read_bytes": Reading("evalrun-read", "Read by evalrun", "MB/s", 1 / MB, True, True),
    "client_written_bytes": Reading("evalrun-written", "Written by evalrun", "MB/s", 1 / MB, True, True),
    "cpu_energy_j": Reading("cpu-power", "Power of the processors", "W", rate=True, folded=True),
    "cgroup_bytes": Reading("cgroup", "Memory of the whole container", _MEMORY, 1 / MB, folded=True),
}
"""The columns of `system.parquet` that are drawn, in this order; GPUs and columns of others follow."""

_SKIPPED = {"t_s", "phase", "loop_lag_s", "cgroup_peak_bytes", "engine.prefix_cache_queries"}
_GPU = re.compile(r"gpu\.(\d+)\.(use|memory_bytes|power_w|energy_j)")
_OF_GPU = {
    "use": ("GPU {} in use", "share", 1.0), "memory_bytes": ("Memory of GPU {}", _MEMORY, 1 / MB),
    "power_w": ("Power of GPU {}", "watts", 1.0),
}  # fmt: skip


def resources(runs: Sequence[RunView], readings: Mapping[str, list[dict[str, Any]]]) -> list[Chart]:
    """Charts of what was read while the runs ran, those that matter most first.

    `runs` are ranked. Where colours stand for several runs each, the best run of every colour is drawn.
    """
    having = [run for run in runs if len(readings.get(run.id, ())) > 1]
    first: dict[int, RunView] = {}
    for run in having:
        first.setdefault(run.colour, run)
    drawn = (having if len(first) == len(having) else list(first.values()))[:DRAWN]
    every = len(runs) if len(runs) > MANY_READINGS else len(having)
    note = f"{len(drawn)} of {every} runs are drawn." if len(drawn) < every else ""
    charts = []
    for name in _columns([readings[run.id] for run in drawn]):
        what = _reading(name)
        series = {run.id: _series(readings[run.id], name, what) for run in drawn}
        lines = [run for run in drawn if series[run.id]]
        if lines:
            charts.append(_chart(what, lines, series, note))
    return charts


def _columns(readings: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Columns of numbers that say something (not those that never left zero), in the order they are drawn."""
    moved: dict[str, bool] = {}
    for rows in readings:
        for row in rows:
            for name, value in row.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    moved[name] = moved.get(name, False) or value != 0
    found = [name for name, is_moved in moved.items() if is_moved and name not in _SKIPPED]
    gpus = [name for name in found if (match := _GPU.fullmatch(name)) and match[2] in _OF_GPU]
    others = [name for name in found if name not in READINGS and not _GPU.fullmatch(name)]
    return [*(name for name in READINGS if name in found), *gpus, *others[:MOST_OTHERS]]


_UNITS = (
    ("_bytes", "memory (MB)", 1 / MB), ("_mb", "memory (MB)", 1.0), ("_percent", "percent", 1.0),
    ("_share", "share", 1.0), ("_ratio", "share", 1.0), ("_usage", "share", 1.0), ("_watts", "watts", 1.0),
    ("_w", "watts", 1.0), ("_celsius", "degrees Celsius", 1.0), ("_s", "seconds", 1.0),
)  # fmt: skip
_WORDS = {"kv": "KV", "gpu": "GPU", "cpu": "CPU", "pss": "memory", "rss": "memory"}


def _reading(name: str) -> Reading:
    """How a column is called and in what unit it is drawn; of an unknown one from its name."""
    if name in READINGS:
        return READINGS[name]
    if (gpu := _GPU.fullmatch(name)) and gpu[2] in _OF_GPU:
        title, unit, factor = _OF_GPU[gpu[2]]
        return Reading(name, title.format(gpu[1]), unit, factor)
    stem, unit, factor = next(
        ((name.removesuffix(end), unit, factor) for end, unit, factor in _UNITS if name.endswith(end)),
        (name, "count", 1.0),
    )
    words = [_WORDS.get(word, word) for word in visible(stem).replace(".", "_").split("_") if word]
    title = " ".join(words) or name
    return Reading(visible(name), title[0].upper() + title[1:], unit, factor, folded=True)


def _series(rows: Sequence[dict[str, Any]], name: str, what: Reading) -> list[tuple[float, float]]:
    """Seconds since the run began and the value then; of a rate the increase a second up to then."""
    known = [(row["t_s"], row[name] * what.factor) for row in rows if isinstance(row.get(name), (int, float))]
    if not what.rate:
        return _thinned(known)
    rates: list[tuple[float, float]] = []
    before, earlier = known[0] if known else (0.0, 0.0)
    for now, value in known[1:]:
        if now - before >= SHORTEST_S:
            rates.append((now, max(0.0, (value - earlier) / (now - before))))
            before, earlier = now, value
    return _thinned(rates)


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


def _chart(
    what: Reading, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]], note: str
) -> Chart:
    unit = what.unit
    rows = [{"run": run.full, "t": round(t, 2), "v": v} for run in runs for t, v in series[run.id]]
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
        note=note,
        folded=what.folded,
    )


def _table(what: Reading, runs: Sequence[RunView], series: Mapping[str, list[tuple[float, float]]]) -> Table:
    rows = []
    for run in runs:
        values = [value for _, value in series[run.id]]
        mean, peak = sum(values) / len(values), max(values)
        shown = (what.written(mean), what.written(peak))
        last = series[run.id][-1][0] if series[run.id] else None
        rows.append((run.full, *shown, seconds(last) if last else NONE))
    columns = ("run", f"mean, {what.unit}", "peak of the points drawn", "measured for")
    return Table(what.title, columns, rows, frozenset({1, 2, 3}))

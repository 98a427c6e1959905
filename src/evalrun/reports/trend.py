"""A trend in a terminal: a small line for each cell, the last points, releases, where the data changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evalrun.errors import Problem, UserError
from evalrun.gates.conditions import parse_gate
from evalrun.reports.numbers import decimals_for, fixed, plural, quantity
from evalrun.reports.numbers import interval as written
from evalrun.reports.runs import find_primary
from evalrun.reports.visible import terminal
from evalrun.tracking.store import Store
from evalrun.tracking.trend import MOST, Line, Point, Trend, read_trend

BARS = "▁▂▃▄▅▆▇█"
BREAK = "╎"
DRAWN = 40
"""Points of a small line; the newest."""

LISTED = 12
_N = 3
"""The column of n in the list of points."""


def trend_of(store: Store, project: str, metric: str | None = None, limit: int = MOST) -> Trend:
    """The trend of a metric, written as in gates (`exact_match[dialect=aave]`); by default the metric that
    the newest sweep ranks its runs by. Raises UserError for an unknown project, metric or odd text."""
    if metric is None:
        return read_trend(store, project, _primary(store, project), limit=limit)
    gate = parse_gate(f"{metric} >= 0")
    if isinstance(gate, Problem):
        raise UserError(
            f"cannot read the metric '{metric}'", where="--metric", remedy="As in exact_match[dialect=aave]"
        )
    return read_trend(store, project, gate.metric, gate.slice, limit)


def _primary(store: Store, project: str) -> str | None:
    """The metric that the report of the newest complete sweep ranks by."""
    from evalrun.tracking.folder import SweepFolder

    for row in store.list(20, project):
        if row.status == "complete":
            folder = SweepFolder(row.folder)
            manifest = folder.read_manifest()
            suite = manifest["suite"].get("resolved") or {}
            found = find_primary(suite, manifest["gates"], folder.runs())
            return found.metric if found else None
    return None


def sparkline(points: Sequence[Point]) -> str:
    """The points as bars, scaled from the lowest to the highest; a broken line where the data changed."""
    shown = points[-DRAWN:]
    values = [each.value for each in shown]
    low, high = min(values), max(values)
    drawn, segment = "", shown[0].segment
    for each in shown:
        if each.segment != segment:
            drawn, segment = drawn + BREAK, each.segment
        at = round((each.value - low) / (high - low) * (len(BARS) - 1)) if high > low else len(BARS) // 2
        drawn += BARS[at]
    return drawn


def trend_lines(trend: Trend, *, points: bool = False) -> list[str]:
    """The trend as lines of text. `points` lists the points of every line, not only of a single one."""
    better = {"higher": "higher is better", "lower": "lower is better"}.get(trend.direction, "")
    sweeps = {each.sweep for line in trend.lines for each in line.points}
    named = trend.metric + _slice(trend)
    head = ", ".join(filter(None, [f"{named} of {trend.project}", better, plural(len(sweeps), "sweep")]))
    lines = [terminal(head, 200), ""]
    for line in trend.lines:
        last = line.points[-1]
        lines.append(terminal(line.label, 200))
        lines.append(
            f"  {sparkline(line.points)}  {figure(trend, last)}  n = {last.n:,}{change(trend, line)}"
        )
        lines += [
            f"  {BREAK} the data changed at {_day(each.started_at)}: not comparable with before"
            for each in line.breaks
        ]
        if points or len(trend.lines) == 1:
            lines += ["", *_table(trend, line), ""]
    if trend.releases:
        lines += ["", "releases:"]
        for place in trend.releases[-LISTED:]:
            said = "promoted to" if place.kind == "promote" else "deployed to"
            at = f"{_day(place.ts)}  {place.run} ({place.sweep}) {said} {place.name} by {place.actor}"
            lines.append("  " + terminal(at, 200))
    while lines[-1] == "":
        lines.pop()
    return lines


def figure(trend: Trend, point: Point) -> str:
    """A point's value with its interval."""
    low, high = point.ci_low, point.ci_high
    decimals = decimals_for((high - low) / 2) if low is not None and high is not None else 2
    text = quantity(point.value, trend.unit, decimals)
    if low is None or high is None:
        return text
    if trend.unit in ("fraction", "score", "", "1"):
        return f"{text} {written(low, high, decimals)}"
    return f"{text} [{quantity(low, trend.unit)}, {quantity(high, trend.unit)}]"


def change(trend: Trend, line: Line) -> str:
    """The change since the point before, where both speak of the same data."""
    comparable = line.comparable
    if len(comparable) < 2:
        return ""
    by = comparable[-1].value - comparable[-2].value
    if trend.unit in ("fraction", "score", "", "1"):
        return f"  {fixed(by, 3, sign=True)}"
    sign = "+" if by >= 0 else "\N{MINUS SIGN}"
    return f"  {sign}{quantity(abs(by), trend.unit)}"


def marks(trend: Trend, point: Point) -> str:
    """The names that the point's run was promoted or deployed to."""
    of = [each for each in trend.releases if (each.sweep, each.run) == (point.sweep, point.run)]
    return ", ".join(dict.fromkeys(each.name for each in of))


def _table(trend: Trend, line: Line) -> list[str]:
    shown = line.points[-LISTED:]
    rows = []
    for at, each in enumerate(shown):
        broken = at > 0 and each.segment != shown[at - 1].segment
        notes = ", ".join(filter(None, [marks(trend, each), "other data from here" if broken else ""]))
        cells = (_day(each.started_at), each.sweep, figure(trend, each), f"{each.n:,}", notes)
        rows.append(tuple(terminal(cell, 100) for cell in cells))
    header = ("started (UTC)", "sweep", "value, 95 % interval", "n", "")
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    made = []
    for row in (header, *rows):
        padded = [
            cell.rjust(width) if at == _N else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        made.append(("  " + "  ".join(padded)).rstrip())
    return made


def _slice(trend: Trend) -> str:
    pairs = ", ".join(f"{key}={value}" for key, value in trend.slice.items())
    return f"[{pairs}]" if pairs else ""


def _day(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
    except ValueError:
        return text[:16]

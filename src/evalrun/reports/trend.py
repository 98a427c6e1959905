"""A trend over sweeps, in a terminal and as one HTML file: points, releases, where the data changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from evalrun.analysis.over_time import trend_with_changes
from evalrun.atomic import replacing
from evalrun.errors import Problem, UserError
from evalrun.gates.conditions import parse_gate
from evalrun.reports import numbers, page
from evalrun.reports.charts.theme import COLOURS, DASHES, SHAPES, base, padded
from evalrun.reports.numbers import moment, plural
from evalrun.reports.view import PALETTE, Chart, Table
from evalrun.reports.visible import terminal, visible
from evalrun.tracking.store import Store
from evalrun.tracking.trend import MOST, Change, Line, Point, Trend

BARS = "▁▂▃▄▅▆▇█"
BREAK = "╎"
DRAWN = 40
"""Points of a small line; the newest."""

LISTED = 12


def trend_of(store: Store, project: str, metric: str | None = None, limit: int = MOST) -> Trend:
    """The trend of a metric, written as in gates (`exact_match[dialect=aave]`); by default the metric that
    the newest sweep ranks its runs by. Raises UserError for an unknown project, metric or odd text."""
    if metric is None:
        return trend_with_changes(store, project, _primary(store, project), limit=limit)
    gate = parse_gate(f"{metric} >= 0")
    if isinstance(gate, Problem):
        raise UserError(
            f"cannot read the metric '{metric}'", where="--metric", remedy="As in exact_match[dialect=aave]"
        )
    return trend_with_changes(store, project, gate.metric, gate.slice, limit)


def _primary(store: Store, project: str) -> str | None:
    """The metric that the report of the newest complete sweep ranks by."""
    from evalrun.analysis.conclude import concluded
    from evalrun.tracking.folder import SweepFolder

    for row in store.list(20, project):
        if row.status == "complete":
            folder = SweepFolder(row.folder)
            runs = [folder.run(run_id) for run_id in folder.run_ids()]
            found = concluded(folder.read_manifest(), runs, None).results.primary
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
    sweeps = {point.sweep for line in trend.lines for point in line.points}
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
        lines += [f"  * {_changed(trend, each)}" for each in line.changes]
        lines += [terminal(f"  * {_day(each.started_at)}: {each.served}", 200) for each in line.served]
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


def _changed(trend: Trend, change: Change) -> str:
    """A change that lasts, in words with its date and sweep."""
    before, after = (numbers.measured(each, None, None, trend.unit) for each in (change.before, change.after))
    return (
        f"{change.way} since {_day(change.started_at)} ({change.sweep}): {after} on average over "
        f"{plural(change.sweeps, 'sweep')}, {before} before; CUSUM, seen on {_day(change.seen_at)}"
    )


def figure(trend: Trend, point: Point) -> str:
    """A point's value with its interval; with its bounds where too many rows were lost."""
    if point.incomplete:
        ends = numbers.span(point.bound_low, point.bound_high, trend.unit)
        return f"{numbers.measured(point.value, None, None, trend.unit)} [incomplete: {ends}]"
    return numbers.measured(point.value, point.ci_low, point.ci_high, trend.unit)


def change(trend: Trend, line: Line) -> str:
    """The change since the point before, where both speak of the same data and neither is incomplete."""
    if line.points[-1].incomplete:
        return "  too many rows lost: compared with no other"
    comparable = line.comparable
    if len(comparable) < 2:
        return ""
    by = comparable[-1].value - comparable[-2].value
    if trend.unit in numbers.SHARES:
        return f"  {numbers.fixed(by, 3, sign=True)}"
    return f"  {numbers.figure(by, unit=trend.unit, sign=True)}"


def marks(trend: Trend, point: Point) -> str:
    """The names that the point's run was promoted or deployed to."""
    of = [release for release in trend.releases if (release.sweep, release.run) == (point.sweep, point.run)]
    return ", ".join(dict.fromkeys(each.name for each in of))


def _noted(line: Line, point: Point) -> list[str]:
    """What changed at a point, and whether it lost rows."""
    changed = [f"{change.way} from here on" for change in line.changes if change.sweep == point.sweep]
    return changed + (["incomplete"] if point.incomplete else [])


def _table(trend: Trend, line: Line) -> list[str]:
    import shutil

    from evalrun.reports.fit import Column, fit
    from evalrun.reports.fit import lines as as_lines

    shown = line.points[-LISTED:]
    rows = []
    for at, each in enumerate(shown):
        broken = at > 0 and each.segment != shown[at - 1].segment
        parts = [marks(trend, each), *_noted(line, each), "other data from here" if broken else ""]
        notes = ", ".join(filter(None, parts))
        cells = (_day(each.started_at), figure(trend, each), f"{each.n:,}", each.sweep, notes)
        rows.append(tuple(terminal(cell, 100) for cell in cells))
    header = ("started (UTC)", "value, 95 % interval", "n", "sweep", "")
    columns: list[Column] = [
        (title, "right" if title == "n" else "left", [row[at] for row in rows])
        for at, title in enumerate(header)
    ]
    width = shutil.get_terminal_size((1000, 24)).columns - 2
    return [f"  {text}" for text in as_lines(fit(columns, width, rigid=header[:4]))]


def _slice(trend: Trend) -> str:
    pairs = ", ".join(f"{key}={value}" for key, value in trend.slice.items())
    return f"[{pairs}]" if pairs else ""


def _day(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
    except ValueError:
        return text[:16]


SCRIPTS = ("page.js", "download.js", "charts.js")

DATES: Mapping[str, str] = {
    "milliseconds": "%H:%M:%S", "seconds": "%H:%M:%S", "minutes": "%H:%M", "hours": "%H:%M",
    "date": "%-d %b", "week": "%-d %b", "month": "%b %Y", "quarter": "%b %Y", "year": "%Y",
}  # fmt: skip
"""How the axis of time is written, by how close its ticks lie."""

TOLD = 4
"""Lines whose last value stands at the top of the page."""

LEVELS = 4
"""Names of releases that follow closely stand below one another, on so many lines."""


def write_trend(trend: Trend, out: Path, *, home: str = "") -> None:
    """Write the page to `out`, whole or not at all, with a link to `home` if given.

    Raises UserError where it cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text(render_trend(trend, home), encoding="utf-8", errors="replace")
        temporary.chmod(page.REPORT_MODE)


def render_trend(trend: Trend, home: str = "") -> str:
    """The page. Where the charts' JavaScript cannot be made, it has the tables and says so."""
    sweeps = f"{home.removesuffix('index.html')}sweeps/" if home else ""
    drawn = chart(trend, sweeps)
    return (
        page.environment()
        .get_template("trend.html.j2")
        .render(
            trend=trend,
            title=visible(f"{trend.metric}{_slice(trend)}"),
            better={"higher": "higher is better", "lower": "lower is better"}.get(trend.direction, ""),
            now=_now(trend),
            chart=drawn,
            lines=[(visible(line.label), _points(trend, line, sweeps)) for line in trend.lines],
            breaks=[
                (visible(line.label), moment(each.started_at)) for line in trend.lines for each in line.breaks
            ],
            changes=[
                (visible(line.label), _changed(trend, each)) for line in trend.lines for each in line.changes
            ],
            served=[
                (visible(line.label), moment(each.started_at), visible(each.served))
                for line in trend.lines
                for each in line.served
            ],
            releases=_releases(trend),
            **page.frame(SCRIPTS, [drawn], home),
        )
    )


def _now(trend: Trend) -> list[tuple[str, str, str]]:
    """Each line's name, its last value, and the change since the point before; of the first TOLD lines."""
    return [
        (visible(line.label), figure(trend, line.points[-1]), change(trend, line).strip())
        for line in trend.lines[:TOLD]
    ]


def chart(trend: Trend, sweeps: str = "") -> Chart:
    """The metric over time: a line for each cell and stretch of equal data, intervals, rules for releases.
    `sweeps` is the folder of the sweeps' reports, to which points lead."""
    shown = trend.lines[:PALETTE]
    left = len(trend.lines) - len(shown)
    rows = [_row(trend, line, point) for line in shown for point in line.points]
    links = [f"{sweeps}{row['sweep']}.html" for row in rows] if sweeps else []
    for row, link in zip(rows, links, strict=False):
        row["link"] = link
    count = len({point.sweep for line in trend.lines for point in line.points})
    last = ", ".join(f"{line.label}: {figure(trend, line.points[-1])}" for line in shown)
    notes = ["Bars are 95 % intervals."]
    if any(line.breaks for line in shown):
        notes.append("A line is broken where the data changed: points on both sides are not comparable.")
    if trend.releases or any(line.changes for line in shown):
        notes.append("Upright lines are promotions, deployments and changes that last (CUSUM).")
    if any(point.incomplete for line in shown for point in line.points):
        notes.append("Where too many rows were lost the bar spans what the value may be.")
    if left:
        notes.append(f"{plural(left, 'more line')} in the tables below.")
    return Chart(
        key="trend",
        title=f"{visible(trend.metric)} over {plural(count, 'sweep')}",
        alt=visible(f"{trend.metric} over time, {plural(len(shown), 'line')}. Last values: {last}."),
        spec=_spec(trend, rows, [visible(line.label) for line in shown]),
        table=Table(
            "Points", ["line", "started", "value, 95 % interval", "n", "stretch of equal data"],
            [[r["line"], r["when"], r["score"], str(r["n"]), str(r["segment"] + 1)] for r in rows],
            frozenset({3, 4}),
            links,
        ),
        note=" ".join(notes),
        wide=True,
    )  # fmt: skip


def _row(trend: Trend, line: Line, point: Any) -> dict[str, Any]:
    return {
        "line": visible(line.label), "t": point.started_at, "v": point.value,
        "low": point.bound_low if point.incomplete else point.ci_low,
        "high": point.bound_high if point.incomplete else point.ci_high,
        "n": point.n, "segment": point.segment, "score": figure(trend, point),
        "when": moment(point.started_at), "sweep": point.sweep, "marks": visible(marks(trend, point)),
    }  # fmt: skip


def _spec(trend: Trend, rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    values = [value for row in rows for value in (row["v"], row["low"], row["high"]) if value is not None]
    x = {
        "field": "t", "type": "temporal", "title": "started (UTC)", "scale": {"type": "utc"},
        "axis": {"grid": False, "tickCount": 6, "format": DATES},
    }  # fmt: skip
    y = {
        "field": "v", "type": "quantitative", "title": visible(f"{trend.metric} ({trend.unit})"),
        "scale": {"domain": padded(values), "nice": False, "zero": False}, "axis": {"tickCount": 6},
    }  # fmt: skip
    legend = {"symbolOpacity": 1} if len(labels) > 1 else None
    named = {"field": "line", "type": "nominal", "title": None}
    domain = list(labels)
    colour = {**named, "scale": {"domain": domain, "range": list(COLOURS[: len(domain)])},
              "legend": legend}  # fmt: skip
    dash = {**named, "scale": {"domain": domain, "range": [list(each) for each in DASHES[: len(domain)]]},
            "legend": legend}  # fmt: skip
    shape = {**named, "scale": {"domain": domain, "range": list(SHAPES[: len(domain)])}, "legend": legend}
    tooltip = [
        {"field": "line", "title": "line"}, {"field": "when", "title": "started"},
        {"field": "score", "title": visible(trend.metric)}, {"field": "n", "title": "n"},
        {"field": "sweep", "title": "sweep"}, {"field": "marks", "title": "release"},
    ]  # fmt: skip
    lead_on = {"href": {"field": "link"}} if any("link" in row for row in rows) else {}
    releases = [{"t": release.ts, "name": _said(release)} for release in trend.releases]
    releases += [
        {"t": change.started_at, "name": f"{change.way} from here on"}
        for line in trend.lines[:PALETTE]
        for change in line.changes
    ]
    return base(340, data={"values": list(rows)}, layer=[
        {"data": {"values": releases}, "mark": {"type": "rule", "strokeDash": [3, 3], "opacity": 0.7},
         "encoding": {"x": x, "tooltip": [{"field": "name", "title": "mark"}]}},
        *(
            {"data": {"values": releases[level::LEVELS]},
             "mark": {"type": "text", "align": "left", "dx": 4, "baseline": "top", "fontSize": 11},
             "encoding": {"x": x, "y": {"value": 13 * level}, "text": {"field": "name"}}}
            for level in range(min(LEVELS, len(releases)))
        ),
        {"mark": {"type": "rule", "opacity": 0.45, "strokeWidth": 1.5},
         "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}},
        {"mark": {"type": "line", "strokeWidth": 2},
         "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash, "detail": {"field": "segment"}}},
        {"mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tooltip, **lead_on}},
    ])  # fmt: skip


def _points(trend: Trend, line: Line, sweeps: str = "") -> Table:
    """The points of a line, the newest first; in a site they lead to the reports in `sweeps`."""
    rows = []
    for at in range(len(line.points) - 1, -1, -1):
        each = line.points[at]
        broken = at > 0 and each.segment != line.points[at - 1].segment
        parts = [visible(marks(trend, each)), *_noted(line, each), "other data than before" if broken else ""]
        notes = ", ".join(filter(None, parts))
        rows.append([moment(each.started_at), figure(trend, each), f"{each.n:,}", each.sweep, notes])
    caption = f"{visible(line.label)}: {plural(len(line.points), 'point')}"
    links = [f"{sweeps}{row[3]}.html" for row in rows] if sweeps else []
    return Table(caption, ["started", "value, 95 % interval", "n", "sweep", ""], rows, frozenset({2}), links)


def _releases(trend: Trend) -> Table | None:
    rows = [
        [
            moment(release.ts),
            visible(_said(release)),
            visible(release.run),
            release.sweep,
            visible(release.actor),
            visible(release.reason),
        ]
        for release in reversed(trend.releases)
    ]
    columns = ["when", "what", "run", "sweep", "who", "why"]
    return Table("Promotions and deployments", columns, rows) if rows else None


def _said(place: Any) -> str:
    return f"{'promoted to' if place.kind == 'promote' else 'deployed to'} {visible(place.name)}"

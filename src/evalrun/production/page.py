"""The page of a probe: uptime, response times and quality on one axis of time, with releases marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.gates.alarms import Episode
from evalrun.production.probe import releases
from evalrun.production.records import Turn, history
from evalrun.production.summary import Bucket, Outage, RunSummary, Summary, buckets
from evalrun.reports import numbers
from evalrun.reports.charts.theme import COLOURS, LINE_LEGEND, base, padded, tips
from evalrun.reports.sections import Section, Sections, when
from evalrun.reports.trend import DATES
from evalrun.reports.view import PALETTE, Chart, Table
from evalrun.reports.visible import visible
from evalrun.results import Estimate
from evalrun.tracking.changes import Placed
from evalrun.tracking.store import Store

MOST_ALERTS = 50
ANSWERED = (
    "Answered is the share of requests that got an answer; its interval takes account of failures coming "
    "together. p50 and p95 are of the time until an answer was whole. Unknown turns, in which the control "
    "did not answer either, are left out."
)
BURN = (
    "A burn rate of 1 spends the error budget just within its window. An alert opens at 14.4 times over 1 h, "
    "6 times over 6 h or 1 time over 3 days, where the short window agrees and chance does not explain it."
)
BOUNDS = (
    "An outage took at least from its first to its last turn that was down, and at most from the last turn "
    "before to the first one after that was not."
)
_STATES = {"up": COLOURS[2], "degraded": COLOURS[4], "down": COLOURS[1], "unknown": "var(--soft)"}
Release = tuple[float, Placed]


def write_page(store: Store, project: str, summary: Summary, out: Path, *, since: float = 0.0) -> None:
    """Write the page to `out`, whole or not at all."""
    seen = [turn for turn in history(store, project, since).turns if turn.slot >= since]
    made(project, summary, seen, releases(store, project, since)).write(out)


def made(project: str, summary: Summary, turns: Sequence[Turn], marks: Sequence[Release]) -> Sections:
    """The page."""
    shown = {
        run.run: buckets([turn for turn in turns if turn.run == run.run]) for run in summary.runs[:PALETTE]
    }
    charts = _charts(shown, marks, summary.runs[0].scorer if summary.runs else "")
    budgets, alerts, outages = _budgets(summary), _alerts(summary), _outages(summary)
    releases_ = _releases(marks)
    figures = [_table(summary), *([budgets] if budgets else [])]
    return Sections(
        "Probe",
        visible(project),
        _sentences(summary),
        _trouble(summary),
        [
            Section("time", "Over time", charts=charts),
            Section("runs", "Figures", figures, notes=[ANSWERED, *([BURN] if budgets else [])]),
            *([Section("alerts", "Alerts", [alerts])] if alerts else []),
            *([Section("outages", "Outages", [outages], notes=[BOUNDS])] if outages else []),
            *([Section("releases", "Releases", [releases_])] if releases_ else []),
        ],
    )


def _sentences(summary: Summary) -> list[str]:
    said = []
    for run in summary.runs:
        down = f"{numbers.plural(len(run.outages), 'outage')}" if run.outages else "no outage"
        span = f"{when(run.since)} to {when(run.until)}"
        said.append(
            visible(
                f"{run.run} is {run.state}: {_share(run.availability)} of requests answered, {down}, {span}."
            )
        )
    slots = sum(gap.slots for gap in summary.missed)
    if slots:
        why = numbers.listing(dict.fromkeys(gap.why for gap in summary.missed[-5:]))
        said.append(visible(f"{numbers.plural(slots, 'slot was', 'slots were')} missed: {why}."))
    if summary.ended:
        said.append(f"{numbers.plural(summary.ended, 'turn was', 'turns were')} ended from outside.")
    return said


def _trouble(summary: Summary) -> list[str]:
    trouble = [f"The probe is dead: {summary.why_stale}."] if summary.stale else []
    open_ = [each for each in summary.alerts if each.state != "closed"]
    trouble += [visible(f"Alert: {each.name} of {each.run}: {each.why}.") for each in open_[-5:]]
    if summary.lines_lost:
        trouble.append(f"{numbers.plural(summary.lines_lost, 'record')} could not be read and are left out.")
    if summary.future:
        trouble.append(f"{numbers.plural(summary.future, 'turn lies', 'turns lie')} in the future: left out.")
    return trouble


def _share(value: Estimate) -> str:
    if value.value is None:
        return "-"
    interval = "" if value.low is None else f" [{value.low:.2%}, {value.high:.2%}]"
    return f"{value.value:.2%}{interval}"


def _table(summary: Summary) -> Table:
    head = [
        "run",
        "state",
        "answered, 95 % interval",
        "requests",
        "turns",
        "p50",
        "p95",
        "score",
        "certificate",
    ]
    rows = [[visible(text) for text in _row(run)] for run in summary.runs]
    return Table("Runs", head, rows, frozenset(range(3, 7)))


def _row(run: RunSummary) -> list[str]:
    score = run.score
    measured = numbers.measured(score.value, score.low, score.high, "")
    tls = "-" if run.tls_days is None else f"{run.tls_days:.0f} days left"
    if run.tls_days is not None and run.tls_days < 0:
        tls = f"expired {-run.tls_days:.0f} days ago"
    return [
        run.run, run.state, _share(run.availability), f"{run.availability.n:,}", f"{run.turns:,}",
        numbers.seconds(run.e2e_s.p50), numbers.seconds(run.e2e_s.p95),
        f"{run.scorer} {measured}" if run.scorer else "-", tls,
    ]  # fmt: skip


def _outages(summary: Summary) -> Table | None:
    pairs = [(run.run, outage) for run in summary.runs for outage in run.outages]
    if not pairs:
        return None
    head = ["run", "first down", "took at least", "at most", "turns", "failures"]
    rows = [[visible(text) for text in _outage(run, outage)] for run, outage in pairs]
    return Table("Outages", head, rows, frozenset({2, 3, 4}))


def _outage(run: str, outage: Outage) -> list[str]:
    most = numbers.seconds(outage.most_s) if outage.over and outage.most_s is not None else "not known"
    most = most if outage.over else "goes on"
    least = numbers.seconds(outage.least_s)
    return [run, when(outage.first), least, most, str(outage.turns), ", ".join(outage.errors)]


def _budgets(summary: Summary) -> Table | None:
    rows = [
        [
            visible(run.run), f"{run.budget.objective:.3%}", _share(run.budget.good), run.budget.sentence(),
            *(numbers.significant(rate, 3) for rate in run.budget.burn.values()),
        ]
        for run in summary.runs
        if run.budget is not None
    ]  # fmt: skip
    first = next((run.budget for run in summary.runs if run.budget is not None), None)
    if first is None:
        return None
    head = ["run", "objective", "good", "budget", *(f"rate, {name}" for name in first.burn)]
    return Table("Service level", head, rows, frozenset(range(4, 7)))


def _alerts(summary: Summary) -> Table | None:
    if not summary.alerts:
        return None
    rows = [
        [
            visible(each.name), visible(each.run), _state(each), when(each.opened),
            "-" if each.closed is None else when(each.closed), visible(each.why),
        ]
        for each in reversed(summary.alerts[-MOST_ALERTS:])
    ]  # fmt: skip
    more = f", the last {MOST_ALERTS} of {len(summary.alerts):,}" if len(summary.alerts) > MOST_ALERTS else ""
    return Table(f"Alerts{more}", ["alert", "run", "state", "opened", "closed", "what was seen"], rows)


def _state(episode: Episode) -> str:
    by = f" by {episode.acknowledged_by}" if episode.acknowledged_by else ""
    return visible(f"{episode.state}{by if episode.state == 'acknowledged' else ''}")


def _releases(marks: Sequence[Release]) -> Table | None:
    if not marks:
        return None
    rows = [
        [
            when(at),
            _said(place),
            visible(f"{place.sweep}/{place.run}"),
            visible(place.reason or place.url or "-"),
        ]
        for at, place in marks
    ]
    return Table("Releases", ["when", "what", "run", "why"], rows)


def _said(place: Placed) -> str:
    return visible(f"{'promoted to' if place.kind == 'promote' else 'deployed to'} {place.name}")


def _charts(shown: Mapping[str, Sequence[Bucket]], marks: Sequence[Release], scorer: str) -> list[Chart]:
    every = [bucket for of in shown.values() for bucket in of]
    if not every:
        return []
    domain = [min(each.start for each in every) * 1000, max(each.end for each in every) * 1000]
    axis = {
        "type": "temporal", "title": None,
        "scale": {"domain": [_date(at) for at in domain], "nice": False, "type": "utc"},
        "axis": {"grid": False, "tickCount": 8, "labelOverlap": True, "format": DATES},
    }  # fmt: skip
    rows = [
        {
            "run": visible(run), "start": each.start * 1000, "end": each.end * 1000, "state": each.state,
            "middle": (each.start + each.end) * 500,
            "when": when(each.start), "answered": f"{each.ok} of {each.requests}", "p50": each.p50,
            "p95": each.p95, "score": each.score, "low": each.score_low, "high": each.score_high,
        }
        for run, of in shown.items()
        for each in of
    ]  # fmt: skip
    rules = _rules(marks, axis, domain)
    # The stretches themselves reach from end to end there; said twice, the two are in conflict.
    whole = {**axis, "scale": {"nice": False, "type": "utc"}}
    charts = [_uptime(rows, whole, _rules(marks, whole, domain)), _times(rows, axis, rules)]
    if any(row["score"] is not None for row in rows):
        charts.append(_quality(rows, axis, rules, scorer))
    return charts


def _date(milliseconds: float) -> dict[str, Any]:
    """A moment as Vega-Lite takes it in a domain."""
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return {
        "utc": True, "year": at.year, "month": at.month, "date": at.day, "hours": at.hour,
        "minutes": at.minute, "seconds": at.second,
    }  # fmt: skip


def _rules(marks: Sequence[Release], axis: Mapping[str, Any], domain: Sequence[float]) -> dict[str, Any]:
    """Upright lines where releases are."""
    values = [
        {"at": at * 1000, "what": _said(place), "when": when(at)}
        for at, place in marks
        if domain[0] <= at * 1000 <= domain[1]
    ]
    return {
        "data": {"values": values},
        "mark": {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.5},
        "encoding": {"x": {**axis, "field": "at"}, "tooltip": tips({"what": "release", "when": "when"})},
    }


def _uptime(rows: Sequence[Mapping[str, Any]], axis: Mapping[str, Any], rules: Mapping[str, Any]) -> Chart:
    states = [state for state in _STATES if any(row["state"] == state for row in rows)]
    colour = {
        "field": "state", "type": "nominal", "title": None,
        "scale": {"domain": states, "range": [_STATES[state] for state in states]},
        "legend": {"orient": "top"},
    }  # fmt: skip
    y = {
        "field": "run", "type": "nominal", "title": None, "sort": None,
        "axis": {"ticks": False, "domain": False, "minExtent": 60, "maxExtent": 60, "labels": False},
    }  # fmt: skip
    bars = {
        "mark": {"type": "rect"},
        "encoding": {
            "x": {**axis, "field": "start"}, "x2": {"field": "end"}, "y": y, "color": colour,
            "tooltip": tips({"run": "run", "when": "from", "state": "state", "answered": "answered"}),
        },
    }  # fmt: skip
    table = [[str(row["run"]), str(row["when"]), str(row["state"]), str(row["answered"])] for row in rows]
    return Chart(
        "uptime", "Uptime", "Uptime by turn.",
        base(40 * len({row["run"] for row in rows}), data={"values": list(rows)}, layer=[bars, rules]),
        Table("Turns", ["run", "from", "state", "answered"], table),
        "A stretch is as bad as the worst of its turns. Dashed lines are releases, here and below.",
        wide=True,
    )  # fmt: skip


def _times(rows: Sequence[Mapping[str, Any]], axis: Mapping[str, Any], rules: Mapping[str, Any]) -> Chart:
    long = [
        {"run": row["run"], "middle": row["middle"], "when": row["when"], "what": what, "value": row[what]}
        for row in rows
        for what in ("p50", "p95")
        if row[what] is not None
    ]
    values = [row["value"] for row in long] or [0.0]
    y = _y([0.0, max(values) * 1.08 or 1.0])
    line = {
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {
            "x": {**axis, "field": "middle"}, "y": {**y, "field": "value"}, "color": _colour(rows),
            "strokeDash": {
                "field": "what", "type": "nominal", "title": None, "legend": LINE_LEGEND,
                "scale": {"domain": ["p50", "p95"], "range": [[1, 0], [4, 2]]},
            },
            "tooltip": tips({"run": "run", "when": "from", "what": "percentile", "value": "seconds"}),
        },
    }  # fmt: skip
    dots = {"mark": {"type": "point", "filled": True, "size": 12}, "encoding": _without(line, "strokeDash")}
    table = [[str(row["run"]), str(row["when"]), row["what"], f"{row['value']:.4g}"] for row in long]
    return Chart(
        "times", "Response times", "Response times of answered requests over time.",
        base(170, data={"values": long}, layer=[line, dots, rules]),
        Table("Response times", ["run", "from", "percentile", "seconds"], table, frozenset({3})),
        "Seconds until an answered request was whole; of probes, not of users.", wide=True,
    )  # fmt: skip


def _quality(
    rows: Sequence[Mapping[str, Any]], axis: Mapping[str, Any], rules: Mapping[str, Any], scorer: str
) -> Chart:
    long = [row for row in rows if row["score"] is not None]
    values = [row[key] for row in long for key in ("score", "low", "high") if row[key] is not None]
    y, x = _y(padded(values)), {**axis, "field": "middle"}
    band = {
        "mark": {"type": "area", "opacity": 0.18},
        "encoding": {
            "x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"},
            "color": {**_colour(rows), "legend": None},
        },
    }  # fmt: skip
    tooltip = tips({"run": "run", "when": "from", "score": "score", "low": "from", "high": "to"})
    encoding = {"x": x, "y": {**y, "field": "score"}, "color": _colour(rows), "tooltip": tooltip}
    line = {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": encoding}
    dots = {"mark": {"type": "point", "filled": True, "size": 12}, "encoding": encoding}
    table = [
        [str(row["run"]), str(row["when"]), numbers.measured(row["score"], row["low"], row["high"], "")]
        for row in long
    ]
    return Chart(
        "quality", visible(f"Quality: {scorer}"), visible(f"{scorer} of the probe's rows over time."),
        base(170, data={"values": long}, layer=[band, line, dots, rules]),
        Table("Quality", ["run", "from", "value, 95 % interval"], table, frozenset({2})),
        "Bands are 95 % intervals of each stretch by itself.", wide=True,
    )  # fmt: skip


def _y(domain: Sequence[float]) -> dict[str, Any]:
    # One width of the labels, so that the axes of time stand below one another.
    axis = {"tickCount": 4, "minExtent": 60, "maxExtent": 60, "format": "~g"}
    return {
        "type": "quantitative",
        "title": None,
        "axis": axis,
        "scale": {"domain": list(domain), "nice": False},
    }


def _colour(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(str(row["run"]) for row in rows))
    scale = {"domain": names, "range": list(COLOURS[: len(names)])}
    legend = LINE_LEGEND if len(names) > 1 else None
    return {"field": "run", "type": "nominal", "title": None, "scale": scale, "legend": legend}


def _without(layer: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in layer["encoding"].items() if key != name}

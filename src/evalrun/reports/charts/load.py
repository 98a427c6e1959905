"""Charts of load: throughput against latency, what was kept of the promise, scores over load, backlog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalrun.reports import numbers
from evalrun.reports.charts.theme import COLOURS, DASHES, LINE_LEGEND, base, nominal, tips
from evalrun.reports.numbers import NONE, count, figure, interval, p_value, seconds, significant
from evalrun.reports.view import Chart, RunView, Table, verdict_word
from evalrun.reports.visible import visible
from evalrun.results import Estimate
from evalrun.sweep_results import LoadCurve, LoadPoint, QualityAtLoad

LINES = 8
"""So many curves are drawn; the table has all of them."""


def names_of(curves: Sequence[LoadCurve]) -> list[str]:
    """A name for each curve, of what tells them apart; "" where there is one."""
    parts = [
        (curve.model, curve.prompt, curve.dataset, *(f"{key}={value}" for key, value in curve.params.items()))
        for curve in curves
    ]
    width = max((len(part) for part in parts), default=0)
    varies = [at for at in range(width) if len({part[at] if at < len(part) else "" for part in parts}) > 1]
    return [" · ".join(visible(part[at]) for at in varies if at < len(part)) for part in parts]


def sentences(curves: Sequence[LoadCurve]) -> list[str]:
    """What each curve comes to, in a sentence that begins with its name."""
    return [
        f"{name or visible(curve.model)} {curve.sentence}."
        for name, curve in zip(names_of(curves), curves, strict=True)
    ]


def level_charts(curves: Sequence[LoadCurve], runs: Sequence[RunView]) -> list[Chart]:
    """The charts of all curves together; empty where nothing was put under load."""
    shown = list(zip(names_of(curves), curves, strict=True))[:LINES]
    if not shown:
        return []
    made = [
        _pareto(shown),
        _kept(shown),
        _scores(shown),
        *(_backlog(at, *each, runs) for at, each in enumerate(shown)),
    ]
    return [chart for chart in made if chart is not None]


def _lines(shown: Sequence[tuple[str, LoadCurve]]) -> dict[str, Any]:
    """Colour and dashes by curve."""
    names = [name or curve.model for name, curve in shown]
    legend = LINE_LEGEND if len(names) > 1 else None
    colours = {"domain": names, "range": list(COLOURS[: len(names)])}
    dashes = {"domain": names, "range": [list(each) for each in DASHES[: len(names)]]}
    return {
        "color": nominal("line", colours, legend),
        "strokeDash": nominal("line", dashes, legend),
    }


def _latency(point: LoadPoint) -> tuple[Estimate, str]:
    """The 95th percentile of the response time, or where there are too few requests for it the median."""
    if point.response_p95_s.value is not None:
        return point.response_p95_s, "95th percentile"
    return point.response_p50_s, "median"


def _pareto(shown: Sequence[tuple[str, LoadCurve]]) -> Chart | None:
    rows: list[dict[str, Any]] = []
    for name, curve in shown:
        for at, point in enumerate(curve.points):
            time, what = _latency(point)
            if time.value is None or point.requests_per_s.value is None:
                continue
            rows.append(
                {"line": name or curve.model, "at": at, "x": point.requests_per_s.value, "y": time.value,
                 "low": time.low, "high": time.high, "load": point.words, "label": str(point.level),
                 "text": f"{seconds(time.value)} ({what}) {interval(time.low, time.high)}".strip(),
                 "rate": f"{significant(point.requests_per_s.value)} requests/s"}
            )  # fmt: skip
    if len(rows) < 2:
        return None
    x = {"field": "x", "type": "quantitative", "title": "requests/s", "scale": {"zero": True, "nice": True},
         "axis": {"tickCount": 6, "grid": False}}  # fmt: skip
    y = {"field": "y", "type": "quantitative", "title": "response time (s)", "scale": {"zero": True},
         "axis": {"tickCount": 5}}  # fmt: skip
    lines = _lines(shown)
    tooltip = tips({"line": "of", "load": "load", "rate": "throughput", "text": "response time"})
    layers = [
        {"mark": {"type": "line", "strokeWidth": 2},
         "encoding": {"x": x, "y": y, **lines, "order": {"field": "at", "type": "ordinal"}}},
        {"mark": {"type": "rule", "strokeWidth": 1.25},
         "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": lines["color"]}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": lines["color"], "tooltip": tooltip}},
        {"mark": {"type": "text", "dy": -11, "fontSize": 11},
         "encoding": {"x": x, "y": y, "text": {"field": "label"}}},
    ]  # fmt: skip
    return Chart(
        key="load-pareto",
        title="Throughput against response time",
        alt=f"One line of points, a point a level, for {len(shown)} of what was put under load.",
        spec=base(280, data={"values": rows}, layer=layers),
        table=Table(
            "Throughput and response time by level",
            ("of", "load", "throughput", "response time"),
            [(row["line"], row["load"], row["rate"], row["text"]) for row in rows],
            frozenset({2, 3}),
        ),
        note="A point is a level, named beside it. Where the line turns upwards without going on to the "
        "right, more load brings waiting and no more answers.",
    )  # fmt: skip


def _over_load(
    shown: Sequence[tuple[str, LoadCurve]], key: str, title: str, unit: str, of: str, note: str,
    extra: Sequence[dict[str, Any]] = (), domain: list[float] | None = None,
) -> Chart | None:  # fmt: skip
    """A figure with its interval over the levels, a line a curve."""
    rows: list[dict[str, Any]] = []
    order: dict[str, tuple[bool, float]] = {}
    for name, curve in shown:
        for at, point in enumerate(curve.points):
            found: Estimate = getattr(point, of)
            order.setdefault(
                str(point.level), (point.open_loop, float(point.concurrency or point.rate or at))
            )
            if found.value is not None:
                rows.append(
                    {"line": name or curve.model, "load": str(point.level), "v": found.value,
                     "low": found.low, "high": found.high, "n": found.n, "words": point.words,
                     "text": figure(found.value, found.low, found.high),
                     "ends": interval(found.low, found.high)}
                )  # fmt: skip
    if len(rows) < 2:
        return None
    sort = sorted(order, key=lambda level: order[level])
    x = {"field": "load", "type": "ordinal", "title": "load", "sort": sort, "axis": {"labelAngle": 0}}
    scale = {"domain": domain} if domain else {"zero": False, "nice": True}
    y = {"field": "v", "type": "quantitative", "title": unit, "scale": scale, "axis": {"tickCount": 5}}
    lines = _lines(shown)
    tooltip = tips({"line": "of", "words": "load", "text": unit, "ends": "95 % interval", "n": "n"})
    layers = [
        *extra,
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y, **lines}},
        {"mark": {"type": "rule", "strokeWidth": 1.25},
         "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": lines["color"]}},
        {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": lines["color"], "tooltip": tooltip}},
    ]  # fmt: skip
    table = [(row["line"], row["words"], row["text"], row["ends"], count(row["n"])) for row in rows]
    return Chart(
        key=key,
        title=title,
        alt=f"Line chart of {unit} with 95 % intervals over {len(sort)} levels of load.",
        spec=base(240, data={"values": rows}, layer=layers),
        table=Table(title, ("of", "load", unit, "95 % interval", "n"), table, frozenset({2, 4})),
        note=note,
    )


def _kept(shown: Sequence[tuple[str, LoadCurve]]) -> Chart | None:
    promise = [f"{', '.join(curve.slo)}" for _, curve in shown if curve.slo]
    said = (
        f"Share of requests that kept the promise ({promise[0]})." if promise else "Share that was answered."
    )
    target = {
        "mark": {"type": "rule", "strokeDash": [4, 3], "color": "var(--soft)"},
        "encoding": {"y": {"datum": shown[0][1].attain}},
    }
    wanted = f" The dashed line is the {shown[0][1].attain:.0%} that is wanted." if promise else ""
    return _over_load(
        shown, "load-kept", "Kept of the promise", "attainment", "attainment", said + wanted,
        [target] if promise else [], [0.0, 1.0],
    )  # fmt: skip


def _scores(shown: Sequence[tuple[str, LoadCurve]]) -> Chart | None:
    curve = shown[0][1]
    band = curve.reference_score
    extra: list[dict[str, Any]] = []
    note = "Scores at each level."
    if len(shown) == 1 and band.low is not None:
        extra.append(
            {"mark": {"type": "rect", "opacity": 0.12, "color": "var(--soft)"},
             "encoding": {"y": {"datum": band.low}, "y2": {"datum": band.high}}}
        )  # fmt: skip
        note = (
            "The band is the 95 % interval of the reference. Levels share their samples, so that one within "
            "the band may still differ: the table says what the paired test found."
        )
    metric = visible(curve.metric)
    return _over_load(shown, "load-score", f"{metric} over load", metric, "score", note, extra)


def _backlog(at: int, name: str, curve: LoadCurve, runs: Sequence[RunView]) -> Chart | None:
    by_run = {run.id: run.details.load for run in runs}
    rows, levels = [], []
    for point in curve.points:
        load = by_run.get(point.run)
        if load is None or len(load.backlog.waiting) < 2:
            continue
        levels.append(point.words)
        edges = load.backlog.t_s
        rows += [
            {"line": point.words, "t": (a + b) / 2, "v": waiting}
            for a, b, waiting in zip(edges, edges[1:], load.backlog.waiting, strict=False)
        ]
    if not levels:
        return None
    levels = levels[-len(COLOURS) :]
    rows = [row for row in rows if row["line"] in levels]
    legend = LINE_LEGEND if len(levels) > 1 else None
    colours = {"domain": levels, "range": list(COLOURS[: len(levels)])}
    dashes = {"domain": levels, "range": [list(each) for each in DASHES[: len(levels)]]}
    x = {"field": "t", "type": "quantitative", "title": "seconds", "axis": {"tickCount": 6, "grid": False}}
    y = {"field": "v", "type": "quantitative", "title": "due and not ended", "axis": {"tickCount": 5}}
    encoding = {"x": x, "y": y, "color": nominal("line", colours, legend),
                "strokeDash": nominal("line", dashes, legend)}  # fmt: skip
    where = f", {name}" if name else ""
    return Chart(
        key=f"load-backlog-{at}",
        title=f"Backlog over time{where}",
        alt=f"Requests that were due and not ended, over time, for {len(levels)} levels of load.",
        spec=base(240, data={"values": rows}, mark={"type": "line", "strokeWidth": 2}, encoding=encoding),
        table=Table(
            "Backlog by level",
            ("load", "greatest", "queue"),
            [
                (point.words, f"{max(load.backlog.waiting):.3g}", f"{load.verdict}: {load.why}")
                for point in curve.points
                if (load := by_run.get(point.run)) is not None and load.backlog.waiting
            ],
            frozenset({1}),
        ),
        note="Requests that were due and had not ended. A queue that goes on rising is over capacity.",
    )


def level_table(name: str, curve: LoadCurve) -> Table:
    """Every level of a curve with its figures, and its scores against the reference."""
    rows = []
    for point in curve.points:
        quality = point.quality
        time, what = _latency(point)
        rows.append(
            (
                point.words.replace(" ", "\N{NO-BREAK SPACE}"),
                numbers.figure(point.requests_per_s.value, point.requests_per_s.low,
                point.requests_per_s.high),
                f"{seconds(time.value)} {'' if what != 'median' else '(median)'}".strip(),
                _share(point.attainment),
                _plain(point.goodput_rps.value),
                _plain(point.goodput_right_rps.value),
                figure(point.score.value, point.score.low, point.score.high),
                NONE if quality is None or quality.difference.difference is None
                else figure(quality.difference.difference, quality.difference.ci_low,
                quality.difference.ci_high,
                            sign=True),
                NONE if quality is None or quality.p_corrected is None else p_value(quality.p_corrected),
                NONE if quality is None else verdict_word(quality.verdict),
                NONE if quality is None else f"{quality.lost} / {quality.gained}",
                NONE if quality is None else _changed(quality),
                "; ".join(
                    f"{rate.what} {rate.before} to {rate.after}"
                    for rate in (quality.rates if quality is not None else ())
                    if rate.before or rate.after
                ) or NONE,
                _in_time(point),
                point.verdict,
            )
        )  # fmt: skip
    columns = (
        "load", "requests/s", "p95 response", "kept", "goodput/s", "right goodput/s", visible(curve.metric),
        "minus reference", "p", "verdict", "lost / gained", "texts changed (noise)",
        "ended otherwise", "score in time / late", "queue",
    )  # fmt: skip
    title = f"Levels of load{f', {name}' if name else ''}"
    return Table(title, columns, rows, frozenset({1, 2, 3, 4, 5, 6, 7, 8}))


def _plain(value: float | None) -> str:
    return NONE if value is None else significant(value)


def _share(found: Estimate) -> str:
    return NONE if found.value is None else f"{found.value:.1%} {interval(found.low, found.high)}".strip()


def _in_time(point: LoadPoint) -> str:
    """Scores of answers within the promise and without it, with their lengths."""
    return " / ".join(
        NONE if part is None
        else significant(part.score) + ("" if part.tokens is None else f" ({part.tokens:.0f} tokens)")
        for part in (point.in_time, point.late)
    )  # fmt: skip


def _changed(quality: QualityAtLoad) -> str:
    """Texts that differ from the reference's, in brackets by noise alone, and where they begin to."""
    if quality.changed.value is None:
        return NONE
    noise = quality.changed_by_noise
    beside = "" if noise is None or noise.value is None else f" ({noise.value:.1%})"
    place = "" if quality.changed_at is None else f", from character {quality.changed_at + 1:.0f}"
    return f"{quality.changed.value:.1%}{beside}{place}"


def cautions(curves: Sequence[LoadCurve]) -> list[str]:
    """What must be said beside the figures of levels."""
    said = [
        f"{name + ' at ' if name else ''}{point.words}: {banner}."
        for name, curve in zip(names_of(curves), curves, strict=True)
        for point in curve.points
        for banner in point.banners
    ]
    return list(dict.fromkeys(said))

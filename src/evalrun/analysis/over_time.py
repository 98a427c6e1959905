"""A metric over the sweeps of a project, with the changes that last (CUSUM) marked in its lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from evalrun.analysis.nights import cusum_limit, lasting_changes
from evalrun.tracking.store import Store
from evalrun.tracking.trend import MOST, Change, Line, Point, Trend, read_trend

_WAYS: Mapping[tuple[str, float], str] = {
    ("higher", 1.0): "better",
    ("higher", -1.0): "worse",
    ("lower", 1.0): "worse",
    ("lower", -1.0): "better",
    ("none", 1.0): "higher",
    ("none", -1.0): "lower",
}


def trend_with_changes(
    store: Store,
    project: str,
    metric: str | None = None,
    slice_: Mapping[str, str] | None = None,
    limit: int = MOST,
) -> Trend:
    """`read_trend` with the changes that last: within each stretch of equal data, without incomplete points.

    The limit is that of a year of nights for all lines and both ways together (`nights.cusum_limit`): where
    nothing changes, a mark stands anywhere in one year of twenty.
    """
    trend = read_trend(store, project, metric, slice_, limit)
    bar = cusum_limit(2 * len(trend.lines))
    return replace(trend, lines=tuple(_marked(line, trend.direction, bar) for line in trend.lines))


def _marked(line: Line, direction: str, limit: float) -> Line:
    found: list[Change] = []
    for _, stretch in groupby(line.points, key=lambda point: point.segment):
        points = [point for point in stretch if not point.incomplete]
        found += _changes(points, direction, limit)
    return replace(line, changes=tuple(found))


def _changes(points: Sequence[Point], direction: str, limit: float) -> Iterator[Change]:
    values = [point.value for point in points]
    told = sorted(
        (change.since, change.at, sign)
        for sign in (1.0, -1.0)
        for change in lasting_changes(values, sign, limit)
    )
    for number, (since, at, sign) in enumerate(told):
        begin = told[number - 1][0] if number else 0
        end = told[number + 1][0] if number + 1 < len(told) else len(values)
        before, after = values[begin:since], values[since:end]
        if before and after:
            yield Change(
                way=_WAYS[direction, sign],
                sweep=points[since].sweep,
                started_at=points[since].started_at,
                seen=points[at].sweep,
                seen_at=points[at].started_at,
                before=sum(before) / len(before),
                after=sum(after) / len(after),
                sweeps=len(after),
            )

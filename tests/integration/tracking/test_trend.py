"""Trends: one line a cell, broken where the data changed, with releases; as text and as a page."""

from __future__ import annotations

import json
import re

import pytest
from tests.nights import PLAN, night

from evalrun.errors import UserError
from evalrun.reports.trend import render_trend, sparkline, trend_lines, trend_of
from evalrun.tracking.changes import Wish, promote
from evalrun.tracking.finding import Search
from evalrun.tracking.store import Store
from evalrun.tracking.targets import find_run_target
from evalrun.tracking.trend import projects

CATALOGS = ("sqlite", "postgresql")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_points_come_in_order_and_other_data_breaks_the_line(store: Store) -> None:
    for wrong, digest in ((0, "a"), (1, "a"), (2, "b"), (3, "b")):
        night(store, [0.0] * wrong + [1.0] * (4 - wrong), digest=digest * 64)
    night(store, [0.0], project="other")
    trend = trend_of(store, "nightly", "exact_match")
    (line,) = trend.lines
    assert [(each.value, each.segment) for each in line.points] == [(1, 0), (0.75, 0), (0.5, 1), (0.25, 1)]
    assert [each.value for each in line.breaks] == [0.5]
    assert [each.value for each in line.comparable] == [0.5, 0.25]
    assert sparkline(line.points) == "█▆╎▃▁"
    text = "\n".join(trend_lines(trend))
    assert "the data changed" in text and "other data from here" in text and "\N{MINUS SIGN}0.250" in text
    assert all(len(each) <= 100 for each in trend_lines(trend))
    assert projects(store) == ["nightly", "other"]


def test_archived_and_unfinished_sweeps_are_left_out_and_slices_are_asked_for(store: Store) -> None:
    from evalrun.tracking import changes

    changes.archive(store, night(store, [0.0]))
    night(store, [1.0]).update_manifest(status="incomplete")
    store.reindex()
    night(store, [1.0])
    assert len(trend_of(store, "nightly", "exact_match").lines[0].points) == 1
    with pytest.raises(UserError, match=r"no run of project 'nightly' has a metric 'exact_match\[group=x\]'"):
        trend_of(store, "nightly", "exact_match[group=x]")
    with pytest.raises(UserError, match="Did you mean 'exact_match'"):
        trend_of(store, "nightly", "exact_mach")
    with pytest.raises(UserError, match="Did you mean 'nightly'"):
        trend_of(store, "nightl")


def test_releases_stand_beside_their_points(store: Store) -> None:
    night(store, [1.0, 0.0])
    promote(store, find_run_target(store, "latest"), Wish("production", "good"))
    night(store, [1.0, 1.0])
    trend = trend_of(store, "nightly")
    assert (trend.metric, [each.name for each in trend.releases]) == ("exact_match", ["production"])
    text = "\n".join(trend_lines(trend))
    assert re.search(r"0\.50 .*production", text) and "promoted to production" in text
    assert json.loads(json.dumps(trend.document()))["lines"][0]["points"][1]["value"] == 1.0


def test_the_page_holds_the_points_and_lets_no_name_harm_it(store: Store) -> None:
    evil = "<script>alert(1)</script>\u202e"
    plan = [{**PLAN[0], "dataset": "d"}]
    night(store, [1.0, 0.0], project=evil, plan=plan)
    night(store, [1.0, 1.0], project=evil, digest="e" * 64)
    page = render_trend(trend_of(store, evil, "exact_match"))
    assert "<script>alert" not in page and "\u202e" not in page
    assert "default-src &#39;none&#39;" in page and "the data changed" in page
    specs = json.loads(re.findall(r'id="chart-specs">(.*?)</script>', page, re.DOTALL)[0])
    values = specs["trend"]["data"]["values"]
    assert [(each["v"], each["segment"]) for each in values] == [(0.5, 0), (1.0, 1)]
    assert not re.search(r'(?:src|href)="https?:', page)


def test_a_change_that_lasts_is_marked_with_date_and_sweep(store: Store) -> None:
    rights = [80, 81, 79, 80, 82, 80, 79, 81, 80, 80, 74, 73, 75, 74, 73, 74, 75, 73]
    folders = [night(store, [1.0] * right + [0.0] * (100 - right)) for right in rights]
    trend = trend_of(store, "nightly", "exact_match")
    (change,) = trend.lines[0].changes
    assert (change.way, change.sweep, change.sweeps) == ("worse", folders[10].ulid, 8)
    assert change.before == pytest.approx(0.802) and change.after == pytest.approx(0.73875)
    assert change.seen in [folder.ulid for folder in folders[11:16]]
    text = "\n".join(trend_lines(trend))
    assert f"({folders[10].ulid}): 0.74 on average over 8 sweeps, 0.80 before; CUSUM" in text
    assert "worse from here on" in text
    page = render_trend(trend)
    assert "worse since" in page and "changes that last (CUSUM)" in page
    assert trend.document()["lines"][0]["changes"][0]["way"] == "worse"  # type: ignore[index, call-overload]


def test_quiet_nights_have_no_mark_and_other_data_begins_anew(store: Store) -> None:
    for right, digest in [*zip([80, 81, 79, 80, 82, 80], "a" * 6, strict=True), *[(60, "b")] * 3]:
        night(store, [1.0] * right + [0.0] * (100 - right), digest=digest * 64)
    assert trend_of(store, "nightly", "exact_match").lines[0].changes == ()


def test_an_incomplete_night_is_marked_and_compared_with_none(store: Store) -> None:
    night(store, [1.0, 1.0, 0.0, 0.0])
    night(store, [1.0, 1.0, 1.0, 1.0], between=(0.3, 1.0))
    trend = trend_of(store, "nightly", "exact_match")
    point = trend.lines[0].points[-1]
    assert point.incomplete and (point.bound_low, point.bound_high) == (0.3, 1.0)
    text = "\n".join(trend_lines(trend))
    assert "[incomplete: 0.30 to 1.00]" in text and "compared with no other" in text
    night(store, [1.0, 0.0, 0.0, 0.0])
    again = trend_of(store, "nightly", "exact_match")
    assert "\N{MINUS SIGN}0.250" in "\n".join(trend_lines(again)), "with the night before the incomplete one"
    specs = json.loads(re.findall(r'id="chart-specs">(.*?)</script>', render_trend(again), re.DOTALL)[0])
    drawn = specs["trend"]["data"]["values"][1]
    assert (drawn["low"], drawn["high"]) == (0.3, 1.0)


def test_the_catalog_knows_which_figures_are_incomplete(store: Store) -> None:
    night(store, [1.0, 0.0])
    night(store, [1.0, 1.0], between=(0.3, 1.0))
    found = store.find(Search.of('metric("exact_match").incomplete'))
    (row,) = found.rows
    metric = row.metrics["exact_match"]
    assert metric is not None and metric["incomplete"] is True
    assert (metric["bound_low"], metric["bound_high"]) == (0.3, 1.0)
    whole = store.find(Search.of('not metric("exact_match").incomplete')).rows[0].metrics["exact_match"]
    assert whole is not None and "incomplete" not in whole
    assert store.find(Search.of('metric("exact_match").bound_low > 0.2')).total == 1

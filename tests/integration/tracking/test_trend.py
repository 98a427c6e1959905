"""Trends: one line a cell, broken where the data changed, with releases; as text and as a page."""

from __future__ import annotations

import json
import re

import pytest
from tests.nights import PLAN, night

from evalrun.errors import UserError
from evalrun.reports.trend import render_trend, sparkline, trend_lines, trend_of
from evalrun.tracking.changes import Wish, promote
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

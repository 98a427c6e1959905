"""The level of chance stands where scores are drawn, and only where the drawing reaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sweep_data import Cell, make_sweep

from evalrun.reports.charts.quality import quality_charts
from evalrun.reports.charts.theme import level_rule, reaching
from evalrun.reports.leaderboard import WIDTH, leaderboard
from evalrun.reports.source import Source
from evalrun.reports.verdicts import judge
from evalrun.reports.view import RunView
from evalrun.sweep_results import Chance, Primary

EXACT = Primary("exact_match", "exact_match")


@pytest.fixture
def runs(tmp_path: Path) -> list[RunView]:
    source = Source.of(make_sweep(tmp_path, [Cell("m", "p"), Cell("m", "q")], n=60))
    views = [run for group in judge(source).by_dataset.values() for run in group]
    figures = [run.primary for run in views if run.primary and run.primary.value is not None]
    level = min(figure.value or 0.0 for figure in figures)
    return [
        replace(
            run, chance=Chance(run.id, "d", "exact_match", level, "always \u201cyes\u201d", 0.01, 60, True)
        )
        for run in views
    ]


def test_the_leaderboard_has_the_level_in_its_drawing(runs: list[RunView]) -> None:
    board = leaderboard("d", runs, EXACT, named=False)
    assert board.chance_at is not None and 0 < board.chance_at < WIDTH
    assert board.chance.startswith("always \u201cyes\u201d, 0.")
    far = [replace(run, chance=replace(run.chance, level=-9.0)) for run in runs if run.chance]
    assert leaderboard("d", far, EXACT, named=False).chance_at is None
    assert not leaderboard("d", runs, replace(EXACT, exact=False), named=False).chance


def test_charts_of_quality_have_a_line_at_the_level(runs: list[RunView]) -> None:
    charts = quality_charts(0, "d", runs, EXACT, named=False)
    assert charts
    for chart in charts:
        assert '"field": "chance"' in str(chart.spec).replace("'", '"')
    for chart in quality_charts(0, "d", runs, None, named=False):
        assert "chance" not in str(chart.spec)


def test_a_level_far_off_squeezes_no_scores() -> None:
    assert reaching([0.9, 0.95], 0.25) == [0.9, 0.95]
    assert reaching([0.4, 0.6], 0.25) == [0.4, 0.6, 0.25]
    assert reaching([0.4, 0.6], None) == [0.4, 0.6]
    scale = {"scale": {"domain": [0.3, 0.7]}}
    assert level_rule("y", scale, 0.25) == [] == level_rule("y", scale, None)
    assert len(level_rule("y", scale, 0.5)) == 2

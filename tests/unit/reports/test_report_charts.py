"""What charts leave out so that they can be read: names without room, noise of rates, lines of one colour."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sweep_data import QUICKSTART, Cell, make_sweep

from evalrun.reports.charts.quality import LONGEST, PLOT, _box, _meet, _pixels, placed, short
from evalrun.reports.charts.resources import resources
from evalrun.reports.report import Report, build_report
from evalrun.reports.source import Source


def report_of(root: Path, *args: Any, **options: Any) -> Report:
    return build_report(Source.of(make_sweep(root, *args, **options)))


SHARES = st.floats(0, 1, allow_nan=False)
POINTS = st.lists(st.tuples(SHARES, SHARES, st.integers(1, 60)), min_size=1, max_size=20)


@given(POINTS)
def test_names_neither_meet_nor_leave_the_plot(points: list[tuple[float, float, int]]) -> None:
    rows = [{"run": "x" * letters, "t": t, "q": q} for t, q, letters in points]
    found = placed(rows, rows, (0.0, 1.0), (0.0, 1.0))
    boxes = [
        _box(_pixels(row, (0.0, 1.0), (0.0, 1.0)), spot, len(row["name"]))
        for spot, kept in found.items()
        for row in kept
    ]
    assert boxes, "the first name always has a place"
    assert not any(_meet(one, other) for one, other in combinations(boxes, 2))
    assert all(box[0] >= 0 and box[2] <= PLOT[0] for box in boxes), "the plot is wide enough for any name"


def test_long_names_keep_both_ends() -> None:
    assert short("few_shot") == "few_shot"
    cut = short("organisation/an-extremely-long-model-name-70B-AWQ-INT4")
    assert len(cut) <= LONGEST and cut.startswith("organisation") and cut.endswith("INT4")


def test_rates_are_increases_a_second_and_no_spike_of_a_short_step(tmp_path: Path) -> None:
    views = report_of(tmp_path, QUICKSTART[:1]).runs
    rows = [{"t_s": t / 2, "engine_cpu_s": t * 0.75, "engine.generation_tokens": 500 + 10 * t}
            for t in range(8)]  # fmt: skip
    rows.append({"t_s": 3.501, "engine_cpu_s": 6.0, "engine.generation_tokens": 570})
    charts = {chart.title: chart for chart in resources(views, {views[0].id: rows})}
    drawn = {title: [each["v"] for each in chart.spec["data"]["values"]] for title, chart in charts.items()}
    assert drawn["CPU of the engine"] == [1.5] * 7
    assert drawn["Tokens generated"] == [20.0] * 7
    assert charts["Tokens generated"].folded and not charts["CPU of the engine"].folded


def test_of_runs_that_share_a_colour_the_best_is_drawn(tmp_path: Path) -> None:
    cells = [Cell(f"m{m}", f"p{p}", accuracy=0.2 + 0.1 * p) for m in range(3) for p in range(4)]
    found = report_of(tmp_path, cells, n=40, by=())
    memory = next(chart for chart in found.resources if chart.title == "Memory of the engine")
    drawn = {each["run"] for each in memory.spec["data"]["values"]}
    assert len(drawn) == 3 and all(name.startswith("p3") for name in drawn)
    assert memory.note == "3 of 12 runs are drawn."


def test_reasons_that_quote_the_output_are_one_cause(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        if record["position"] % 2:
            said = f"It's number {record['position']}"
            record |= {"status": "unparsed", "answer": None, "output": said,
                       "error": f"none of the labels stands in '{said}'"}  # fmt: skip
        return record

    found = report_of(tmp_path, [Cell("m", "p"), Cell("m", "q")], n=40, by=(), change=change)
    assert found.causes is not None
    (row,) = found.causes.rows
    assert row[:3] == ("unparsed", "none of the labels stands in the output", "40")

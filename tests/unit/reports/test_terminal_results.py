"""Results in a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweep_data import QUICKSTART, Cell, make_sweep

from evalrun.reports.sweep_list import sweep_list
from evalrun.reports.terminal import plan_table, result_table
from evalrun.tracking.catalog import SweepRow


def printed(
    root: Path,
    *args: Any,
    width: int = 80,
    terminal: bool = False,
    report: Path | None = None,
    **options: Any,
) -> str:
    folder = make_sweep(root, *args, **options)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, highlight=False)
    result_table(folder, console, report=report)
    return out.getvalue()


def test_says_who_is_best_and_what_is_next(tmp_path: Path) -> None:
    gate = {"gate": "exact_match >= 0.9", "run": QUICKSTART[0].run, "verdict": "fail", "value": 0.58}
    text = printed(tmp_path, report=Path("reports/x.html"), gates=[gate])
    flat = " ".join(text.split())
    assert "few_shot scores highest: 0.58 [0.48, 0.68] exact_match (n = 96)" in flat
    assert "reasoned tied 0.52 [0.42, 0.62] 96" in flat
    assert "direct: 5 unparsed, 2 failed of 96" in flat
    assert "0 refused" not in flat, "endings that did not happen are not counted"
    assert "FAIL exact_match >= 0.9 few_shot: 0.58" in flat
    assert "By dialect: few_shot does best for regional and worst for learner" in flat
    assert "Report: reports/x.html" in flat
    assert "evalrun show 01JDATA0000000000000000000" in flat


@pytest.mark.parametrize("width", [40, 80, 120])
def test_fits_its_width(tmp_path: Path, width: int) -> None:
    cells = [
        Cell(f"a-model-with-a-long-name-{m}", f"prompt_{p}", params={"temperature": t})
        for m in range(3)
        for p in range(2)
        for t in (0, 0.7)
    ]
    text = printed(tmp_path, cells, n=20, by=(), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "0." in text


def test_no_colour_when_piped(tmp_path: Path) -> None:
    assert "\x1b" not in printed(tmp_path, by=())


def test_hostile_names_cannot_reach_the_terminal(tmp_path: Path) -> None:
    bad = "p\x1b[2J\x1b]0;owned\x07[red]\u202e"
    gate = {"gate": bad, "run": bad, "verdict": "fail", "value": None, "reason": bad}
    text = printed(tmp_path, [Cell("m", "p"), Cell("m", "[red]q")], gates=[gate], by=())
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert "[red]" in text, "markup is printed, not obeyed"


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    text = printed(tmp_path, by=(), status="interrupted")
    assert "Run the same command again" in text


def test_lists_sweeps() -> None:
    row = SweepRow(
        "01JDATA0000000000000000000", "triage", "support-triage", "complete", "2026-11-23T07:01:00+00:00",
        None, 0, 3, 3, 288, 2, "me", None, Path("x"),
    )  # fmt: skip
    out = io.StringIO()
    sweep_list([row], Console(file=out, width=100, highlight=False))
    assert (
        "support-triage" in out.getvalue()
        and "2026-11-23 07:01" in out.getvalue()
        and "3/3" in out.getvalue()
    )
    empty = io.StringIO()
    sweep_list([], Console(file=empty, width=80))
    assert "evalrun init" in empty.getvalue()


def test_shows_a_plan() -> None:
    document = {
        "name": "s",
        "runs": [
            {
                "run": "m-p-d", "samples": 10, "requests": 10, "prompt_tokens": 1200,
                "max_completion_tokens": 480, "usd": 0.012,
            }
        ],
        "total": {
            "runs": 1, "requests": 10, "prompt_tokens": 1200, "max_completion_tokens": 480, "usd": 0.012,
        },
    }  # fmt: skip
    out = io.StringIO()
    plan_table(document, Console(file=out, width=80, highlight=False))
    flat = " ".join(out.getvalue().split())
    assert "1 run, 10 requests, about 1,200 prompt tokens, at most 480 answer tokens" in flat
    assert "at most about $0.012. Nothing was sent." in flat
    assert "seconds" not in flat
    document["runs"][0] |= {"load": "2/s arriving", "seconds": 60.0}  # type: ignore[index]
    out = io.StringIO()
    plan_table(document, Console(file=out, width=120, highlight=False))
    flat = " ".join(out.getvalue().split())
    assert "run load seconds requests" in flat and "2/s arriving 60 10" in flat
    assert "levels that send for 60 s" in flat

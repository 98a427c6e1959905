"""What the report says in words, from real folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweep_data import QUICKSTART, Cell, make_sweep

from evalrun.reports.leaderboard import standing_word
from evalrun.reports.report import build_report
from evalrun.reports.source import Source
from evalrun.reports.verdicts import Verdicts, judge
from evalrun.reports.view import words


def verdicts(root: Path, *args: Any, **options: Any) -> Verdicts:
    return judge(Source.of(make_sweep(root, *args, **options)))


def test_the_best_its_ties_and_its_speed(tmp_path: Path) -> None:
    found = verdicts(tmp_path, QUICKSTART, by=())
    (answer,) = found.answers
    assert words(answer.verdict) == (
        "few_shot scores highest: 0.58 [0.48, 0.68] exact_match (n = 96); tied with reasoned."
    )
    assert words(answer.more[0]).startswith(
        "It is 2.2\u00d7 slower than direct, the fastest: 1.13 s against 505 ms"
    )
    assert words(answer.advice).startswith("Ship few_shot: no tied run is clearly faster.")
    assert [run.standing for run in answer.runs] == ["best", "tied", "behind"]
    assert any("true difference below about" in caution for caution in answer.cautions)


def test_a_clear_winner(tmp_path: Path) -> None:
    cells = [Cell("m", "good", accuracy=0.9, e2e_s=0.4), Cell("m", "bad", accuracy=0.3, e2e_s=0.8)]
    (answer,) = verdicts(tmp_path, cells, by=()).answers
    assert ", ahead of bad." in words(answer.verdict)
    assert "is best" in words(answer.verdict)
    assert "faster than bad: " in words(answer.more[0])
    assert words(answer.advice) == "Ship good."


def quick_is_right(at: int, *, wrong: int, more: int) -> bool:
    """Half right, but wrong on some of the right ones and right on some more."""
    return (at % 2 == 0 and at not in range(0, 2 * wrong, 2)) or at in range(1, 2 * more, 2)


def test_a_faster_run_that_may_be_much_worse_is_not_recommended(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        at, quick = record["position"], "quick" in record["messages"][0]["content"]
        right = quick_is_right(at, wrong=9 if quick else 0, more=5 if quick else 0)
        return {**record, "scores": {"exact_match": float(right)}, "status": "scored"}

    cells = [Cell("m", "slow", e2e_s=3.0), Cell("m", "quick", e2e_s=0.5)]
    scorers = [{"exact_match": {}}]
    (answer,) = verdicts(tmp_path, cells, n=60, by=(), scorers=scorers, change=change).answers
    assert answer.best is not None and answer.best.label == "slow"
    assert "tied with quick" in words(answer.verdict)
    advice = words(answer.advice)
    assert advice.startswith("Ship slow if quality decides. quick is ")
    assert advice.endswith("faster but may be up to 0.20 worse: more samples would tell.")


def test_a_faster_run_that_is_surely_as_good_is_recommended(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        at, quick = record["position"], "quick" in record["messages"][0]["content"]
        right = quick_is_right(at, wrong=3 if quick else 0, more=1 if quick else 0)
        return {**record, "scores": {"exact_match": float(right)}, "status": "scored"}

    cells = [Cell("m", "slow", e2e_s=3.0), Cell("m", "quick", e2e_s=0.5)]
    scorers = [{"exact_match": {}}]
    (answer,) = verdicts(tmp_path, cells, n=400, by=(), scorers=scorers, change=change).answers
    assert answer.best is not None and answer.best.label == "slow"
    advice = words(answer.advice)
    assert advice.startswith("quick is ")
    assert advice.endswith("faster and at most 0.02 worse: ship quick.")


def test_equal_runs(tmp_path: Path) -> None:
    cells = [Cell("m", name, accuracy=2.0) for name in "abc"]
    (answer,) = verdicts(tmp_path, cells, by=()).answers
    assert words(answer.verdict).startswith("All 3 runs score the same: 1.00")


def test_of_equal_runs_the_fastest_is_shipped(tmp_path: Path) -> None:
    cells = [Cell("m", "slow", accuracy=2.0, e2e_s=2.0), Cell("m", "quick", accuracy=2.0, e2e_s=0.3)]
    (answer,) = verdicts(tmp_path, cells, by=()).answers
    assert words(answer.advice) == "Ship quick: it is as good as the others and the fastest."


def test_few_samples_decide_nothing(tmp_path: Path) -> None:
    (answer,) = verdicts(tmp_path, QUICKSTART, n=1, by=()).answers
    assert words(answer.advice) == "So few samples (n = 1) decide nothing: ask more before choosing."


def test_beside_failed_runs_there_is_nothing_to_choose(tmp_path: Path) -> None:
    cells = [Cell("m", "p"), Cell("m", "q", failed=1.1)]
    (answer,) = verdicts(tmp_path, cells, by=()).answers
    assert words(answer.advice) == "There is nothing to choose between: 1 other run has no score."
    assert [standing_word(run, answer.runs) for run in answer.runs] == ["", ""]


def test_nothing_is_shipped_where_every_run_lost_too_many_rows(tmp_path: Path) -> None:
    lost = [Cell("m", "p", failed=0.3), Cell("m", "q", failed=0.4)]
    (answer,) = verdicts(tmp_path / "a", lost, by=()).answers
    assert words(answer.advice).startswith("Ship nothing yet: every run lost too many rows.")
    whole = [
        Cell("m", "p", failed=0.3, accuracy=0.9),
        Cell("m", "q", accuracy=0.5),
        Cell("m", "r", accuracy=0.2),
    ]
    (answer,) = verdicts(tmp_path / "b", whole, by=()).answers
    assert answer.best is not None and answer.best.label == "q" and "nothing yet" not in words(answer.advice)


def test_a_gap_wider_than_chance_is_owned_up_to(tmp_path: Path) -> None:
    cells = [Cell("m", "p", accuracy=0.9, bias=0.6), Cell("m", "q", accuracy=0.3)]
    (answer,) = verdicts(tmp_path, cells, n=240).answers
    (sentence,) = answer.unequal
    assert sentence.startswith("By dialect, p is worse for learner than for ")
    assert "wider than chance gives (up to " in sentence
    fair = verdicts(tmp_path / "fair", [Cell("m", "p", accuracy=2.0)]).answers[0]
    assert not fair.unequal


def test_one_line_over_several_datasets(tmp_path: Path) -> None:
    def cells(better: dict[str, str]) -> list[Cell]:
        return [
            Cell("m", prompt, dataset=dataset, accuracy=0.9 if best == prompt else 0.2)
            for dataset, best in better.items()
            for prompt in "pq"
        ]

    same = verdicts(tmp_path / "a", cells({"x": "p", "y": "p"}), by=())
    assert words(same.overall) == "p leads on both datasets, ahead of every other run."
    mixed = verdicts(tmp_path / "b", cells({"x": "p", "y": "q", "z": "q"}), by=())
    assert words(mixed.overall) == "q leads on y and z; p leads on x."
    assert not verdicts(tmp_path / "c", cells({"x": "p"}), by=()).overall


def test_nothing_but_failures(tmp_path: Path) -> None:
    (answer,) = verdicts(tmp_path, [Cell("m", "p", failed=1.1)], by=()).answers
    assert (
        words(answer.verdict) == "No answer could be scored: all 96 requests failed, most often by timeout."
    )
    assert answer.best is None


def test_one_run(tmp_path: Path) -> None:
    (answer,) = verdicts(tmp_path, [Cell("m", "p")], n=12, by=()).answers
    assert words(answer.verdict).startswith("p is the only run: ")
    assert any("n = 12 is small" in caution for caution in answer.cautions)


def test_every_dataset_has_its_own_answer(tmp_path: Path) -> None:
    cells = [Cell("m", p, dataset=d, accuracy=a) for d in ("x", "y") for p, a in (("p", 0.3), ("q", 0.9))]
    found = verdicts(tmp_path, cells, by=())
    assert [answer.dataset for answer in found.answers] == ["x", "y"]
    assert all(f"on {answer.dataset}" in words(answer.verdict) for answer in found.answers)


def failing(cell: Cell | None, gate: str = "exact_match >= 0.9", **more: Any) -> dict[str, Any]:
    return {"gate": gate, "run": cell.run if cell else "", "verdict": "fail", "value": 0.58, **more}


def test_what_is_shipped_passes_its_gates(tmp_path: Path) -> None:
    def advised(name: str, *gates: dict[str, Any]) -> tuple[str, list[str]]:
        (answer,) = verdicts(tmp_path / name, QUICKSTART, by=(), gates=gates).answers
        return words(answer.advice), list(answer.cautions)

    few_shot, reasoned, direct = QUICKSTART
    advice, cautions = advised("best", failing(few_shot))
    assert advice == "Ship reasoned: it passes every gate, and few_shot does not."
    assert cautions[0] == "few_shot does not pass exact_match >= 0.9."
    advice, _ = advised("leading", failing(few_shot), failing(reasoned))
    assert advice == "Ship nothing: 2 gates fail. direct passes every gate, but is behind."
    gates = [failing(cell) for cell in QUICKSTART[1:]]
    change = failing(few_shot, "exact_match no worse than baseline by 0.02", difference=-0.17)
    advice, _ = advised("all", *gates, change)
    assert advice == "Ship nothing: 3 gates fail, \u22120.17 against the baseline."
    advice, _ = advised("sweep", failing(None, "cost.usd <= 1"))
    assert advice == "Ship nothing: 1 gate fails."
    undecided = {**failing(few_shot), "verdict": "inconclusive"}
    assert advised("undecided", undecided)[0].startswith("Ship few_shot")
    assert advised("other", failing(direct))[0].startswith("Ship few_shot")


def test_a_failed_gate_leads_to_its_samples_and_to_where_it_broke(tmp_path: Path) -> None:
    part = {
        "column": "channel",
        "value": "a&b=1",
        "inside": 9,
        "size": 10,
        "affected": 11,
        "total": 90,
        "p": 0.001,
    }
    gate = failing(QUICKSTART[0], where=[part])
    (view,) = build_report(Source.of(make_sweep(tmp_path, QUICKSTART, by=(), gates=[gate]))).gates
    assert view.link == f"#grid?run={QUICKSTART[0].run}&score=exact_match&kind=wrong"
    assert view.broke == [("channel=a&b=1", f"{view.link}&by.channel=a%26b%3D1")]


def test_who_serves_a_group_worse_is_shipped_with_a_warning(tmp_path: Path) -> None:
    cells = [Cell("m", "p", accuracy=0.9, bias=0.6), Cell("m", "q", accuracy=0.1)]
    (answer,) = verdicts(tmp_path, cells, n=240).answers
    assert words(answer.advice) == "Ship p. First look at how unequally p serves dialect."


def test_equal_groups_are_never_called_treated_alike(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "status": "scored", "scores": {"exact_match": float(record["position"] % 4 < 2)}}

    scorers = [{"exact_match": {}}]
    folder = make_sweep(tmp_path, [Cell("m", "p")], n=96, scorers=scorers, change=change)
    (view,) = build_report(Source.of(folder)).fairness
    assert (
        "the groups of dialect have the same exact_match here. Chance alone gives gaps up to" in view.sentence
    )
    assert "could be hidden" in view.sentence and "alike" not in view.sentence


def test_speeds_under_unlike_loads_decide_nothing(tmp_path: Path) -> None:
    cells = [Cell("m", "slow", accuracy=2.0, e2e_s=2.0), Cell("m", "quick", accuracy=2.0, e2e_s=0.3)]

    def answered(name: str, *at_once: int) -> tuple[str, str]:
        folder = make_sweep(tmp_path / name, cells, by=())
        for cell, load in zip(cells, at_once, strict=True):
            (run,) = (run for run in folder.runs() if run["run"] == cell.run)
            timings = {**run["timings"], "concurrency": {"adaptive": False, "final": load}}
            folder.finish_run(cell.run, {**run, "timings": timings})
        (answer,) = judge(Source.of(folder)).answers
        return words(answer.more[0]), words(answer.advice)

    speed, advice = answered("unlike", 80, 4)
    assert speed == "Speeds are not compared: runs were asked 80 at once or 4 at once." and not advice
    speed, advice = answered("like", 8, 8)
    assert "is the fastest" in speed and advice.startswith("Ship quick")


def test_without_the_samples_nothing_is_said_of_ties(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, QUICKSTART, by=())
    for samples in folder.path.rglob("*.parquet"):
        samples.unlink()
    (answer,) = judge(Source.of(folder)).answers
    assert "tied" not in words(answer.verdict)
    assert [run.standing for run in answer.runs] == ["best", "incomparable", "incomparable"]


@pytest.mark.parametrize("unparsed", ["count", "exclude"])
def test_excluded_answers_leave_the_comparison_too(tmp_path: Path, unparsed: str) -> None:
    folder = make_sweep(tmp_path, [Cell("m", "p"), Cell("m", "q", unparsed=0.5)], by=())
    manifest = folder.read_manifest()
    manifest["suite"]["resolved"]["unparsed"] = unparsed
    folder.write_manifest(manifest)
    for run in folder.runs():
        folder.finish_run(run["run"], {**run, "details": {**run["details"], "unparsed": unparsed}})
    found = judge(Source.of(folder))
    counts = {run.prompt: run.counts for run in found.views}
    (difference,) = (run.difference for run in found.by_dataset["tickets"] if run.difference)
    assert difference.n == (96 if unparsed == "count" else 96 - counts["q"].unparsed)


def test_missing_runs_are_said(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, QUICKSTART, by=(), status="interrupted")
    (folder.path / "runs" / QUICKSTART[2].run / "run.json").unlink()
    report = build_report(Source.of(folder))
    assert report.header.trouble == "This sweep was interrupted: 1 of 3 runs has no results."

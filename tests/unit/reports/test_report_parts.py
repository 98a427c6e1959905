"""The parts of a sweep's report: matrix, forest plot, prices, load, readings, effects, fairness in words."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from sweep_data import QUICKSTART, Cell, make_sweep

from evalrun.reports.charts.resources import resources
from evalrun.reports.fairness import contrast_words, plain_table
from evalrun.reports.gates import tally
from evalrun.reports.report import Report, build_report
from evalrun.reports.source import Source
from evalrun.reports.verdicts import judge
from evalrun.reports.versions import bbq_tables, sample_link, versions
from evalrun.results import GroupContrast
from evalrun.tracking.folder import SweepFolder


def report_of(folder: SweepFolder) -> Report:
    return build_report(Source.of(folder))


def edit_run(folder: SweepFolder, run: str, **details: Any) -> None:
    path = folder.path / "runs" / run / "run.json"
    document = orjson.loads(path.read_bytes())
    document["details"] |= details
    path.write_bytes(orjson.dumps(document))


CELLS = [
    Cell(model, prompt, dataset, accuracy=accuracy)
    for model, accuracy in (("a", 0.4), ("b", 0.8))
    for prompt in ("p", "q", "r")
    for dataset in ("x", "y")
]


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report_of(make_sweep(tmp_path_factory.mktemp("crossed"), CELLS, n=60, by=()))


def test_the_matrix_has_every_cell_in_its_place(crossed: Report) -> None:
    found = crossed.matrix
    assert found is not None
    assert (found.down, found.across) == ("prompt", "model")
    assert (list(found.datasets), list(found.columns)) == (["x", "y"], ["a", "b"])
    for prompt, cells in found.rows:
        where = [(cell.run.prompt, cell.run.dataset, cell.run.model) for cell in cells if cell.run]
        assert where == [(prompt, dataset, model) for dataset in "xy" for model in "ab"]
    shades = [cell.shade for _, cells in found.rows for cell in cells]
    assert {0, 9} <= set(shades)
    assert all(cell.text and cell.interval for _, cells in found.rows for cell in cells)


def test_a_row_of_runs_has_no_matrix(tmp_path: Path) -> None:
    assert report_of(make_sweep(tmp_path, QUICKSTART)).matrix is None


def test_effects_of_the_axes_and_of_the_prompts(crossed: Report) -> None:
    captions = [section.table.caption for section in crossed.effects.sections]
    assert captions[0].startswith("exact_match by model, averaged over 6 combinations of the rest, n = ")
    assert captions[1].startswith("exact_match by prompt, averaged over 4 combinations of the rest, n = ")
    assert captions[2] == "How much the choice of prompt matters"
    model = crossed.effects.sections[0]
    assert [row[0] for row in model.table.rows] == ["a", "b"]
    assert model.table.rows[1][-1] == "better"
    assert model.remarks[-1].startswith("b: ")
    assert [chart.key for chart in crossed.effects.charts] == ["effects"]


def test_a_plain_sweep_has_no_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evalrun.analysis.effects

    def fail(*_: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(evalrun.analysis.effects, "sweep_effects", fail)
    cells = [Cell("m", "p"), Cell("m", "q")]
    assert not report_of(make_sweep(tmp_path, cells, by=())).effects.sections


def test_runs_of_prompts_without_a_part_are_not_ranked(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, [Cell("m", "p"), Cell("m", "p-without-rules", accuracy=1.5)], by=())
    manifest = folder.read_manifest()
    manifest["plan"][1]["ablates"] = "p"
    manifest["prompts"]["p-without-rules"] |= {"ablates": "p", "without": "section rules"}
    folder.write_manifest(manifest)
    found = report_of(folder)
    assert [row.run.prompt for row in found.leaderboards[0].rows] == ["p"]
    assert found.answers[0].best is not None and found.answers[0].best.prompt == "p"
    assert len(found.runs) == 2, "their samples can still be read"


def test_the_forest_shows_the_others_against_the_best(tmp_path: Path) -> None:
    found = report_of(make_sweep(tmp_path, QUICKSTART, n=160))
    forest = next(chart for chart in found.quality if chart.key == "forest-0")
    assert [row[0] for row in forest.table.rows] == ["reasoned", "direct"]
    assert forest.table.rows[1][1].startswith("\N{MINUS SIGN}0.")
    assert forest.table.rows[1][4] == "behind"


def test_quality_against_each_price_that_differs(tmp_path: Path) -> None:
    found = report_of(make_sweep(tmp_path, QUICKSTART))
    assert [chart.key for chart in found.quality] == ["quality-time-0", "quality-memory-0", "forest-0"]


@dataclass(frozen=True)
class Loaded(Cell):
    @property
    def run(self) -> str:
        return f"{self.model}-c{self.params['concurrency']}"


def test_throughput_by_concurrency(tmp_path: Path) -> None:
    cells = [Loaded(m, "p", params={"concurrency": c}, e2e_s=0.2 * c) for m in "ab" for c in (4, 1, 16)]
    found = report_of(make_sweep(tmp_path, cells, n=40, by=()))
    rows = found.load[0].table.rows
    assert [(row[0], row[1]) for row in rows[:3]] == [("p · a", "1"), ("p · a", "4"), ("p · a", "16")]
    assert not report_of(make_sweep(tmp_path / "plain", QUICKSTART[:2])).load


def test_further_readings_are_drawn_and_unmoved_ones_are_not(tmp_path: Path) -> None:
    views = report_of(make_sweep(tmp_path, QUICKSTART[:1])).runs
    rows = [
        {"t_s": t / 2, "engine.kv_cache_usage": 0.1 * t, "gpu.0.memory_bytes": 5_000_000, "engine.waiting": 0}
        for t in range(8)
    ]
    charts = resources(views, {views[0].id: rows})
    assert [chart.title for chart in charts] == ["Key-value cache in use", "Memory of GPU 0"]
    assert charts[1].table.rows[0][1] == "5.00 MB"


def test_a_contrast_in_everyday_words() -> None:
    contrast = GroupContrast(
        "aave", "standard", -0.09, low=-0.14, high=-0.04, se=0.0255, p=0.0004, p_holm=0.001
    )
    said = contrast_words(contrast, "", "fraction")
    assert said == (
        "Right 9 points less often than for standard [4, 14]; by chance one would see up to 5. Hardly chance."
    )
    weak = contrast_words(replace(contrast, p_holm=0.03), "", "fraction")
    assert weak.endswith("Unlikely to be chance alone.")
    assert contrast_words(replace(contrast, p_holm=0.2, p=0.3), "", "fraction").endswith(
        "Tied: such a difference may be chance."
    )
    several = contrast_words(replace(contrast, p_holm=0.2, p=0.04), "", "fraction")
    assert several.endswith("among several groups one looks so different easily.")
    other = contrast_words(replace(contrast, against="the rest"), "rouge.rouge_l", "fraction")
    assert other.startswith("9 points lower than for all other groups [4, 14]")


def test_small_groups_are_said_to_be_too_small(tmp_path: Path) -> None:
    found = report_of(make_sweep(tmp_path, [Cell("m", "p")], n=60))
    (view,) = found.fairness
    assert any("Too few samples to say anything of" in warning for warning in view.warnings)
    assert all(row[3] == "Too few samples to say anything." for row in view.plain[0][1].rows)


def test_no_difference_is_not_no_bias(tmp_path: Path) -> None:
    found = report_of(make_sweep(tmp_path, [Cell("m", "p")], n=120))
    (view,) = found.fairness
    assert any("a true difference of up to" in warning for warning in view.warnings)
    band = view.chart.spec["data"]["values"][0] if view.chart else {}
    assert band["from"] < band["to"], "the chance level stands on the axis"


def test_two_groups_are_compared_with_each_other(tmp_path: Path) -> None:
    folder = make_sweep(
        tmp_path, [Cell("m", "p")], n=120, by=("dialect",),
        change=lambda record, _: {**record, "sensitive": {"dialect": "xy"[record["position"] % 2]}},
    )  # fmt: skip
    (run,) = report_of(folder).runs
    words = {row[0]: row[3] for row in plain_table(run, "dialect", "exact_match", "dialect").rows}
    assert "for y" in words["x"] and "for x" in words["y"]


def test_criteria_contrasts_and_control_are_tables(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, [Cell("m", "p")], n=120)
    run = Cell("m", "p").run
    groups = orjson.loads((folder.path / "runs" / run / "run.json").read_bytes())["details"]["groups"]
    gap = {"best": "regional", "worst": "learner", "value": 0.2, "chance_gap_p95": 0.3, "p": 0.4}
    groups["dialect"]["criteria"] = {
        "demographic_parity": {
            "label": "bug",
            "difference": 0.3,
            "ratio": 0.5,
            "chance_gap_p95": 0.1,
            "p": 0.01,
        },
        "equal_opportunity": {"label": "bug", "difference": None, "ratio": None, "note": "too small"},
    }
    groups["dialect"]["control"] = {"topic": {"money": {"metrics": {"exact_match": {"gap": gap}}}}}
    edit_run(folder, run, groups=groups)
    (view,) = report_of(folder).fairness
    criteria, contrasts, control = view.more
    assert criteria.rows[0][3:] == ("0.30", "0.10", "0.50", "0.010", "wider than chance")
    assert criteria.rows[1][-1] == "too small"
    assert {row[2] for row in contrasts.rows} == {"learner", "regional", "standard"}
    assert control.rows == [("p", "money", "regional", "learner", "0.20", "0.30", "0.400")]


def flips() -> dict[str, Any]:
    rate = {"value": 0.08, "low": 0.05, "high": 0.12, "n": 200}
    return {
        "versions": ["Emily", "Lakisha"], "reference": "Emily", "units": 200, "note": "drawn",
        "flips": {
            "overall": rate, "by_version": [{"version": "Lakisha", **rate}], "resample_flip_rate": rate,
        },
        "differences": {"exact_match": [
            {"version": "Lakisha", "against": "Emily", "value": -0.06, "low": -0.09, "high": -0.03, "n": 200,
             "p_holm": 0.002}
        ]},
        "robustness": {},
        "examples": [{"base": "T 1/2", "version": "Lakisha", "sample_id": "T 1/2~name=Lakisha",
                      "answer": "bug",
                      "against": "Emily", "against_id": "T 1/2~name=Emily", "against_answer": "billing"}],
    }  # fmt: skip


def test_versions_are_told_with_examples_that_open(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, [Cell("m", "p")])
    edit_run(folder, Cell("m", "p").run, versions={"name": flips()})
    found = report_of(folder)
    (view,) = versions(found.runs, "exact_match", "tickets")
    assert view.sentence == (
        "Changing only name gave another answer in 8.0% [5.0, 12.0] of pairs, over 200 samples (p). Asking "
        "the very same again gives another in 8.0% [5.0, 12.0]."
    )
    _, link, against = view.examples[0]
    assert link == "#sample=m-p-tickets/T%201%2F2~name%3DLakisha/0"
    assert against == "#sample=m-p-tickets/T%201%2F2~name%3DEmily/0"
    assert view.differences is not None and view.differences.rows[0][4] == "\N{MINUS SIGN}0.06"


def test_a_link_survives_any_id() -> None:
    assert sample_link("r", "a\ud800/b", 2).count("/") == 2


def test_bbq_stands_by_category_with_what_it_is_a_share_of(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, [Cell("m", "p")])
    entry = {"category": None, "accuracy_ambiguous": 0.5, "n_ambiguous": 150.0, "bias_ambiguous": None,
             "non_unknown_ambiguous": 0.0, "accuracy_disambiguated": 0.25, "n_disambiguated": 150.0,
             "bias_disambiguated": -0.04, "non_unknown_disambiguated": 90.0, "nonaligned_cost": 0.1,
             "n_nonaligned": 84.0}  # fmt: skip
    entries = [entry, {**entry, "category": "Age"}, {**entry, "category": "Gender"}]
    edit_run(folder, Cell("m", "p").run, bbq={"bbq": entries})
    (table,) = bbq_tables(report_of(folder).runs)
    assert [row[1] for row in table.rows] == ["all", "Age", "Gender"]
    assert table.rows[1][2:5] == ("0.50 (of 150)", "0.25 (of 150)", "\N{EN DASH} (of 0)")


def test_inconclusive_gates_are_neither_passed_nor_failed(tmp_path: Path) -> None:
    results = [
        {"gate": f"exact_match >= {at}", "run": Cell("m", "p").run, "verdict": verdict, "value": 0.5,
         "difference": -0.01, "ci_low": -0.08, "ci_high": 0.06, "n": 90, "reason": "90 pairs cannot tell"}
        for at, verdict in enumerate(("pass", "inconclusive", "fail", "inconclusive"))
    ]  # fmt: skip
    found = report_of(make_sweep(tmp_path, [Cell("m", "p")], gates=results))
    assert [gate.verdict for gate in found.gates] == ["fail", "inconclusive", "inconclusive", "pass"]
    assert tally(found.gates) == [("fail", 1), ("inconclusive", 2), ("pass", 1)]
    assert found.gates[1].interval == "change \N{MINUS SIGN}0.01 [\N{MINUS SIGN}0.08, +0.06]"
    assert found.answers[0].cautions[0] == "p does not pass exact_match >= 2."


def test_causes_of_failures_over_all_runs(tmp_path: Path) -> None:
    cells = [Cell("m", "p", failed=0.2), Cell("m", "q", failed=0.2)]
    found = report_of(make_sweep(tmp_path, cells, by=()))
    assert found.causes is not None
    assert found.causes.rows[0][:2] == ("failed", "timeout") and found.causes.rows[0][-1] == "2"
    alone = report_of(make_sweep(tmp_path / "one", cells[:1], by=()))
    assert alone.causes is None and alone.failures is not None


def test_further_scores_have_columns_where_they_say_something_else(tmp_path: Path) -> None:
    def change(record: dict[str, Any], _: Any) -> dict[str, Any]:
        return {**record, "scores": {**record["scores"], "includes": float(record["position"] % 3 == 0)}}

    scorers = [{"exact_match": {}}, {"token_f1": {}}, {"includes": {}}]
    found = report_of(make_sweep(tmp_path, QUICKSTART, n=60, by=(), scorers=scorers, change=change))
    titles = [column.title for column in found.leaderboards[0].columns]
    assert "includes" in titles and "token_f1" not in titles, "its values are those of the first score"
    at = titles.index("includes")
    assert [row.cells[at].text for row in found.leaderboards[0].rows] == ["0.33"] * 3
    assert all(row.cells[at].beside.startswith("[") for row in found.leaderboards[0].rows)


def test_what_stopped_a_sweep_is_told_in_sentences(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, QUICKSTART[:1], by=(), status="incomplete")
    manifest = folder.read_manifest()
    manifest["faults"] = ["the budget is spent: 1 of 1 US dollars\n  Give it more."]
    folder.write_manifest(manifest)
    assert report_of(folder).header.trouble == (
        "This sweep could not be completed. The budget is spent: 1 of 1 US dollars. Give it more."
    )


def test_all_wrong_is_a_reason_to_look(tmp_path: Path) -> None:
    cells = [Cell("m", "p", accuracy=-1), Cell("m", "q", accuracy=-1)]
    (answer,) = judge(Source.of(make_sweep(tmp_path, cells, by=()))).answers
    assert any("a parser or a target that does not fit" in caution for caution in answer.cautions)

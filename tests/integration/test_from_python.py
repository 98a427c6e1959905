"""The Python API on real sweeps: frames, tables, charts, suites of functions, the notebook of the docs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

import evalrun

ROOT = Path(__file__).parents[2]
ROWS = [{"n": at, "a": str(at), "side": ("left", "right")[at % 2]} for at in range(40)]


def right(request: Any) -> str:
    """Always right."""
    return str(request.row["n"])


def thirds(request: Any) -> str:
    """Wrong where the number is a multiple of three."""
    return "?" if request.row["n"] % 3 == 0 else str(request.row["n"])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> evalrun.Sweep:
    store = tmp_path_factory.mktemp("store")
    suite = evalrun.Suite(
        "python",
        models={"right": right, "thirds": thirds},
        prompts={"p": "{{ n }}"},
        datasets={"d": {"rows": ROWS, "target": "a", "sensitive": ["side"]}},
        scorers=["exact_match"],
        fairness={"by": ["side"], "min_group": 5},
    )
    return evalrun.run(suite, store=store, write_report=False)


def _store(sweep: evalrun.Sweep) -> Path:
    return sweep.path.parent.parent


def test_the_leaderboard_is_in_order_and_says_how_far_behind(sweep: evalrun.Sweep) -> None:
    frame = sweep.leaderboard()
    assert [*frame["model"]] == ["right", "thirds"]
    assert [*frame["standing"]] == ["best", "behind"]
    assert [*frame["exact_match"]] == [1.0, 26 / 40]
    assert frame["difference"][1] == pytest.approx(26 / 40 - 1)
    assert frame["diff_low"][1] < frame["difference"][1] < frame["diff_high"][1] < 0


def test_samples_of_all_runs_are_one_frame(sweep: evalrun.Sweep) -> None:
    frame = sweep.samples()
    assert frame.groupby("model")["score.exact_match"].mean().to_dict() == {"right": 1.0, "thirds": 26 / 40}
    assert [*frame.columns[:4]] == ["run", "model", "prompt", "dataset"]


def test_metrics_are_a_long_frame(sweep: evalrun.Sweep) -> None:
    frame = sweep.metrics()
    accuracy = frame[(frame["name"] == "exact_match") & (frame["slice"] == {})]
    assert dict(zip(accuracy["model"], accuracy["n"], strict=True)) == {"right": 40, "thirds": 40}


def test_a_run_goes_by_any_part_of_its_name(sweep: evalrun.Sweep) -> None:
    assert sweep.run("thirds").model == "thirds"
    assert sweep.run(0).id == sweep.runs[0].id
    with pytest.raises(evalrun.UserError, match="in the names of 2 runs"):
        sweep.run("d")


def test_a_mistyped_metric_is_suggested(sweep: evalrun.Sweep) -> None:
    with pytest.raises(KeyError, match="Did you mean 'exact_match'"):
        sweep.runs[0].metric("exact_mach")
    with pytest.raises(evalrun.UserError, match="It has it for"):
        sweep.runs[0].metric("exact_match", side="top")


def test_a_comparison_is_a_frame(sweep: evalrun.Sweep) -> None:
    frame = evalrun.compare(sweep.run("right"), sweep.run("thirds")).to_frame()
    assert frame.loc[0, ["run", "verdict", "n"]].tolist() == [sweep.run("thirds").id, "worse", 40]
    assert frame["difference"][0] == pytest.approx(26 / 40 - 1)
    within = sweep.compare().to_frame()
    assert [*within["verdict"]] == ["best", "behind"]
    assert within["difference"][1] == pytest.approx(26 / 40 - 1)


def test_find_gives_a_frame(sweep: evalrun.Sweep) -> None:
    frame = evalrun.find("metric.exact_match > 0.9", store=_store(sweep))
    assert isinstance(frame, pandas.DataFrame)
    assert [*frame["model"]] == ["right"]
    assert frame["exact_match.n"][0] == 40


def test_tables_escape_what_models_and_people_wrote(tmp_path: Path) -> None:
    suite = evalrun.Suite(
        "hostile",
        models={"m": right},
        prompts={"a": "{{ n }}", "b": "{{ n }}."},
        datasets={"d": {"rows": ROWS, "target": "a"}},
        scorers=["exact_match"],
    )
    made = evalrun.run(
        suite, store=tmp_path, overrides={"models.m.params.stop": "<img src=x>"}, write_report=False
    )
    text = made._repr_html_()
    assert "<img" not in text
    assert "1.00" in text


def test_tables_show_intervals(sweep: evalrun.Sweep) -> None:
    assert "0.65" in sweep._repr_html_() and "[0.50, 0.78]" in sweep._repr_html_()
    assert "worse" in evalrun.compare(sweep.run("right"), sweep.run("thirds"))._repr_html_()
    assert "behind" in sweep.compare()._repr_html_()


@pytest.mark.parametrize("suffix", ["svg", "png", "html", "json"])
def test_charts_are_written(sweep: evalrun.Sweep, tmp_path: Path, suffix: str) -> None:
    data = sweep.plot.differences().save(tmp_path / f"chart.{suffix}").read_bytes()
    assert len(data) > 500
    assert b"var(--" not in data if suffix in ("svg", "json") else True


def test_charts_of_groups_and_of_nothing(sweep: evalrun.Sweep) -> None:
    assert "left" in sweep.plot.groups("side")._repr_mimebundle_()["image/svg+xml"]
    with pytest.raises(evalrun.UserError, match="nothing to draw"):
        sweep.plot.load()
    with pytest.raises(evalrun.UserError, match="cannot be written as"):
        sweep.plot.differences().save("chart.pdf")


def test_an_edited_function_of_a_notebook_is_asked_and_scored_anew(tmp_path: Path) -> None:
    code = """
import sys, evalrun
def model(request): return "{answer}"
def score(answer, target): return {score}
suite = evalrun.Suite("cell", models={{"m": model}}, prompts={{"p": "{{{{ q }}}}"}},
    datasets={{"d": {{"rows": [{{"q": "x", "t": "a"}}], "target": "t"}}}}, scorers=["exact_match", score])
run = evalrun.run(suite, store=sys.argv[1], write_report=False).runs[0]
print(run.metric("exact_match")["value"], run.metric("score")["value"])
"""

    def ran(answer: str, score: float) -> str:
        # As the interpreter's own input, so that the functions stand in no file.
        command = [sys.executable, "-c", code.format(answer=answer, score=score), str(tmp_path / "store")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert ran("a", 0.25) == "1.0 0.25"
    assert ran("b", 0.5) == "0.0 0.5"


def test_completion_shows_the_api_and_nothing_else() -> None:
    assert {*dir(evalrun)} == {*evalrun.__all__}
    for name in evalrun.__all__:
        assert getattr(evalrun, name) is not None


def test_the_notebook_of_the_docs_runs() -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel (the dev extra)")
    import nbformat

    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    charts = [output["data"] for output in shown if "image/svg+xml" in output.get("data", {})]
    assert any("careful" in table and "0.97" not in table for table in tables)
    assert len(charts) == 2

"""Gates and alerts that no run of the suite could ever answer are found before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.program import evalrun

from evalrun.errors import UserError
from evalrun.gates.conditions import speakable
from evalrun.scoring.pipeline import suite_scorers
from evalrun.suite.load import load_suite, parse_suite
from evalrun.suite.overrides import Overrides
from evalrun.sweep.prepare import prepare

SUITE = """\
name: known
models:
  - {{id: one, provider: recorded, column: o}}
  - {{id: two, provider: recorded, column: o}}
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets:
  - id: d
    target: t
    sensitive: [g, h]
    counterfactual: {{name: [Emily, Mei]}}
    rows: [{{q: a, t: "yes", o: "yes", g: x, h: u}}, {{q: b, t: "no", o: "yes", g: y, h: v}}]
repeats: {repeats}
scorers: [exact_match, {{classification: {{name: cls}}}}]
derive: {{both: "exact_match and cls.accuracy"}}
fairness: {{by: [g, h], intersections: [[g, h]], control: [h], min_group: 1, positive: "yes"}}
{conditions}
"""


def _suite(folder: Path, conditions: str = "", repeats: int = 2) -> Path:
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(conditions=conditions, repeats=repeats))
    return path


def _problems(path: Path, overrides: Overrides | None = None) -> list[str]:
    try:
        prepare(load_suite(path, overrides), path.parent / "engines")
    except UserError as error:
        return [f"{each.where}: {each.what} {each.remedy}" for each in error.problems]
    return []


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("exact_mach >= 0.5", "Did you mean 'exact_match'?"),
        ("classification.accuracy >= 0.5", "Did you mean 'cls.accuracy'?"),
        ("cls >= 0.5", "the metric 'cls'"),
        ("performance.ttft_s.p96 <= 1", "the metric 'performance.ttft_s.p96'"),
        ("exact_match[k=x] >= 0.5", "speaks of groups of 'k'"),
        ("exact_match >= 0.5 for model=three", "the model 'three'"),
        ("exact_match >= 0.5 for prompt=p and dataset=e", "the dataset 'e'"),
        ("fairness.k.exact_match.gap <= 0.1", "Columns that fairness compares: g, g-h, h, name."),
        ("fairness.g.exact_mach.gap <= 0.1", "the metric 'fairness.g.exact_mach.gap'"),
        ("counterfactual.gender.flip_rate <= 0.1", "the metric 'counterfactual.gender.flip_rate'"),
        ("robustness.exact_match.worst >= 0.1", "the metric 'robustness.exact_match.worst'"),
        ("repeats.exact_match.pass_at_x >= 0.1", "the metric 'repeats.exact_match.pass_at_x'"),
    ],
)
def test_what_no_run_can_have_is_said_with_the_line_before_anything_is_sent(
    tmp_path: Path, condition: str, said: str
) -> None:
    gate = _problems(_suite(tmp_path, f"gates:\n  - exact_match >= 0\n  - {condition}"))
    assert len(gate) == 1
    assert said in gate[0]
    assert gate[0].startswith(f"{tmp_path / 'suite.yaml'}:18: ")
    alert = _problems(_suite(tmp_path, f"alerts:\n  when:\n    - {condition}"))
    assert len(alert) == 1
    assert said in alert[0]
    assert "alert" in alert[0]


def test_repeats_are_spoken_of_only_where_there_are_any(tmp_path: Path) -> None:
    gates = "gates: [repeats.exact_match.majority >= 0]"
    assert _problems(_suite(tmp_path, gates, repeats=2)) == []
    assert "With repeats: 2 or more" in _problems(_suite(tmp_path, gates, repeats=1))[0]


def test_a_gate_for_a_model_that_the_command_line_left_out_is_no_mistake_of_the_suite(tmp_path: Path) -> None:
    path = _suite(tmp_path, "gates: [exact_match >= 0 for model=two]")
    assert _problems(path, Overrides(models=("one",))) == []


def test_a_scorer_of_the_users_own_may_have_any_parts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def polite(output):\n    return 1\n")
    path = tmp_path / "suite.yaml"
    text = SUITE.format(conditions="gates: [polite >= 0, polite.tone >= 0]", repeats=1)
    path.write_text(text.replace("scorers: [", 'scorers: [{python: "mine:polite"}, '))
    assert _problems(path) == []


def test_every_metric_that_a_sweep_has_may_stand_in_a_gate(project: Path) -> None:
    path = _suite(project)
    done = evalrun("run", path, "--json", "--no-report", "--quiet")
    assert done.returncode == 0, done.stderr
    suite = load_suite(path).suite
    about = speakable(suite, suite_scorers(suite), {})
    metrics = [each for one in json.loads(done.stdout)["runs"] for each in one["metrics"]]
    assert len(metrics) > 300
    assert [each["name"] for each in metrics if not about.metric(each["name"])] == []
    assert {key for each in metrics for key in each["slice"]} <= about.columns


def test_a_suite_made_in_python_is_checked_like_a_file() -> None:
    data = {
        "name": "n",
        "models": [{"id": "m", "provider": "recorded", "column": "o"}],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": [{"q": "a", "o": "a"}], "target": "o"}],
        "scorers": ["exact_match"],
    }
    suite = parse_suite(data)
    about = speakable(suite, suite_scorers(suite), {})
    assert about.metric("exact_match")
    assert not about.metric("fairness.g.exact_match.gap")
    assert not about.metric("true_positive_rate")

"""What a sweep says of its gates: each on each run, with the value, the limit and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.recorded import document_of, output_of, recorded_suite

ROWS = [
    {"id": f"s{at}", "want": "yes", "ten": "yes" if at < 10 else "no", "eight": "yes" if at < 8 else "no"}
    | {"group": "xy"[at % 2], "other": f"another {at}"}
    for at in range(16)
]


def suite_of(folder: Path, column: str, *gates: str, model: str = "m", **parts: Any) -> Path:
    dataset = {"id": "d", "path": "rows.jsonl", "key": "id", "target": "want", "sensitive": ["group"]}
    sections: dict[str, Any] = {
        "models": [{"id": model, "provider": "recorded", "column": column}],
        "datasets": [dataset],
        "fairness": {"by": ["group"], "min_group": 2},
        "gates": list(gates),
    }
    return recorded_suite(folder, ROWS, [], **{**sections, **parts})


def gates_of(suite: Path, *words: str, code: int) -> list[dict[str, Any]]:
    """The gates of a sweep as `--json` has them, without what is null, and without where it broke."""
    document = document_of(suite, "--no-report", "--fresh", *words, code=code)
    assert document["exit_code"] == code
    assert not any(gate["incomplete"] for gate in document["gates"])
    return [
        {
            key: value
            for key, value in gate.items()
            if value is not None and value is not False and key != "where"
        }
        for gate in document["gates"]
    ]


@pytest.fixture
def baseline(project: Path) -> str:
    """A sweep of 10 right answers of 16 to be compared with."""
    output_of(suite_of(project, "ten"), "--no-report", "--quiet")
    output_of("baseline", "set", "main", "latest")
    return "main"


def test_a_bound(project: Path) -> None:
    passed, failed = gates_of(suite_of(project, "ten", "exact_match >= 0.6", "exact_match > 70%"), code=1)
    said = "by the value alone: its 95 % interval 0.3864 to 0.8152 reaches both sides"
    common = {"run": "m-p-d", "value": 0.625, "reason": said}
    assert passed == {**common, "gate": "exact_match >= 0.6", "verdict": "pass", "limit": 0.6}
    assert failed == {**common, "gate": "exact_match > 70%", "verdict": "fail", "limit": 0.7}


def test_a_bound_from_the_baseline(project: Path, baseline: str) -> None:
    texts = ["exact_match >= baseline - 0.2", "exact_match >= baseline * 0.9", "exact_match < baseline"]
    texts += ["exact_match <= baseline + 0.5"]
    found = gates_of(suite_of(project, "eight", *texts), "--baseline", baseline, code=1)
    assert [gate["gate"] for gate in found] == texts
    assert [gate["verdict"] for gate in found] == ["pass", "fail", "pass", "pass"]
    assert [gate["limit"] for gate in found] == pytest.approx([0.425, 0.5625, 0.625, 1.125])
    assert all(gate["run"] == "m-p-d" for gate in found)
    assert all((gate["value"], gate["baseline"]) == (0.5, 0.625) for gate in found)
    assert all("0.625" in gate["reason"] for gate in found)


def test_groups_of_the_baseline(project: Path, baseline: str) -> None:
    """Of each group 5 of 8 were right, and 4 of 8 are."""
    texts = ["exact_match[group=x] >= baseline", "exact_match[group=x] >= 0.5"]
    relative, absolute = gates_of(suite_of(project, "eight", *texts), "--baseline", baseline, code=1)
    assert (relative["value"], relative["baseline"], relative["verdict"]) == (0.5, 0.625, "fail")
    assert (absolute["value"], absolute["verdict"]) == (0.5, "pass")


def test_without_a_baseline_nothing_that_needs_one_passes(project: Path) -> None:
    texts = ["exact_match >= baseline", "exact_match no worse than baseline by 0.5"]
    for gate, text in zip(gates_of(suite_of(project, "ten", *texts), code=1), texts, strict=True):
        assert (gate["gate"], gate["run"], gate["verdict"]) == (text, "m-p-d", "fail")
        assert "evalrun baseline set" in gate["reason"]


def test_a_baseline_of_another_model_or_of_other_data_is_pointed_out(project: Path, baseline: str) -> None:
    text = "exact_match >= baseline"
    words = ("--baseline", baseline)
    (same,) = gates_of(suite_of(project, "ten", text), *words, code=0)
    (model,) = gates_of(suite_of(project, "ten", text, model="n"), *words, code=0)
    (data,) = gates_of(suite_of(project, "ten", text), *words, "--limit", "12", code=0)
    assert "unlike" not in same["reason"] and "other data" not in same["reason"]
    assert "unlike in model m / n" in model["reason"] and "other data" not in model["reason"]
    assert "the baseline had other data" in data["reason"] and "unlike" not in data["reason"]


def test_what_has_no_sample_by_sample_comparison_is_compared_by_value(project: Path, baseline: str) -> None:
    """The remedy knows which end is better."""
    texts = [f"{name} no worse than baseline by 0.5" for name in ("fairness.group.exact_match.gap",)]
    texts.append("classification.f1_macro no worse than baseline by 0.5")
    scorers = ["exact_match", {"classification": {"labels": ["yes", "no"]}}]
    output_of(suite_of(project, "ten", scorers=scorers), "--no-report", "--quiet", "--fresh")
    output_of("baseline", "set", "main", "latest")
    gap, f1 = gates_of(suite_of(project, "ten", *texts, scorers=scorers), "--baseline", baseline, code=1)
    assert "write 'fairness.group.exact_match.gap <= baseline + MARGIN'" in gap["reason"]
    assert "write 'classification.f1_macro >= baseline - MARGIN'" in f1["reason"]
    assert (gap["run"], gap["verdict"], gap["gate"]) == ("m-p-d", "fail", texts[0])


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("exact_mach >= 1", "Did you mean 'exact_match'?"),
        ("f1 >= 1", "Scores of this suite: error_rate, exact_match, "),
        ("fairness.age.exact_match.gap <= 1", "Columns that fairness compares: group."),
        ("repeats.consistency >= 1", "With repeats: 2 or more there is."),
        ("exact_match[grup=x] >= 1", "Did you mean 'group'?"),
        ("exact_match[age=x] >= 1", "Known: group."),
        ("exact_match >= 1 for model=n", "speaks of the model 'n', which the suite does not have"),
        ("exact_match >= 1 for dataset=e", "speaks of the dataset 'e'"),
        ("fairness.group.exact_match.gapp <= 1", "no run of this suite has the metric"),
        ("fairness.group.equal_opportunity.none <= 1", "no run of this suite has the metric"),
        ("counterfactual.group.exact_match.difference <= 1", "no run of this suite has the metric"),
    ],
)
def test_gates_on_what_no_run_has_are_refused_before_anything_is_sent(
    project: Path, gate: str, said: str
) -> None:
    refused = evalrun(suite_of(project, "ten", gate), "--no-report")
    assert refused.returncode == 2
    assert said in refused.stderr and gate in refused.stderr
    assert not list(project.glob(".evalrun/sweeps/*"))


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("fairness.age.exact_match.gap <= 1", "Columns that fairness compares: none."),
        ("exact_match[age=x] >= 1", "Name it under fairness: {by: […]}."),
    ],
)
def test_gates_on_groups_where_fairness_compares_none(project: Path, gate: str, said: str) -> None:
    refused = evalrun(recorded_suite(project, ROWS, ["ten"], gates=[gate]), "--no-report")
    assert refused.returncode == 2
    assert said in refused.stderr


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("robustness.exact_match.worst_drop <= 1", 0),
        ("robustness.exact_match.none <= 1", 2),
        ("robustness.exact_mach.difference <= 1", 2),
        ("counterfactual.want.flip_rate <= 1", 0),
        ("counterfactual.group.flip_rate <= 1", 2),
    ],
)
def test_gates_on_versions_of_samples(project: Path, gate: str, code: int) -> None:
    """Of two datasets one has versions by a swapped word, the other by typing errors."""
    common = {"key": "id", "target": "want", "path": "rows.jsonl"}
    datasets = [
        {**common, "id": "swapped", "counterfactual": {"want": ["yes", "no"]}},
        {**common, "id": "mistyped", "perturb": [{"typos": 0.5, "columns": ["other"]}]},
    ]
    suite = recorded_suite(project, ROWS, ["ten"], datasets=datasets, gates=[gate])
    done = evalrun("plan", suite)
    assert done.returncode == code, done.stderr


def test_a_metric_that_this_run_does_not_have_names_the_nearest(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scorer of the user's own may have parts; whether it has is known afterwards."""
    monkeypatch.syspath_prepend(project)
    (project / "judged_right.py").write_text("def right(answer, target):\n    return answer == target\n")
    scorers = [{"python": "judged_right:right"}]
    plain, grouped = gates_of(
        suite_of(project, "ten", "right.most >= 0", "right.most[group=x] >= 0", scorers=scorers), code=1
    )
    assert plain["reason"] == "no metric 'right.most' in this run (did you mean 'right'?)"
    assert grouped["reason"] == "no metric 'right.most[group=x]' in this run"


@pytest.mark.parametrize("condition", ["exact_match >= 0.5", "exact_match >= baseline - 0.5"])
def test_a_gate_for_one_model_speaks_of_its_runs_only(project: Path, baseline: str, condition: str) -> None:
    models = [{"id": name, "provider": "recorded", "column": "ten"} for name in ("m", "n")]
    one = suite_of(project, "ten", f"{condition} for model=m", models=models)
    words = ("--baseline", baseline)
    assert [gate["run"] for gate in gates_of(one, *words, code=0)] == ["m-p-d"]
    (left_out,) = gates_of(one, *words, "--models", "n", code=1)
    assert left_out["gate"] == f"{condition} for model=m" and left_out["verdict"] == "fail"
    assert left_out["reason"] == "it speaks of no run of this sweep"


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("exact_match is good", "cannot read the gate 'exact_match is good'"),
        ("exact_match[x] >= 1", "cannot read the gate 'exact_match[x] >= 1': groups are written NAME=VALUE"),
        ("exact_match >= 1 for mode=m", "'for' takes model, prompt, dataset, run, load, not 'mode'"),
    ],
)
def test_what_is_no_gate_is_refused_with_the_forms_that_there_are(
    project: Path, gate: str, said: str
) -> None:
    refused = evalrun(suite_of(project, "ten", gate), "--no-report")
    assert refused.returncode == 2
    assert said in refused.stderr and "exact_match no worse than baseline by 0.02" in refused.stderr

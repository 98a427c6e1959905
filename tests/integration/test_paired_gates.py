"""Gates that compare with the baseline sample by sample: `no worse than baseline`, through a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.recorded import document_of, output_of, recorded_suite

N = 60
FULL = "no worse than baseline by"


def night(
    folder: Path, answers: Sequence[str | None], *gates: str, code: int = 0, **parts: Any
) -> list[dict[str, Any]]:
    """Run a suite on these answers, each to the question of its place; its gates as `--json` has them.

    The first night of a test is the baseline of those after it.
    """
    rows = [
        {"id": f"s{at:02}", "want": "one two three", "unit": f"u{at // 10}", "group": "xyz"[at % 3]}
        for at in range(N)
    ]
    (folder / "answers.jsonl").write_text(
        "".join(
            f'{{"id": "s{at:02}", "output": "{answer}"}}\n'
            for at, answer in enumerate(answers)
            if answer is not None
        )
    )
    dataset = {"id": "d", "path": "rows.jsonl", "key": "id", "target": "want", "sensitive": ["group"]}
    dataset |= parts.pop("dataset", {})
    sections: dict[str, Any] = {
        "models": [{"id": "m", "provider": "recorded", "path": "answers.jsonl"}],
        "datasets": [dataset],
        "fairness": {"by": ["group"]},
    }
    suite = recorded_suite(folder, rows, [], **{**sections, "gates": list(gates), **parts})
    first = not (folder / ".evalrun").exists()
    words = () if first else ("--baseline", "main")
    document = document_of(suite, "--no-report", "--fresh", "--no-cache", *words, code=code)
    if first:
        output_of("baseline", "set", "main", "latest")
    gates_found: list[dict[str, Any]] = document["gates"]
    return gates_found


def right_but(places: Iterable[int], otherwise: str = "none") -> list[str | None]:
    """Right answers, others in some places."""
    wrong = set(places)
    return [otherwise if at in wrong else "one two three" for at in range(N)]


@pytest.mark.parametrize(
    ("lost", "margin", "verdict"),
    [
        (0, 0.1, "pass"),
        (0, 0.02, "pass"),  # the very same answers, whatever the margin
        (3, 0.2, "pass"),
        (3, 0.02, "inconclusive"),
        (6, 0.02, "inconclusive"),  # p = 0.03: not enough to stop anybody
        (12, 0.02, "fail"),
        (12, 0.3, "inconclusive"),  # worse for certain, but not by more than the margin
    ],
)
def test_a_loss_and_a_margin(project: Path, lost: int, margin: float, verdict: str) -> None:
    night(project, right_but(()))
    text = f"exact_match {FULL} {margin}"
    (gate,) = night(project, right_but(range(lost)), text, code=verdict == "fail")
    assert (gate["gate"], gate["run"], gate["verdict"]) == (text, "m-p-d", verdict)
    assert (gate["n"], gate["baseline"]) == (N, 1.0)
    assert gate["value"] == pytest.approx(1 - lost / N)
    assert gate["difference"] == pytest.approx(-lost / N)
    assert f"over {N} pairs" in gate["reason"]


def test_a_strict_gate_fails_where_the_samples_cannot_tell(project: Path) -> None:
    night(project, right_but(()))
    text = "exact_match strictly no worse than baseline by 0.02"
    (gate,) = night(project, right_but(range(3)), text, code=1)
    assert gate["verdict"] == "fail"


def test_a_metric_of_which_less_is_better(project: Path) -> None:
    """Word error rates of 1/3 and 0 in 20 samples of 60: a mean of 1/9 more, or less."""
    worse, better = right_but(range(0, N, 3), "one two"), right_but(())
    scorers = ["wer"]
    night(project, worse, scorers=scorers)
    (gate,) = night(project, better, f"wer.sample_mean {FULL} 0.01", scorers=scorers)
    assert (gate["verdict"], gate["difference"]) == ("pass", pytest.approx(-1 / 9))
    output_of("baseline", "set", "main", "latest")
    (gate,) = night(project, worse, f"wer.sample_mean {FULL} 0.01", scorers=scorers, code=1)
    assert (gate["verdict"], gate["difference"]) == ("fail", pytest.approx(1 / 9))
    (gate,) = night(project, worse, f"wer.sample_mean {FULL} 0.5", scorers=scorers)
    assert gate["verdict"] == "pass"


WORDS = """
from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions
from evalrun.types import Score

class Words(Scorer):
    Options = ScorerOptions
    name = "words"
    def score(self, sample):
        return Score(float(len(sample.answer.split())), "counted")
    @classmethod
    def describe(cls, name):
        return (MetricInfo(name, "words", "none", "Words of an answer."),)
"""


def test_a_metric_without_a_better_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(project)
    (project / "counted_words.py").write_text(WORDS)
    scorers = [{"python": "counted_words:Words"}]
    night(project, right_but(()), scorers=scorers)
    (gate,) = night(project, right_but(()), f"words {FULL} 1", scorers=scorers, code=1)
    assert gate["verdict"] == "fail"
    assert "no better or worse" in gate["reason"]


@pytest.mark.parametrize(("cluster", "verdict"), [(None, "fail"), ("unit", "inconclusive")])
def test_samples_that_belong_together_count_as_one(project: Path, cluster: str | None, verdict: str) -> None:
    """Twenty answers are lost, all in two of six units."""
    dataset = {"cluster": cluster}
    night(project, right_but(()), dataset=dataset)
    text = f"exact_match {FULL} 0.02"
    (gate,) = night(project, right_but(range(20)), text, dataset=dataset, code=verdict == "fail")
    assert gate["verdict"] == verdict


def test_groups(project: Path) -> None:
    """Only in group x were answers lost."""
    texts = [f"exact_match[group={name}] {FULL} 0.2" for name in "xy"]
    night(project, right_but(()))
    x, y = night(project, right_but(range(0, 45, 3)), *texts, code=1)
    assert (x["n"], x["verdict"], x["difference"]) == (20, "fail", pytest.approx(-0.75))
    assert (y["n"], y["verdict"], y["difference"]) == (20, "pass", 0)


def test_groups_of_two_columns(project: Path) -> None:
    """Of 20 samples of group x, those of units u0 and u1 are 4 and 3."""
    dataset = {"sensitive": ["group", "unit"]}
    fairness = {"by": ["group", "unit"], "min_group": 1}
    night(project, right_but(()), dataset=dataset, fairness=fairness)
    texts = [f"exact_match[group=x, unit={unit}] {FULL} 0.9" for unit in ("u0", "u1")]
    found = night(project, right_but(()), *texts, dataset=dataset, fairness=fairness)
    assert [gate["n"] for gate in found] == [4, 3]


def test_runs_that_share_no_sample(project: Path) -> None:
    night(project, [*right_but(())[:30], *[None] * 30])
    (gate,) = night(project, [*[None] * 30, *right_but(())[30:]], f"exact_match {FULL} 0.02", code=1)
    assert (gate["verdict"], gate["n"]) == ("fail", 0)
    assert "no sample of both runs has a value" in gate["reason"]


def test_one_pair_sees_nothing(project: Path) -> None:
    dataset = {"limit": 1}
    night(project, right_but(()), dataset=dataset)
    (gate,) = night(project, right_but([0]), f"exact_match {FULL} 0.02", dataset=dataset)
    assert (gate["verdict"], gate["n"]) == ("inconclusive", 1)
    assert "too few pairs" in gate["reason"]


def test_a_run_that_was_not_finished(project: Path) -> None:
    texts = ["exact_match >= 0", f"exact_match {FULL} 0.02"]
    night(project, right_but(()))
    broken = {"models": [{"id": "m", "provider": "recorded", "path": "answers.jsonl", "id_field": "key"}]}
    for gate, text in zip(night(project, right_but(()), *texts, code=3, **broken), texts, strict=True):
        assert (gate["gate"], gate["run"], gate["verdict"]) == (text, "m-p-d", "fail")
        assert (gate["value"], gate["reason"]) == (None, "the run was not finished")


def test_how_many_samples_would_be_needed(project: Path) -> None:
    night(project, right_but(()))
    tight, wide = night(project, right_but(range(3)), f"exact_match {FULL} 0.02", f"exact_match {FULL} 0.2")
    assert "to see 0.02, about " in tight["reason"] and "samples are needed" in tight["reason"]
    assert "are needed" not in wide["reason"], "it passed"
    (zero,) = night(project, right_but(range(3)), "exact_match no worse than baseline")
    assert "are needed" not in zero["reason"], "no number of samples sees a difference of nothing"

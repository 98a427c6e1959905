"""Which step to ship: recorded answers of five checkpoints, from the suite to the results."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import evalrun

STEPS = (100, 200, 300, 400, 500)


def rows(n: int, shares: Sequence[float], *, group_gap: float = 0.0) -> list[dict[str, Any]]:
    """Answers of checkpoints that are right for these shares of the rows: hard rows are hard for all."""
    draw = random.Random(5)
    made = []
    for at in range(n):
        hardness, group = draw.random(), "ab"[at % 2]
        right = [
            hardness + draw.gauss(0, 0.05) + (group_gap if group == "b" else 0) < share for share in shares
        ]
        answers = {f"a{step}": "yes" if ok else "no" for step, ok in zip(STEPS, right, strict=True)}
        made.append({"id": f"r{at}", "q": f"question {at}", "group": group, "target": "yes", **answers})
    return made


def run(tmp_path: Path, data: list[dict[str, Any]], **suite: Any) -> Any:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    document = {
        "name": "steps",
        "models": [
            {
                "id": f"tuned-{step}",
                "provider": "recorded",
                "column": f"a{step}",
                "checkpoint": {"of": "tuned", "step": step, "training": "lora"},
            }
            for step in reversed(STEPS)
        ],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [
            {"id": "d", "path": "d.jsonl", "key": "id", "target": "{{ target }}", "sensitive": ["group"]}
        ],
        "scorers": ["exact_match"],
        **suite,
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(document))
    return evalrun.run(tmp_path / "s.yaml", store=tmp_path / "store", write_report=False)


def manifest_of(sweep: Any) -> Any:
    return json.loads((sweep.path / "sweep.json").read_text())


def line_of(sweep: Any) -> dict[str, Any]:
    manifest = manifest_of(sweep)
    (line,) = manifest["results"]["checkpoints"]
    return dict(line)


def test_the_earliest_step_that_is_not_worse(tmp_path: Path) -> None:
    """Steps 300 to 500 are as good as each other, the earlier ones are worse."""
    line = line_of(run(tmp_path, rows(300, (0.3, 0.5, 0.72, 0.7, 0.73)), fairness={"by": ["group"]}))
    curve = line["curves"][0]
    points = {point["step"]: point for point in curve["points"]}
    assert list(points) == list(STEPS)
    assert curve["metric"] == "exact_match" and line["training"] == "lora"
    assert curve["best"] == 300
    assert curve["looks_best"] in (300, 500)
    assert [points[step]["verdict"] for step in (100, 200)] == ["behind", "behind"]
    for point in points.values():
        assert point["low"] < point["value"] < point["high"]
        if point["verdict"] == "behind":
            assert 0 < point["behind_low"] < point["behind"] < point["behind_high"]
    assert curve["worth"] <= points[curve["looks_best"]]["value"]
    assert curve["trend"]["tau"] > 0.5 and curve["trend"]["p"] < 0.01
    assert "take step 300" in line["sentence"]
    (gap,) = line["gaps"]
    assert gap["column"] == "group" and [point["step"] for point in gap["points"]] == list(STEPS)
    assert all(point["chance_p95"] > 0 for point in gap["points"])


def test_paired_by_sample_whatever_the_order(tmp_path: Path) -> None:
    """Rows that are hard for all tell the steps apart far better than unpaired ones would."""
    line = line_of(run(tmp_path, rows(300, (0.3, 0.5, 0.6, 0.65, 0.7))))
    points = line["curves"][0]["points"]
    behind = points[3]
    half = (behind["behind_high"] - behind["behind_low"]) / 2
    unpaired = 1.96 * (2 * 0.25 / 300) ** 0.5
    assert half < unpaired


def test_a_margin_lets_an_earlier_step_be_taken(tmp_path: Path) -> None:
    data = rows(400, (0.3, 0.62, 0.72, 0.72, 0.73))
    (tmp_path / "a").mkdir()
    assert line_of(run(tmp_path / "a", data))["curves"][0]["best"] == 300
    (tmp_path / "b").mkdir()
    line = line_of(run(tmp_path / "b", data, checkpoints={"best": "exact_match", "margin": 0.15}))
    assert line["curves"][0]["best"] == 200
    assert "by more than 0.15" in line["sentence"]


def test_what_was_forgotten_is_named(tmp_path: Path) -> None:
    data = rows(100, (0.5, 0.6, 0.7, 0.7, 0.7))
    for row in data[:7]:
        row.update({f"a{step}": "yes" for step in STEPS[:4]}, a500="no")
    for row in data[7:]:
        if row["a500"] == "no":
            row.update({f"a{step}": "no" for step in STEPS})
    forgotten = line_of(run(tmp_path, data))["forgotten"]
    assert (forgotten["count"], forgotten["n"], forgotten["last"]) == (7, 100, 500)
    assert sorted(forgotten["sample_ids"]) == [f"r{at}" for at in range(7)]


def test_a_step_without_answers_is_never_the_best(tmp_path: Path) -> None:
    """A checkpoint that gave nothing is no part of the curve, and the others keep their samples."""
    data = rows(60, (0.3, 0.5, 0.7, 0.7, 0.7))
    for row in data:
        row["a400"] = None
    line = line_of(run(tmp_path, data, errors={"tolerate": 1}))
    points = {point["step"]: point for point in line["curves"][0]["points"]}
    assert points[400]["verdict"] == "incomparable" or points[400]["value"] == 0.0
    assert line["curves"][0]["n"] == 60
    assert line["curves"][0]["best"] != 400


def test_sweeps_without_checkpoints_have_no_line(tmp_path: Path) -> None:
    data = rows(20, (0.3, 0.5, 0.7, 0.7, 0.7))
    models = [{"id": "m", "provider": "recorded", "column": "a100"}]
    manifest = manifest_of(run(tmp_path, data, models=models))
    assert manifest["results"]["checkpoints"] == []


@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_and_two(tmp_path: Path, steps: int) -> None:
    models = [
        {
            "id": f"t{step}",
            "provider": "recorded",
            "column": f"a{step}",
            "checkpoint": {"of": "t", "step": step},
        }
        for step in STEPS[:steps]
    ]
    line = line_of(run(tmp_path, rows(80, (0.3, 0.8, 0.8, 0.8, 0.8)), models=models))
    assert line["curves"][0]["best"] == STEPS[steps - 1]


@pytest.mark.parametrize(
    ("last", "gate", "verdict"),
    [
        (0.72, "exact_match no worse than best step by 0.1", "pass"),
        (0.3, "exact_match no worse than best step by 0.1", "fail"),
        (0.3, "exact_match worse than best step by 0.1 for model=tuned", "fail"),
        (0.3, "exact_match no worse than the best step by 0.9", "pass"),
        (0.7, "exact_match no worse than best step by 0.01", "inconclusive"),
        (0.7, "exact_match strictly no worse than best step by 0.01", "fail"),
    ],
)
def test_the_last_step_against_the_best(tmp_path: Path, last: float, gate: str, verdict: str) -> None:
    data = rows(200, (0.3, 0.5, 0.7, 0.72, last))
    alert = "exact_match worse than best step by 0.1"
    manifest = manifest_of(run(tmp_path, data, gates=[gate], alerts={"when": [alert]}))
    (result,) = manifest["gates"]
    assert result["verdict"] == verdict, result["reason"]
    assert result["run"] == "tuned-500-p-d"
    assert result["difference"] == pytest.approx(result["value"] - result["baseline"])
    (told,) = manifest["alerts"]
    assert told["fired"] is (last == 0.3)


def test_a_gate_on_steps_without_steps_fails(tmp_path: Path) -> None:
    models = [{"id": "m", "provider": "recorded", "column": "a100"}]
    gates = ["exact_match no worse than best step"]
    manifest = manifest_of(run(tmp_path, rows(20, (0.3,) * 5), models=models, gates=gates))
    assert manifest["gates"][0]["verdict"] == "fail"
    assert "no checkpoint" in manifest["gates"][0]["reason"]

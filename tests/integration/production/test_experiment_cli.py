"""`evalrun experiment`: from rows to a promotion that names its evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.program import evalrun

SUITE = """
name: triage
models: [{id: old, provider: recorded, column: old}, {id: new, provider: recorded, column: new}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, rows: [{q: a, old: x, new: y, want: y}], target: "{{ want }}"}]
scorers: [exact_match]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a sweep, the file of an experiment between its runs, and requests of it."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "suite.yaml").write_text(SUITE)
    assert evalrun("suite.yaml", "--no-report", cwd=folder).returncode == 0
    (folder / "v7.yaml").write_text(
        "id: v7\narms: {control: latest/old-p-d, treatment: latest/new-p-d}\nprimary: score.resolved\n"
        'guardrails: ["e2e_s p95 <= 9"]\nnamespace: triage\n'
    )
    rng = np.random.default_rng(0)
    arms = rng.choice(["control", "treatment"], 4000)
    right = rng.random(4000) < np.where(arms == "treatment", 0.65, 0.5)
    rows = pd.DataFrame({
        "user_key": [f"u{at}" for at in range(4000)], "arm": arms, "score.resolved": right.astype(float),
        "e2e_s": rng.exponential(1, 4000),
    })  # fmt: skip
    rows.to_parquet(folder / "rows.parquet")
    rows.to_csv(folder / "rows.csv", index=False)
    rows.to_json(folder / "rows.jsonl", orient="records", lines=True)
    return folder


def run(place: Path, *words: str) -> Any:
    return evalrun("experiment", *words, cwd=place)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
def test_the_status_is_the_same_whatever_the_rows_come_in(place: Path, name: str) -> None:
    done = run(place, "status", "v7.yaml", "--data", name, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"], document["winner"]) == (0, "better", "treatment")
    assert document["effects"][0]["difference"] == pytest.approx(0.15, abs=0.05)
    assert [guard["verdict"] for guard in document["guards"]] == ["holds"]


def test_the_terminal_says_it(place: Path) -> None:
    done = run(place, "status", "v7.yaml", "--data", "rows.parquet")
    assert "v7: better (treatment)" in done.stdout
    assert "sample ratio p" in done.stdout


def test_the_winner_is_promoted_with_its_evidence(place: Path) -> None:
    done = run(place, "promote", "v7.yaml", "--data", "rows.parquet", "--as", "production", "--json")
    placed = json.loads(done.stdout)
    assert placed["run"] == "new-p-d"
    assert placed["reason"].startswith("experiment v7: score.resolved +0.")
    (kept,) = (place / ".evalrun" / "experiments" / "v7").iterdir()
    document = json.loads(kept.read_text())
    assert document["digest"][:16] == kept.stem
    assert kept.stem in placed["reason"]
    said = json.loads(evalrun("whatis", "production", "--json", cwd=place).stdout)
    assert said["reason"] == placed["reason"]


def test_a_unit_s_arm_and_the_code_of_it(place: Path) -> None:
    arms = json.loads(run(place, "assign", "v7.yaml", "u1", "u2", "--json").stdout)
    assert set(arms) == {"u1", "u2"}
    assert "hashlib" in run(place, "assign", "v7.yaml", "--code").stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("status", "none.yaml", "--data", "rows.csv"), 2),
        (("status", "v7.yaml", "--data", "none.csv"), 2),
        (("status", "v7.yaml", "--data", "suite.yaml"), 2),
        (("status", "v7.yaml", "--data", "no-such-sweep"), 2),
        (("status", "suite.yaml", "--data", "rows.csv"), 2),
    ],
)
def test_what_cannot_be_read_is_one_message(place: Path, words: tuple[str, ...], code: int) -> None:
    done = run(place, *words)
    assert done.returncode == code
    assert done.stderr.count("error:") >= 1
    assert "Traceback" not in done.stderr

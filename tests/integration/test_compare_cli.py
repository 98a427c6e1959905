"""`evalrun compare` as its user runs it, on sweeps of recorded answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun

N = 120


def right(model: str, at: int) -> bool:
    """Which samples the recorded models got right: `weak` 60 of 120, `strong` 90, of which 50 are shared."""
    return at < 60 if model == "weak" else 10 <= at < 100


def write_suite(folder: Path, name: str, models: list[str], n: int = N) -> Path:
    rows = [
        {"id": f"q{at:03d}", "text": f"question {at}", "label": "yes"}
        | {model: "yes" if right(model, at) else "no" for model in ("weak", "strong")}
        for at in range(n)
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite: dict[str, Any] = {
        "name": name,
        "models": [{"id": "recorded", "provider": "recorded", "column": model} for model in models]
        if len(models) == 1
        else [{"id": model, "provider": "recorded", "column": model} for model in models],
        "prompts": [{"id": "plain", "text": "{{ text }}"}],
        "datasets": [{"id": "labels", "path": f"{name}.jsonl", "key": "id", "target": "label"}],
        "scorers": ["exact_match"],
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(suite))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps of one recorded model each, one of both models, and one of fewer samples."""
    folder = tmp_path_factory.mktemp("compare")
    for name, models, n in (("one", ["weak"], N), ("two", ["strong"], N), ("both", ["weak", "strong"], N),
                            ("short", ["strong"], 80)):  # fmt: skip
        suite = write_suite(folder, name, models, n)
        done = evalrun("run", suite, "--store", folder / "store", "--no-report", "--quiet", "--json")
        assert done.returncode == 0, done.stderr
    return folder / "store"


def test_two_sweeps_as_json(store: Path) -> None:
    done = evalrun("compare", "one", "two", "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    [entry] = json.loads(done.stdout)["comparisons"]
    assert (entry["n"], entry["mean_a"], entry["mean_b"]) == (N, 0.5, 0.75)
    assert entry["discordant"] == [10, 40]
    assert entry["test"] == "mcnemar-exact"
    assert entry["verdict"] == "better"
    assert entry["flips"]["lost"] == [f"q{at:03d}" for at in range(10)]


def test_the_table_is_plain_and_narrow_when_piped(store: Path) -> None:
    done = evalrun("compare", "one", "two", "--store", store)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.rstrip().endswith("better"))
    assert "+0.25 [+0." in row, "one way to write differences, in the table alone"
    assert "10 went from right to wrong: q000, q001" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_markdown(store: Path) -> None:
    done = evalrun("compare", "two", "one", "--store", store, "--markdown", "--margin", "0.02")
    assert done.returncode == 0, done.stderr
    assert "| recorded-plain-labels | 0.75 | 0.50 |" in done.stdout
    assert "**worse**" in done.stdout


def test_runs_of_one_sweep_and_the_sweep_in_itself(store: Path) -> None:
    runs = ["both/weak-plain-labels", "both/strong-plain-labels"]
    done = evalrun("compare", *runs, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["discordant"] == [10, 40]
    within = evalrun("compare", "both", "--store", store)
    assert within.returncode == 0, within.stderr
    assert "strong-plain-labels is better than the other 1 on 120 samples" in within.stdout


def test_other_data_are_refused_with_the_remedy(store: Path) -> None:
    refused = evalrun("compare", "two", "short", "--store", store)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "differ (digests" in refused.stderr
    assert "--common" in refused.stderr
    done = evalrun("compare", "two", "short", "--store", store, "--common", "--json")
    assert done.returncode == 0, done.stderr
    [entry] = json.loads(done.stdout)["comparisons"]
    assert (entry["n"], entry["only_a"], entry["p"]) == (80, 40, 1.0)
    assert "only the 80 samples that both have are compared, of 120 and 80" in entry["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one", "nothing"], "there is no sweep 'nothing'"),
        (["one", "two", "--metric", "exact_mach"], "Did you mean 'exact_match'"),
        (["one"], "cannot be compared with itself"),
        (["one", "two", "--margin", "0"], "above 0"),
        (["one", "two", "--json", "--markdown"], "exclude one another"),
        (["both/weak-plane-labels", "one"], "Did you mean 'weak-plain-labels'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_or_two(store: Path, arguments: list[str], message: str) -> None:
    done = evalrun("compare", *arguments, "--store", store)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_beside_itself_differs_in_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, models in (("alone", ["weak"]), ("both", ["weak", "strong"])):
        assert evalrun(write_suite(tmp_path, name, models), "-q", "--no-report").returncode == 0
        done = evalrun("compare", "latest", "latest", "--json")
        assert done.returncode == 0, done.stderr
        for pair in json.loads(done.stdout)["comparisons"]:
            assert pair["difference"] == 0 and pair["verdict"] != "better", pair

"""Baselines, and gates that compare sample by sample: a true drop fails, unchanged nights pass."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import program

from evalrun.errors import UserError
from evalrun.gates.check import check_sweep
from evalrun.gates.conditions import Gate, GateResult, Verdict, parse_gate, signed
from evalrun.tracking import changes
from evalrun.tracking.changes import choose_baseline, list_baselines, set_baseline
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.tracking.store import Store
from evalrun.types import Counts

PLAN = [{"run": "m-p-d", "model": "m", "prompt": "p", "dataset": "d", "params": {}}]
MakeNight = Callable[..., SweepFolder]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def night(store: Store, tmp_path: Path) -> MakeNight:
    """A finished sweep of one run whose samples got these scores; every other one is of group x."""

    def make(
        scores: Sequence[float],
        *,
        digest: str = "d" * 64,
        plan: Any = PLAN,
        each: dict[str, Any] | None = None,
        **changed: Any,
    ) -> SweepFolder:
        folder = store.create_sweep("night")
        folder.write_manifest(
            {"sweep": folder.ulid, "name": "night", "project": "nightly", "plan": plan,
             "datasets": {"d": {"digest": digest, "n": len(scores)}}, "prompts": {"p": {"digest": "p"}}}
        )  # fmt: skip
        folder.append_event("start", {})
        journal = tmp_path / "journal.jsonl"
        with journal.open("w") as file:
            for at, score in enumerate(scores):
                sample = {
                    "sample_id": f"s{at:05}", "repeat": 0, "position": at, "vars": {"q": at}, "target": "a",
                    "status": "scored", "output": "a", "answer": "a", "attempts": 1, "prompt": f"q{at}",
                    "scores": {"exact_match": score}, "sensitive": {"group": "xy"[at % 2]},
                    **(each or {}),
                }  # fmt: skip
                file.write(json.dumps(sample) + "\n")
        journal_to_parquet(journal, folder.run_dir("m-p-d") / "samples.parquet")
        value = sum(scores) / len(scores)
        exact = {
            "name": "exact_match",
            "value": value,
            "n": len(scores),
            "unit": "fraction",
            "direction": "higher",
        }
        speed = {"name": "performance.e2e_s.p95", "value": 1.0, "n": 9, "unit": "s", "direction": "lower"}
        run = {**PLAN[0], "metrics": [exact, speed], "counts": {"samples": len(scores)}, **changed}
        assert Counts(**run["counts"]).samples == len(scores)
        folder.finish_run("m-p-d", run)
        folder.finish("complete", 0)
        return folder

    return make


def check(text: str, folder: SweepFolder, baseline: SweepFolder | None) -> GateResult:
    gate = parse_gate(text)
    assert isinstance(gate, Gate)
    (result,) = check_sweep([gate], folder, PLAN, baseline)
    return result


GATE = "exact_match no worse than baseline by 0.02"


def answers(n: int = 500, right: float = 0.8) -> list[float]:
    return [1.0 if at < n * right else 0.0 for at in range(n)]


def flipped(scores: Sequence[float], down: int, up: int, seed: int = 0) -> list[float]:
    """The scores with so many right ones made wrong, and wrong ones right."""
    chooser, changed = random.Random(seed), list(scores)
    for value, count in ((1.0, down), (0.0, up)):
        for at in chooser.sample([i for i, each in enumerate(scores) if each == value], count):
            changed[at] = 1 - value
    return changed


def test_the_same_answers_pass(night: MakeNight) -> None:
    result = check(GATE, night(answers()), night(answers()))
    assert (result.verdict, result.difference, result.n) == (Verdict.PASS, 0.0, 500)


def test_a_true_drop_of_five_points_fails_and_says_what_it_saw(night: MakeNight) -> None:
    result = check(GATE, night(flipped(answers(), 30, 5)), night(answers()))
    assert result.verdict is Verdict.FAIL
    assert result.difference == pytest.approx(-0.05)
    assert "over 500 pairs" in result.reason and "n = 500 sees" in result.reason
    assert f"[{signed(result.ci_low or 0.0)}, {signed(result.ci_high or 0.0)}] over" in result.reason
    assert result.detectable is not None and 0.02 < result.detectable < 0.05


def test_twenty_unchanged_nights_with_noise_do_not_fail(night: MakeNight) -> None:
    chooser = random.Random(5)
    baseline = night(answers())
    for seed in range(20):
        wobble = [chooser.randrange(8, 18) for _ in range(2)]
        result = check(GATE, night(flipped(answers(), *wobble, seed=seed)), baseline)
        assert result.verdict is not Verdict.FAIL, result.reason


def test_what_few_samples_cannot_tell_is_inconclusive_and_says_how_many_could(night: MakeNight) -> None:
    baseline = night(answers(60))
    tonight = night(flipped(answers(60), 4, 2))
    result = check(GATE, tonight, baseline)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "samples are needed" in result.reason
    assert check(GATE.replace("no worse", "strictly no worse"), tonight, baseline).verdict is Verdict.FAIL


def test_slices_are_compared_alone(night: MakeNight) -> None:
    """Group x loses 20 points, group y gains as many: overall nothing has changed."""
    before = [1.0 if at % 10 < 6 else 0.0 for at in range(400)]
    lost, gained = set(range(0, 160, 2)), set(range(1, 161, 2))
    tonight = [0.0 if at in lost else 1.0 if at in gained else each for at, each in enumerate(before)]
    one, two = night(tonight), night(before)
    assert check("exact_match[group=x] no worse than baseline by 0.02", one, two).verdict is Verdict.FAIL
    assert check("exact_match[group=y] no worse than baseline by 0.02", one, two).verdict is Verdict.PASS
    nobody = check("exact_match[group=z] no worse than baseline by 0.02", one, two)
    assert (nobody.verdict, nobody.n) == (Verdict.FAIL, 0)


def test_changed_rows_are_left_out_and_told(night: MakeNight) -> None:
    result = check(GATE, night(answers(), digest="e" * 64), night(answers(400)))
    assert result.n == 400
    assert "differ" in result.reason


def test_what_has_no_values_by_sample_is_refused_with_a_way_out(night: MakeNight) -> None:
    result = check("performance.e2e_s.p95 no worse than baseline by 1", night(answers()), night(answers()))
    assert result.verdict is Verdict.FAIL
    assert "write 'performance.e2e_s.p95 <= baseline + MARGIN'" in result.reason, "lower is better"
    assert (
        check("performance.e2e_s.p95 <= baseline * 1.2", night(answers()), night(answers())).verdict == "pass"
    )


def test_a_cost_is_a_sum_and_not_compared_by_the_mean_of_its_samples(night: MakeNight) -> None:
    def costing(usd: float) -> SweepFolder:
        total = {"name": "cost.usd", "value": 500 * usd, "n": 500, "unit": "usd", "direction": "lower"}
        return night(answers(), each={"cost_usd": usd}, metrics=[total])

    cheap, dear = costing(0.01), costing(0.02)
    result = check("cost.usd no worse than baseline by 0.5", dear, cheap)
    assert result.verdict is Verdict.FAIL and "write 'cost.usd <= baseline + MARGIN'" in result.reason
    assert check("cost.usd <= baseline + 0.5", dear, cheap).verdict is Verdict.FAIL


@pytest.mark.parametrize("text", [GATE, "exact_match >= baseline - 1"])
def test_without_a_baseline_nothing_passes(night: MakeNight, text: str) -> None:
    result = check(text, night(answers()), None)
    assert result.verdict is Verdict.FAIL and "no baseline" in result.reason
    other = night(answers(), digest="e" * 64, dataset="other")
    missing = check(text, night(answers()), other)
    assert missing.verdict is Verdict.FAIL and "no run like this one" in missing.reason


def test_a_broken_baseline_fails_with_its_name(night: MakeNight) -> None:
    baseline = night(answers())
    baseline.samples_path("m-p-d").write_bytes(b"nothing")
    result = check(GATE, night(answers()), baseline)
    assert result.verdict is Verdict.FAIL and "samples.parquet" in result.reason


def test_runs_that_are_missing_or_not_spoken_of_never_pass(night: MakeNight) -> None:
    folder = night(answers())
    gate = parse_gate("exact_match >= 0 for model=nobody")
    other = parse_gate("exact_match >= 0")
    assert isinstance(gate, Gate) and isinstance(other, Gate)
    plan = [*PLAN, {**PLAN[0], "run": "gone"}]
    results = check_sweep([gate, other], folder, plan)
    assert [(each.run, each.verdict.value) for each in results] == [
        ("", "fail"), ("m-p-d", "pass"), ("gone", "fail"),
    ]  # fmt: skip


def test_baselines_are_names_within_a_project_and_the_last_one_counts(store: Store, night: MakeNight) -> None:
    first, second = night(answers()), night(answers())
    set_baseline(store, "main", first)
    set_baseline(store, "main", second)
    set_baseline(store, "release-1.0", first)
    assert [(each.name, each.sweep) for each in list_baselines(store)] == [
        ("main", second.ulid), ("release-1.0", first.ulid),
    ]  # fmt: skip
    assert (found := choose_baseline(store, None, "nightly")) and found.ulid == second.ulid
    assert (found := choose_baseline(store, "release-1.0", "nightly")) and found.ulid == first.ulid
    assert (found := choose_baseline(store, first.ulid[:26], "nightly")) and found.ulid == first.ulid
    assert choose_baseline(store, None, "other project") is None
    store.reindex()
    assert len(list_baselines(store)) == 2
    with pytest.raises(UserError, match=r"Did you mean 'release-1\.0'"):
        choose_baseline(store, "release-1.1", "nightly")
    changes.delete(store, second)
    assert choose_baseline(store, None, "nightly") is None
    with pytest.raises(UserError, match="not in the store any more"):
        choose_baseline(store, "main", "nightly")


def test_odd_names_and_unfinished_sweeps_are_refused(store: Store, night: MakeNight) -> None:
    folder = night(answers(4))
    for name in ("", "-x", "a b", "a\nb", "../x"):
        with pytest.raises(UserError):
            set_baseline(store, name, folder)
    folder.update_manifest(status="incomplete")
    with pytest.raises(UserError, match="not complete"):
        set_baseline(store, "main", folder)


def evalrun(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    return program.evalrun(*arguments, "--store", store.root)


def test_the_commands(store: Store, night: MakeNight, tmp_path: Path) -> None:
    first = night(answers())
    dropped = night(flipped(answers(), 30, 5))
    assert evalrun(store, "baseline", "set", "main", first.ulid).returncode == 0
    assert first.ulid in evalrun(store, "show", "main").stdout, "it stands for the sweep everywhere"
    assert json.loads(evalrun(store, "baseline", "list", "--json").stdout)[0]["sweep"] == first.ulid
    xml, summary = tmp_path / "out" / "gates.xml", tmp_path / "summary.md"
    arguments = [
        "--gate",
        GATE,
        "--gate",
        "exact_match >= 0.1",
        "--junit",
        str(xml),
        "--summary",
        str(summary),
    ]
    done = evalrun(store, "gate", dropped.ulid, *arguments, "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert [gate["verdict"] for gate in answer["gates"]] == ["fail", "pass"]
    assert 'failures="1"' in xml.read_text() and "❌ fail" in summary.read_text()
    assert evalrun(store, "gate", first.ulid, "--gate", GATE).returncode == 0
    assert evalrun(store, "gate", first.ulid, "--gate", "exact_match is fine").returncode == 2

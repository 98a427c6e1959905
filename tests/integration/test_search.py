"""`evalrun search`: a race over the rows that choose, and the winner on rows that it never saw."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite

from evalrun.datasets import open_dataset
from evalrun.suite.dataset import DatasetSpec, PartSpec

RATES = {"base": 0.6, "good": 0.85, "bad": 0.4, "like": 0.6}


def rows(count: int = 600, rates: dict[str, float] = RATES) -> list[dict[str, Any]]:
    """Recorded answers of models with known rates of right ones."""
    rng = random.Random(1)
    return [
        {
            "id": f"r{at}",
            "want": "yes",
            **{name: "yes" if rng.random() < p else "no" for name, p in rates.items()},
        }
        for at in range(count)
    ]


def suite_of(
    folder: Path, data: list[dict[str, Any]], names: dict[str, float] = RATES, **search: Any
) -> Path:
    return recorded_suite(folder, data, names, search={"metric": "exact_match", "baseline": "base", **search})


def test_the_best_is_found_and_its_score_is_of_rows_that_it_never_saw(tmp_path: Path) -> None:
    data = rows()
    suite = suite_of(tmp_path, data)
    best, report = tmp_path / "best.yaml", tmp_path / "r.html"
    found = document_of(
        "search", suite, "--store", tmp_path / "s", "--best-to", best, "--report", report, "-q"
    )
    search = found["search"]
    assert search["winner"] == "good-p-d" and search["baseline"] == "base-p-d"
    assert search["race"]["calls"] < search["race"]["grid"]
    bad = next(each for each in search["race"]["candidates"] if each["name"] == "bad-p-d")
    assert bad["out"] is not None and bad["rows"] < 400
    # The rows held out: other ones than those of the race, and winner and baseline alone were asked.
    store = tmp_path / "s" / "sweeps"
    race, held_out = sorted(store.iterdir())
    asked = {path.parent.name: set(_ids(path)) for path in race.glob("runs/*/samples.parquet")}
    last = {path.parent.name: set(_ids(path)) for path in held_out.glob("runs/*/samples.parquet")}
    assert last.keys() == {"good-p-d", "base-p-d"}
    assert not any(ids & last["good-p-d"] for ids in asked.values())
    right = [row["good"] == "yes" for row in data if row["id"] in last["good-p-d"]]
    run = next(each for each in found["runs"] if each["run"] == "good-p-d")
    assert run["metrics"][0]["value"] == pytest.approx(sum(right) / len(right)), "its mean over those rows"
    assert search["held_out"] == len(right) == len(last["base-p-d"])
    names = ("winner", "baseline", "calls", "calls_full_grid")
    assert [found[name] for name in names] == [
        "good-p-d",
        "base-p-d",
        *map(search["race"].get, ("calls", "grid")),
    ]
    assert "good-p-d" in found["alive"] and "bad-p-d" in found["dropped"]
    other = [row["base"] == "yes" for row in data if row["id"] in last["good-p-d"]]
    assert found["held_out"]["n"] == len(right)
    assert found["held_out"]["difference"] == pytest.approx((sum(right) - sum(other)) / len(right))
    assert 0 < found["held_out"]["ci_low"] < found["held_out"]["ci_high"] and found["held_out"]["p"] < 0.05
    assert "good beats base" in report.read_text()
    assert [each["id"] for each in yaml.safe_load(best.read_text())["models"]] == ["good"]
    assert evalrun("validate", best).returncode == 0


def test_a_candidate_that_worsens_a_guard_is_not_chosen(tmp_path: Path) -> None:
    names = {"base": 0.6, "good": 0.9, "fair": 0.8}
    data = rows(600, names)
    for row in data:  # the best one pays by long answers
        row["good"] += "." if row["good"] == "yes" else ""
        row["kind"] = "short"
    length = {"python": "lengths:short", "args": {}}
    (tmp_path / "lengths.py").write_text(
        "def short(output, **_):\n    return 0.0 if output.endswith('.') else 1.0\n"
    )
    scorers = [{"exact_match": {"ignore_punctuation": True}}, length]
    search = {"metric": "exact_match", "baseline": "base", "guards": ["short no worse than baseline by 0.1"]}
    suite = recorded_suite(tmp_path, data, names, scorers=scorers, search=search)
    found = document_of("search", suite, "--store", tmp_path / "s", "--no-report", "-q")
    assert found["winner"] == "fair-p-d" and list(found["search"]["unguarded"]) == ["good-p-d"]
    assert found["held_out"]["difference"] > 0
    alone = {**search, "guards": []}
    again = recorded_suite(tmp_path, data, names, scorers=scorers, search=alone)
    assert (
        document_of("search", again, "--store", tmp_path / "t", "-q", "--no-report")["winner"] == "good-p-d"
    )


def test_worked_examples_are_an_axis_and_the_report_shows_what_the_axes_do(tmp_path: Path) -> None:
    data = rows(320)
    shots = [{"id": f"shot {at}", "want": "yes"} for at in range(4)]
    (tmp_path / "shots.jsonl").write_text("\n".join(json.dumps(row) for row in shots))
    few_shot = {"count": 2, "path": "shots.jsonl"}
    search = {"metric": "exact_match", "baseline": "p", "hold_out": 0}
    over = {"few_shot.count": [0, 2, 4], "models": ["good", "bad"]}
    prompts = [{"id": "p", "text": "{{ id }}", "few_shot": few_shot}]
    suite = recorded_suite(tmp_path, data, RATES, prompts=prompts, search={**search, "over": over})
    done = evalrun("search", suite, "--store", tmp_path / "s", "--no-report", "-q")
    assert done.returncode == 2 and "2 candidates are the baseline 'p'" in done.stderr
    search["baseline"] = "bad-p-d"
    suite = recorded_suite(tmp_path, data, RATES, prompts=prompts, search={**search, "over": over})
    report = tmp_path / "r.html"
    found = document_of("search", suite, "--store", tmp_path / "s", "--report", report, "-q")["search"]
    axes = {(each["model"], each["few_shot.count"]) for each in found["axes"].values()}
    assert axes == {(model, count) for model in ("good", "bad") for count in (0, 2, 4)}
    effect = {(each["axis"], each["value"]): each for each in found["effects"]}
    assert effect["model", "bad"]["difference"] < -0.3 and effect["few_shot.count", 4]["difference"] == 0
    page = report.read_text()
    assert "What the axes do" in page and "Candidates over the axes" in page
    plain = [{"id": "p", "text": "{{ id }}"}]
    suite = recorded_suite(tmp_path, data, RATES, prompts=plain, search={**search, "over": over})
    done = evalrun("search", suite, "--store", tmp_path / "s", "-q")
    assert done.returncode == 2 and "has no few_shot" in done.stderr


def _ids(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path, columns=["sample_id"]).column(0).to_pylist())


def test_a_second_look_is_counted_and_another_split_can_be_had(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, rows())
    first, second, fresh = (
        document_of("search", suite, "--store", tmp_path / "s", "--no-report", "-q", *more)["search"]
        for more in ((), (), ("--fresh-split",))
    )
    assert [each["looks"] for each in (first, second, fresh)] == [1, 2, 1]
    said = evalrun("search", suite, "--store", tmp_path / "s", "--no-report", "-q").stdout
    assert "looked at 3 times" in said


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "\0"])
def test_a_damaged_count_of_looks_is_named_before_anything_is_sent(tmp_path: Path, text: str) -> None:
    suite = suite_of(tmp_path, rows(400))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "hold_out.json").write_text(text)
    done = evalrun("search", suite, "--store", tmp_path / "s", "--no-report", "-q")
    assert done.returncode == 2 and "hold_out.json" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "s" / "sweeps").exists()


def test_nothing_better_is_said_so(tmp_path: Path) -> None:
    rates = {"base": 0.9, "bad": 0.3}
    suite = suite_of(tmp_path, rows(600, rates), rates)
    done = evalrun("search", suite, "--store", tmp_path / "s", "--no-report", "-q")
    assert done.returncode == 0
    assert "Nothing is shown to be better than the baseline base" in done.stdout


def test_without_rows_held_out_the_score_is_said_to_be_too_high(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, rows(200), hold_out=0)
    done = evalrun("search", suite, "--store", tmp_path / "s", "--report", tmp_path / "r.html", "-q")
    assert "too high" in done.stdout and "too high" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"baseline": "nix"}, "no candidate is the baseline 'nix'"),
        ({"metric": "exact_macth"}, "Did you mean 'exact_match'?"),
        ({"hold_out": "5%"}, "at least 100 are needed"),
        ({"over": {"models": ["base", "goood"]}}, "Did you mean 'good'?"),
        ({"over": {"models": ["base"]}}, "one candidate"),
        ({"over": {"temperature": [0]}}, "no axis of a search"),
        ({"hold_out": 1}, "no rows are left"),
        ({"by": "luck"}, "race"),
        ({"guards": ["exact_macth no worse than baseline by 0.02"]}, "exact_macth"),
        ({"guards": ["be good"]}, "cannot read the guard"),
        ({"guards": ["exact_match no worse than last 5 by 0.02"]}, "is no guard"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_sent(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    suite = suite_of(tmp_path, rows(300), **change)
    done = evalrun("search", suite, "--store", tmp_path / "s", "-q")
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "s" / "sweeps").exists()


def test_a_plan_says_the_greatest_and_the_expected_number_of_calls(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, rows())
    planned = document_of("plan", suite)["search"]
    found = document_of("search", suite, "--store", tmp_path / "s", "--no-report", "-q")
    held_out = 2 * found["held_out"]["n"]
    assert planned["held_out"] == held_out
    assert planned["greatest"] == found["calls_full_grid"] + held_out
    assert held_out < planned["expected"] < planned["greatest"]
    assert "at most" in evalrun("plan", suite).stdout


def test_an_ordinary_suite_and_a_score_without_bounds_are_refused(tmp_path: Path) -> None:
    plain = recorded_suite(tmp_path, rows(10), RATES)
    assert "no `search` section" in evalrun("search", plain).stderr
    parts = {"scorers": [{"correlation": {}}], "search": {"baseline": "base"}}
    length = recorded_suite(tmp_path, rows(300), RATES, **parts)
    done = evalrun("search", length)
    assert done.returncode == 2 and "no bounds" in done.stderr


def test_a_search_section_changes_nothing_for_an_ordinary_run(tmp_path: Path) -> None:
    with_it = document_of(suite_of(tmp_path, rows(60)), "--store", tmp_path / "s", "--no-report", "-q")
    assert [run["counts"]["samples"] for run in with_it["runs"]] == [60] * 4
    without = recorded_suite(tmp_path, rows(60), RATES)
    again = evalrun(without, "--store", tmp_path / "s", "--no-report", "--reuse", "-q", "--json")
    assert json.loads(again.stdout)["exit_code"] == 0 and "(--reuse)" in again.stderr


def test_the_parts_of_a_dataset_are_drawn_by_cluster_and_move_for_no_other_row(tmp_path: Path) -> None:
    few = [{"id": f"r{at}", "doc": f"d{at // 3}", "want": "yes"} for at in range(300)]
    more = [{"id": f"new{at}", "doc": f"e{at}", "want": "yes"} for at in range(50)]

    def part(take: Any, data: list[dict[str, Any]]) -> set[str]:
        spec = DatasetSpec(
            id="d", rows=data, key="id", target="want", cluster="doc", part=PartSpec(take=take, seed=4)
        )
        return {item.sample_id for item in open_dataset(spec, tmp_path, 0)}

    search, held_out = part("search", few), part("held_out", few)
    assert search | held_out == {row["id"] for row in few} and not search & held_out
    assert 0.15 < len(held_out) / 300 < 0.45
    docs = {row["id"]: row["doc"] for row in few}
    assert not {docs[name] for name in search} & {docs[name] for name in held_out}, "clusters stay whole"
    assert held_out <= part("held_out", [*more, *reversed(few)])
    assert sorted(held_out)[:3] == ["r0", "r1", "r117"], "the same on every machine"


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("key", ["id", None])
def test_a_limit_holds_for_both_parts_together(tmp_path: Path, shuffle: bool, key: str | None) -> None:
    data = [{"id": f"r{at}", "text": f"t{at // 2 if at < 40 else at}", "want": "yes"} for at in range(300)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, data)))

    def names(part: dict[str, Any] | None) -> list[str]:
        spec = {"id": "d", "path": "d.jsonl", "key": key, "target": "want", "limit": 120, "shuffle": shuffle}
        made = DatasetSpec.model_validate({**spec, **({"part": part} if part else {})})
        return [item.sample_id for item in open_dataset(made, tmp_path, 5)]

    whole = names(None)
    search, held_out = (names({"take": take, "seed": 4}) for take in ("search", "held_out"))
    assert len(whole) == 120 and sorted(search + held_out) == sorted(whole)
    assert search == [name for name in whole if name in search], "in the order of the whole"
    assert 20 < len(held_out) < 60


def test_with_a_limit_a_search_asks_no_other_rows_in_drawn_order(tmp_path: Path) -> None:
    data = rows(500)
    suite = suite_of(tmp_path, data)
    words = (suite, "--limit", "400")
    planned = document_of("plan", *words)["search"]
    found = document_of("search", *words, "--store", tmp_path / "s", "--no-report", "-q")
    asked = [_ids(path) for path in (tmp_path / "s").glob("sweeps/*/runs/*/samples.parquet")]
    first = {row["id"] for row in data[:400]}
    assert all(first.issuperset(ids) for ids in asked), "the first 400 rows and no other"
    n = found["held_out"]["n"]
    assert planned["greatest"] == 4 * (400 - n) + 2 * n and found["search"]["rows"] == 400
    race, _ = sorted((tmp_path / "s" / "sweeps").iterdir())
    bad = [int(name[1:]) for name in _ids(race / "runs" / "bad-p-d" / "samples.parquet")]
    assert len(bad) < 200 and max(bad) > 300, "not the first of the file before all others"


SLOW = """
import time
from pathlib import Path

def answer(request):
    time.sleep(0.004)
    name = request.messages[-1]["content"].split(":")[0]
    with Path("calls.log").open("a") as log:
        log.write(f"{name} {request.sample_id}\\n")
    return request.row[name]
"""


def test_a_search_that_is_killed_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    suite = recorded_suite(
        tmp_path,
        rows(),
        (),
        search={"baseline": "base"},
        models=[{"id": "m", "provider": "python", "function": "slow:answer"}],
        prompts=[{"id": name, "text": f"{name}: {{{{ id }}}}"} for name in RATES],
        performance={"concurrency": 4},
    )
    command = [sys.executable, "-m", "evalrun", "search", str(suite), "--store", "s", "--no-cache", "-q"]
    process = subprocess.Popen(
        [*command, "--no-report"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = tmp_path / "calls.log"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.exists() and len(log.read_text().splitlines()) > 250):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    words = ("search", suite, "--store", tmp_path / "s", "--no-cache", "--no-report", "-q", "--json")
    done = evalrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    search = json.loads(done.stdout)["search"]
    calls = log.read_text().splitlines()
    asked = search["race"]["calls"] + 2 * search["held_out"]
    assert asked <= len(calls) <= asked + 4 + 64, "at most what was in flight or not yet durable"
    assert search["winner"] == "m-good-d"
    fresh = evalrun(*words, "--fresh", cwd=tmp_path)
    assert json.loads(fresh.stdout)["search"]["race"] == search["race"], "the same race, undisturbed"

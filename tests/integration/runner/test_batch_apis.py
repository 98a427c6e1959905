"""Runs through batch APIs: what is handed over, what is paid, and what goes on after a death at each step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.batch_server import BatchServer
from tests.program import evalrun

STEPS = ("made", "uploaded", "created", "running", "results")
APIS = ("openai", "anthropic")
PRICE = {"input_per_million_usd": 1000, "output_per_million_usd": 2000}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-test")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-test")
    with BatchServer() as made:
        made.answer = lambda body: body["messages"][-1]["content"].split()[-1]
        yield made


class Case:
    """A suite of `rows` questions, asked in batches."""

    def __init__(self, folder: Path, server: BatchServer, api: str, rows: int = 12, **keys: Any) -> None:
        self.folder, self.server = folder, server
        batch = {"poll_s": 0.01, **keys.pop("batch", {})}
        model = {"id": "m", "provider": api, "model": "scripted", "base_url": server.base_url, "batch": batch}
        self.suite = {
            "name": "batched",
            "models": [{**model, "price": PRICE, "params": {"temperature": 0, "max_tokens": 5}}],
            "prompts": [{"id": "p", "messages": [{"role": "user", "content": "say {{ q }}"}]}],
            "datasets": [
                {"id": "d", "rows": [{"q": str(n), "a": str(n)} for n in range(rows)], "target": "{{ a }}"}
            ],
            "scorers": ["exact_match"],
            "performance": {"retries": 0},
            **keys,
        }
        self.path = folder / "suite.json"
        self.path.write_text(json.dumps(self.suite))
        self.words = (str(self.path), "--json", "--no-report", "--store", str(folder / "store"))

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return evalrun("run", *self.words, *more)

    def only(self, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        return dict(run)

    @property
    def samples(self) -> list[dict[str, Any]]:
        (path,) = self.folder.glob("store/sweeps/*/runs/*/samples.parquet")
        return list(pq.read_table(path).to_pylist())

    @property
    def document(self) -> dict[str, Any]:
        (path,) = self.folder.glob("store/sweeps/*/runs/*/run.json")
        return dict(json.loads(path.read_text()))


def values(run: dict[str, Any]) -> dict[str, Any]:
    return {metric["name"]: metric["value"] for metric in run["metrics"] if not metric["slice"]}


@pytest.mark.parametrize("api", APIS)
def test_answers_at_half_the_price_and_without_a_latency(
    api: str, server: BatchServer, tmp_path: Path
) -> None:
    case = Case(tmp_path, server, api)
    run = case.only(case.run())
    assert (run["counts"]["scored"], run["counts"]["cached"], run["load"]) == (12, 0, {"batch": True})
    found = values(run)
    assert found["exact_match"] == 1.0
    assert found["cost.usd"] == pytest.approx(12 * 0.5 * (7 * 1000 + 3 * 2000) / 1e6)
    speeds = [name for name in found if name.endswith("_per_s") or ("_s." in name and "client" not in name)]
    assert [found[name] for name in speeds if found[name] is not None] == []
    assert {(row["e2e_s"], row["ttft_s"], row["attempts"]) for row in case.samples} == {(None, None, 1)}
    assert (len(server.batches), set(server.paid.values())) == (1, {1})
    assert server.bodies == []  # nothing was asked request by request
    assert case.document["timings"]["batch"]["ids"] == ["batch_1"]
    (folder,) = tmp_path.glob("store/sweeps/*/runs/*/batches")
    assert list(folder.iterdir()) == []  # the files of requests and results are gone
    if api == "openai":
        assert server.batches[0].metadata == {"evalrun": f"{run['run']}/1"}
    again = case.only(case.run())
    assert (again["counts"]["cached"], len(server.batches)) == (12, 1)


@pytest.mark.parametrize(
    ("api", "step"),
    [("openai", "created"), ("openai", "results")]
    + [("anthropic", step) for step in STEPS if step != "uploaded"],  # which has no files
)
def test_a_server_that_dies_at_a_step_is_paid_once(
    api: str, step: str, server: BatchServer, tmp_path: Path
) -> None:
    case = Case(tmp_path, server, api)
    server.die_at = step
    died = case.run()
    assert died.returncode == 3, died.stderr
    assert "run the same command again" in died.stderr
    server.dead, server.die_at = False, ""
    run = case.only(case.run())
    assert run["counts"]["scored"] == 12
    assert (len(server.batches), set(server.paid.values())) == (1, {1})


@pytest.mark.parametrize("step", STEPS)
def test_a_client_that_is_killed_at_a_step_pays_once(step: str, server: BatchServer, tmp_path: Path) -> None:
    case = Case(tmp_path, server, "openai")
    server.die_at = step
    client = subprocess.Popen([sys.executable, "-m", "evalrun", *case.words], stdout=-3, stderr=-3)
    server.die = client.kill
    assert client.wait(60) == -signal.SIGKILL
    server.dead, server.die_at = False, ""
    run = case.only(case.run())
    assert run["counts"]["scored"] == 12
    assert (len(server.batches), set(server.paid.values())) == (1, {1})


def test_of_two_batches_that_were_lost_each_run_finds_its_own(server: BatchServer, tmp_path: Path) -> None:
    """Anthropic's say nothing of who made them: two of as many requests are told apart by their results."""
    prompts = [
        {"id": name, "messages": [{"role": "user", "content": f"{name} {{{{ q }}}}"}]} for name in ("p", "r")
    ]
    case = Case(tmp_path, server, "anthropic", prompts=prompts)
    server.die_at, server.die_with = "created", 2
    assert case.run().returncode == 3
    assert len(server.batches) == 2
    server.dead, server.die_at = False, ""
    done = case.run()
    assert done.returncode == 0, done.stderr
    assert [run["counts"]["scored"] for run in json.loads(done.stdout)["runs"]] == [12, 12]
    assert (len(server.batches), set(server.paid.values())) == (2, {1})


@pytest.mark.parametrize("api", APIS)
def test_what_expired_or_broke_goes_into_a_next_batch(api: str, server: BatchServer, tmp_path: Path) -> None:
    fates = {"say 1": ["expired"], "say 2": ["broken", "lost"], "say 3": ["wrong"], "say 4": ["expired"] * 3}
    server.fate = lambda question: fates[question].pop(0) if fates.get(question) else "answered"
    case = Case(tmp_path, server, api)
    run = case.only(case.run())
    # 1 is answered by the second batch, 2 by the third; 3 is never asked again, 4 was handed over thrice.
    assert [len(made.requests) for made in server.batches] == [12, 3, 2]
    assert (run["counts"]["scored"], run["counts"]["failed"]) == (10, 2)
    failed = {row["target"]: row["error"] for row in case.samples if row["status"] == "failed"}
    assert sorted(failed) == ["3", "4"]
    assert failed["3"].startswith("bad_request")
    assert "expired" in failed["4"]
    assert set(server.paid.values()) == {1}
    assert case.document["timings"]["batch"]["asked_again"] == 5


def test_equal_requests_are_handed_over_once(server: BatchServer, tmp_path: Path) -> None:
    rows = [{"q": str(n % 3), "a": str(n % 3), "n": n} for n in range(9)]
    datasets = [{"id": "d", "rows": rows, "target": "{{ a }}", "key": "n"}]
    case = Case(tmp_path, server, "openai", datasets=datasets)
    run = case.only(case.run("--no-cache"))
    assert (run["counts"]["scored"], run["counts"]["cached"]) == (9, 6)
    assert len(server.batches[0].requests) == 3
    assert values(run)["cost.usd"] == pytest.approx(3 * 0.5 * (7 * 1000 + 3 * 2000) / 1e6)


def test_more_than_a_batch_takes_is_several(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, server, "openai", batch={"requests": 5})
    assert case.only(case.run())["counts"]["scored"] == 12
    assert [len(made.requests) for made in server.batches] == [5, 5, 2]
    monkeypatch.setattr("evalrun.providers.anthropic_batches.AnthropicBatches.most_bytes", 600)
    (tmp_path / "a").mkdir()
    case = Case(tmp_path / "a", server, "anthropic")
    server.batches.clear()
    assert case.only(case.run())["counts"]["scored"] == 12
    assert len(server.batches) > 2
    assert all(len(json.dumps(made.requests)) < 800 for made in server.batches)


def test_where_too_much_waits_already_smaller_ones_follow(server: BatchServer, tmp_path: Path) -> None:
    server.most_waiting = 4
    case = Case(tmp_path, server, "openai")
    assert case.only(case.run())["counts"]["scored"] == 12
    assert [len(made.requests) for made in server.batches if not made.refused] == [3, 3, 3, 3]
    assert set(server.paid.values()) == {1}


def test_azure_has_its_own_paths(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key-of-test")
    address = server.base_url.removesuffix("/v1")
    model = {"id": "m", "provider": "openai", "azure": True, "azure_endpoint": address, "model": "deployed"}
    model |= {"api_version": "2024-10-21", "batch": {"poll_s": 0.01}}
    case = Case(tmp_path, server, "openai", models=[model])
    assert case.only(case.run())["counts"]["scored"] == 12
    assert server.paths == [f"/openai/{what}?api-version=2024-10-21" for what in ("files", "batches")]
    assert server.batches[0].endpoint == "/chat/completions"
    assert server.batches[0].requests[0]["body"]["model"] == "deployed"


def test_ctrl_c_leaves_it_running_and_says_how_to_go_on(server: BatchServer, tmp_path: Path) -> None:
    server.ready_after = 1_000_000
    case = Case(tmp_path, server, "openai", batch={"poll_s": 60})
    words = [sys.executable, "-m", "evalrun", *case.words]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stderr is not None
    for line in client.stderr:
        if "is at the provider" in line:
            break
    os.kill(client.pid, signal.SIGINT)
    said = client.communicate(timeout=30)[1]
    assert client.returncode == 130
    assert "batch batch_1 (12 requests) runs on at the provider; the same command again takes" in said
    server.ready_after = 1
    run = case.only(case.run())
    assert (run["counts"]["scored"], len(server.batches), set(server.paid.values())) == (12, 1, {1})


@pytest.mark.parametrize("api", APIS)
def test_cancel_ends_what_runs_at_the_provider(api: str, server: BatchServer, tmp_path: Path) -> None:
    """What was answered by then is taken and paid for once, the rest asked by the next start."""
    server.ready_after = 1_000_000
    case = Case(tmp_path, server, api, batch={"poll_s": 0.5})
    nothing = case.run("--cancel")
    assert (nothing.returncode, "no unfinished sweep" in nothing.stderr) == (2, True), nothing.stderr
    words = [sys.executable, "-m", "evalrun", *case.words]
    client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stderr is not None
    for line in client.stderr:
        if "is at the provider" in line:
            break
    client.kill()
    client.communicate(timeout=30)
    ended = case.run("--cancel")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"cancelled": ["batch_1"]}
    assert (server.batches[0].cancelled, len(server.batches)) == (True, 1)
    taken = case.run()
    assert (taken.returncode, "was cancelled" in taken.stderr) == (3, True), taken.stderr
    server.ready_after = 1
    assert case.only(case.run())["counts"]["scored"] == 12
    assert ([len(made.requests) for made in server.batches], set(server.paid.values())) == ([12, 6], {1})


def test_a_batch_that_somebody_cancelled_is_not_asked_again_by_itself(
    server: BatchServer, tmp_path: Path
) -> None:
    server.fate = lambda question: "canceled" if question in ("say 1", "say 2") else "answered"
    case = Case(tmp_path, server, "anthropic")
    ended = case.run()
    assert ended.returncode == 3
    assert "batch batch_1 was cancelled at the provider" in ended.stderr
    assert len(server.batches) == 1
    server.fate = lambda question: "answered"
    assert case.only(case.run())["counts"]["scored"] == 12
    assert ([len(made.requests) for made in server.batches], set(server.paid.values())) == ([12, 2], {1})


def test_a_budget_is_kept(server: BatchServer, tmp_path: Path) -> None:
    """A request costs at most half of (2 at 1000 and 5 at 2000 millionths): 0.03 USD bear five of them."""
    case = Case(tmp_path, server, "openai", budget={"usd": 0.03})
    ended = case.run()
    assert ended.returncode == 3
    assert "the budget is spent" in ended.stderr
    assert sum(server.paid.values()) < 8
    case.suite["budget"] = {"usd": 3}
    case.path.write_text(json.dumps(case.suite))
    assert case.only(case.run())["counts"]["scored"] == 12
    assert set(server.paid.values()) == {1}


def test_a_plan_has_both_prices(server: BatchServer, tmp_path: Path) -> None:
    case = Case(tmp_path, server, "openai")
    total = json.loads(evalrun("plan", case.path, "--json").stdout)["total"]
    assert total["usd_live"] == pytest.approx(2 * total["usd"])
    assert "without batch" in evalrun("plan", case.path).stdout
    case.suite["models"][0]["price"]["batch_factor"] = 0.25  # type: ignore[index]
    case.path.write_text(json.dumps(case.suite))
    total = json.loads(evalrun("plan", case.path, "--json").stdout)["total"]
    assert total["usd_live"] == pytest.approx(4 * total["usd"])


def test_a_cluster_does_not_ask_in_batches(server: BatchServer, tmp_path: Path) -> None:
    refused = Case(tmp_path, server, "openai").run("--on", "ray")
    assert (refused.returncode, server.batches) == (2, [])
    assert "needs no cluster" in refused.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": {"poll": 3}}, "unknown key 'poll'"),
        ({"batch": "yes"}, "batch"),
        ({"limits": {"requests_per_minute": 5}}, "sends no single requests"),
        ({"provider": "openai_compatible"}, "batch"),
    ],
)
def test_what_cannot_be_asked_in_batches_is_said_before(
    change: dict[str, Any], said: str, server: BatchServer, tmp_path: Path
) -> None:
    case = Case(tmp_path, server, "openai")
    case.suite["models"][0] |= change  # type: ignore[index]
    case.path.write_text(json.dumps(case.suite))
    refused = case.run()
    assert (refused.returncode, server.batches) == (2, [])
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr

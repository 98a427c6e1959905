"""Whole sweeps that ask for choices and perplexities beside written answers; a server on loopback."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests import program
from tests.completions import CompletionsServer, likelihood

ROWS = [
    {
        "id": f"r{n}",
        "q": f"Is {word} alive?",
        "t": ("yes", "no")[n % 2],
        "more": f"all {word}s lie",
        "less": "x",
    }
    for n, word in enumerate(["a dog", "a stone", "a cat", "a house", "a tree", "a car"])
]
CHOOSE = {"choose": {"options": ["yes", "no", "{{ less }}y"], "by": "per_token"}}


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    running = CompletionsServer()
    with running:
        yield running


def write(folder: Path, server: CompletionsServer, name: str = "suite.yaml", **changes: Any) -> Path:
    suite = {
        "name": "kinds",
        "models": [
            {
                "id": "served",
                "provider": "openai_compatible",
                "base_url": server.base_url,
                "model": "scripted",
                "api": "completions",
                "params": {"temperature": 0, "max_tokens": 4, "logprobs": 2},
            }
        ],
        "prompts": [
            {"id": "words", "text": "{{ q }}\nAnswer:"},
            {"id": "choice", "text": "{{ q }}\nAnswer:", "ask": CHOOSE},
            {"id": "text", "text": "{{ more }}", "ask": {"perplexity": {"context": "News: "}}},
        ],
        "datasets": [{"id": "rows", "rows": ROWS, "key": "id", "target": "t"}],
        "scorers": ["exact_match", "option_likelihood", "perplexity"],
        "performance": {"concurrency": 4, "stream": True, "retries": 0},
        **changes,
    }
    path = folder / name
    path.write_text(json.dumps(suite))
    return path


def evalrun(*arguments: str | Path, expect: int = 0) -> dict[str, Any]:
    done = program.evalrun(*arguments, "--json")
    assert done.returncode == expect, done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}
    return found


def test_cache_explain_of_a_sweep_knows_what_was_asked_for(project: Path, server: CompletionsServer) -> None:
    evalrun(write(project, server), "--no-report")
    found = evalrun("cache", "explain", "latest", "r1")
    assert sorted((each["run"], each["cached"]) for each in found) == [
        ("served-choice-rows", True), ("served-text-rows", True), ("served-words-rows", True),
    ]  # fmt: skip


def run_of(document: dict[str, Any], prompt: str) -> dict[str, Any]:
    (run,) = [each for each in document["runs"] if each["prompt"] == prompt]
    metrics = {each["name"]: each for each in run["metrics"] if not each["slice"]}
    return {**run, "metrics": metrics}


def samples(folder: Path, document: dict[str, Any], prompt: str) -> list[dict[str, Any]]:
    run = run_of(document, prompt)["run"]
    (path,) = folder.glob(f".evalrun/sweeps/{document['sweep']}*/runs/{run}/samples.parquet")
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return sorted(found, key=lambda row: row["position"])


def test_one_sweep_compares_answers_choices_and_perplexity(project: Path, server: CompletionsServer) -> None:
    server.first = {" yes": -0.1, " no": -2.5}
    document = evalrun(write(project, server))
    words, choice, text = (run_of(document, name) for name in ("words", "choice", "text"))

    right = 0
    for row, sample in zip(ROWS, samples(project, document, "choice"), strict=True):
        prompt = f"{row['q']}\nAnswer:"
        computed = [likelihood(f"{prompt} {option}", len(prompt)) for option in ("yes", "no", "xy")]
        found = json.loads(sample["likelihood"])
        assert [each["logprob"] for each in found["options"]] == pytest.approx([c[0] for c in computed])
        best = max(range(3), key=lambda at: computed[at][0] / computed[at][1])
        assert sample["answer"] == sample["output"] == ("yes", "no", "xy")[best]
        assert sample["status"] == "scored" and sample["ttft_s"] is None and sample["e2e_s"] > 0
        right += sample["answer"] == row["t"]
    assert choice["metrics"]["exact_match"]["value"] == pytest.approx(right / len(ROWS))
    assert choice["counts"]["scored"] == len(ROWS)
    assert len([body for body in server.bodies if isinstance(body["prompt"], list)]) == len(ROWS)

    sums = [likelihood(f"News: {row['more']}", 5) for row in ROWS]
    per_token = -sum(value for value, _ in sums) / sum(count for _, count in sums)
    assert text["metrics"]["perplexity.per_token"]["value"] == pytest.approx(math.exp(per_token))
    assert text["metrics"]["exact_match"]["n"] == 0

    assert words["metrics"]["exact_match"]["value"] == 0.5
    first = samples(project, document, "words")[0]
    assert json.loads(first["logprobs"])["tokens"] and "likelihood" not in first
    assert "logprobs" not in samples(project, document, "choice")[0]


def test_what_was_answered_is_not_asked_again(project: Path, server: CompletionsServer) -> None:
    evalrun(write(project, server))
    server.bodies.clear()
    other = {"choose": {**CHOOSE["choose"], "by": "sum", "answers": ["yes", "no", "other"]}}
    prompts: list[dict[str, Any]] = [
        {"id": "by_sum", "text": "{{ q }}\nAnswer:", "ask": other},
        {"id": "warm", "text": "{{ more }}", "ask": {"perplexity": {"context": "News: "}}},
    ]
    document = evalrun(write(project, server, prompts=prompts, sweep={"temperature": [0, 1]}))
    assert server.bodies == []  # what decides, and how answers are drawn, shapes nothing that was asked
    assert all(run["counts"]["cached"] == len(ROWS) for run in document["runs"])
    ask = {"choose": {"options": ["yes", "no", "{{ less }}z"]}}
    evalrun(write(project, server, prompts=[{"id": "new", "text": "{{ q }}\nAnswer:", "ask": ask}]))
    assert len(server.bodies) == len(ROWS)


def test_choices_are_scored_again_without_a_server(project: Path, server: CompletionsServer) -> None:
    document = evalrun(write(project, server))
    wanted = run_of(document, "choice")["metrics"]["option_likelihood"]["value"]
    server.bodies.clear()
    scorers = project / "scorers.yaml"
    scorers.write_text(json.dumps({"scorers": ["option_likelihood", {"exact_match": {"ignore_case": True}}]}))
    again = evalrun("rescore", document["sweep"], "--scorers", scorers)
    assert server.bodies == []
    assert run_of(again, "choice")["metrics"]["option_likelihood"]["value"] == pytest.approx(wanted)


def test_what_a_backend_cannot_give_is_refused_by_name(project: Path, server: CompletionsServer) -> None:
    models = [
        {"id": "chatty", "provider": "openai_compatible", "base_url": server.base_url, "model": "m"},
        {"id": "written", "provider": "recorded", "column": "more"},
    ]
    said = evalrun(write(project, server, models=models), expect=2)["stderr"]
    assert "chatty" in said and "prompt choice" in said and "api: completions" in said
    assert "written" in said and "provider 'recorded' gives no log-probabilities" in said
    assert server.bodies == []


def test_a_server_that_cannot_fails_the_samples_and_says_why(
    project: Path, server: CompletionsServer
) -> None:
    server.echoes = False
    prompts = [{"id": "choice", "text": "{{ q }}\nAnswer:", "ask": CHOOSE}]
    document = evalrun(write(project, server, prompts=prompts), expect=3)
    assert document["runs"][0]["counts"]["failed"] == len(ROWS)
    assert "no log-probabilities of prompts" in samples(project, document, "choice")[0]["error"]

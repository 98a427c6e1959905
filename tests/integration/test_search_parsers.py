"""A search over what reads the answers: candidates that differ by their parsers alone are asked once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.program import evalrun
from tests.recorded import recorded_suite
from tests.servers import ChatServer

ROWS = [{"id": f"r{at}", "want": "yes"} for at in range(360)]
PARSE = [["first_line"], [{"regex": "Answer: (\\w+)"}], []]
ONE = {"parse": PARSE, "prompts": ["p"]}


def answer(body: dict[str, Any]) -> str:
    """Right in its last line where the row's number does not end in 7; the first line says nothing."""
    question = body["messages"][-1]["content"]
    return f"Let me see.\nAnswer: {'no' if question.endswith('7') else 'yes'}"


def suite_of(folder: Path, url: str, **search: Any) -> Path:
    model = {"id": "m", "provider": "openai_compatible", "base_url": url, "model": "m"}
    return recorded_suite(
        folder, ROWS, (), models=[{**model, "params": {"temperature": 0}}],
        prompts=[{"id": "p", "text": "{{ id }}"}, {"id": "q", "text": "Be brief. {{ id }}"}],
        performance={"concurrency": 8, "stream": False}, parse=["first_line"],
        search={"metric": "exact_match", "baseline": "p", **search},
    )  # fmt: skip


@pytest.mark.parametrize("words", [(), ("--no-cache",)])
def test_candidates_that_differ_by_parsers_send_no_more_than_one(tmp_path: Path, words: tuple[str]) -> None:
    with ChatServer() as server:
        server.answer = answer
        suite, best = suite_of(tmp_path, server.base_url, hold_out=0, over=ONE), tmp_path / "best.yaml"
        report = tmp_path / "r.html"
        out = ("--store", tmp_path / "s", "--report", report, "--best-to", best)
        done = evalrun("search", suite, *out, "-q", "--json", *words)
        assert done.returncode == 0, done.stderr
        asked = Counter(server.questions)
    found = json.loads(done.stdout)
    assert set(asked) <= {row["id"] for row in ROWS} and set(asked.values()) == {1}, "each row once"
    search = found["search"]
    assert found["winner"] == "m-p-regex-d" and found["baseline"] == "m-p-d"
    assert found["calls"] == sum(each["rows"] for each in search["race"]["candidates"])
    assert search["shared"] == found["calls"] - len(asked)
    assert {axes["parse"] for axes in search["axes"].values()} == {"first_line", "regex", "as_is"}
    assert not list((tmp_path / "s" / "sweeps").glob("*/answers"))
    assert f"For {search['shared']} of these scores nothing was sent" in report.read_text()
    (prompt,) = yaml.safe_load(best.read_text())["prompts"]
    assert prompt["parse"][0]["regex"]["pattern"] == "Answer: (\\w+)"
    assert evalrun("validate", best).returncode == 0


def test_the_winning_parser_is_compared_on_rows_held_out_and_a_plan_counts_requests_once(
    tmp_path: Path,
) -> None:
    with ChatServer() as server:
        server.answer = answer
        suite = suite_of(tmp_path, server.base_url, over={"parse": PARSE})
        planned = json.loads(evalrun("plan", suite, "--json").stdout)["search"]
        assert not server.bodies
        done = evalrun("search", suite, "--store", tmp_path / "s", "-q", "--json")
        assert done.returncode == 0, done.stderr
        found, sent = json.loads(done.stdout), len(server.bodies)
    assert found["held_out"]["difference"] > 0.8 and found["winner"].endswith("-regex-d")
    rows = planned["whole_grid"]
    assert rows == 2 * (360 - found["held_out"]["n"]), "two prompts, three parsers each"
    assert sent <= planned["greatest"]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"parse": [["first_lin"]]}, "first_line"),
        ({"parse": [[{"regex": {"pattern": "("}}], ["first_line"]]}, "not a regular expression"),
        ({"parsers": [["first_line"]]}, "no axis of a search"),
    ],
)
def test_a_parser_that_is_none_is_refused_by_name(tmp_path: Path, over: dict[str, Any], said: str) -> None:
    suite = suite_of(tmp_path, "http://127.0.0.1:9/v1", over=over)
    done = evalrun("search", suite, "--store", tmp_path / "s", "-q")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "s" / "sweeps").exists()


def test_a_prompt_of_any_suite_has_parsers_of_its_own_and_rescoring_keeps_or_replaces_them(
    tmp_path: Path,
) -> None:
    rows = [{"id": f"r{at}", "want": "yes", "m": "no\nyes" if at % 4 else "no\nno"} for at in range(8)]
    prompts = [{"id": "p", "text": "{{ id }}"}, {"id": "q", "text": "{{ id }}?", "parse": ["last_line"]}]
    suite = recorded_suite(tmp_path, rows, ["m"], prompts=prompts, parse=["first_line"])

    def values(*words: str | Path) -> list[float]:
        done = evalrun(*words, "--store", tmp_path / "s", "--json")
        assert done.returncode == 0, done.stderr
        return [run["metrics"][0]["value"] for run in json.loads(done.stdout)["runs"]]

    report = tmp_path / "r.html"
    assert values(suite, "--report", report, "-q") == [0, 0.75]
    assert "parsers of prompt q" in report.read_text() and "last_line" in report.read_text()
    assert values(suite, "--no-report", "-q", "--reuse") == [0, 0.75]
    prompts[1]["parse"] = ["first_line"]
    other = recorded_suite(tmp_path, rows, ["m"], prompts=prompts, parse=["first_line"])
    assert values(other, "--no-report", "-q", "--reuse") == [0, 0], "not what another parser read"
    prompts[1]["parse"] = ["last_line"]
    suite = recorded_suite(tmp_path, rows, ["m"], prompts=prompts, parse=["first_line"])
    assert values(suite, "--no-report", "-q") == [0, 0.75]
    scorers, both = tmp_path / "scorers.yaml", tmp_path / "both.yaml"
    scorers.write_text("scorers: [{exact_match: {ignore_case: true}}]\n")
    both.write_text("parse: [last_line]\nscorers: [exact_match]\n")
    assert values("rescore", "latest", "--scorers", scorers) == [0, 0.75]
    assert values("rescore", "latest", "--scorers", both) == [0.75, 0.75]

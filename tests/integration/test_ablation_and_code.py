"""`ablate: true` and the scorer `code` in whole sweeps, as their users run them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.servers import ChatServer

from evalrun.analysis.conclude import read_sweep
from evalrun.tracking.store import Store

N = 40


def answer(body: dict[str, Any]) -> str:
    """Right where the rules are there; the tone is worth nothing."""
    question = body["messages"][-1]["content"]
    number = int(question.split()[-1])
    return str(number) if "exactly" in question or number % 4 == 0 else "?"


@pytest.fixture
def ablated(project: Path, chat_server: ChatServer) -> dict[str, Any]:
    chat_server.answer = answer
    sections = "{% section rules %}Say exactly. {% endsection %}{% section tone %}Be kind. {% endsection %}"
    text = sections + "{{ q }}"
    suite = {
        "name": "parts",
        "models": [
            {
                "id": "m",
                "provider": "openai_compatible",
                "base_url": chat_server.base_url,
                "model": "scripted",
            }
        ],
        "prompts": [
            {"id": "whole", "text": text, "ablate": True},
            {"id": "plain", "text": "{{ q }}"},
        ],
        "datasets": [{"id": "d", "rows": [{"q": f"say {i}", "a": str(i)} for i in range(N)], "target": "a"}],
        "scorers": ["exact_match"],
        "repeats": 2,
        "gates": ["exact_match >= 0.2"],
    }
    (project / "suite.yaml").write_text(json.dumps(suite))
    done = evalrun("suite.yaml", "--store", "st", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_parts_of_a_prompt_are_told_apart(ablated: dict[str, Any]) -> None:
    assert [run["prompt"] for run in ablated["runs"]] == [
        "whole",
        "whole-without-rules",
        "whole-without-tone",
        "plain",
    ]
    # Gates do not speak of prompts that nobody means to use.
    assert {gate["run"] for gate in ablated["gates"]} == {"m-whole-d", "m-plain-d"}
    folder = Store(Path("st")).resolve("latest")
    results = read_sweep(folder).results
    [found] = results.ablations
    assert (found.prompt, found.n) == ("whole", N)
    rules, tone = found.parts
    assert (rules.part, rules.prompt) == ("section rules", "whole-without-rules")
    assert rules.gain.difference == pytest.approx(0.75)
    assert rules.gain.n == N  # samples, not answers
    assert rules.verdict is not None
    assert rules.verdict.word == "better"
    assert "section rules helps" in rules.sentence
    assert tone.gain.difference == 0
    assert rules.tokens == 0  # the server says 7 tokens whatever it is sent
    # What is over all the rest is over the suite's own prompts.
    [effect] = results.effects
    assert [level.value for level in effect.levels] == ["whole", "plain"]
    [sensitivity] = results.sensitivity
    assert [name for name, _ in sensitivity.prompts] == ["whole", "plain"]


def test_compare_shows_them(ablated: dict[str, Any]) -> None:
    shown = evalrun("compare", "latest", "--store", "st")
    assert "parts of prompt whole" in shown.stdout
    assert "section rules helps" in " ".join(shown.stdout.split())
    document = json.loads(evalrun("compare", "latest", "--store", "st", "--json").stdout)
    [entry] = document["ablations"]
    assert [part["verdict"] for part in entry["parts"]] == ["better", "inconclusive"]
    assert entry["parts"][0]["gain"]["difference"] == pytest.approx(0.75)
    assert document["tests"] == 3  # two parts and one other prompt


def test_a_rescored_sweep_keeps_its_variants(ablated: dict[str, Any], project: Path) -> None:
    (project / "new.yaml").write_text("scorers: [includes]\n")
    done = evalrun("rescore", "latest", "--scorers", "new.yaml", "--store", "st")
    assert done.returncode == 0, done.stderr
    [found] = read_sweep(Store(Path("st")).resolve("latest")).results.ablations
    assert found.metric == "includes"
    assert found.parts[0].gain.difference == pytest.approx(0.75)


def code_suite(folder: Path, **more: Any) -> Path:
    rows = [{"id": "add", "test": "assert add(1, 2) == 3"}, {"id": "hang", "test": "hang()"}]
    outputs = [
        ("add", 0, "```python\ndef add(a, b):\n    return a + b\n```"),
        ("add", 1, "```python\ndef add(a, b):\n    return a - b\n```"),
        ("hang", 0, "```python\ndef hang():\n    while True: pass\n```"),
        ("hang", 1, "I would rather not."),
    ]
    lines = [{"sample_id": a, "repeat": b, "output": c} for a, b, c in outputs]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = {
        "name": "code",
        "models": [{"id": "m", "provider": "recorded", "path": "answers.jsonl"}],
        "prompts": [{"id": "p", "text": "{{ id }}"}],
        "datasets": [{"id": "d", "rows": rows, "key": "id"}],
        "repeats": 2,
        "parse": [{"code": {"unfenced": "unparsed"}}],
        "scorers": [{"code": {"tests": "test", "timeout_s": 2}}],
        "derive": {"twice": "2*code"},
        **more,
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


def test_code_is_run_only_where_the_suite_allows_it(project: Path) -> None:
    done = evalrun(code_suite(project), "--store", "st", "--no-report")
    assert done.returncode == 2
    assert "allow: [code_execution]" in done.stderr
    assert not (project / "st" / "sweeps").exists() or not list((project / "st" / "sweeps").iterdir())


def test_code_is_scored_when_the_answers_are_there(project: Path) -> None:
    path = code_suite(project, allow=["code_execution"])
    done = evalrun(path, "--store", "st", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)["runs"]
    values = {each["name"]: (each["value"], each["n"]) for each in run["metrics"] if not each["slice"]}
    assert values["code"] == (0.25, 2)
    assert values["repeats.code.pass_at_2"] == (0.5, 2)
    assert run["counts"]["unparsed"] == 1
    samples = json.loads(evalrun("samples", "m-p-d", "--store", "st", "--json").stdout)["samples"]
    by_key = {(each["sample_id"], each["repeat"]): each for each in samples}
    assert len(samples) == 4
    assert "AssertionError" in by_key["add", 1]["reason.code"]
    assert "stopped after 2 s" in by_key["hang", 0]["reason.code"]
    assert by_key["add", 0]["score.twice"] == 2


def test_old_answers_can_be_run_by_rescoring(project: Path) -> None:
    path = code_suite(project, scorers=[{"length": {"max": 1000}}], derive={})
    assert evalrun(path, "--store", "st", "--no-report").returncode == 0
    new = project / "new.yaml"
    new.write_text("scorers: [{code: {tests: test, timeout_s: 2}}]\n")
    assert evalrun("rescore", "latest", "--scorers", new, "--store", "st").returncode == 2
    new.write_text("allow: [code_execution]\nscorers: [{code: {tests: test, timeout_s: 2}}]\n")
    done = evalrun("rescore", "latest", "--scorers", new, "--store", "st", "--json")
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)["runs"]
    assert next(each["value"] for each in run["metrics"] if each["name"] == "code") == 0.25


def slow_suite(folder: Path) -> Path:
    """Recorded programs of which each runs for a minute."""
    rows = [{"k": f"r{i}", "q": "x", "code": "import time", "tests": "time.sleep(60)"} for i in range(12)]
    suite = {
        "name": "slow",
        "allow": ["code_execution"],
        "models": [{"id": "m", "provider": "recorded", "column": "code"}],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": rows, "key": "k"}],
        "scorers": [{"code": {"tests": "tests", "timeout_s": 300}}],
    }
    path = folder / "slow.yaml"
    path.write_text(json.dumps(suite))
    return path


def sessions() -> set[str]:
    """The locked-down children that run now."""
    found = set()
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"scorers/code_child.py" in each.read_bytes():
                found.add(each.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
@pytest.mark.parametrize("command", ["run", "rescore"])
def test_code_that_runs_is_ended_by_ctrl_c(project: Path, command: str) -> None:
    """The second Ctrl-C while programs run (of rescoring the first) ends them and evalrun at once."""
    arguments = [str(slow_suite(project))]
    if command == "rescore":
        plain = json.loads((project / "slow.yaml").read_text())
        (project / "scorers.yaml").write_text(json.dumps({key: plain[key] for key in ("scorers", "allow")}))
        (project / "plain.yaml").write_text(json.dumps({**plain, "scorers": ["json_valid"], "allow": []}))
        first = evalrun("plain.yaml", "--store", "st", "--no-report", "--json")
        assert first.returncode == 0, first.stderr
        arguments = ["rescore", json.loads(first.stdout)["sweep"], "--scorers", "scorers.yaml"]
    before = sessions()
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", *arguments, "--store", "st", "--no-report"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    scoring = "answered.json" if command == "run" else "samples.parquet.again"
    deadline = time.monotonic() + 60
    children: set[str] = set()
    while not children and time.monotonic() < deadline:
        time.sleep(0.05)
        files = list((project / "st").rglob(scoring))
        # Before a run begins a child is tried: it is none of those that are meant.
        children = sessions() - before if files else set()
    assert children
    process.send_signal(signal.SIGINT)
    if command == "run":
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not children & sessions()
    if command == "run":
        [scores] = (project / "st").rglob("samples.parquet.deferred")
        assert not scores.read_bytes()  # a program that was ended is not a program that failed


def three_parts(body: dict[str, Any]) -> str:
    """Right with the rules or the example (which say the same), and for every third row with the tone."""
    question = body["messages"][-1]["content"]
    number = int(question.split()[-1])
    knows = "exactly" in question or "Like 7" in question
    right = (knows and number % 5 != 1) or ("kind" in question and number % 3 == 0)
    return str(number) if right else "?"


def shapley_suite(server: ChatServer, text: str, ablate: Any) -> dict[str, Any]:
    model = {"id": "m", "provider": "openai_compatible", "base_url": server.base_url, "model": "scripted"}
    return {
        "name": "shares",
        "models": [model],
        "prompts": [{"id": "whole", "text": text, "ablate": ablate}],
        "datasets": [{"id": "d", "rows": [{"q": f"say {i}", "a": str(i)} for i in range(N)], "target": "a"}],
        "scorers": ["exact_match"],
    }


PARTS = (
    "{% section rules %}Say exactly. {% endsection %}{% section tone %}Be kind. {% endsection %}"
    "{% section like %}Like 7. {% endsection %}{{ q }}"
)


def test_shares_of_parts_are_shapleys_over_the_samples(project: Path, chat_server: ChatServer) -> None:
    import numpy as np
    import pyarrow.parquet as pq
    from scipy import stats

    chat_server.answer = three_parts
    suite = shapley_suite(chat_server, PARTS, {"method": "shapley", "interactions": True})
    (project / "suite.yaml").write_text(json.dumps(suite))
    done = evalrun("suite.yaml", "--store", "st", "--report", "r.html", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 8
    folder = Store(Path("st")).resolve("latest")
    [found] = read_sweep(folder).results.ablations
    names = ("rules", "tone", "like")
    scores = {}
    for run in folder.runs():
        left = set(run["prompt"].partition("-without-")[2].split("-")) - {""}
        table = pq.read_table(folder.samples_path(run["run"])).to_pydict()
        order = np.argsort(table["sample_id"])
        scores[frozenset(names) - left] = np.array(table["score.exact_match"], float)[order]
    rules = (
        2 * (scores[frozenset({"rules"})] - scores[frozenset()])
        + scores[frozenset({"rules", "tone"})] - scores[frozenset({"tone"})]
        + scores[frozenset({"rules", "like"})] - scores[frozenset({"like"})]
        + 2 * (scores[frozenset(names)] - scores[frozenset({"tone", "like"})])
    ) / 6  # fmt: skip
    assert found.method == "shapley" and [part.part for part in found.parts] == [
        f"section {n}" for n in names
    ]
    gain = found.parts[0].gain
    assert gain.difference == pytest.approx(rules.mean(), abs=1e-12)
    assert gain.se == pytest.approx(rules.std(ddof=1) / N**0.5, abs=1e-12)
    assert gain.ci_low is not None and gain.ci_high is not None
    width = stats.t.ppf(0.975, N - 1) * rules.std(ddof=1) / N**0.5
    assert gain.ci_high - gain.difference == pytest.approx(width, rel=1e-9)
    assert found.nothing is not None
    total = sum(part.gain.difference or 0 for part in found.parts)
    assert found.whole.value is not None and found.nothing.value is not None
    assert total == pytest.approx(found.whole.value - found.nothing.value, abs=1e-12)
    assert found.parts[0].left_out is not None and found.parts[0].left_out.difference == 0
    words = {pair.parts: pair.word for pair in found.interactions}
    assert words["section rules", "section like"] == "say the same"
    assert "it adds (Shapley)" in (project / "r.html").read_text()


@pytest.mark.parametrize(
    ("text", "ablate", "said"),
    [
        (PARTS.replace("{{ q }}", ""), {"method": "shapley"}, "nothing is left of the prompt"),
        (PARTS, {"method": "loo", "interactions": True}, "Write method: shapley"),
        (PARTS, {"method": "shaply"}, "shapley"),
        (
            "".join(f"{{% section s{i} %}}a{{% endsection %}}" for i in range(9)) + "{{ q }}",
            {"method": "shapley"},
            "9 parts have 512 combinations",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_told_first(
    project: Path, chat_server: ChatServer, text: str, ablate: Any, said: str
) -> None:
    (project / "suite.yaml").write_text(json.dumps(shapley_suite(chat_server, text, ablate)))
    done = evalrun("suite.yaml", "--store", "st")
    assert done.returncode == 2 and said in done.stderr
    assert chat_server.bodies == []

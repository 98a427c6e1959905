"""Candidates that a search makes itself: parameters by TPE, prompts by a writer through GEPA."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.program import evalrun
from tests.recorded import recorded_suite

from evalrun.datasets import open_dataset
from evalrun.suite.dataset import DatasetSpec

pytest.importorskip("optuna", reason="needs optuna (extra: search)")
pytest.importorskip("gepa", reason="needs gepa (extra: search)")

MODEL = """
import hashlib, time
from pathlib import Path

def draw(*names):
    return int.from_bytes(hashlib.sha256("/".join(map(str, names)).encode()).digest()[:8], "big") / 2**64

def answer(request):
    text, warmth = request.messages[-1]["content"], request.params.get("temperature", 1.5)
    with Path("calls.log").open("a") as log:
        log.write(f"{request.sample_id} {warmth} {'MAGIC' in text}\\n")
    time.sleep(0.002)
    rate = 0.9 - 0.25 * abs(warmth - 0.5) - (0 if "MAGIC" in text else 0.2)
    return "yes" if draw(request.sample_id) < rate else "no"

def write(request):
    text = request.messages[-1]["content"]
    with Path("writer.log").open("a") as log:
        log.write(text.replace("\\n", " ") + "\\n")
    if "cannot be used" not in text and "MAGIC" not in text:
        return "Here it is:\\n```\\nMAGIC, and no row at all\\n```"
    return "```\\nMAGIC. The question: {{ message }}\\n```"
"""


def suite_of(folder: Path, module: str, count: int = 420, **search: Any) -> Path:
    """A suite over rows with a message; the better the nearer the temperature is to 0.5, and with MAGIC."""
    (folder / f"{module}.py").write_text(MODEL)
    rows = [{"id": f"r{at}", "want": "yes", "message": f"question r{at}."} for at in range(count)]
    models = [
        {"id": "m", "provider": "python", "function": f"{module}:answer", "params": {"temperature": 1.5}},
        {"id": "w", "provider": "python", "function": f"{module}:write"},
    ]
    return recorded_suite(
        folder, rows, (), search=search, models=models if search["by"] == "gepa" else models[:1],
        prompts=[{"id": "p", "text": "Be brief. {% section rules %}Say: {{ message }}{% endsection %}"}],
        performance={"concurrency": 4},
    )  # fmt: skip


def _found(suite: Path, *words: str | Path) -> dict[str, Any]:
    command = ("search", suite, "--store", "s", "--no-cache", "--no-report", "-q", "--json", *words)
    done = evalrun(*command, cwd=suite.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _killed(suite: Path, calls: int) -> None:
    command = [sys.executable, "-m", "evalrun", "search", str(suite), "--store", "s", "--no-cache", "-q"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--no-report"], cwd=suite.parent, **quiet)  # type: ignore[call-overload]
    log, end = suite.parent / "calls.log", time.monotonic() + 60
    while time.monotonic() < end and not (log.exists() and len(log.read_text().splitlines()) > calls):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


TPE = {"by": "tpe", "over": {"params.temperature": {"from": 0, "to": 2}}, "trials": 6}
GEPA = {"by": "gepa", "propose": {"model": "w", "candidates": 2, "sections": ["rules"]}}


def test_tpe_finds_a_better_temperature_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "warm", **TPE)
    _killed(suite, 500)
    found = _found(suite, "--best-to", tmp_path / "best.yaml")
    calls = (tmp_path / "calls.log").read_text().splitlines()
    asked = found["calls"] + 2 * found["held_out"]["n"]
    assert asked <= len(calls) <= asked + 4 + 64, "at most what was in flight or not yet durable"
    assert found["winner"] != found["baseline"] and found["held_out"]["difference"] > 0
    assert found["calls"] < found["calls_full_grid"], "trials that were shown to be worse were ended"
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert abs(best["models"][0]["params"]["temperature"] - 0.5) < 0.6
    fresh = _found(suite, "--fresh")["search"]
    assert fresh["made"] == found["search"]["made"], "the same trials, undisturbed"
    assert fresh["race"]["candidates"] == found["search"]["race"]["candidates"]


def test_gepa_finds_the_planted_text_and_the_writer_sees_no_row_held_out(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "magic", **GEPA)
    _killed(suite, 310)
    found = _found(suite, "--best-to", tmp_path / "best.yaml")
    assert found["held_out"]["difference"] > 0.1
    prompt = yaml.safe_load((tmp_path / "best.yaml").read_text())["prompts"][0]["text"]
    assert "MAGIC" in prompt and "{{ message }}" in prompt and prompt.startswith("Be brief.")
    # One that lost its variable went back with the reason, and is no candidate.
    said = (tmp_path / "writer.log").read_text()
    assert "it has lost {{ message }}" in said
    assert any("it has lost {{ message }}" in reason for reason in found["search"]["refused"])
    held_out = {row for run in found["runs"] for row in _ids(tmp_path, found["sweep"], run["run"])}
    assert len(held_out) == found["held_out"]["n"]
    assert not any(f"question {row}." in said for row in held_out)
    # Nothing that was answered was asked again: neither of the writer nor of the model.
    lines = said.splitlines()
    assert len(lines) <= len(set(lines)) + 1


@pytest.mark.parametrize("search", [{**TPE, "trials": 3}, GEPA])
def test_what_is_made_and_breaks_a_guard_is_not_chosen(tmp_path: Path, search: dict[str, Any]) -> None:
    suite = suite_of(tmp_path, f"guarded_{search['by']}", 350, guards=["exact_match <= 0.5"], **search)
    found = _found(suite)["search"]
    means = {each["name"]: each["mean"] for each in found["race"]["candidates"]}
    assert means[found["winner"]] <= 0.5 and found["unguarded"]
    assert all(means[name] > 0.5 for name in found["unguarded"])
    if search["by"] == "tpe":
        assert set(found["importance"]) <= {"temperature"}
        assert {name: each["params"] for name, each in found["made"].items()}.items() <= found["axes"].items()


def _ids(folder: Path, sweep: str, run: str) -> list[str]:
    import pyarrow.parquet as pq

    (samples,) = (folder / "s" / "sweeps").glob(f"{sweep}*/runs/{run}/samples.parquet")
    return list(pq.read_table(samples, columns=["sample_id"]).column(0).to_pylist())


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({**GEPA, "propose": {"model": "ww"}}, "Did you mean 'w'?"),
        ({**GEPA, "propose": {"model": "w", "sections": ["rool"]}}, "no section 'rool'"),
        ({"by": "gepa"}, "nobody writes the prompts"),
        ({"by": "tpe"}, "nothing to try"),
        ({"by": "tpe", "over": {"prompts": ["p"]}}, "tpe is over parameters"),
        ({"by": "tpe", "over": {"params.temperature": {"from": 1, "to": 0}}}, "no range"),
        ({"by": "race", "over": {"params.temperature": {"from": 0, "to": 1}}}, "a range is for by: tpe"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_sent(
    tmp_path: Path, search: dict[str, Any], said: str
) -> None:
    suite = suite_of(tmp_path, "none", **search)
    done = evalrun("search", suite, "--store", tmp_path / "s", "-q", cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "s" / "sweeps").exists()


HOSTILE = """
from pathlib import Path

TRICKS = [
    "```\\nMAGIC, and no row at all\\n```",
    "```\\nMAGIC. Such as: {held_out} {{{{ message }}}}\\n```",
    "```\\n```",
    "",
    "```\\n" + "MAGIC " * 200_000 + "{{{{ message }}}}\\n```",
    None,
    "```\\n{{{{ message | shout }}}} MAGIC\\n```",
    "```\\n{{{{ message.words[0] }}}} MAGIC\\n```",
    "```\\n{{% endsection %}}{{{{ message }}}} MAGIC\\n```",
    "```\\n{{% for a in range(10 ** 9) %}}{{{{ message }}}}{{% endfor %}} MAGIC\\n```",
    "```\\nMAGIC. {{{{ message }}}} {{{{ want }}}}\\n```",
    "```\\nMAGIC. The question: {{{{ message }}}}\\n```",
]

def write(request):
    said = TRICKS.pop(0) if len(TRICKS) > 1 else TRICKS[0]
    if said is None:
        raise RuntimeError("the writer is ill")
    return said.format(held_out=Path("held_out.txt").read_text())
"""


def test_a_writer_that_tries_everything_brings_in_no_prompt_that_must_not_stand(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, "hostile_m", **{**GEPA, "propose": {**GEPA["propose"], "candidates": 5}})
    (tmp_path / "hostile_w.py").write_text(HOSTILE)
    document = json.loads(suite.read_text())
    document["models"][1] = {"id": "w", "provider": "python", "function": "hostile_w:write"}
    suite.write_text(json.dumps(document))
    spec = document["datasets"][0]
    part = DatasetSpec.model_validate({**spec, "part": {"take": "held_out"}})
    (tmp_path / "held_out.txt").write_text(next(iter(open_dataset(part, tmp_path, 0))).row["message"])
    found = _found(suite, "--best-to", tmp_path / "best.yaml")
    refused = found["search"]["refused"]
    reasons = (
        "it has lost {{ message }}", "it quotes a row that is held out", "it is empty", "no text between",
        "characters, and", "the writer did not answer", "it cannot be rendered", "it is no template",
        "it uses {{ want }}",
    )  # fmt: skip
    for reason in reasons:
        assert any(reason in said for said in refused), (reason, [said[:70] for said in refused])
    prompts = [made["prompt"]["text"] for made in found["search"]["made"].values()]
    assert prompts and all("MAGIC. The question: {{ message }}" in text for text in prompts)
    assert found["held_out"]["difference"] > 0.1 and "the writer is ill" in str(refused)

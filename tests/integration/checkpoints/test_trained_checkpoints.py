"""A model that is really trained: its checkpoints as an axis, from the Trainer's own losses to the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch", reason="needs the extra 'transformers'")
pytest.importorskip("transformers", reason="needs the extra 'transformers'")

import evalrun


def suite(trained: Path, folder: Path, **model: Any) -> Path:
    entry = {
        "id": "tiny",
        "provider": "transformers",
        "api": "completions",
        "threads": 1,
        "params": {"temperature": 0, "max_tokens": 1},
        "checkpoints": {"path": str(trained / "out"), "training": "tiny-run"},
        **model,
    }
    document = {
        "name": "tiny",
        "models": [entry],
        "prompts": [{"id": "nll", "text": "{{ text }}", "ask": "perplexity"}],
        "datasets": [{"id": "held", "path": str(trained / "held.jsonl"), "key": "id"}],
        "scorers": [{"perplexity": {}}],
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep over the three checkpoints, with its report beside the store."""
    folder = tmp_path_factory.mktemp("evaluated")
    sweep = evalrun.run(suite(trained, folder), store=folder / "store", report=folder / "r.html")
    return Path(sweep.path)


def runs_of(sweep: Path) -> dict[int, dict[str, Any]]:
    documents = [json.loads(path.read_text()) for path in sweep.glob("runs/*/run.json")]
    return {document["step"]: document for document in documents}


def nll(document: dict[str, Any]) -> float:
    return float(next(m["value"] for m in document["metrics"] if m["name"] == "perplexity.nll_per_token"))


def test_the_trainers_losses_are_found_again(evaluated: Path, trained: Path) -> None:
    """All texts are of one length and one batch: the Trainer's mean of batch means is the mean over texts."""
    state = json.loads((trained / "out" / "checkpoint-60" / "trainer_state.json").read_text())
    losses = {log["step"]: log["eval_loss"] for log in state["log_history"] if "eval_loss" in log}
    runs = runs_of(evaluated)
    assert sorted(runs) == sorted(losses) == [20, 40, 60]
    for step, loss in losses.items():
        assert nll(runs[step]) == pytest.approx(loss, abs=1e-4)
        assert runs[step]["training"] == "tiny-run"
        assert len(runs[step]["checkpoint"]["weights_sha256"]) == 64


def test_the_last_step_is_the_one_to_ship(evaluated: Path) -> None:
    (line,) = json.loads((evaluated / "sweep.json").read_text())["results"]["checkpoints"]
    (curve,) = line["curves"]
    assert (curve["metric"], curve["direction"], curve["best"]) == ("perplexity.nll_per_token", "lower", 60)
    points = {point["step"]: point for point in curve["points"]}
    assert [points[step]["verdict"] for step in (20, 40, 60)] == ["behind", "behind", "best"]
    assert points[20]["behind"] > points[40]["behind"] > 0
    assert curve["trend"]["tau"] == pytest.approx(1.0)
    losses = {point["step"]: point for point in line["losses"]}
    assert losses[60]["eval_loss"] == pytest.approx(losses[60]["nll"], abs=1e-4)
    assert losses[60]["gap"] == pytest.approx(losses[60]["nll"] - losses[60]["train_loss"])


def test_pairs_are_sharper_than_two_samples(evaluated: Path) -> None:
    """The standard error of step 60 minus step 40 by text is less than half the unpaired one."""
    import numpy as np
    import pyarrow.parquet as pq

    values = {}
    for step, document in runs_of(evaluated).items():
        rows = pq.read_table(evaluated / "runs" / document["run"] / "samples.parquet").to_pylist()
        values[step] = np.array(
            [row["score.perplexity"] for row in sorted(rows, key=lambda r: r["sample_id"])]
        )
    n = len(values[60])
    paired = np.std(values[60] - values[40], ddof=1) / n**0.5
    unpaired = ((np.var(values[60], ddof=1) + np.var(values[40], ddof=1)) / n) ** 0.5
    assert paired < unpaired / 2


def test_the_report_says_so(evaluated: Path) -> None:
    page = (evaluated.parents[2] / "r.html").read_text()
    assert "take step 60 by perplexity.nll_per_token" in page
    assert 'id="checkpoints"' in page


def test_watch_evaluates_slow_writers_once_each(trained: Path, tmp_path: Path) -> None:
    """A trainer that writes weights, sleeps, and writes its state: no checkpoint is asked before."""
    out = tmp_path / "out"
    words = [
        "watch",
        "tiny.yaml",
        "--store",
        "store",
        "--every",
        "0.3",
        "--stop",
        "training finished",
        "--json",
    ]
    suite(trained, tmp_path, checkpoints={"path": "out"})
    command = [sys.executable, "-m", "evalrun", *words, "--report", "r.html"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    state = tmp_path / "state.json"
    try:
        for step in (40, 60):
            target, source = out / f"checkpoint-{step}", trained / "out" / f"checkpoint-{step}"
            target.mkdir(parents=True)
            for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
                shutil.copy(source / name, target)
                time.sleep(0.3)
            assert not list((tmp_path / "store").glob(f"sweeps/*/runs/tiny@{step}-nll-held")), "not whole"
            shutil.copy(source / "trainer_state.json", state)
            state.rename(target / "trainer_state.json")
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    document = json.loads(printed)
    assert [run["step"] for run in document["runs"]] == [40, 60]
    (events,) = (tmp_path / "store").glob("sweeps/*/events.jsonl")
    asked = [json.loads(line) for line in events.read_text().splitlines()]
    assert [e["target"] for e in asked if e["action"] == "begin_run"] == [
        "tiny@40-nll-held",
        "tiny@60-nll-held",
    ]
    assert "take step 60" in (tmp_path / "r.html").read_text()

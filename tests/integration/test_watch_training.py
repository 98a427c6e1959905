"""`evalrun watch` beside something that writes checkpoints. Recorded answers stand in for what they would
say: the provider is let take checkpoints, and everything else is as it is."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from evalrun.analysis.samples import SampleTable
from evalrun.errors import ExitCode, UserError
from evalrun.reports.progress import make_progress
from evalrun.suite import checkpoints
from evalrun.sweep.follow_training import MARK, watch_training
from evalrun.sweep.main import Outcome
from evalrun.sweep.options import SweepOptions


@pytest.fixture(autouse=True)
def recorded_takes_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "LOADS_WEIGHTS", ("recorded",))


def write(out: Path, step: int, most: int = 40, *, parts: str = "config weights state") -> Path:
    """A checkpoint of no weights, or the beginning of one."""
    path = out / f"checkpoint-{step}"
    path.mkdir(parents=True, exist_ok=True)
    if "config" in parts:
        (path / "config.json").write_text("{}")
    if "weights" in parts:
        (path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    if "state" in parts:
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": most}))
    return path


def suite(tmp_path: Path, **spec: Any) -> Path:
    document = {
        "name": "w",
        "models": [
            {"id": "m", "provider": "recorded", "column": "a", "checkpoints": {"path": "out", **spec}}
        ],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": [{"q": f"q{at}", "a": "x", "target": "x"} for at in range(5)]}],
        "scorers": ["exact_match"],
    }
    path = tmp_path / "w.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class Steps:
    """Does the next thing each time the watcher sleeps; Ctrl-C when there is nothing left."""

    def __init__(self, *things: Any) -> None:
        self._things = list(things)

    def __call__(self, seconds: float) -> None:
        if not self._things:
            raise KeyboardInterrupt
        self._things.pop(0)()


def watch(tmp_path: Path, path: Path, *things: Any, **rule: Any) -> Outcome | None:
    options = SweepOptions(store=tmp_path / "store", report=tmp_path / "r.html", write_report=False)
    return watch_training(path, options, make_progress(quiet=True), rule=rule, sleep=Steps(*things))


def steps(outcome: Outcome | None) -> list[int]:
    assert outcome is not None
    return [run["step"] for run in outcome.runs]


def begun(outcome: Outcome | None) -> list[str]:
    """The runs that were asked, in order, as the trail has them."""
    assert outcome is not None
    return [event["target"] for event in outcome.folder.events() if event["action"] == "begin_run"]


def test_each_once_and_none_before_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = watch(
        tmp_path,
        suite(tmp_path),
        lambda: write(out, 10, parts="config"),
        lambda: write(out, 10, parts="weights"),
        lambda: write(out, 10, parts="state"),
        lambda: None,
        lambda: write(out, 20),
        lambda: write(out, 30, parts="config weights"),
        lambda: None,
    )
    assert steps(outcome) == [10, 20]
    assert begun(outcome) == ["m@10-p-d", "m@20-p-d"]
    assert outcome is not None and outcome.exit_code is ExitCode.INTERRUPTED
    assert (outcome.folder.path / MARK).exists()


def test_samples_are_not_read_again_in_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real, read = tmp_path / "out", SampleTable.from_parquet, list[str]()

    def counted(path: Path, columns: Sequence[str] | None = None) -> SampleTable:
        if columns is None:
            read.append(path.parent.name)
        return real(path, columns)

    monkeypatch.setattr(SampleTable, "from_parquet", counted)
    outcome = watch(tmp_path, suite(tmp_path), *(partial(write, out, step) for step in (10, 20, 30, 40)))
    assert steps(outcome) == [10, 20, 30, 40]
    # Once when the run ends, and once when the steps are compared for the first time.
    assert {run: read.count(run) for run in read} == dict.fromkeys(read, 2)


def test_after_ctrl_c_the_same_command_evaluates_only_what_is_missing(tmp_path: Path) -> None:
    out, path = tmp_path / "out", suite(tmp_path)
    first = watch(tmp_path, path, lambda: write(out, 10))
    again = watch(tmp_path, path, lambda: write(out, 40), lambda: None)
    assert first is not None and again is not None
    assert again.folder.path == first.folder.path
    assert steps(again) == [10, 40]
    assert begun(again) == ["m@10-p-d", "m@40-p-d"]
    assert again.exit_code is ExitCode.OK
    assert not (again.folder.path / MARK).exists(), "step 40 of 40: the training finished"
    assert again.folder.verify_events() is None
    later = watch(tmp_path, path)
    assert later is not None and later.folder.path != first.folder.path


def test_deleted_checkpoints_stay_in_the_sweep(tmp_path: Path) -> None:
    """A Trainer keeps the last few."""
    out = tmp_path / "out"

    def deleted() -> None:
        for file in (out / "checkpoint-10").iterdir():
            file.unlink()
        (out / "checkpoint-10").rmdir()
        write(out, 20)

    outcome = watch(tmp_path, suite(tmp_path), lambda: write(out, 10), deleted, lambda: None)
    assert steps(outcome) == [10, 20]
    assert outcome is not None
    digests = [run["checkpoint"]["weights_sha256"] for run in outcome.runs]
    assert all(digests)


def test_the_last_step_counts_as_such_when_the_training_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = watch(
        tmp_path,
        suite(tmp_path, steps="every 20"),
        lambda: write(out, 15, 35),
        lambda: write(out, 20, 35),
        lambda: write(out, 35, 35),
    )
    assert begun(outcome) == ["m@20-p-d", "m@35-p-d"]


def test_it_ends_when_nothing_comes(tmp_path: Path) -> None:
    write(tmp_path / "out", 10)
    outcome = watch(tmp_path, suite(tmp_path), *[lambda: time.sleep(0.02)] * 50, stop="0.05 s idle")
    assert steps(outcome) == [10]


def test_a_training_in_the_store_says_that_it_finished(tmp_path: Path) -> None:
    """One that stops early never does all of its steps."""
    from evalrun.tracking.store import Store
    from evalrun.training.track import track

    training = track("early", store=tmp_path / "store")
    out = tmp_path / "out"

    def finish() -> None:
        training.finish()
        assert Store(tmp_path / "store")

    outcome = watch(tmp_path, suite(tmp_path, training="latest"), lambda: write(out, 10), finish)
    assert steps(outcome) == [10]
    assert outcome is not None and outcome.runs[0]["training"] == "early"
    assert outcome is not None and not (outcome.folder.path / MARK).exists()


@pytest.mark.parametrize(
    ("rule", "message"), [({"stop": "tomorrow"}, "cannot read when to stop"), ({"every_s": 0}, "every_s")]
)
def test_a_rule_that_cannot_be_read(tmp_path: Path, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        watch(tmp_path, suite(tmp_path), **rule)
    assert message in str(raised.value)


def test_a_suite_without_checkpoints_is_told_so(tmp_path: Path) -> None:
    path = suite(tmp_path)
    document = yaml.safe_load(path.read_text())
    del document["models"][0]["checkpoints"]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(UserError, match="no model of the suite has checkpoints"):
        watch(tmp_path, path)


_WATCH = """
import sys
from evalrun.suite import checkpoints
checkpoints.LOADS_WEIGHTS = ("recorded",)
sys.argv = ["evalrun", *sys.argv[1:]]
from evalrun.cli.main import main
main()
"""


def test_kill_minus_nine_and_again(tmp_path: Path) -> None:
    """A real process, killed while it waits; meanwhile it costs next to nothing."""
    out, path = tmp_path / "out", suite(tmp_path)
    write(out, 10)
    words = ["watch", str(path), "--store", str(tmp_path / "store"), "--no-report", "--every", "0.5", "-q"]
    process = subprocess.Popen([sys.executable, "-c", _WATCH, *words], env=os.environ, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "store").glob("sweeps/*/runs/m@10-p-d/run.json")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        assert psutil.Process(process.pid).is_running()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    write(out, 40)
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, *words, "--json"], capture_output=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    document = json.loads(done.stdout)
    assert [run["step"] for run in document["runs"]] == [10, 40]
    assert len(list((tmp_path / "store" / "sweeps").iterdir())) == 1

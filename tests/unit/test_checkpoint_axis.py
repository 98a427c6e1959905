"""One model of a suite becomes one for each checkpoint of a training."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalrun.errors import UserError
from evalrun.suite.checkpoints import Awaiting, CheckpointSpec, NothingYetError, WatchSpec
from evalrun.suite.load import LoadedSuite, load_text
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import cells


def whole(folder: Path, step: int) -> None:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    header = b"{}"
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 100}))


def suite(
    tmp_path: Path,
    overrides: Overrides | None = None,
    awaiting: Awaiting | None = None,
    checkpoints: Any = None,
    **model: Any,
) -> LoadedSuite:
    entry = {
        "id": "m",
        "provider": "transformers",
        "checkpoints": {"path": "out", **(checkpoints or {})},
        **model,
    }
    document = {
        "name": "s",
        "models": [entry],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": [{"q": "a", "target": "b"}]}],
        "scorers": ["exact_match"],
    }
    return load_text(yaml.safe_dump(document), tmp_path / "s.yaml", overrides, awaiting=awaiting)


def ids(loaded: LoadedSuite) -> list[str]:
    return [model.id for model in loaded.suite.models]


@pytest.mark.parametrize(
    ("checkpoints", "steps"),
    [
        ({}, [5, 10, 25, 100]),
        ({"steps": "every 10"}, [10, 100]),
        ({"steps": "every 10", "last": False}, [10, 100]),
        ({"steps": [5]}, [5, 100]),
        ({"steps": [5], "last": False}, [5]),
        ({"pattern": "*-?"}, [5]),
    ],
)
def test_which_steps(tmp_path: Path, checkpoints: dict[str, Any], steps: list[int]) -> None:
    for step in (100, 5, 25, 10):
        whole(tmp_path / "out", step)
    loaded = suite(tmp_path, checkpoints=checkpoints)
    assert ids(loaded) == [f"m@{step}" for step in steps]
    assert [model.model for model in loaded.suite.models] == [f"out/checkpoint-{step}" for step in steps]
    assert loaded.declared["models"][1:] == ids(loaded)


def test_runs_are_named_by_step_and_read_again(tmp_path: Path) -> None:
    """What is stored of a suite is a suite too."""
    whole(tmp_path / "out", 5)
    loaded = suite(tmp_path, checkpoints={"training": "t"})
    (cell,) = cells(loaded.suite)
    assert cell.run_id == "m@5-p-d"
    again = load_text(yaml.safe_dump(loaded.suite.resolved()), tmp_path / "again.yaml").suite
    assert again.resolved() == loaded.suite.resolved()
    assert again.models[0].checkpoint == CheckpointSpec(of="m", step=5, path="out/checkpoint-5", training="t")


def test_what_is_not_whole_is_left_out_and_told(tmp_path: Path) -> None:
    whole(tmp_path / "out", 5)
    whole(tmp_path / "out", 10)
    (tmp_path / "out" / "checkpoint-10" / "config.json").unlink()
    loaded = suite(tmp_path)
    assert ids(loaded) == ["m@5"]
    assert loaded.notes == ("m: checkpoint-10 is left out: config.json",)
    with pytest.raises(UserError, match="no whole checkpoint in 'out': m: checkpoint-10"):
        suite(tmp_path, checkpoints={"pattern": "checkpoint-10"})


def test_a_base_takes_checkpoints_as_adapters(tmp_path: Path) -> None:
    whole(tmp_path / "out", 5)
    (model,) = suite(tmp_path, model="base").suite.models
    assert (model.model, model.options.adapter) == ("base", "out/checkpoint-5")  # type: ignore[attr-defined]


def test_gguf_files_and_engines(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tuned-step-7.gguf").write_bytes(b"GGUF")
    loaded = suite(tmp_path, provider="llamacpp", checkpoints={"pattern": "*.gguf", "settled_s": 0})
    assert [(model.id, model.model) for model in loaded.suite.models] == [("m@7", "out/tuned-step-7.gguf")]
    assert suite(tmp_path, provider="vllm", checkpoints={"pattern": "*.gguf", "settled_s": 0}).suite.models
    with pytest.raises(UserError, match="exclude each other"):
        suite(tmp_path, provider="llamacpp", model="x", checkpoints={"pattern": "*.gguf"})
    with pytest.raises(UserError, match="loads no weights"):
        suite(tmp_path, provider="recorded", column="q")


def test_some_by_the_command_line_and_filters(tmp_path: Path) -> None:
    for step in (5, 10):
        whole(tmp_path / "out", step)
    assert ids(suite(tmp_path, Overrides(models=("m@10",)))) == ["m@10"]
    assert ids(suite(tmp_path, Overrides(models=("m",)))) == ["m@5", "m@10"]
    with pytest.raises(UserError, match="no checkpoint 'm@6'"):
        suite(tmp_path, Overrides(models=("m@6",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "nowhere"}, "no folder"),
        ({"steps": "every day"}, "expected steps"),
        ({"steps": []}, "expected steps"),
        ({"steps": [-5]}, "expected steps"),
        ({"steps": [True]}, "expected steps"),
        ({"pattern": "/etc/*"}, "no pattern"),
        ({"patern": "x"}, "pattern"),
    ],
)
def test_mistakes_have_a_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    whole(tmp_path / "out", 5)
    with pytest.raises(UserError, match=message) as raised:
        suite(tmp_path, checkpoints=changes)
    assert all("s.yaml:" in problem.where for problem in raised.value.problems)


def test_while_a_training_goes_on(tmp_path: Path) -> None:
    """Nothing yet is no mistake, the last is the last once all is done, and deleted ones stay."""
    with pytest.raises(NothingYetError):
        suite(tmp_path, awaiting=Awaiting())
    for step in (10, 15):
        whole(tmp_path / "out", step)
    every = {"steps": "every 10"}
    assert ids(suite(tmp_path, awaiting=Awaiting(), checkpoints=every)) == ["m@10"]
    assert ids(suite(tmp_path, awaiting=Awaiting(finished=True), checkpoints=every)) == ["m@10", "m@15"]
    kept = (CheckpointSpec(of="m", step=3, path="out/checkpoint-3"), CheckpointSpec(of="other", step=4))
    assert ids(suite(tmp_path, awaiting=Awaiting(kept=kept))) == ["m@3", "m@10", "m@15"]


@pytest.mark.parametrize(
    ("stop", "idle_s", "with_training"),
    [
        ("training finished or 3 h idle", 10_800, True),
        ("30 min idle", 1800, False),
        ("1.5 h idle or 20 s idle", 20, False),
        ("training finished", None, True),
    ],
)
def test_when_to_stop(stop: str, idle_s: float | None, with_training: bool) -> None:
    rule = WatchSpec(stop=stop)
    assert (rule.idle_s, rule.with_training) == (idle_s, with_training)


def test_a_stop_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="cannot read when to stop"):
        WatchSpec(stop="tomorrow")

"""Checkpoints of a folder: steps, order, and what is whole."""

import contextlib
import json
import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.checkpoints import SETTLED_S, find_checkpoints, safetensors_header, step_of
from evalrun.errors import UserError

LATER = time.time() + 1000 * SETTLED_S  # tests run long after this line


def weights(path: Path, rows: int = 2) -> None:
    data = bytes(8 * rows)
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [rows, 2], "data_offsets": [0, len(data)]},
            "__metadata__": {"x": "y"},
        }
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def checkpoint(folder: Path, *, state: object = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    weights(folder / "model.safetensors")
    if state is not None:
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-1500", 1500),
        ("step_20", 20),
        ("iter_0000300", 300),
        ("global_step7", 7),
        ("epoch=2-step=24.ckpt", 24),
        ("model-step-12-v2", 12),
        ("0042", 42),
        ("final", None),
        ("llama-3-8b-v2", None),
    ],
)
def test_the_step_that_a_name_says(tmp_path: Path, name: str, step: int | None) -> None:
    (tmp_path / name).mkdir()
    assert step_of(tmp_path / name) == step


def test_the_trainers_own_step_goes_before_the_name(tmp_path: Path) -> None:
    """The state holds NaN after a training that diverged, which is no JSON."""
    path = checkpoint(
        tmp_path / "checkpoint-5", state={"global_step": 50, "log_history": [{"loss": float("nan")}]}
    )
    assert step_of(path) == 50
    assert find_checkpoints(tmp_path)[0].complete


def test_in_the_order_of_steps_not_of_names(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        checkpoint(tmp_path / f"checkpoint-{step}", state={"global_step": step})
    assert [one.step for one in find_checkpoints(tmp_path)] == [3, 20, 100]


def test_without_steps_in_the_order_of_time(tmp_path: Path) -> None:
    for age, name in ((300, "b"), (100, "a"), (200, "c")):
        path = checkpoint(tmp_path / name)
        for each in (*path.iterdir(), path):
            os.utime(each, (time.time() - age,) * 2)
    found = find_checkpoints(tmp_path, "*", now=LATER)
    assert [(one.path.name, one.step) for one in found] == [("b", 1), ("c", 2), ("a", 3)]
    assert all("order of time" in one.note for one in found)


def test_two_of_one_step_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "checkpoint-5")
    checkpoint(tmp_path / "step_5")
    with pytest.raises(UserError, match="two checkpoints are of step 5"):
        find_checkpoints(tmp_path, "*")


def test_no_folder_and_no_pattern(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        find_checkpoints(tmp_path / "out")
    with pytest.raises(UserError, match="no pattern"):
        find_checkpoints(tmp_path, "")
    with pytest.raises(UserError, match="no pattern"):
        find_checkpoints(tmp_path, "/etc/*")


def test_what_is_being_written_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-1"
    path.mkdir()

    def lacks(now: float = LATER) -> str:
        return find_checkpoints(tmp_path, now=now)[0].lacks

    assert lacks() == "config.json"
    (path / "config.json").write_text("{}")
    assert lacks() == "weights (*.safetensors)"
    weights(path / "model.safetensors")
    whole = (path / "model.safetensors").read_bytes()
    assert lacks() == ""
    assert "changed" in lacks(time.time())
    (path / "model.safetensors").write_bytes(whole[:-1])
    assert "not whole" in lacks()
    (path / "model.safetensors").write_bytes(whole)
    (path / "trainer_state.json").write_text('{"global_step": 1')
    assert lacks() == "trainer_state.json is not whole"
    (path / "trainer_state.json").write_text('{"global_step": 1}')
    assert lacks(time.time()) == ""


def test_every_shard_of_the_index_is_wanted(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "checkpoint-1", state={"global_step": 1})
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {f"{k}": f"model-0000{k}-of-00002.safetensors" for k in (1, 2)}})
    )
    assert find_checkpoints(tmp_path)[0].lacks == "model-00002-of-00002.safetensors"
    weights(path / "model-00002-of-00002.safetensors")
    assert find_checkpoints(tmp_path)[0].complete
    index.write_text("[")
    assert "index.json is not whole" in find_checkpoints(tmp_path)[0].lacks


def test_an_adapter_and_a_gguf_are_checkpoints(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "checkpoint-1", state={"global_step": 1})
    (path / "config.json").rename(path / "adapter_config.json")
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    assert find_checkpoints(tmp_path)[0].complete
    (tmp_path / "model-step-20.gguf").write_bytes(b"GGUF")
    (found,) = find_checkpoints(tmp_path, "*.gguf", now=LATER)
    assert (found.step, found.complete) == (20, True)
    (tmp_path / "model-step-20.gguf").write_bytes(b"GG")
    assert not find_checkpoints(tmp_path, "*.gguf", now=LATER)[0].complete


def test_the_header_counts_parameters(tmp_path: Path) -> None:
    weights(tmp_path / "a.safetensors", rows=3)
    (tensor,) = safetensors_header(tmp_path / "a.safetensors")
    assert (tensor.name, tensor.dtype, tensor.shape, tensor.parameters) == ("a", "F32", (3, 2), 6)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}rest",
        struct.pack("<Q", 10) + b'{"a": [1]}',
    ],
)
def test_a_lying_header_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(UserError):
        safetensors_header(tmp_path / "a.safetensors")


@given(data=st.binary(max_size=60), length=st.integers(0, 2**64 - 1) | st.integers(0, 60))
def test_any_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(struct.pack("<Q", length) + data)
    with contextlib.suppress(UserError):
        safetensors_header(path)

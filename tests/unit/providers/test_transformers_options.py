"""What a model entry of the provider `transformers` may say, and what pins it: that needs no torch."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import ProviderContext, create, likelihood_problem
from evalrun.providers.transformers_engine import Transformers, free_cores
from evalrun.suite.components import ModelSpec


def made(folder: Path, *, deterministic: bool = False, **keys: Any) -> Transformers:
    entry = {"id": "m", "provider": "transformers", "model": "weights", **keys}
    context = ProviderContext(folder, folder / "logs", deterministic=deterministic)
    provider = create(ModelSpec.model_validate(entry), context)
    assert isinstance(provider, Transformers)
    return provider


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return folder


@pytest.mark.parametrize(
    "keys",
    [
        {"device": "gpu"},
        {"dtype": "float64"},
        {"batch": 0},
        {"threads": 0},
        {"api": "text"},
        {"adaptor": "x"},
    ],
)
def test_options_that_are_wrong(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        made(tmp_path, **keys)


def test_batches(tmp_path: Path) -> None:
    assert (made(tmp_path).rows, made(tmp_path, batch=7).rows) == (16, 7)
    alone = made(tmp_path, deterministic=True)
    assert (alone.rows, alone.batch_size) == (1, 1)
    with pytest.raises(UserError, match="batch of 1"):
        made(tmp_path, deterministic=True, batch=2)
    with pytest.raises(UserError, match="'model' is missing"):
        made(tmp_path, model=None)


def test_likelihoods_of_texts_are_for_completions(tmp_path: Path) -> None:
    assert likelihood_problem(made(tmp_path), "prompt_logprobs") is not None
    assert likelihood_problem(made(tmp_path, api="completions"), "prompt_logprobs") is None
    assert likelihood_problem(made(tmp_path), "first_token") is None


def test_what_a_training_leaves_for_itself_is_no_part_of_the_digest(weights: Path) -> None:
    before = made(weights.parent).pins()
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json", "training_args.bin", "rng_state.pth"):
        (weights / name).write_text("x")
    assert made(weights.parent).pins() == before
    (weights / "config.json").write_text('{"a": 1}')
    assert made(weights.parent).pins() != before


def test_an_adapter_names_its_base(weights: Path) -> None:
    adapter = weights.parent / "lora"
    adapter.mkdir()
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": "../weights"}))
    alone = made(weights.parent, model="lora").pins()
    assert alone == made(weights.parent, adapter="lora").pins()
    assert alone["adapter_sha256"] != alone["weights_sha256"]
    assert alone["weights_sha256"] == made(weights.parent).pins()["weights_sha256"]
    config.write_text("{}")
    assert made(weights.parent, model="lora").pins() == {}, "its base is not known"


def test_a_folder_that_is_gone_pins_nothing(tmp_path: Path) -> None:
    assert made(tmp_path, model="./deleted/checkpoint-5").pins() == {}


async def test_a_missing_package_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "torch" else object())
    with pytest.raises(UserError, match="torch is not installed") as raised:
        await made(weights.parent).start()
    assert raised.value.exit_code is ExitCode.INCOMPLETE


def test_threads_leave_others_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalrun.providers.transformers_engine.available_cores", lambda: 8)
    for load, cores in ((0.0, 8), (2.6, 5), (30.0, 1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert free_cores() == cores

"""What a suite says of a vLLM, checked without one: options, flags, interpreter, cause of a failure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import BatchProvider, ProviderContext, create
from evalrun.providers.vllm_engine import (
    VLLMOptions,
    effective_engine_args,
    engine_environment,
    flags,
    interpreter,
    root_cause,
    weights_identity,
)
from evalrun.suite.components import ModelSpec


def spec(**keys: Any) -> ModelSpec:
    return ModelSpec.model_validate({"id": "m", "provider": "vllm", "model": "org/name", **keys})


def test_arguments_become_flags() -> None:
    arguments = {
        "max_model_len": 4096,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "dtype": "bfloat16",
        "revision": None,
        "served_model_name": ["a", "b"],
        "hf_overrides": {"x": [1]},
        "gpu_memory_utilization": 0.5,
    }
    assert flags(arguments) == [
        *("--max-model-len", "4096"),
        "--enforce-eager",
        "--no-enable-prefix-caching",
        *("--dtype", "bfloat16"),
        *("--served-model-name", "a", "b"),
        *("--hf-overrides", '{"x":[1]}'),
        *("--gpu-memory-utilization", "0.5"),
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "attach"}, "mode: attach needs base_url"),
        ({"mode": "server", "base_url": "http://127.0.0.1:1/v1"}, "are for mode: attach"),
        ({"base_url": "http://127.0.0.1:1/v1", "engine_args": {"dtype": "auto"}}, "for an engine of our own"),
        ({"mode": "offline", "extra_body": {"a": 1}}, "use params"),
        ({"base_url": "127.0.0.1:1"}, "must be an http"),
    ],
)
def test_options_that_contradict_each_other(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VLLMOptions(**keys)


def test_the_mode_follows_from_base_url(tmp_path: Path) -> None:
    context = ProviderContext(tmp_path, tmp_path)
    assert VLLMOptions().resolved_mode == "server"
    attached = create(spec(base_url="http://127.0.0.1:8000/v1"), context)
    assert attached.endpoint == "http://127.0.0.1:8000" and attached.default_concurrency is None
    offline: Any = create(spec(mode="offline", batch=7), context)
    assert isinstance(offline, BatchProvider) and offline.batch_size == 7
    served: Any = create(spec(engine_args={"max_num_seqs": 12}), context)
    assert not isinstance(served, BatchProvider)
    assert (served.endpoint, served.default_concurrency, served.engine_pid) == ("local:vllm:m", 12, None)


def test_deterministic_means_one_at_a_time() -> None:
    plain = VLLMOptions(engine_args={"dtype": "auto"})
    assert effective_engine_args(plain, False) == {"dtype": "auto"}
    fixed = {"dtype": "auto", "max_num_seqs": 1, "enable_prefix_caching": False}
    assert effective_engine_args(plain, True) == fixed
    with pytest.raises(UserError, match="needs max_num_seqs: 1"):
        effective_engine_args(VLLMOptions(engine_args={"max_num_seqs": 8}), True)


def test_nothing_is_reported_home() -> None:
    environment = engine_environment(VLLMOptions(env={"VLLM_CPU_KVCACHE_SPACE": "1"}))
    assert environment["VLLM_NO_USAGE_STATS"] == "1" and environment["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_finds_the_interpreter(tmp_path: Path) -> None:
    assert interpreter(VLLMOptions(python=sys.executable), spec(), tmp_path, {}) == sys.executable
    named = {"EVALRUN_VLLM_PYTHON": sys.executable}
    assert interpreter(VLLMOptions(), spec(), tmp_path, named) == sys.executable
    with pytest.raises(UserError, match="EVALRUN_VLLM_PYTHON names no program") as caught:
        interpreter(VLLMOptions(), spec(), tmp_path, {"EVALRUN_VLLM_PYTHON": "/no/such/python"})
    assert caught.value.exit_code is ExitCode.INCOMPLETE


def test_weights_are_pinned_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALRUN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    first = weights_identity(str(folder), None)
    (folder / "README.md").write_text("changes nothing")
    assert weights_identity(str(folder), None) == first
    (folder / "config.json").write_text('{"a": 1}')
    assert weights_identity(str(folder), None) != first


def test_hub_weights_are_pinned_by_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert weights_identity("org/name", None) == {"revision": "main", "commit": None}
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc123\n")
    assert weights_identity("org/name", None) == {"revision": "main", "commit": "abc123"}


def test_the_cause_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "(Worker pid=1) WARNING 11-23 07:48:24 [utils.py:597] fallback. Exception: could not create it\n"
        '(EngineCore pid=2) ERROR 11-23 07:48:25 [core.py:9]   File "x.py", line 1, in f\n'
        "(EngineCore pid=2) ERROR 11-23 07:48:25 [core.py:9] torch.OutOfMemoryError: CUDA out of memory.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n" + "noise\n" * 50
    )
    assert root_cause(log) == "torch.OutOfMemoryError: CUDA out of memory."
    log.write_text(
        "(APIServer pid=3) WARNING 11-23 07:48:58 [core_client.py:817] engine core exited unexpectedly\n"
    )
    assert root_cause(log) == "engine core exited unexpectedly"
    log.write_text(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, no such architecture\n"
    )
    cause = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig Value error,"
    assert root_cause(log) == f"{cause} no such architecture"
    log.write_text("")
    assert root_cause(log) is None
    assert root_cause(tmp_path / "none.log") is None


async def test_an_interpreter_without_vllm_is_named(tmp_path: Path) -> None:
    made: Any = create(
        spec(python=sys.executable, model=str(tmp_path)), ProviderContext(tmp_path, tmp_path / "work")
    )
    with pytest.raises(UserError, match="has no vllm") as caught:
        await made.start()
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert made.engine_pid is None

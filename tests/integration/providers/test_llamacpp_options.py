from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import ProviderContext, create
from evalrun.providers.llamacpp import SPIN_COUNT, LlamaCpp, LlamaCppOptions, available_cores, patient_threads
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, ProviderError, Request


def llamacpp(context: ProviderContext, **keys: Any) -> LlamaCpp:
    entry = {"id": "smol", "provider": "llamacpp", "model": "smollm2-135m-instruct", **keys}
    provider = create(ModelSpec.model_validate(entry), context)
    assert isinstance(provider, LlamaCpp)
    return provider


def test_concurrency_is_the_number_of_slots(context: ProviderContext) -> None:
    assert llamacpp(context).default_concurrency == 4
    assert llamacpp(context, slots=7).default_concurrency == 7


def test_deterministic_means_one_slot_and_whole_prompts(context: ProviderContext) -> None:
    provider = llamacpp(replace(context, deterministic=True), prompt_cache=True)
    assert (provider.slots, provider.prompt_cache) == (1, False)
    with pytest.raises(UserError, match="one slot") as caught:
        llamacpp(replace(context, deterministic=True), slots=4)
    assert caught.value.exit_code is ExitCode.USAGE


def test_threads_default_to_the_cores_that_may_be_used(context: ProviderContext) -> None:
    assert llamacpp(context).threads == available_cores() >= 1
    assert llamacpp(context, threads=3).threads == 3


def test_every_option_is_described() -> None:
    assert all(field.description for field in LlamaCppOptions.model_fields.values())


async def test_without_the_package_the_remedy_is_the_extra(
    context: ProviderContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'xllamacpp") as caught:
        await llamacpp(context).start()
    assert caught.value.exit_code is ExitCode.INCOMPLETE


async def test_asking_before_the_start_is_an_engine_error(context: ProviderContext) -> None:
    provider = llamacpp(context)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(Request("a", 0, (), "x", {}, {}))
    assert caught.value.kind is ErrorKind.ENGINE
    await provider.close()


async def test_a_missing_model_is_named(context: ProviderContext) -> None:
    pytest.importorskip("xllamacpp")
    with pytest.raises(UserError, match="smollm2-135m-instruct"):
        await llamacpp(context, model=None).start()


def test_engine_threads_wait_patiently_unless_the_user_says_how() -> None:
    assert patient_threads({}) == {"GOMP_SPINCOUNT": SPIN_COUNT}
    assert patient_threads({"OMP_WAIT_POLICY": "active"}) == {}
    assert patient_threads({"GOMP_SPINCOUNT": "5"}) == {}

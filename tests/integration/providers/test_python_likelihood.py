"""Functions of the user's that give likelihoods."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from evalrun.providers.base import BatchProvider, Provider, ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import Ask, Message, ProviderError, Request, Response

CODE = """
def one(given):
    if given.ask is None:
        return "words"
    if given.ask.kind == "perplexity":
        return {"likelihood": {"logprob": -4.0, "tokens": 2, "bytes": 9, "words": 2}}
    return {"likelihood": [-float(len(each)) for each in given.ask.continuations]}

def many(given):
    return [one(each) for each in given]

def careless(given):
    return "words"
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "likely_app", raising=False)
    (tmp_path / "likely_app.py").write_text(CODE)

    def provider(function: str, **options: Any) -> Provider:
        entry = {"id": "app", "provider": "python", "function": f"likely_app:{function}", "likelihood": True}
        return create(ModelSpec.model_validate({**entry, **options}), ProviderContext(tmp_path, tmp_path))

    return provider


def request(ask: Ask | None) -> Request:
    return Request("s", 0, (Message("user", "So?"),), None, {}, {}, ask=ask)


CHOICE = Ask("choose", options=("a", "bcd"), separator=" ")


async def test_a_function_is_asked_and_answers(make: Any) -> None:
    provider = make("one")
    await provider.start()
    choice = await provider.generate(request(CHOICE))
    assert [each["logprob"] for each in choice.likelihood["options"]] == [-2.0, -4.0]
    perplexity = await provider.generate(request(Ask("perplexity")))
    assert perplexity.likelihood["logprob"] == -4.0 and perplexity.output == ""
    words = await provider.generate(request(None))
    assert (words.output, words.likelihood) == ("words", None)
    await provider.close()


async def test_batches_may_mix_what_they_ask(make: Any) -> None:
    provider = make("many", batch=8)
    assert isinstance(provider, BatchProvider)
    await provider.start()
    choice, words = await provider.generate_batch([request(CHOICE), request(None)])
    await provider.close()
    assert isinstance(choice, Response) and choice.likelihood["options"][1]["logprob"] == -4.0
    assert isinstance(words, Response) and words.output == "words"


async def test_a_function_that_gives_none_fails_the_sample(make: Any) -> None:
    provider = make("careless")
    await provider.start()
    with pytest.raises(ProviderError, match="'likelihood' is no list with one entry"):
        await provider.generate(request(CHOICE))
    await provider.close()

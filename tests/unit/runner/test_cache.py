import sqlite3
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from evalrun.runner.cache import KeyMaker, ResponseCache, decode_response, encode_response, likelihood_params
from evalrun.types import Ask, Message, Response, Timing

IDENTITY = {
    "provider": "openai_compatible",
    "endpoint": "http://127.0.0.1:1/v1",
    "model": "m",
    "weights": "abc",
}
PARAMS = {"temperature": 0, "max_tokens": 8}
MESSAGES = (Message("user", "How much?"),)


def _key(
    identity: dict[str, object] = IDENTITY,
    params: dict[str, object] = PARAMS,
    messages: tuple[Message, ...] = MESSAGES,
    prompt: str | None = None,
    repeat: int = 0,
    seed: int | None = None,
    ask: Ask | None = None,
) -> bytes:
    return KeyMaker(identity, params).key(messages, prompt, repeat, seed, ask)


@pytest.mark.parametrize(
    "changed",
    [
        {"identity": {**IDENTITY, "provider": "vllm"}},
        {"identity": {**IDENTITY, "endpoint": "http://127.0.0.1:2/v1"}},
        {"identity": {**IDENTITY, "model": "n"}},
        {"identity": {**IDENTITY, "weights": "abd"}},
        {"params": {**PARAMS, "temperature": 0.1}},
        {"params": {**PARAMS, "stop": ["\n"]}},
        {"messages": (Message("user", "How much ?"),)},
        {"messages": (Message("system", "How much?"),)},
        {"messages": (Message("system", ""), *MESSAGES)},
        {"messages": (), "prompt": "How much?"},
        {"repeat": 1},
        {"seed": 3},
        {"ask": Ask("perplexity")},
    ],
)
def test_whatever_shapes_an_answer_changes_the_key(changed: dict[str, object]) -> None:
    assert _key(**changed) != _key()  # type: ignore[arg-type]


def test_a_likelihood_depends_on_no_parameter_of_generation() -> None:
    params = {"temperature": 0.7, "max_tokens": 5, "seed": 1, "stop": ["x"], "slots": 4, "adapter": "a"}
    assert likelihood_params(params) == {"slots": 4, "adapter": "a"}


ASK = Ask("choose", options=("A", "B"), answers=("A", "B"), separator=" ")


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "perplexity"},
        {"via": "first_token"},
        {"options": ("A", "C")},
        {"options": ("B", "A")},
        {"separator": ""},
        {"context": "x"},
    ],
)
def test_so_does_whatever_shapes_a_likelihood(changed: dict[str, object]) -> None:
    assert _key(ask=replace(ASK, **changed)) != _key(ask=ASK)  # type: ignore[arg-type]


def test_what_decides_between_likelihoods_does_not() -> None:
    assert _key(ask=replace(ASK, by="per_byte", answers=("x", "y"), top=5)) == _key(ask=ASK)


def test_entries_of_before_there_were_likelihoods_are_read() -> None:
    whole = orjson.loads(encode_response(Response("yes", "stop", 10, 2, model="m")))
    old = decode_response(orjson.dumps(whole[:-1]))
    assert (old.output, old.model, old.likelihood) == ("yes", "m", None)


def test_the_order_of_parameters_does_not(tmp_path: Path) -> None:
    assert _key(params={"max_tokens": 8, "temperature": 0}) == _key()


async def test_gives_back_the_answer_but_no_measurement(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "c" / "responses.db")
    response = Response("yes", "stop", 10, 2, Timing(1, 2), tool_calls=[{"id": 1}], model="m", cost_usd=1.0)
    cache.put(_key(), response)
    await cache.close()
    again = ResponseCache(tmp_path / "c" / "responses.db")
    found = again.get_many([_key(), _key(repeat=1)])
    await again.close()
    assert found == {_key(): Response("yes", "stop", 10, 2, tool_calls=[{"id": 1}], model="m")}


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "responses.db")
    cache.put(_key(), Response("yes"))
    await cache.close()
    assert (tmp_path / "responses.db").stat().st_mode & 0o777 == 0o600


async def test_what_was_written_in_this_process_is_found_in_it(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "responses.db")
    cache.put(_key(), Response("yes"))
    await cache.flush()
    cache.begin_run()
    assert cache.get_many([_key()]) == {_key(): Response("yes")}
    await cache.close()


async def test_a_cache_that_cannot_be_written_warns_and_does_not_stop_the_run(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    cache = ResponseCache(path)
    other = sqlite3.connect(path)
    other.execute("DROP TABLE response")
    other.close()
    cache.put(_key(), Response("yes"))
    await cache.flush()
    assert cache.warning is not None and "no longer cached" in cache.warning
    cache.put(_key(repeat=1), Response("no"))
    await cache.close()
    assert path.exists()


async def test_what_cannot_be_written_is_not_kept_and_costs_nothing_else(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "c.sqlite")
    cache.put(_key(), Response("half \ud83d a character"))
    cache.put(_key(repeat=1), Response("whole"))
    await cache.flush()
    cache.begin_run()
    assert set(cache.get_many([_key(), _key(repeat=1)])) == {_key(repeat=1)}
    await cache.close()

"""What the cache says of itself, and of why an answer is not in it."""

import sqlite3
import time
from pathlib import Path

import pytest

from evalrun.errors import UserError
from evalrun.runner.cache import KeyMaker, ResponseCache
from evalrun.runner.cache_look import cache_stats, clear, explain
from evalrun.types import JSON, Ask, Message, Request, Response

IDENTITY: dict[str, JSON] = {
    "provider": "vllm",
    "endpoint": "http://127.0.0.1:1",
    "model": "m",
    "weights": "abc",
}
PARAMS: dict[str, JSON] = {"temperature": 0, "max_tokens": 8}
MESSAGES = (Message("system", "Be short."), Message("user", "How much?"))


def _request(**changes: JSON) -> Request:
    plain = {
        "sample_id": "q1", "repeat": 0, "messages": MESSAGES, "prompt": None, "params": PARAMS, "row": {},
    }  # fmt: skip
    return Request(**{**plain, **changes})


async def _put(path: Path, request: Request, identity: JSON = IDENTITY, params: JSON = PARAMS) -> None:
    cache = ResponseCache(path)
    keys = KeyMaker(identity, params)
    cache.begin_run(keys)
    cache.put(_key(keys, request), Response("yes"), keys.parts(request))
    await cache.close()


def _key(keys: KeyMaker, request: Request) -> bytes:
    seed = request.params.get("seed")
    return keys.key(request.messages, request.prompt, request.repeat, seed, request.ask)


def _differs(path: Path, request: Request, identity: JSON = IDENTITY, params: JSON = PARAMS) -> list[JSON]:
    keys = KeyMaker(identity, params)
    found = explain(path, keys, _key(keys, request), request)
    assert (found.stored_at is None) == bool(found.differs)
    return [(each.part, each.here, each.there) for each in found.differs]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"identity": {**IDENTITY, "model": "n"}}, ("model", "n", "m")),
        ({"identity": {**IDENTITY, "weights": "abd"}}, ("weights", "abd", "abc")),
        ({"identity": {**IDENTITY, "engine": {"build": 7}}}, ("engine.build", 7, None)),
        ({"params": {**PARAMS, "temperature": 0.5}}, ("params.temperature", 0.5, 0)),
        ({"request": _request(repeat=2)}, ("repeat", 2, 0)),
        ({"request": _request(params={**PARAMS, "seed": 5})}, ("seed", 5, None)),
        ({"request": _request(messages=(MESSAGES[0], Message("user", "How many?")))},
         ("messages[1]", "this text", "another text")),
        ({"request": _request(messages=MESSAGES[1:])}, ("messages", "1 messages", "2 messages")),
        ({"request": _request(ask=Ask("perplexity"))}, ("ask", "this text", None)),
    ],
)  # fmt: skip
async def test_names_the_part_that_differs(
    tmp_path: Path, change: dict[str, JSON], expected: tuple[JSON, ...]
) -> None:
    path = tmp_path / "responses.db"
    await _put(path, _request())
    assert _differs(path, **{"request": _request(), **change}) == [expected]
    assert _differs(path, _request()) == []


async def test_the_nearest_entry_is_the_one_with_the_fewest_differences(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    await _put(path, _request(repeat=4), {**IDENTITY, "model": "n", "weights": "x"})
    await _put(path, _request(), params={**PARAMS, "top_p": 0.9})
    await _put(path, _request(sample_id="another", messages=()))
    assert _differs(path, _request()) == [("params.top_p", None, 0.9)]


async def test_the_same_text_under_another_id_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    await _put(path, _request(sample_id="renamed"), params={**PARAMS, "max_tokens": 9})
    keys = KeyMaker(IDENTITY, PARAMS)
    found = explain(path, keys, _key(keys, _request()), _request())
    assert found.nearest_sample == "renamed"
    unlike = _request(sample_id="q2", messages=(MESSAGES[1],))
    assert explain(path, keys, _key(keys, unlike), unlike).nearest_at is None


async def test_stats_count_by_model_and_clear_deletes_what_is_named(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    for repeat in range(3):
        await _put(path, _request(repeat=repeat))
    await _put(path, _request(), {**IDENTITY, "model": "n"})
    stats = cache_stats(path)
    assert [(each.model, each.entries) for each in stats.runs] == [("m", 3), ("n", 1)]
    assert stats.entries == 4 and stats.bytes > 0 and stats.runs[0].params == PARAMS
    assert clear(path, older_than_s=60) == 0
    assert clear(path, model="m") == 3
    assert [each.model for each in cache_stats(path).runs] == ["n"]
    assert clear(path) == 1 and cache_stats(path).entries == 0


async def test_a_file_of_an_older_version_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    keys = KeyMaker(IDENTITY, PARAMS)
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE response (key BLOB PRIMARY KEY, value BLOB NOT NULL, created_at REAL NOT NULL)")
    old.execute(
        "INSERT INTO response VALUES (?, ?, ?)",
        (b"k", b'["old","stop",3,1,null,null,null,null,"m",null]', time.time()),
    )
    old.commit()
    old.close()
    await _put(path, _request())
    assert _differs(path, _request()) == []
    cache = ResponseCache(path)
    assert cache.get_many([b"k"])[b"k"].output == "old"
    assert len(cache.get_many([_key(keys, _request())])) == 1
    await cache.close()
    assert {each.entries for each in cache_stats(path).runs} == {1} and len(cache_stats(path).runs) == 2


def test_no_cache_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no response cache"):
        cache_stats(tmp_path / "responses.db")
    (tmp_path / "broken.db").write_text("this is no database, by a long way; it is a text" * 50)
    with pytest.raises(UserError, match="cannot be used"):
        cache_stats(tmp_path / "broken.db")

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import ProviderContext, create
from evalrun.providers.recorded import Recorded, RecordedOptions
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, ProviderError, Request, Response


def recorded(context: ProviderContext, **keys: Any) -> Recorded:
    spec = ModelSpec.model_validate({"id": "rec", "provider": "recorded", **keys})
    provider = create(spec, context)
    assert isinstance(provider, Recorded)
    return provider


def request(sample_id: str = "a", repeat: int = 0, **row: Any) -> Request:
    return Request(sample_id, repeat, (), None, {}, row)


def write(context: ProviderContext, *records: Any, name: str = "answers.jsonl") -> Path:
    path = context.base_dir / name
    path.write_bytes(b"".join((r if isinstance(r, bytes) else orjson.dumps(r)) + b"\n" for r in records))
    return path


async def answer(provider: Recorded, asked: Request) -> Response:
    await provider.start()
    try:
        return await provider.generate(asked)
    finally:
        await provider.close()


async def missing(provider: Recorded, asked: Request) -> str:
    with pytest.raises(ProviderError) as caught:
        await answer(provider, asked)
    assert caught.value.kind is ErrorKind.MISSING
    return caught.value.message


async def test_a_column(context: ProviderContext) -> None:
    found = await answer(recorded(context, column="model_output"), request(model_output=" Paris\n"))
    assert found.output == " Paris\n" and found.timing is None


async def test_values_that_are_no_text_become_json(context: ProviderContext) -> None:
    provider = recorded(context, column="c")
    assert (await answer(provider, request(c=12))).output == "12"
    assert (await answer(provider, request(c={"label": "bug"}))).output == '{"label":"bug"}'


async def test_a_missing_column_names_the_nearest_one(context: ProviderContext) -> None:
    assert "did you mean 'output'?" in await missing(recorded(context, column="outptu"), request(output="x"))


async def test_a_column_may_hold_the_answers_of_several_models(context: ProviderContext) -> None:
    rows = {"small": {"solution": "A: 3", "ok": True}, "dotted.name": "whole"}
    assert (await answer(recorded(context, column="small.solution"), request(**rows))).output == "A: 3"
    assert (await answer(recorded(context, column="dotted.name"), request(**rows))).output == "whole"
    assert "'small.sol'" in await missing(recorded(context, column="small.sol"), request(**rows))
    write(context, {"id": "a", "small": {"solution": "A: 4"}})
    provider = recorded(context, path="answers.jsonl", output_field="small.solution")
    await provider.start()
    assert (await answer(provider, request())).output == "A: 4"
    await provider.close()


def test_a_column_that_is_not_there_is_found_before_anything_is_asked(context: ProviderContext) -> None:
    problem = recorded(context, column="outptu").check(["input", "output"], "dataset d")
    assert problem is not None
    assert (problem.where, problem.remedy) == ("dataset d", "Did you mean 'output'?")
    assert recorded(context, column="small.solution").check(["small"], "dataset d") is None
    assert recorded(context, path="answers.jsonl").check([], "dataset d") is None


async def test_null_is_no_answer(context: ProviderContext) -> None:
    assert "null" in await missing(recorded(context, column="c"), request(c=None))


async def test_a_file_is_joined_by_sample_id_whatever_its_order(context: ProviderContext) -> None:
    write(context, {"id": "b", "output": "B"}, b"", {"id": "a", "output": "Ä", "completion_tokens": 3})
    provider = recorded(context, path="answers.jsonl")
    found = await answer(provider, request("a"))
    assert (found.output, found.completion_tokens, found.timing) == ("Ä", 3, None)
    assert (await answer(provider, request("b"))).output == "B"
    assert "sample c" in await missing(provider, request("c"))


async def test_number_ids_join_their_text(context: ProviderContext) -> None:
    write(context, {"sample_id": 7, "id": "other", "output": "seven"})
    assert (await answer(recorded(context, path="answers.jsonl"), request("7"))).output == "seven"


async def test_repeats_are_told_apart_where_the_file_does(context: ProviderContext) -> None:
    write(
        context,
        *({"id": "a", "repeat": r, "output": f"try {r}"} for r in (0, 1)),
        {"id": "b", "output": "one"},
    )
    provider = recorded(context, path="answers.jsonl")
    assert (await answer(provider, request("a", 1))).output == "try 1"
    assert (await answer(provider, request("b", 1))).output == "one"
    await missing(provider, request("a", 2))


async def test_field_names_can_be_given(context: ProviderContext) -> None:
    write(context, {"key": "a", "completion": "yes"})
    provider = recorded(context, path="answers.jsonl", id_field="key", output_field="completion")
    assert (await answer(provider, request("a"))).output == "yes"


async def test_a_last_line_without_newline_is_read(context: ProviderContext) -> None:
    (context.base_dir / "answers.jsonl").write_bytes(b'{"id":"a","output":"A"}\n{"id":"b","output":"B"}')
    assert (await answer(recorded(context, path="answers.jsonl"), request("b"))).output == "B"


async def test_all_broken_lines_are_named_at_once(context: ProviderContext) -> None:
    path = write(
        context,
        {"id": "a", "output": "x"},
        b"{torn",
        {"output": "x"},
        {"id": "b", "ouput": "x"},
        {"id": "a", "output": "y"},
        b"[1]",
    )
    with pytest.raises(UserError) as caught:
        await recorded(context, path="answers.jsonl").start()
    assert caught.value.exit_code is ExitCode.USAGE
    problems = {problem.where: problem.what for problem in caught.value.problems}
    assert set(problems) == {f"{path}:{line}" for line in (2, 3, 4, 5, 6)}
    assert "output_field: ouput" in problems[f"{path}:4"] and "line 1" in problems[f"{path}:5"]


@pytest.mark.parametrize("content", [None, b"", b"\n\n"])
async def test_a_file_that_is_absent_or_empty(context: ProviderContext, content: bytes | None) -> None:
    if content is not None:
        (context.base_dir / "answers.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"answers\.jsonl"):
        await recorded(context, path="answers.jsonl").start()


async def test_identity_follows_the_content_not_the_place(context: ProviderContext) -> None:
    async def identity(name: str, output: str) -> Any:
        write(context, {"id": "a", "output": output}, name=name)
        provider = recorded(context, path=name)
        await provider.start()
        found = provider.identity()
        await provider.close()
        return found

    assert await identity("one.jsonl", "x") == await identity("two.jsonl", "x")
    assert await identity("one.jsonl", "x") != await identity("two.jsonl", "y")


def test_nothing_is_measured() -> None:
    assert Recorded.measured is False


@pytest.mark.parametrize("keys", [{}, {"column": "c", "path": "p"}])
def test_exactly_one_source(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either column"):
        RecordedOptions(**keys)


async def test_the_event_loop_gets_its_turn_between_answers(context: ProviderContext) -> None:
    """Else a run of any length is one turn, at the end of which all of its journal is written."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.get_running_loop().create_task(count())
    provider = recorded(context, column="c")
    for at in range(640):
        await provider.generate(request(f"s{at}", c="yes"))
    counting.cancel()
    assert turns >= 10

"""Functions in the model's place: what they are given, what they may return, and what they may not break."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest

from evalrun.errors import UserError
from evalrun.providers.base import BatchProvider, Provider, ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, Message, ProviderError, Request, Response

Make = Callable[..., Provider]
_modules = iter(range(10_000))


@pytest.fixture
def provider_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """provider_of(code, function="answer", **options): a provider of a function in a module of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(code: str, function: str = "answer", **options: Any) -> Provider:
        name = f"evaluated_app_{next(_modules)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        entry = {"id": "app", "provider": "python", "function": f"{name}:{function}", **options}
        return create(ModelSpec.model_validate(entry), ProviderContext(tmp_path, tmp_path))

    return make


def request(text: str = "hello", sample_id: str = "s1", **params: Any) -> Request:
    return Request(sample_id, 0, (Message("user", text),), None, params, {"text": text})


async def ask(made: Provider, what: Request | None = None) -> Response:
    await made.start()
    try:
        return await made.generate(what or request())
    finally:
        await made.close()


async def fault(made: Provider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(made)
    return caught.value


async def test_is_given_the_sample_and_returns_text(provider_of: Make) -> None:
    made = provider_of(
        """
        def answer(sample):
            assert sample.messages == [{"role": "user", "content": sample.row["text"]}]
            return f"{sample.sample_id} {sample.repeat} {sample.text} {sample.params['temperature']}"
        """
    )
    answer = await ask(made, request(temperature=0))
    assert answer.output == "s1 0 hello 0"
    assert answer.prompt_tokens is None and answer.timing is not None


async def test_async_functions_and_mappings(provider_of: Make) -> None:
    made = provider_of(
        """
        import asyncio
        async def answer(sample, prefix):
            await asyncio.sleep(0)
            return {"output": prefix + sample.text, "prompt_tokens": 3, "completion_tokens": 2, "cost_usd": 5}
        """,
        args={"prefix": "> "},
    )
    answer = await ask(made)
    assert (answer.output, answer.prompt_tokens, answer.completion_tokens) == ("> hello", 3, 2)
    assert answer.cost_usd == 5


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_it_is_timed_from_its_call_to_its_end(provider_of: Make, kind: str) -> None:
    made = provider_of(
        f"""
        from time import perf_counter_ns, sleep
        {kind} answer(sample):
            began = perf_counter_ns()
            sleep(0.01)
            return {{"output": f"{{began}} {{perf_counter_ns()}}"}}
        """
    )
    await made.start()
    before = perf_counter_ns()
    answer = await made.generate(request())
    after = perf_counter_ns()
    await made.close()
    began, ended = map(int, answer.output.split())
    assert answer.timing is not None
    assert before <= answer.timing.sent_ns <= began < ended <= answer.timing.last_ns <= after


async def test_a_response_is_kept_whole(provider_of: Make) -> None:
    made = provider_of(
        """
        from evalrun.types import Response
        def answer(sample):
            return Response("text", finish_reason="length", tool_calls=[{"id": "c"}])
        """
    )
    answer = await ask(made)
    assert (answer.output, answer.finish_reason, answer.tool_calls) == ("text", "length", [{"id": "c"}])
    assert answer.timing is not None


async def test_plain_functions_run_side_by_side(provider_of: Make) -> None:
    made = provider_of(
        """
        import threading
        together = threading.Barrier(8, timeout=60)
        def answer(sample):
            together.wait()
            return sample.sample_id
        """
    )
    await made.start()
    # One after the other they would wait for each other until the barrier breaks.
    answers = await asyncio.gather(*[made.generate(request(sample_id=f"s{i}")) for i in range(8)])
    assert [each.output for each in answers] == [f"s{i}" for i in range(8)]
    await made.close()


async def test_a_class_is_made_once(provider_of: Make) -> None:
    made = provider_of(
        """
        class App:
            made = 0
            def __init__(self, model):
                App.made += 1
                self.model = model
            async def __call__(self, sample):
                return f"{self.model} {App.made}"
        """,
        "App",
        args={"model": "m7"},
    )
    await made.start()
    assert [(await made.generate(request())).output for _ in range(2)] == ["m7 1", "m7 1"]
    await made.close()


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_what_it_raises_is_a_failed_sample_without_secrets(provider_of: Make, kind: str) -> None:
    made = provider_of(
        f"""
        {kind} answer(sample):
            raise ValueError("cannot use sk-abcdefghijklmnopqrstuvwx " + "x" * 1000)
        """
    )
    error = await fault(made)
    assert error.kind is ErrorKind.APPLICATION
    assert error.message.startswith("ValueError: cannot use [redacted] xxx")
    assert len(error.message) <= 300


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("statement", ["raise StopIteration", "raise SystemExit(3)"])
async def test_odd_exceptions_are_failed_samples_too(provider_of: Make, kind: str, statement: str) -> None:
    error = await fault(provider_of(f"{kind} answer(sample):\n    {statement}\n"))
    assert error.kind is ErrorKind.APPLICATION


async def test_it_may_say_that_asking_again_will_help(provider_of: Make) -> None:
    made = provider_of(
        """
        from evalrun.types import ErrorKind, ProviderError
        def answer(sample):
            raise ProviderError(ErrorKind.RATE_LIMIT, "slow down", retry_after_s=2)
        """
    )
    error = await fault(made)
    assert (error.kind, error.retry_after_s) == (ErrorKind.RATE_LIMIT, 2)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "the function returned nothing, neither text nor a mapping with 'output'"),
        ("7", "the function returned a value of type int, neither text nor a mapping with 'output'"),
        ("{'text': 'x'}", "the function's result has an unknown key 'text'"),
        ("{'outptu': 'x'}", "the function's result has an unknown key 'outptu'; did you mean 'output'?"),
        ("{'prompt_tokens': 1}", "the function's result holds no 'output'"),
        ("{'output': {1}}", "the function's output cannot be kept: Type is not JSON serializable: set"),
    ],
)
async def test_other_results_are_named(provider_of: Make, returned: str, message: str) -> None:
    error = await fault(provider_of(f"def answer(sample):\n    return {returned}\n"))
    assert (error.kind, error.message) == (ErrorKind.APPLICATION, message)


async def test_structured_output_becomes_json(provider_of: Make) -> None:
    made = provider_of("def answer(sample):\n    return {'output': {'label': 'bug', 'p': 0.5}}\n")
    assert (await ask(made)).output == '{"label":"bug","p":0.5}'


async def test_batches(provider_of: Make) -> None:
    made = provider_of(
        """
        def answer(samples):
            return [ValueError("odd") if i % 2 else {"output": s.text.upper()} for i, s in enumerate(samples)]
        """,
        batch=3,
    )
    assert isinstance(made, BatchProvider) and made.batch_size == 3
    await made.start()
    first, second, third = await made.generate_batch([request("a"), request("b"), request("c")])
    await made.close()
    assert isinstance(first, Response) and isinstance(third, Response)
    assert (first.output, third.output) == ("A", "C")
    assert isinstance(second, ProviderError) and second.message == "ValueError: odd"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return ['only one']", "the function returned 1 results for 2 samples"),
        ("return 'ab'", "the function returned a value of type str for a batch, not a list"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
async def test_a_batch_that_fails_fails_all_of_it(provider_of: Make, body: str, message: str) -> None:
    made = provider_of(f"async def answer(samples):\n    {body}\n", batch=8)
    assert isinstance(made, BatchProvider)
    await made.start()
    answers = await made.generate_batch([request("a"), request("b")])
    assert [getattr(each, "message", None) for each in answers] == [message, message]


async def test_the_identity_changes_with_the_source_and_the_arguments(
    provider_of: Make, tmp_path: Path
) -> None:
    made = provider_of("def answer(sample, n=1):\n    return 'x'\n")
    before = made.identity()
    assert len(str(before["source_sha256"])) == 64
    (file,) = tmp_path.glob("evaluated_app_*.py")
    file.write_text("def answer(sample, n=1):\n    return 'y'\n")
    after = made.identity()
    assert before["source_sha256"] != after["source_sha256"]
    assert before["function"] == after["function"]
    other = provider_of("def answer(sample, n=1):\n    return 'x'\n", args={"n": 2}).identity()
    assert other["source_sha256"] == before["source_sha256"] and other["args"] != before["args"]


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("answer = 7", {}, "is a value of type int, not a function"),
        ("def other(sample): ...", {}, "has no attribute 'answer'"),
        ("import no_such_package_here", {}, "ModuleNotFoundError: No module named 'no_such_package_here'"),
        ("raise SystemExit(1)", {}, "SystemExit: 1"),
        ("def answer(sample): ...", {"args": {"k": 1}}, "got an unexpected keyword argument 'k'"),
        ("def answer(sample, must): ...", {}, "missing a required argument: 'must'"),
    ],
)
def test_code_that_cannot_be_used_is_found_before_the_run(
    provider_of: Make, code: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        provider_of(code, **options)
    assert message in str(caught.value)


def test_a_name_that_an_installed_module_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def loads(sample): return 'mine'\n")
    entry = {"id": "app", "provider": "python", "function": "json:loads"}
    with pytest.raises(UserError, match="'json' in the suite's folder is hidden"):
        create(ModelSpec.model_validate(entry), ProviderContext(tmp_path, tmp_path))


def test_a_function_that_never_returns_does_not_keep_the_process(tmp_path: Path) -> None:
    (tmp_path / "stuck_app.py").write_text("import time\ndef answer(sample): time.sleep(3600)\n")
    code = f"""
import asyncio
from pathlib import Path
from evalrun.providers.base import ProviderContext, create
from evalrun.suite.schema import ModelSpec
from evalrun.types import Request
async def main():
    spec = ModelSpec(id="app", provider="python", function="stuck_app:answer")
    made = create(spec, ProviderContext(Path({str(tmp_path)!r}), Path({str(tmp_path)!r})))
    await made.start()
    try:
        await asyncio.wait_for(made.generate(Request("s", 0, (), "x", {{}}, {{}})), 0.2)
    except TimeoutError:
        print("given up")
    await made.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "given up\n"), done.stderr

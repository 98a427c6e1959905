"""What a user's function is given for a sample, and what it may give back."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from evalrun.types import JSON, Ask, ErrorKind, ProviderError, Request, Response, Row, Timing

RESULT_FIELDS = frozenset(field.name for field in fields(Response)) - {"timing"}
"""The keys of a mapping that a function may return; `output` is the one it must hold."""


@dataclass(frozen=True, slots=True)
class FunctionInput:
    """What the function is given for one sample.

    `messages` are chat messages as the OpenAI API has them; `prompt` is the raw text where the model entry
    says `api: completions`, else None. `row` is the dataset row. `repeat` counts from 0. `ask` is None, or
    says which likelihoods are wanted (see `evalrun.types.Ask`).
    """

    sample_id: str
    repeat: int
    messages: list[dict[str, JSON]]
    prompt: str | None
    params: Mapping[str, JSON]
    row: Row
    ask: Ask | None = None

    @property
    def text(self) -> str:
        """The question as text: the prompt, or the content of the last message."""
        if self.prompt is not None:
            return self.prompt
        content = self.messages[-1]["content"] if self.messages else ""
        return content if isinstance(content, str) else orjson.dumps(content).decode()


def function_input(request: Request) -> FunctionInput:
    messages = [{"role": each.role, "content": each.content} for each in request.messages]
    return FunctionInput(
        request.sample_id,
        request.repeat,
        messages,
        request.prompt,
        request.params,
        request.row,
        request.ask,
    )


def response_or_error(value: Any, timing: Timing, ask: Ask | None) -> Response | ProviderError:
    if isinstance(value, ProviderError):
        return value
    if isinstance(value, Exception):
        return unfit(told(value))
    try:
        return response(value, timing, ask)
    except ProviderError as error:
        return error


def response(value: Any, timing: Timing, ask: Ask | None) -> Response:
    """What the function returned, as a Response. Raises ProviderError (application) for what is none."""
    if ask is None:
        return _answer(value, timing)
    from evalrun.providers.likelihood import given_likelihood

    if isinstance(value, Mapping):
        value = {"output": "", **value}
    answer = _answer(value, timing)
    return replace(answer, likelihood=given_likelihood(answer.likelihood, ask))


def _answer(value: Any, timing: Timing) -> Response:
    if isinstance(value, str):
        return Response(output=value, timing=timing)
    if isinstance(value, Response):
        return value if value.timing is not None else replace(value, timing=timing)
    if not isinstance(value, Mapping):
        raise unfit(f"the function returned {described(value)}, neither text nor a mapping with 'output'")
    for key in value:
        if key not in RESULT_FIELDS:
            near = difflib.get_close_matches(str(key), RESULT_FIELDS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise unfit(f"the function's result has an unknown key '{key}'{hint}")
    output = value.get("output")
    if output is None:
        raise unfit("the function's result holds no 'output'")
    try:
        text = output if isinstance(output, str) else orjson.dumps(output).decode()
    except TypeError as error:
        raise unfit(f"the function's output cannot be kept: {error}") from error
    return Response(**{**value, "output": text}, timing=timing)


def unfit(message: str) -> ProviderError:
    return ProviderError(ErrorKind.APPLICATION, message)


def told(error: BaseException) -> str:
    from evalrun.providers.faults import shorten

    text = str(error)
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def described(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"

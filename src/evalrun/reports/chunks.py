"""A chunk of samples as JSON: columns that are empty left out, what repeats written once, long texts cut.

`{"const": {…}, "fields": […], "rows": [[…], …], "texts": […]}`: columns with one value stand under `const`,
message contents that occur again in the chunk stand under `texts` and are numbers in the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import orjson

TEXT_LIMIT = 200_000
"""Longer texts are cut in the report; they are whole in samples.parquet."""

TOKENS = 2_000
OTHERS = 3
"""Tokens of an answer, and other likely tokens of each, whose probabilities the report keeps."""

_SKIPPED = {"position", "answer_json", "target_json", "status", "cached", "warmup", "sent_s", "done_s"}
_SECONDS = {"ttft_s": 4, "e2e_s": 4, "tpot_s": 6, "client_queue_s": 4}
_WHOLE = {"sample_id", "cluster", "messages"}
"""Columns that are never cut here; messages are cut one by one."""


def chunk(batch: Any, limit: int = TEXT_LIMIT) -> bytes:
    """The JSON of a chunk. Texts longer than `limit` are cut, but for those that name a sample or a group."""
    names = [name for name in batch.schema.names if name not in _SKIPPED]
    columns = {name: _values(batch, name, limit) for name in names}
    texts = _Texts()
    prompts = _prompts(columns, texts, limit)
    constants, fields, kept = {}, [], []
    for name, values in columns.items():
        if name.startswith("vars."):
            values = _not_in_prompt(values, prompts)
        elif name == "answer" and "output" in columns:
            values = _not_the_output(values, columns["output"])
        first = values[0]
        if all(value == first for value in values):
            if first is not None:
                constants[name] = first
            continue
        fields.append(name)
        kept.append(values)
    rows = list(zip(*kept, strict=True)) if kept else [()] * batch.num_rows
    return orjson.dumps({"const": constants, "fields": fields, "rows": rows, "texts": texts.shared})


def _values(batch: Any, name: str, limit: int) -> list[Any]:
    """A column as Python values: times rounded, long texts cut, first attempts not logged."""
    column = batch.column(name)
    if column.null_count == len(column):
        return [None] * len(column)
    values: list[Any] = column.to_pylist()
    if name in _SECONDS:
        return [None if value is None else round(value, _SECONDS[name]) for value in values]
    if name == "attempt_log" and "attempts" in batch.schema.names:
        tries = batch.column("attempts").to_pylist()
        return [log if (n or 0) > 1 else None for log, n in zip(values, tries, strict=True)]
    if name in _PARSED:
        return [None if value is None else _PARSED[name](value, limit) for value in values]
    if column.nbytes > limit and name not in _WHOLE and not name.startswith("sensitive."):
        return [cut(value, limit) if isinstance(value, str) else value for value in values]
    return values


def _tokens(text: str, limit: int) -> list[Any] | None:
    """Log-probabilities as `[token, value, [[other, value], …]]`, in the form of chat or of completions."""
    try:
        found = orjson.loads(text)
        if isinstance(found.get("content"), list):
            given = [
                (each["token"], each["logprob"],
                 {one["token"]: one["logprob"] for one in each.get("top_logprobs") or ()})
                for each in found["content"]
            ]  # fmt: skip
        else:
            tops = found.get("top_logprobs") or [{}] * len(found["tokens"])
            given = list(
                zip(found["tokens"], found["token_logprobs"], (top or {} for top in tops), strict=True)
            )
        return [
            [token, _rounded(value), _likely(token, top)]
            for token, value, top in given[: min(TOKENS, limit // 4)]
        ]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _likely(token: str, top: dict[str, float]) -> list[list[Any]]:
    others = sorted(((value, other) for other, value in top.items() if other != token), reverse=True)
    return [[other, round(value, 3)] for value, other in others[:OTHERS]]


def _document(text: str, _: int) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


_PARSED: Mapping[str, Callable[[str, int], Any]] = {"logprobs": _tokens, "likelihood": _document}
"""Columns of JSON that the browser shows as more than text."""


def cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """A text of at most about `limit` characters: its beginning and its end."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out:,} characters are left out of the report …]\n{text[-half:]}"


class _Texts:
    """Message contents that occur more than once in a chunk."""

    def __init__(self) -> None:
        self.shared: list[str] = []
        self._at: dict[str, int] = {}

    def share(self, contents: Counter[str]) -> None:
        """Choose what is shared: what occurs again and is longer than the number that stands for it."""
        for text, times in contents.items():
            if times > 1 and len(text) > 8:
                self._at[text] = len(self.shared)
                self.shared.append(text)

    def short(self, content: Any) -> Any:
        """The number of a shared text, else the content itself."""
        return self._at.get(content, content) if isinstance(content, str) else content


def _prompts(columns: dict[str, list[Any]], texts: _Texts, limit: int) -> list[str]:
    """Replace `messages` and `prompt` by their short forms; returns each sample's prompt as one text."""
    whole = [_messages(text) for text in columns.get("messages") or []]
    raw = columns.get("prompt") or [None] * len(whole)
    if not whole:
        whole = [[] for _ in raw]
    messages = [[(role, _cut(content, limit)) for role, content in each] for each in whole]
    contents = Counter(content for each in messages for _, content in each if isinstance(content, str))
    contents.update(text for text in raw if text)
    texts.share(contents)
    if "messages" in columns:
        columns["messages"] = [
            [[role, texts.short(content)] for role, content in each] or None for each in messages
        ]
    if "prompt" in columns:
        columns["prompt"] = [texts.short(text) for text in raw]
    return [
        "\n".join([*(content for _, content in each if isinstance(content, str)), text or ""])
        for each, text in zip(whole, raw, strict=True)
    ]


def _cut(content: Any, limit: int) -> Any:
    return cut(content, limit) if isinstance(content, str) else content


def _messages(text: str | None) -> list[tuple[str, Any]]:
    """Role and content of each message; content that is not text stays as it is."""
    if not text:
        return []
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [("", text)]
    return [
        (str(message.get("role", "")), message.get("content"))
        for message in (found if isinstance(found, list) else [found])
        if isinstance(message, dict)
    ]


def _not_in_prompt(values: list[Any], prompts: list[str]) -> list[Any]:
    """Input columns without the texts that the prompt shows anyway."""
    return [
        None if isinstance(value, str) and value in prompt else value
        for value, prompt in zip(values, prompts, strict=True)
    ]


def _not_the_output(answers: list[Any], outputs: list[Any]) -> list[Any]:
    """Answers; 0 stands for "the output, stripped"."""
    return [
        0 if isinstance(answer, str) and output is not None and answer == output.strip() else answer
        for answer, output in zip(answers, outputs, strict=True)
    ]

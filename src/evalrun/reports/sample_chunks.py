"""A chunk of samples as the report's page takes it: the rows of a batch as JSON.

`{"const": {…}, "fields": […], "rows": [[…], …], "texts": […]}`: columns with one value stand under `const`,
message contents that occur again in the chunk stand under `texts` and are numbers in the rows; empty columns
are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson


class Rows:
    """A batch of samples. Its columns become lists once, when they are first asked for."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.names: list[str] = batch.schema.names
        self.n: int = batch.num_rows
        self._lists: dict[str, list[Any]] = {}

    def list(self, name: str) -> list[Any]:
        """The values of a column, None for each row where the batch has no such column. Not to be changed."""
        if name not in self._lists:
            known = name in self.names
            self._lists[name] = self.batch.column(name).to_pylist() if known else [None] * self.n
        return self._lists[name]


TEXT_LIMIT = 200_000
"""Longer texts are cut in the report; they are whole in samples.parquet."""

TOKENS = 2_000
OTHERS = 3
"""Tokens of an answer, and other likely tokens of each, whose probabilities the report keeps."""

UNREAD = {"position", "answer_json", "target_json", "sent_s", "done_s"}
_SKIPPED = {*UNREAD, "status", "cached", "warmup"}
_SECONDS = {"ttft_s": 4, "e2e_s": 4, "tpot_s": 6, "client_queue_s": 4}
_WHOLE = {"sample_id", "cluster", "messages"}
"""Columns that are never cut here; messages are cut one by one."""


def chunk(rows: Rows, limit: int = TEXT_LIMIT, shown: str = "") -> bytes:
    """The JSON of a chunk. Texts longer than `limit` are cut, but for those that name a sample or a group.
    The column `shown`, which stands for the row in the grid, is kept even where the prompt has its text."""
    columns = {name: _values(rows, name, limit) for name in rows.names if name not in _SKIPPED}
    prompts, shared = _prompts(columns, limit)
    constants, fields, kept = {}, [], []
    for name, values in columns.items():
        if name.startswith("vars.") and name != shown:
            values = _not_in_prompt(values, prompts)
        elif name == "answer" and "output" in columns:
            values = _not_the_output(values, columns["output"])
        first = values[0]
        if values.count(first) == len(values):
            if first is not None:
                constants[name] = first
            continue
        fields.append(name)
        kept.append(values)
    lines = list(zip(*kept, strict=True)) if kept else [()] * rows.n
    return orjson.dumps({"const": constants, "fields": fields, "rows": lines, "texts": [*shared]})


def _values(rows: Rows, name: str, limit: int) -> list[Any]:
    """A column as Python values: times rounded, long texts cut, first attempts not logged."""
    column, values = rows.batch.column(name), rows.list(name)
    if column.null_count == len(column):
        return values
    if name in _SECONDS:
        return [None if value is None else round(value, _SECONDS[name]) for value in values]
    if name == "attempt_log" and "attempts" in rows.names:
        tries = rows.list("attempts")
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


def _shared(contents: Sequence[str]) -> dict[str, int]:
    """Message contents that are written once for the chunk, and the number that stands for each: what occurs
    again and is longer than that number."""
    again = (text for text, times in Counter(contents).items() if times > 1 and len(text) > 8)
    return {text: number for number, text in enumerate(again)}


def _prompts(columns: dict[str, list[Any]], limit: int) -> tuple[list[str], dict[str, int]]:
    """Replace `messages` and `prompt` by their short forms; returns each sample's prompt as one text, and
    the texts that numbers stand for."""
    given = columns.get("messages")
    raw = columns.get("prompt") or [None] * len(given or ())
    contents = [text for text in raw if text]
    longest = max((len(text) for text in given or () if text), default=0)
    prompts: list[str] = []
    asked = _asked(given or [None] * len(raw))
    for messages, prompt in zip(asked, raw, strict=True):
        said = [content for _, content in messages if type(content) is str]
        prompts.append("\n".join([*said, prompt] if prompt else said))
        if longest > limit:
            for message in messages:
                message[1] = _cut(message[1], limit)
            said = [content for _, content in messages if type(content) is str]
        contents += said
    shared = _shared(contents)
    if given is not None:
        for messages in asked if shared else ():
            for message in messages:
                if type(message[1]) is str:
                    message[1] = shared.get(message[1], message[1])
        columns["messages"] = [messages or None for messages in asked]
    if "prompt" in columns:
        columns["prompt"] = [text if text is None else shared.get(text, text) for text in raw]
    return prompts, shared


def _cut(content: Any, limit: int) -> Any:
    return cut(content, limit) if isinstance(content, str) else content


def _asked(texts: Sequence[str | None]) -> list[list[list[Any]]]:
    """The messages of each sample, out of JSON that is parsed at once where all of it can be."""
    try:
        documents = orjson.loads(f"[{','.join([text or '[]' for text in texts])}]")
    except orjson.JSONDecodeError:
        documents = []
    if len(documents) != len(texts):
        documents = [_parsed(text) for text in texts]
    return [_messages(document) for document in documents]


def _parsed(text: str | None) -> Any:
    try:
        return orjson.loads(text or "[]")
    except orjson.JSONDecodeError:
        return {"role": "", "content": text}


def _messages(document: Any) -> list[list[Any]]:
    """Role and content of each message; content that is not text stays as it is."""
    return [
        [str(message.get("role", "")), message.get("content")]
        for message in (document if isinstance(document, list) else [document])
        if isinstance(message, dict)
    ]


def _not_in_prompt(values: list[Any], prompts: list[str]) -> list[Any]:
    """Input columns without the texts that the prompt shows anyway."""
    kinds = {*map(type, values)}
    if kinds == {str}:
        return [None if value in prompt else value for value, prompt in zip(values, prompts, strict=True)]
    if str not in kinds:
        return values
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

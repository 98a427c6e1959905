"""The samples inside the report: compressed chunks that the browser unpacks when they are looked at.

A chunk is JSON, deflated, in base64: `{"const": {…}, "fields": […], "rows": [[…], …], "texts": […]}`.
Columns that are empty are left out, columns with one value stand once under `const`, message contents that
occur again in the chunk stand once under `texts` and are numbers in the rows. Beside the chunks lies an
index of a few bytes a sample (ending, score, time, group), so that filters need not unpack anything. The
writer holds one chunk and the index.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from evalrun.reports.columns import STATUS_CODES
from evalrun.reports.view import RunView

CHUNK_ROWS = 500
CHUNK_BYTES = 2 << 20
"""Chunks of long samples hold fewer of them."""

TEXT_LIMIT = 200_000
"""Longer texts are cut in the report; they are whole in samples.parquet."""

CACHED, WARMUP, RETRIED = 4, 8, 16
"""Bits of an index entry's first byte above the two of the ending."""

TOKENS = 2_000
OTHERS = 3
"""Tokens of an answer, and other likely tokens of each, whose probabilities the report keeps."""

_LEVEL = 6
_SKIPPED = {"position", "answer_json", "target_json", "status", "cached", "warmup", "sent_s", "done_s"}
_SECONDS = {"ttft_s": 4, "e2e_s": 4, "tpot_s": 6, "client_queue_s": 4}
_FLAG_COLUMNS = ("cached", "warmup")


class SampleWriter:
    """Writes the samples of run after run into a report.

    `score` names the score that filters go by; `lower` says that it gets better downwards, so that there is
    no right and wrong.
    """

    def __init__(self, out: BinaryIO, score: str | None, *, lower: bool = False) -> None:
        self._out = out
        self._lower = lower
        self._score = f"score.{score}" if score else ""
        self._flags = bytearray()
        self._scores, self._times, self._keys = array("f"), array("f"), array("I")
        self._groups: dict[str, _Codes] = {}
        self._runs: list[dict[str, Any]] = []
        self._chunks = 0

    def add_run(self, run: RunView, path: Path) -> None:
        """Write all samples of a run."""
        import pyarrow.parquet as pq

        sizes: list[int] = []
        start = len(self._flags)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                for part in _parts(batch):
                    sizes.append(part.num_rows)
                    self._index(part, start)
                    self._write("data-chunk", self._chunks, _chunk(part))
                    self._chunks += 1
        self._runs.append(
            {
                "run": run.run, "label": run.full, "model": run.model, "prompt": run.prompt,
                "dataset": run.dataset, "colour": run.colour, "start": start, "chunks": sizes,
            }
        )  # fmt: skip

    def finish(self) -> None:
        """Write the index. Nothing may be added afterwards."""
        for codes in self._groups.values():
            codes.fill(len(self._flags))
        groups = list(self._groups.items())
        header = {
            "n": len(self._flags),
            "runs": self._runs,
            "groups": [{"column": name.partition(".")[2], "labels": codes.labels} for name, codes in groups],
            "score": self._score.partition(".")[2],
            "lower": self._lower,
        }
        arrays: list[array[Any]] = [self._scores, self._times, self._keys, *(c.codes for _, c in groups)]
        if sys.byteorder == "big":
            for each in arrays:
                each.byteswap()
        columns = b"".join(each.tobytes() for each in arrays)
        # ASCII only, so that no mark in a label can show itself in the page's source either.
        text = json.dumps(header, separators=(",", ":")).replace("<", "\\u003c").encode()
        self._out.write(b'<script type="application/json" id="samples-index">' + text + b"</script>\n")
        self._write("id", "samples-columns", columns + bytes(self._flags))

    def _write(self, attribute: str, value: object, data: bytes) -> None:
        packed = base64.b64encode(zlib.compress(data, _LEVEL))
        self._out.write(b'<script type="application/octet-stream" %s="%s">' % (
            attribute.encode(), str(value).encode()))  # fmt: skip
        self._out.write(packed)
        self._out.write(b"</script>\n")

    def _index(self, batch: Any, run_start: int) -> None:
        n = batch.num_rows
        flags = [STATUS_CODES.get(status, 3) for status in _list(batch, "status", n)]
        for name, bit in zip(_FLAG_COLUMNS, (CACHED, WARMUP), strict=True):
            flags = [
                flag | bit if on else flag for flag, on in zip(flags, _list(batch, name, n), strict=True)
            ]
        attempts = _list(batch, "attempts", n)
        flags = [
            flag | RETRIED if (tries or 0) > 1 else flag for flag, tries in zip(flags, attempts, strict=True)
        ]
        start = len(self._flags)
        self._flags += bytes(flags)
        nan = float("nan")
        self._scores.extend(nan if v is None else v for v in _list(batch, self._score, n))
        self._times.extend(nan if v is None else v for v in _list(batch, "e2e_s", n))
        keys = zip(_list(batch, "sample_id", n), _list(batch, "repeat", n), strict=True)
        self._keys.extend(zlib.crc32(f"{key}/{repeat or 0}".encode()) for key, repeat in keys)
        for name in batch.schema.names:
            if name.startswith("sensitive."):
                codes = self._groups.setdefault(name, _Codes())
                codes.fill(start)
                codes.add(batch.column(name).to_pylist())


class _Codes:
    """Codes of a group column over all runs; 0 stands for none."""

    LIMIT = 65_535

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.codes = array("H")
        self._known: dict[str, int] = {}

    def fill(self, length: int) -> None:
        """Zeros for the samples of runs that have no such column."""
        self.codes.extend([0] * (length - len(self.codes)))

    def add(self, values: Sequence[str | None]) -> None:
        for value in values:
            code = 0
            if value is not None:
                code = self._known.get(value, 0)
                if not code and len(self.labels) < self.LIMIT:
                    self.labels.append(value)
                    code = self._known[value] = len(self.labels)
            self.codes.append(code)


def _list(batch: Any, name: str, n: int) -> list[Any]:
    found: list[Any] = batch.column(name).to_pylist() if name in batch.schema.names else [None] * n
    return found


def _parts(batch: Any) -> Iterator[Any]:
    """The batch in pieces of no more than about CHUNK_BYTES, one sample at least."""
    pieces = max(1, -(-batch.nbytes // CHUNK_BYTES))
    step = max(1, -(-batch.num_rows // pieces))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _chunk(batch: Any) -> bytes:
    """The JSON of a chunk."""
    names = [name for name in batch.schema.names if name not in _SKIPPED]
    columns = {name: _values(batch, name) for name in names}
    texts = _Texts()
    prompts = _prompts(columns, texts)
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


def _values(batch: Any, name: str) -> list[Any]:
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
        return [None if value is None else _PARSED[name](value) for value in values]
    if column.nbytes > TEXT_LIMIT and name != "messages":
        return [cut(value) if isinstance(value, str) else value for value in values]
    return values


def _tokens(text: str) -> list[Any] | None:
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
        return [[token, _rounded(value), _likely(token, top)] for token, value, top in given[:TOKENS]]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _likely(token: str, top: dict[str, float]) -> list[list[Any]]:
    others = sorted(((value, other) for other, value in top.items() if other != token), reverse=True)
    return [[other, round(value, 3)] for value, other in others[:OTHERS]]


def _document(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


_PARSED: Mapping[str, Callable[[str], Any]] = {"logprobs": _tokens, "likelihood": _document}
"""Columns of JSON that the browser shows as more than text."""


def cut(text: str) -> str:
    """A text of at most about TEXT_LIMIT characters: its beginning and its end."""
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
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


def _prompts(columns: dict[str, list[Any]], texts: _Texts) -> list[str]:
    """Replace `messages` and `prompt` by their short forms; returns each sample's prompt as one text."""
    messages = [_messages(text) for text in columns.get("messages") or []]
    raw = columns.get("prompt") or [None] * len(messages)
    if not messages:
        messages = [[] for _ in raw]
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
        for each, text in zip(messages, raw, strict=True)
    ]


def _messages(text: str | None) -> list[tuple[str, Any]]:
    """Role and content of each message; content that is not text stays as it is."""
    if not text:
        return []
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [("", cut(text))]
    result = []
    for message in found if isinstance(found, list) else [found]:
        if isinstance(message, dict):
            content = message.get("content")
            result.append(
                (str(message.get("role", "")), cut(content) if isinstance(content, str) else content)
            )
    return result


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

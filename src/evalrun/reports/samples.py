"""The samples inside the report: compressed chunks that the browser unpacks when they are looked at.

A chunk is JSON (see `chunk`), deflated, in base64. Beside the chunks lies an index of a few bytes a sample
(ending, score, time, group), so that filters need not unpack anything. The writer holds one chunk and the
index.

`{"const": {…}, "fields": […], "rows": [[…], …], "texts": […]}`: columns with one value stand under `const`,
message contents that occur again in the chunk stand under `texts` and are numbers in the rows; empty columns
are left out.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from evalrun.errors import UserError
from evalrun.reports.view import RunView, ScoreColumn
from evalrun.tracking.parquet import iter_batches, without_secrets
from evalrun.types import Status

_log = logging.getLogger(__name__)

_STATUS_CODES: Mapping[str, int] = {status.value: code for code, status in enumerate(Status)}
"""Codes of the four endings, in the order of `Status`."""

TEXT_LIMIT = 200_000
"""Longer texts are cut in the report; they are whole in samples.parquet."""

TOKENS = 2_000
OTHERS = 3
"""Tokens of an answer, and other likely tokens of each, whose probabilities the report keeps."""

_SKIPPED = {"position", "answer_json", "target_json", "status", "cached", "warmup", "sent_s", "done_s"}
_SECONDS = {"ttft_s": 4, "e2e_s": 4, "tpot_s": 6, "client_queue_s": 4}
_WHOLE = {"sample_id", "cluster", "messages"}
"""Columns that are never cut here; messages are cut one by one."""


def chunk(batch: Any, limit: int = TEXT_LIMIT, shown: str = "") -> bytes:
    """The JSON of a chunk. Texts longer than `limit` are cut, but for those that name a sample or a group.
    The column `shown`, which stands for the row in the grid, is kept even where the prompt has its text."""
    names = [name for name in batch.schema.names if name not in _SKIPPED]
    columns = {name: _values(batch, name, limit) for name in names}
    texts = _Texts()
    prompts = _prompts(columns, texts, limit)
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
    given = columns.get("messages")
    raw = columns.get("prompt") or [None] * len(given or ())
    contents: Counter[str] = Counter(text for text in raw if text)
    longest = max((len(text) for text in given or () if text), default=0)
    prompts: list[str] = []
    kept: list[list[list[Any]]] = []
    for text, prompt in zip(given or [None] * len(raw), raw, strict=True):
        messages = _messages(text)
        said = [content for _, content in messages if isinstance(content, str)]
        prompts.append("\n".join([*said, prompt or ""]))
        if longest > limit:
            messages = [[role, _cut(content, limit)] for role, content in messages]
            said = [content for _, content in messages if isinstance(content, str)]
        contents.update(said)
        kept.append(messages)
    texts.share(contents)
    if given is not None:
        columns["messages"] = [
            [[role, texts.short(content)] for role, content in messages] or None for messages in kept
        ]
    if "prompt" in columns:
        columns["prompt"] = [texts.short(text) for text in raw]
    return prompts


def _cut(content: Any, limit: int) -> Any:
    return cut(content, limit) if isinstance(content, str) else content


def _messages(text: str | None) -> list[list[Any]]:
    """Role and content of each message; content that is not text stays as it is."""
    if not text:
        return []
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [["", text]]
    return [
        [str(message.get("role", "")), message.get("content")]
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


CHUNK_ROWS = 500
CHUNK_BYTES = 2 << 20
"""Chunks of long samples hold fewer of them."""

BUDGET = 22_000_000
"""Bytes of a page that samples may take. Where there is no room for all of their texts, these are cut."""

SHORTEST = 200
"""Letters of a text that are kept however little room there is."""

MOST_SHOWN = 100_000
"""Samples in a page. Of more, those are shown whose ids have the least checksums: the same in all runs."""

CACHED, WARMUP, RETRIED = 4, 8, 16
"""Bits of an index entry's first byte above the two of the ending."""

_LEVEL = 4
_FLAG_COLUMNS = ("cached", "warmup")


class SampleWriter:
    """Writes the samples of run after run into a report.

    `scores` are those that the grid can go by, the first one to begin with. `total` is the number of all
    samples, between which the page's room is divided.
    """

    def __init__(
        self, out: BinaryIO, scores: Sequence[ScoreColumn], *, total: int = 0, scrubbed: bool = False
    ) -> None:
        self._scrubbed = scrubbed
        self._out = out
        self._scores = [(score, array("f")) for score in scores]
        self._flags = bytearray()
        self._times, self._keys, self._mirrors, self._answers = array("f"), array("I"), array("I"), array("I")
        self._groups: dict[str, _Codes] = {}
        self._columns: dict[str, None] = {}
        self._runs: list[dict[str, Any]] = []
        self._chunks = 0
        self._all, self._total, self._spent = total, min(total, MOST_SHOWN), 0
        self._limit = self._least = TEXT_LIMIT

    def add_run(self, run: RunView, path: Path, pair: str | None = None) -> None:
        """Write all samples of a run. `pair` is the run that it is compared with, if it is one of a pair."""
        sizes: list[int] = []
        shown = ""
        start = len(self._flags)
        try:
            for whole in iter_batches(path, CHUNK_ROWS):
                batch = self._chosen(without_secrets(whole) if self._scrubbed else whole)
                self._columns.update(dict.fromkeys(filter(_searchable, batch.schema.names)))
                shown = shown or _input_column(batch)
                for part in _parts(batch):
                    sizes.append(part.num_rows)
                    self._index(part, start)
                    self._write("data-chunk", self._chunks, self._fitting(part, shown))
                    self._chunks += 1
        except UserError as error:
            _log.warning("from row %d on the samples of %s are left out: %s", sum(sizes), run.id, error)
        self._runs.append(
            {
                "run": run.id, "label": run.full, "model": run.model, "prompt": run.prompt,
                "dataset": run.dataset, "colour": run.colour, "start": start, "chunks": sizes,
                "input": shown, "pair": pair,
            }
        )  # fmt: skip

    def _chosen(self, batch: Any) -> Any:
        """The rows that are shown: all, or where there are too many those whose ids say so."""
        if self._all <= MOST_SHOWN:
            return batch
        least = MOST_SHOWN / self._all * 2**32
        ids = _list(batch, "sample_id", batch.num_rows)
        return batch.take([at for at, name in enumerate(ids) if zlib.crc32(str(name).encode()) < least])

    def finish(self) -> None:
        """Write the index. Nothing may be added afterwards."""
        for codes in self._groups.values():
            codes.fill(len(self._flags))
        groups = self._told_apart()
        header = {
            "n": len(self._flags),
            "runs": self._runs,
            "groups": [
                {
                    "column": _plain(name),
                    "also": also,
                    "labels": codes.labels,
                    "sensitive": name.startswith("sensitive."),
                }
                for name, codes, also in groups
            ],
            "scores": [{"name": score.name, "lower": score.lower} for score, _ in self._scores],
            "columns": list(self._columns),
            "of": self._all if self._all > MOST_SHOWN else None,
            "cut": self._least if self._least < TEXT_LIMIT else None,
        }
        arrays: list[array[Any]] = [values for _, values in self._scores]
        arrays += [self._times, self._keys, self._mirrors, self._answers]
        arrays += [codes.codes for _, codes, _ in groups]
        if sys.byteorder == "big":
            for each in arrays:
                each.byteswap()
        columns = b"".join(each.tobytes() for each in arrays)
        # ASCII only, so that no mark in a label can show itself in the page's source either.
        text = json.dumps(header, separators=(",", ":")).replace("<", "\\u003c").encode()
        self._out.write(b'<script type="application/json" id="samples-index">' + text + b"</script>\n")
        self._write("id", "samples-columns", _packed(columns + bytes(self._flags)))

    def _told_apart(self) -> list[tuple[str, _Codes, list[str]]]:
        """The columns that samples can be chosen by: the sensitive ones, and others of few values, each with
        the names of those that have the same values throughout."""
        kept: list[tuple[str, _Codes, list[str]]] = []
        for name, codes in self._groups.items():
            if not (codes.tells_apart or name.startswith("sensitive.")):
                continue
            same = (also for _, other, also in kept if codes.same(other))
            also = None if name.startswith("sensitive.") else next(same, None)
            if also is None:
                kept.append((name, codes, []))
            else:
                also.append(_plain(name))
        return kept

    def _fitting(self, part: Any, shown: str) -> bytes:
        """The chunk, packed, with its texts cut so far that all samples together keep to their room."""
        room = BUDGET * len(self._flags) / max(self._total, len(self._flags)) - self._spent
        packed = _packed(chunk(part, self._limit, shown))
        while len(packed) > room and self._limit > SHORTEST:
            shrunk = min(self._limit, _longest(part)) * max(0.2, 0.9 * room / len(packed))
            self._limit = max(SHORTEST, min(int(shrunk), self._limit - 1))
            packed = _packed(chunk(part, self._limit, shown))
        self._spent += len(packed)
        self._least = min(self._least, self._limit)
        if len(packed) < 0.6 * room:
            self._limit = min(TEXT_LIMIT, self._limit * 3 // 2)
        return packed

    def _write(self, attribute: str, value: object, packed: bytes) -> None:
        self._out.write(b'<script type="application/octet-stream" %s="%s">' % (
            attribute.encode(), str(value).encode()))  # fmt: skip
        self._out.write(packed)
        self._out.write(b"</script>\n")

    def _index(self, batch: Any, run_start: int) -> None:
        n = batch.num_rows
        flags = [_STATUS_CODES.get(status, 3) for status in _list(batch, "status", n)]
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
        for score, values in self._scores:
            values.extend(_floats(batch, f"score.{score.name}", n))
        self._times.extend(_floats(batch, "e2e_s", n))
        pairs = zip(_list(batch, "sample_id", n), _list(batch, "repeat", n), strict=True)
        keys = [f"{key}/{repeat or 0}".encode("utf-8", "replace") for key, repeat in pairs]
        self._keys.extend(map(zlib.crc32, keys))
        self._mirrors.extend(zlib.crc32(key[::-1]) for key in keys)
        given = zip(_list(batch, "answer", n), _list(batch, "output", n), strict=True)
        said = [output if answer is None else answer for answer, output in given]
        digests = {answer: _digest(answer) for answer in set(said)}
        self._answers.extend([digests[answer] for answer in said])
        present = batch.schema.names
        for name in [*_TOLD_APART, *(name for name in present if name.startswith(("sensitive.", "vars.")))]:
            if name in present:
                limit = _Codes.LIMIT if name.startswith("sensitive.") else MOST_LABELS
                codes = self._groups.setdefault(name, _Codes(limit))
                codes.fill(start)
                codes.add(batch, name)


def _plain(name: str) -> str:
    return name.removeprefix("sensitive.").removeprefix("vars.")


def _digest(answer: Any) -> int:
    """What an answer is told from others by; 0 stands for none."""
    return 0 if answer is None else zlib.crc32(str(answer).strip().encode("utf-8", "replace")) or 1


_TOLD_APART = ("target", "answer", "finish_reason", "cluster")
MOST_LABELS = 60
"""Columns of no more values than this can be chosen from; others are searched."""


class _Codes:
    """Codes of a column over all runs; 0 stands for none. A column of more than `limit` values has no
    labels any more."""

    LIMIT = 65_535

    def __init__(self, limit: int) -> None:
        self.labels: list[str] = []
        self.codes = array("H")
        self._known: dict[str | None, int] = {None: 0}
        self._limit = limit
        self._many = False

    @property
    def tells_apart(self) -> bool:
        """Whether there is something to choose from."""
        return not self._many and len(self.labels) > 1

    def same(self, other: _Codes) -> bool:
        """Whether every sample has the same value in both."""
        return self.labels == other.labels and self.codes == other.codes

    def fill(self, length: int) -> None:
        """Zeros for the samples of runs that have no such column."""
        if not self._many:
            self.codes.extend([0] * (length - len(self.codes)))

    def add(self, batch: Any, name: str) -> None:
        """The codes of a batch's column."""
        if self._many:
            return
        values = batch.column(name).to_pylist()
        if any(type(value) is not str for value in dict.fromkeys(values)):
            values = [None if value is None else str(value) for value in values]
        known = self._known
        for value in dict.fromkeys(values):
            if value not in known:
                if len(self.labels) == self._limit:
                    if self._limit < self.LIMIT:
                        self._many, self.codes = True, array("H")
                        return
                    continue
                self.labels.append(value)
                known[value] = len(self.labels)
        self.codes.extend([known.get(value, 0) for value in values])


_SEARCHED = {"output", "answer", "target", "error", "prompt", "reasoning", "finish_reason", "sample_id"}


def _searchable(name: str) -> bool:
    return name in _SEARCHED or name.startswith(("vars.", "reason."))


def _input_column(batch: Any) -> str:
    """The column of the row that says most: the longest text on average, but for the target. "" without."""
    import pyarrow as pa

    lengths: dict[str, float] = {}
    targets = _list(batch, "target", batch.num_rows)
    for name in batch.schema.names:
        if name.startswith("vars.") and pa.types.is_string(batch.column(name).type):
            values = batch.column(name).to_pylist()
            if values != targets:
                lengths[name] = sum(len(value or "") for value in values)
    return max(lengths, key=lambda name: lengths[name], default="")


def _list(batch: Any, name: str, n: int) -> list[Any]:
    found: list[Any] = batch.column(name).to_pylist() if name in batch.schema.names else [None] * n
    return found


def _floats(batch: Any, name: str, n: int) -> array[float]:
    """A column of numbers as single-precision floats, NaN where there is none."""
    nan = float("nan")
    return array("f", [nan if value is None else value for value in _list(batch, name, n)])


def _parts(batch: Any) -> Iterator[Any]:
    """The batch in pieces of no more than about CHUNK_BYTES, one sample at least."""
    pieces = max(1, -(-batch.nbytes // CHUNK_BYTES))
    step = max(1, -(-batch.num_rows // pieces))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _packed(data: bytes) -> bytes:
    """Deflated, in base64."""
    return base64.b64encode(zlib.compress(data, _LEVEL))


def _longest(batch: Any) -> int:
    """Letters that a text of the batch has at most."""
    import pyarrow as pa

    texts = [column for column in batch.columns if pa.types.is_string(column.type)]
    return max((len(text) for column in texts for text in column.to_pylist() if text), default=SHORTEST)

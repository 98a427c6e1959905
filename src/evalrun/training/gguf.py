"""What a GGUF file says of its model: the metadata and the list of tensors at its beginning, never a tensor.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from evalrun.checkpoints import Tensor
from evalrun.errors import UserError
from evalrun.types import JSON

_SCALARS: Mapping[int, struct.Struct] = {
    kind: struct.Struct(f"<{letter}") for kind, letter in enumerate("BbHhIif?")
} | {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_QUANTIZED: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16",
}  # fmt: skip
_MOST = 1_000_000
"""Entries and tensors; more are no count."""


class _Torn(Exception):
    """The file ends, or holds a number that cannot be."""


def read_gguf(path: Path) -> tuple[dict[str, JSON], list[Tensor]]:
    """The scalars of the metadata (of a list its length), and the tensors. Raises UserError where it is no
    whole GGUF file."""
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except (_Torn, struct.error) as error:
        what = f"is no whole GGUF file: {error or 'it ends early'}"
        raise UserError(what, where=str(path), remedy="Copy or fetch it again.") from None


def _read(file: BinaryIO, size: int) -> tuple[dict[str, JSON], list[Tensor]]:
    if file.read(4) != b"GGUF":
        raise _Torn("it does not begin as one")
    version, tensors, entries = _number(file, _U32), _number(file, _U64), _number(file, _U64)
    if version not in (2, 3) or max(tensors, entries) > _MOST:
        raise _Torn(f"version {version}, {tensors:,} tensors, {entries:,} entries")
    metadata: dict[str, JSON] = {}
    for _ in range(entries):
        key = _text(file, size)
        metadata[key] = _value(file, _number(file, _U32), size)
    return metadata, [_tensor(file, size) for _ in range(tensors)]


def _tensor(file: BinaryIO, size: int) -> Tensor:
    name, dimensions = _text(file, size), _number(file, _U32)
    if dimensions > 8:
        raise _Torn(f"a tensor of {dimensions} dimensions")
    shape = tuple(_number(file, _U64) for _ in range(dimensions))
    kind = _number(file, _U32)
    if _number(file, _U64) > size or math.prod(shape) > size * 64:
        raise _Torn(f"'{name[:80]}' would not fit into it")
    return Tensor(name, _QUANTIZED.get(kind, f"type {kind}"), shape)


def _value(file: BinaryIO, kind: int, size: int) -> JSON:
    if kind == _TEXT:
        return _text(file, size)
    if kind != _ARRAY:
        return _number(file, _scalar(kind))
    inner, count = _number(file, _U32), _number(file, _U64)
    if count > size:
        raise _Torn("a list that is longer than the file")
    if inner == _TEXT:
        for _ in range(count):
            length = _number(file, _U64)
            if length > size:
                raise _Torn("a text that is longer than the file")
            file.seek(length, 1)
    else:
        file.seek(_scalar(inner).size * count, 1)  # lists of lists there are none
    return count


def _scalar(kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise _Torn(f"a value of type {kind}")
    return _SCALARS[kind]


def _number(file: BinaryIO, form: struct.Struct) -> int:
    value: int = form.unpack(file.read(form.size))[0]
    return value


def _text(file: BinaryIO, size: int) -> str:
    length = _number(file, _U64)
    if length > min(size, 1 << 20):
        raise _Torn("a text that is longer than any")
    return file.read(length).decode("utf-8", "replace")


_NAMES: Mapping[str, str] = {
    "block_count": "layers", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "heads", "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim",
    "vocab_size": "vocabulary", "context_length": "context", "rope.freq_base": "rope_theta",
    "expert_count": "experts", "expert_used_count": "experts_per_token",
}  # fmt: skip


def gguf_settings(metadata: Mapping[str, JSON]) -> dict[str, JSON]:
    """The metadata under the names of a model's card."""
    kind = str(metadata.get("general.architecture") or "")
    card: dict[str, JSON] = {"model_type": kind} if kind else {}
    if metadata.get("general.name"):
        card["name"] = metadata["general.name"]
    for key, name in _NAMES.items():
        if metadata.get(f"{kind}.{key}") is not None:
            card[name] = metadata[f"{kind}.{key}"]
    return card

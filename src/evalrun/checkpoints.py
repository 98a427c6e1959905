"""Checkpoints of a training on disk: which are there, of which step each is, and whether it is whole.

Nothing is unpickled, and no weights are read: of safetensors files only the header.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.frozen import frozen

SETTLED_S = 30.0
"""So long nothing may have changed in a checkpoint without trainer_state.json, which is written last."""
MOST_HEADER = 100_000_000
"""Bytes; what the safetensors library allows a header to have."""
STATE = "trainer_state.json"
_CONFIGS = ("config.json", "adapter_config.json")
_STEP = re.compile(r"(?:global_?step|checkpoint|step|iter(?:ation)?)[-_=]?(\d+)(?!.*step)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


@frozen
class Checkpoint:
    """A folder (or a GGUF file) with weights. `step` counts optimizer steps done. `lacks` says what it has
    not yet, where it is not whole; `note` how its step is known, where that is a guess."""

    path: Path
    step: int
    lacks: str = ""
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether it can be evaluated."""
        return not self.lacks


def find_checkpoints(
    folder: Path, pattern: str = "checkpoint-*", *, now: float | None = None, settled_s: float = SETTLED_S
) -> list[Checkpoint]:
    """The checkpoints of a folder in the order of their steps, also those that are still being written.

    The step of each is the global_step of its trainer_state.json, else the number in its name, else its place
    in the order of time. Raises UserError where there is no such folder, or two have the same step.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder '{folder}' with checkpoints",
            where="checkpoints.path",
            remedy="Correct the path: relative ones start at the suite's folder.",
        )
    now = time.time() if now is None else now
    try:
        paths = [path for path in folder.glob(pattern) if path.is_dir() or path.suffix == ".gguf"]
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"'{pattern}' is no pattern: {error}", where="checkpoints.pattern", remedy="Write checkpoint-*."
        ) from None
    found = [Checkpoint(path, -1, missing_of(path, now, settled_s)) for path in sorted(paths)]
    return _in_order(_with_steps(found), folder)


def _with_steps(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    steps = [step_of(checkpoint.path) for checkpoint in found]
    if None not in steps:
        return [replace(one, step=step) for one, step in zip(found, steps, strict=True) if step is not None]
    by_time = sorted(found, key=lambda checkpoint: _changed(checkpoint.path))
    note = "its name has no step: counted in the order of time"
    return [replace(one, step=place, note=note) for place, one in enumerate(by_time, 1)]


def _in_order(found: Sequence[Checkpoint], folder: Path) -> list[Checkpoint]:
    ordered = sorted(found, key=lambda checkpoint: checkpoint.step)
    for one, other in pairwise(ordered):
        if one.step == other.step:
            raise UserError(
                f"two checkpoints are of step {one.step}: {one.path.name} and {other.path.name}",
                where=str(folder),
                remedy="Narrow the pattern, so that it fits one of them.",
            )
    return ordered


def step_of(path: Path) -> int | None:
    """The step of a checkpoint by its trainer_state.json, else by its name; None where neither has one."""
    state = trainer_state(path)
    step = state.get("global_step") if state else None
    if isinstance(step, int) and not isinstance(step, bool) and step >= 0:
        return step
    name = path.stem if path.suffix == ".gguf" else path.name
    named = _STEP.search(name)
    if named:
        return int(named[1])
    numbers = _NUMBER.findall(name)
    return int(numbers[-1]) if len(numbers) == 1 else None


def trainer_state(path: Path) -> Mapping[str, Any] | None:
    """What the Hugging Face Trainer noted beside a checkpoint (it may hold NaN, which is no JSON); None where
    there is none, or it is torn."""
    try:
        status = (path / STATE).stat()
        return _state(path / STATE, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError, RecursionError):
        return None


@lru_cache(256)
def _state(path: Path, changed_ns: int, size: int) -> Mapping[str, Any] | None:
    """Read once while it is the same file: whoever watches a training looks at it again and again."""
    value = json.loads(path.read_bytes())
    return value if isinstance(value, dict) else None


def logged_losses(path: Path) -> dict[str, float]:
    """The last `loss` and `eval_loss` that the Hugging Face Trainer logged up to a checkpoint, by the names
    `train_loss` and `eval_loss`. The loss is the mean since the log before it. One that is no number is left
    out, and so is a loss of exactly 0: a training that diverged logs it."""
    history = (trainer_state(path) or {}).get("log_history")
    found: dict[str, float] = {}
    for entry in history if isinstance(history, list) else []:
        for key, name in (("loss", "train_loss"), ("eval_loss", "eval_loss")):
            value = entry.get(key) if isinstance(entry, dict) else None
            if isinstance(value, int | float):
                found.pop(name, None)
                if math.isfinite(value) and value != 0:
                    found[name] = float(value)
    return found


def missing_of(path: Path, now: float, settled_s: float = SETTLED_S) -> str:
    """What keeps a checkpoint from being whole; "" where nothing does."""
    try:
        if path.suffix == ".gguf":
            with path.open("rb") as file:
                if file.read(4) != b"GGUF":
                    return "it is no GGUF file yet"
        elif lacking := _lacking(path):
            return lacking
        if (path / STATE).exists():  # it is written last
            return "" if trainer_state(path) is not None else f"{STATE} is not whole"
        age = now - _changed(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return "" if age >= settled_s else f"it changed {max(0.0, age):.0f} s ago"


def _lacking(path: Path) -> str:
    if not any((path / name).is_file() for name in _CONFIGS):
        return "config.json"
    for index in path.glob("*.safetensors.index.json"):
        try:
            shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
            return f"{index.name} is not whole"
        for shard in shards:
            if not (path / str(shard)).is_file():
                return str(shard)
    weights = sorted(path.glob("*.safetensors"))
    for file in weights:
        if not file.is_file():  # a pipe would be waited for
            return f"{file.name} is not whole: it is no file"
        status = file.stat()
        if said := _torn(file, status.st_mtime_ns, status.st_size):
            return f"{file.name} is not whole: {said}"
    return "" if weights else "weights (*.safetensors)"


@lru_cache(4096)
def _torn(file: Path, changed_ns: int, size: int) -> str:
    """What is wrong with a safetensors file; read once while it is the same."""
    try:
        safetensors_header(file)
    except UserError as error:
        return error.problems[0].what
    return ""


def _changed(path: Path) -> float:
    """When anything of it changed last, Unix seconds."""
    times = [path.stat().st_mtime]
    if path.is_dir():
        times += [entry.stat().st_mtime for entry in os.scandir(path)]
    return max(times)


@frozen
class Tensor:
    """One tensor of a safetensors file, by its header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def safetensors_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors that a safetensors file holds, by its header; the rest of the file is not read.

    Raises UserError where the header is none, or the file has not the size that it says; OSError where the
    file cannot be read. (Format: 8 bytes little-endian length, so many bytes of JSON, then the data.)
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(MOST_HEADER, size - 8):
            raise _no_header(path, "its header is longer than the file")
        try:
            entries = json.loads(file.read(length))
            tensors = tuple(_tensors(entries))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _no_header(path, "its header is not of the format") from None
    end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != _ABOUT), default=0)
    if size != 8 + length + end:
        raise _no_header(path, f"it has {size:,} bytes, and its header speaks of {8 + length + end:,}")
    return tensors


_ABOUT = "__metadata__"
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


def _tensors(entries: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors of a header. As the library that writes them has it, they lie one behind the other, each as
    long as its shape says; types that are not known here may have any length."""
    spans = []
    for name, entry in entries.items():
        if name == _ABOUT:
            continue
        begin, end = entry["data_offsets"]
        tensor = Tensor(name, str(entry["dtype"]), tuple(entry["shape"]))
        if not all(type(number) is int and number >= 0 for number in (begin, end, *tensor.shape)):
            raise ValueError(name)
        known = _BYTES.get(tensor.dtype)
        if known is not None and tensor.parameters * known != end - begin:
            raise ValueError(name)
        spans.append((begin, end))
        yield tensor
    for (_, before), (begin, end) in pairwise([(0, 0), *sorted(spans)]):
        if begin != before or end < begin:
            raise ValueError("data_offsets")


def _no_header(path: Path, what: str) -> UserError:
    return UserError(what, where=str(path), remedy="The file is torn, or no safetensors file.")

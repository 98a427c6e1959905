"""The Hugging Face Trainer: `trainer_state.json`, of the output folder or of its checkpoints.

Also what is built on it: Axolotl, TRL, LLaMA-Factory. Its `step` counts optimizer steps done already. The
file may hold bare NaN, which is no JSON; `training_args.bin` beside it is a pickle and is never opened.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalrun.checkpoints import STATE
from evalrun.errors import UserError
from evalrun.training.readers import Reading, number, whole_step

FRAMEWORK = "huggingface"
_ABOUT = frozenset({"step", "epoch"})
_SETTINGS = (
    "num_train_epochs", "max_steps", "train_batch_size", "logging_steps", "eval_steps", "save_steps",
)  # fmt: skip


def find(folder: Path) -> list[Path]:
    """The states in a folder: its own and those of its checkpoints."""
    own = folder / STATE
    return [path for path in (own, *sorted(folder.glob(f"*/{STATE}"))) if path.is_file()]


def read(files: list[Path]) -> Reading:
    """The newest of the states: it has all that was logged before it. Raises UserError if none is whole."""
    states: list[tuple[int, int, float, Path, Mapping[str, Any]]] = []
    broken: list[tuple[Path, str]] = []
    for path in files:
        try:
            state = _load(path)
        except UserError as error:
            broken.append((path, error.problems[0].what))
            continue
        known = whole_step(state.get("global_step")) or 0
        states.append((known, len(state["log_history"]), path.stat().st_mtime, path, state))
    if not states:
        path, what = broken[0]
        raise UserError(
            what, where=str(path), remedy="Copy it again, or import an earlier checkpoint's folder."
        )
    step, _, _, path, state = max(states, key=lambda each: each[:3])
    reading = Reading(FRAMEWORK, files=[path], steps=step)
    for other, what in broken:
        reading.note(f"{other.parent.name}/{other.name} was passed over: {what}")
    _settings(reading, path, state)
    _history(reading, state["log_history"])
    return reading


def _load(path: Path) -> Mapping[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            state = json.load(file)  # takes NaN and Infinity, which orjson refuses
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not whole: {str(error)[:100]}", where=str(path)) from error
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise UserError("is no trainer_state.json: it has no list 'log_history'", where=str(path))
    return state


def _settings(reading: Reading, path: Path, state: Mapping[str, Any]) -> None:
    values = {name: state[name] for name in _SETTINGS if state.get(name) is not None}
    if "train_batch_size" in values:
        values["per_device_train_batch_size"] = values.pop("train_batch_size")
    planned = values.get("max_steps")
    reading.planned_steps = planned if type(planned) is int and planned > 0 else None
    best = state.get("best_model_checkpoint")
    if isinstance(best, str) and not _is_there(best, path):
        reading.note(f"best_model_checkpoint is not there any more: {best[:200]}")
    reading.hyperparameters |= values


def _is_there(name: str, state: Path) -> bool:
    """Whether a checkpoint is where it was, or beside the state: folders are copied."""
    beside = Path(name).name
    with contextlib.suppress(OSError, ValueError):  # longer than a path, or with a null in it
        return any(
            place.exists() for place in (Path(name), state.parent / beside, state.parent.parent / beside)
        )
    return False


def _history(reading: Reading, history: list[Any]) -> None:
    before, odd, text_numbers = -1, 0, 0
    for at, entry in enumerate(history):
        history[at] = None  # of a long one there need not be two
        step = whole_step(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            text_numbers += 1
            continue
        if step < before:
            dropped = reading.points.truncate(step)
            reading.note(
                f"the history goes back from step {before} to {step}: {dropped} points of the part that was "
                "given up are left out"
            )
        before = step
        epoch, tokens = number(entry.get("epoch")), number(entry.get("num_input_tokens_seen"))
        for name, value in entry.items():
            if name in _ABOUT or (got := number(value)) is None:
                continue
            odd += not math.isfinite(got)
            reading.points.add(
                step, name, got,
                epoch=math.nan if epoch is None else epoch, tokens=math.nan if tokens is None else tokens,
            )  # fmt: skip
    if odd:
        reading.note(f"{odd} values are NaN or infinite: kept as null with the reason")
    if text_numbers:
        reading.note(f"{text_numbers} entries of the history have no step and are left out")
    reading.steps = max(reading.steps, before)

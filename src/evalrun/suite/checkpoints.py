"""Checkpoints as an axis: a model of a suite becomes one for each checkpoint of a training, in step order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from evalrun.checkpoints import SETTLED_S, Checkpoint, find_checkpoints
from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.suite.findings import complaint, describe
from evalrun.suite.values import Spec

if TYPE_CHECKING:
    from evalrun.suite.components import ModelSpec

LOADS_WEIGHTS = ("transformers", "vllm", "llamacpp")
"""Providers that are given weights, and so can be given those of a checkpoint."""
_EVERY = re.compile(r"every\s+([1-9]\d*)")
_HOURS = {"s": 1 / 3600, "min": 1 / 60, "m": 1 / 60, "h": 1.0, "d": 24.0}
_STOP = re.compile(r"training finished|(\d+(?:\.\d+)?)\s*(s|min|m|h|d)\s+idle")
DEFAULT_STOP = "training finished or 3 h idle"


def _steps(value: Any) -> Any:
    whole = isinstance(value, list) and value and all(type(step) is int and step >= 0 for step in value)
    if whole or value == "all" or (isinstance(value, str) and _EVERY.fullmatch(value.strip())):
        return value
    raise complaint(f"expected steps, found {describe(value)}", 'Write all, "every 500" or [500, 1000].')


Steps = Annotated[
    str | list[int],
    BeforeValidator(_steps),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^(all|every\s+[1-9]\d*)$"},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            ]
        }
    ),
]
"""Which steps: all, `every 500`, or a list of them."""


class CheckpointsSpec(Spec):
    """The checkpoints of a training: the model stands for each of them."""

    path: str = Field(description="Folder that holds the checkpoints (relative to the suite).")
    pattern: str = Field(
        default="checkpoint-*", description="Which folders in it (or .gguf files) are checkpoints."
    )
    steps: Steps = Field(default="all", description='Which of them: all, "every 500" or [500, 1000].')
    last: bool = Field(default=True, description="The last one too, whatever its step.")
    training: str = Field(
        default="",
        description="The training that writes them, by its name in the store, or latest; kept with each run.",
    )
    settled_s: float = Field(
        default=SETTLED_S,
        ge=0,
        strict=False,
        description="Seconds in which nothing may have changed in a checkpoint without trainer_state.json.",
    )


class CheckpointSpec(Spec):
    """Says that a model is one checkpoint of a training. `checkpoints` makes such models; written by hand it
    puts a model that a server has under some name on the axis of steps."""

    of: str = Field(description="What the models of one training have in common: the line that they form.")
    step: int = Field(ge=0, description="Optimizer steps done.")
    path: str = Field(default="", description="Where it lies.")
    training: str = Field(default="", description="The training that wrote it, by its name in the store.")
    note: str = Field(default="", description="How its step is known, where that is a guess.")


def _stop(value: str) -> str:
    if all(_STOP.fullmatch(part.strip()) for part in value.split(" or ")):
        return value
    raise complaint(
        f"cannot read when to stop: '{value}'",
        f"Write it like: {DEFAULT_STOP}; training finished; 30 min idle.",
    )


class WatchSpec(Spec):
    """How `evalrun watch` looks for new checkpoints."""

    every_s: float = Field(default=60, gt=0, strict=False, description="Seconds between two looks.")
    stop: Annotated[str, AfterValidator(_stop)] = Field(
        default=DEFAULT_STOP, description="When it ends: `training finished`, `3 h idle`, or both with `or`."
    )

    @property
    def idle_s(self) -> float | None:
        """After so many seconds without a new checkpoint it ends; None: never for that."""
        spans = [match for part in self.stop.split(" or ") if (match := _STOP.fullmatch(part.strip()))]
        hours = [float(match[1]) * _HOURS[match[2]] for match in spans if match[1]]
        return min(hours) * 3600 if hours else None

    @property
    def with_training(self) -> bool:
        """Whether it ends with the training."""
        return "training finished" in self.stop


class CheckpointRules(Spec):
    """How the checkpoints of a training are compared."""

    best: str | None = Field(
        default=None,
        description="The metric that the best step is chosen by, such as exact_match. Default: the first "
        "scorer's.",
    )
    margin: float = Field(
        default=0.0,
        ge=0,
        strict=False,
        description="How much worse than the best, in the metric's unit, a step may be and still be chosen, "
        "if it is the earliest.",
    )
    order: Literal["step"] = Field(default="step", description="What the axis is ordered by.")
    watch: WatchSpec = Field(default_factory=WatchSpec, description="For `evalrun watch`.")


@frozen
class Expansion:
    """The models with checkpoints in their place, and what is said of those that are not taken."""

    models: tuple[ModelSpec, ...]
    notes: tuple[str, ...] = ()


@frozen
class Awaiting:
    """How checkpoints are taken while a training goes on: nothing is wrong where there are none yet, the last
    one counts as such once the training `finished`, and what was `kept` stays though it is deleted."""

    finished: bool = False
    kept: Sequence[CheckpointSpec] = ()


class NothingYetError(UserError):
    """No model of the suite has a whole checkpoint so far."""


def expand_models(models: Iterable[ModelSpec], base_dir: Path, awaiting: Awaiting | None = None) -> Expansion:
    """Every model with `checkpoints` as one for each. Raises UserError; `where` of its problems is a path in
    the suite, with the model's id in the place of its number."""
    found: list[ModelSpec] = []
    notes: list[str] = []
    problems: list[Problem] = []
    for model in models:
        if model.checkpoints is None:
            found.append(model)
            continue
        try:
            made, said = _of_model(model, model.checkpoints, base_dir, awaiting)
        except UserError as error:
            problems += [
                replace(problem, where=f"models.{model.id}.{problem.where}") for problem in error.problems
            ]
            continue
        found += made
        notes += said
    if problems:
        raise UserError(problems)
    if not found:
        raise NothingYetError("there is no whole checkpoint yet", remedy="; ".join(notes))
    return Expansion(tuple(found), tuple(notes))


def _of_model(
    model: ModelSpec, spec: CheckpointsSpec, base_dir: Path, awaiting: Awaiting | None
) -> tuple[list[ModelSpec], list[str]]:
    if model.provider not in LOADS_WEIGHTS:
        raise UserError(
            f"provider {model.provider} loads no weights",
            where="checkpoints",
            remedy=f"Checkpoints are for {', '.join(LOADS_WEIGHTS)}. A served one is a model of its own, "
            "with checkpoint: {of: NAME, step: 500}.",
        )
    if model.model is not None and model.provider != "transformers":
        raise UserError(
            "model and checkpoints exclude each other", where="checkpoints", remedy="Leave model out."
        )
    folder = base_dir / Path(spec.path).expanduser()
    known: list[Checkpoint] = []
    if awaiting is None or folder.is_dir():
        known = find_checkpoints(folder, spec.pattern, settled_s=spec.settled_s)
    whole = [checkpoint for checkpoint in known if checkpoint.complete]
    notes = [f"{model.id}: {one.path.name} is left out: {one.lacks}" for one in known if not one.complete]
    last = spec.last and (awaiting is None or awaiting.finished)
    taken = {checkpoint.step: checkpoint for checkpoint in selected(whole, spec.steps, last=last)}
    specs = {step: _spec(model, spec, one, folder) for step, one in taken.items()}
    for kept in awaiting.kept if awaiting is not None else ():
        if kept.of == model.id:
            specs.setdefault(kept.step, kept)
    if not specs and awaiting is None:
        why = f": {'; '.join(notes)}" if notes else f" that fits '{spec.pattern}'"
        raise UserError(
            f"there is no whole checkpoint in '{spec.path}'{why}",
            where="checkpoints",
            remedy="Correct path, pattern or steps; `evalrun watch` waits for them.",
        )
    return [_as_model(model, specs[step]) for step in sorted(specs)], notes


def selected(whole: Sequence[Checkpoint], steps: str | Sequence[int], *, last: bool) -> Iterator[Checkpoint]:
    """Those of some checkpoints, in step order, that `steps` names; with `last` also the last."""
    every = _EVERY.fullmatch(steps.strip()) if isinstance(steps, str) else None
    for checkpoint in whole:
        named = (
            checkpoint.step % int(every[1]) == 0
            if every
            else steps == "all" or (not isinstance(steps, str) and checkpoint.step in steps)
        )
        if named or (last and checkpoint is whole[-1]):
            yield checkpoint


def _spec(model: ModelSpec, spec: CheckpointsSpec, one: Checkpoint, folder: Path) -> CheckpointSpec:
    path = str(Path(spec.path) / one.path.relative_to(folder))
    return CheckpointSpec(of=model.id, step=one.step, path=path, training=spec.training, note=one.note)


def _as_model(model: ModelSpec, checkpoint: CheckpointSpec) -> ModelSpec:
    """The model with a checkpoint's weights; where it names a base, the checkpoint is an adapter for it."""
    changes: Mapping[str, Any] = {"model": checkpoint.path}
    if model.model is not None:
        changes = {"options": model.options.model_copy(update={"adapter": checkpoint.path})}
    own_id = f"{model.id}@{checkpoint.step}"
    return model.model_copy(update={"id": own_id, "checkpoints": None, "checkpoint": checkpoint, **changes})

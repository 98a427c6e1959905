"""From a suite to its runs: models x prompts x datasets x sweep, in the order of the suite."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product

from evalrun.canonical import canonical_json, digest
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.suite.components import ModelSpec
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.levels import Level, level_requests, levels_of
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.schema import CellFilter, Suite
from evalrun.types import JSON

EMPTY_MATRIX = "include and exclude leave no run to do"

MAX_RUN_ID = 100
"""Characters; a run id names a folder, and file systems allow 255 bytes for it and its suffixes."""


@frozen
class RunSpec:
    """One cell of the matrix.

    `params` are the model's parameters with the cell's values of the sweep laid over; `swept` are only
    these. `run_id` is safe as a file name and depends on the cell alone. `load` is the level of load that it
    is asked under, where load is an axis.
    """

    run_id: str
    model: ModelSpec
    prompt: PromptSpec
    dataset: DatasetSpec
    params: Mapping[str, JSON]
    swept: Mapping[str, JSON]
    repeats: int
    load: Level | None = None

    @property
    def axes(self) -> dict[str, JSON]:
        """The parameters as results name them, with the level of load among them."""
        return dict(self.params) if self.load is None else {**self.params, "load": self.load.value}

    def requests(self, suite: Suite, rows: int) -> int:
        """How many requests it is expected to send, of a dataset with so many rows."""
        whole = rows * self.repeats
        if self.load is None or suite.load is None:
            return whole
        return level_requests(suite.load, self.load, whole)


def cells(suite: Suite) -> tuple[RunSpec, ...]:
    """The runs of a suite, at least one, with unique ids.

    Raises UserError when include and exclude leave none.
    """
    found = matrix(suite)
    if not found:
        raise UserError(EMPTY_MATRIX, remedy="Loosen them, or select other models, prompts or datasets.")
    return found


def matrix(suite: Suite) -> tuple[RunSpec, ...]:
    """The runs of a suite, which may be none."""
    levels = (None,) if suite.load is None else levels_of(suite.load)
    found = [
        RunSpec("", model, prompt, dataset, {**model.params, **swept}, swept, suite.repeats, level)
        for model, prompt, dataset, swept in _combinations(suite)
        for level in levels
    ]
    # Ids are made before the filters, so that a filter changes no id.
    return tuple(named_cells(found, suite))


def named_cells(found: Sequence[RunSpec], suite: Suite) -> list[RunSpec]:
    """Cells under their ids, without those that the suite's include and exclude leave out."""
    named = zip(_run_ids(found), found, strict=True)
    return [replace(cell, run_id=name) for name, cell in named if _wanted(cell, suite)]


def with_prompt(cell: RunSpec, prompt: PromptSpec, taken: Container[str]) -> RunSpec:
    """The same cell with another prompt, under an id of its own that is not among those taken."""
    made = replace(cell, prompt=prompt)
    name, exact = _slug(made)
    return replace(made, run_id=name if exact and name not in taken else _with_digest(name, made))


def _combinations(suite: Suite) -> Iterator[tuple[ModelSpec, PromptSpec, DatasetSpec, dict[str, JSON]]]:
    points = [dict(zip(suite.sweep, values, strict=True)) for values in product(*suite.sweep.values())]
    return product(suite.models, suite.prompts, suite.datasets, points)


def _wanted(cell: RunSpec, suite: Suite) -> bool:
    included = not suite.include or any(_matches(cell, entry) for entry in suite.include)
    return included and not any(_matches(cell, entry) for entry in suite.exclude)


def _matches(cell: RunSpec, entry: CellFilter) -> bool:
    checkpoint = cell.model.checkpoint
    axes = (
        ((cell.model.id, *([checkpoint.of] if checkpoint is not None else [])), entry.model),
        ((cell.prompt.id,), entry.prompt),
        ((cell.dataset.id,), entry.dataset),
    )
    return all(
        patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
        for names, patterns in axes
    ) and all(
        name in cell.params and _is_any(cell.params[name], value) for name, value in entry.params.items()
    )


def _is_any(value: JSON, wanted: JSON) -> bool:
    """Whether a parameter has the value that a filter names, or one of them where it names a list."""
    return _same(value, wanted) or (isinstance(wanted, list) and any(_same(value, item) for item in wanted))


def _same(one: JSON, other: JSON) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _run_ids(found: Sequence[RunSpec]) -> list[str]:
    """A slug for each cell. One that lost something, or that two cells share, ends in a digest."""
    plain = [_slug(cell) for cell in found]
    # Compared without case, as some file systems do.
    shared = Counter(name.casefold() for name, _ in plain)
    return [
        name if exact and shared[name.casefold()] == 1 else _with_digest(name, cell)
        for (name, exact), cell in zip(plain, found, strict=True)
    ]


def _slug(cell: RunSpec) -> tuple[str, bool]:
    """The readable name of a cell, and whether it says everything that tells the cell from others."""
    parts = [cell.model.id, cell.prompt.id, cell.dataset.id]
    parts += [f"{name}={_shown(value)}" for name, value in cell.swept.items()]
    parts += [f"load={cell.load.slug}"] if cell.load is not None else []
    whole = "-".join(parts)
    slug = re.sub(r"[^A-Za-z0-9._=+@-]+", "_", whole)
    return slug, slug == whole and len(slug) <= MAX_RUN_ID


def _shown(value: JSON) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode()


def _with_digest(slug: str, cell: RunSpec) -> str:
    swept = dict(cell.swept) if cell.load is None else {**cell.swept, "load": cell.load.slug}
    identity = digest([cell.model.id, cell.prompt.id, cell.dataset.id, swept])
    return f"{slug[: MAX_RUN_ID - 11]}-{identity[:10]}"

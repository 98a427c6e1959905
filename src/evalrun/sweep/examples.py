"""A prompt bound to its few-shot examples, after a look at which of them are rows that are tested."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from evalrun.datasets import Dataset, open_dataset
from evalrun.errors import UserError
from evalrun.prompts import FewShotPool, Prompt, Renderer

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec
    from evalrun.suite.load import LoadedSuite

_COUNTED_ROWS = 20_000
"""In so many rows it is counted what examples they are shown."""


def bound(
    prompt: Prompt, pool: FewShotPool | None, loaded: LoadedSuite, spec: DatasetSpec, dataset: Dataset
) -> Renderer:
    """The renderer of a prompt over a dataset.

    Raises UserError where examples are tested rows and `contamination` forbids them, and, whatever it says,
    where a row is shown an example that is held out: nothing may be chosen by these.
    """
    renderer = prompt.bind(pool, loaded.suite.seed)
    if pool is None or prompt.few_shot is None:
        return renderer
    # Of a dataset of which one part is asked now, the other one is asked another time.
    parts = _parts(spec, loaded) or [dataset]
    tested = renderer.tested(chain.from_iterable(parts))
    if not tested:
        return renderer
    what = (
        f"{len(tested):,} of the {len(pool):,} few-shot examples of {pool.name} ask what a row of dataset "
        f"{dataset.id} asks"
    )
    if prompt.few_shot.contamination == "error":
        raise UserError(
            what,
            where=f"prompt {prompt.id}, few_shot",
            remedy="Take examples from another split or file, or set contamination: leave_out.",
        )
    if prompt.few_shot.contamination == "leave_out":
        dataset.warnings.append(f"{what}: they are left out of prompt {prompt.id}")
        return prompt.bind(pool.without(tested), loaded.suite.seed)
    if len(parts) > 1:
        held_out = renderer.tested(parts[1])
        if held_out and any(renderer.shows(item, held_out) for part in parts for item in part):
            raise UserError(
                f"prompt {prompt.id} shows rows that are held out as examples: {len(held_out):,} of the "
                f"{len(pool):,} of {pool.name} ask what a row held out of dataset {dataset.id} asks",
                where=f"prompt {prompt.id}, few_shot",
                remedy="Take examples from another split or file, or set contamination: leave_out.",
            )
    shown = sum(renderer.shows(item, tested) for item in islice(iter(dataset), _COUNTED_ROWS))
    of = min(len(dataset), _COUNTED_ROWS)
    dataset.warnings.append(
        f"prompt {prompt.id} shows {shown:,} of {of:,} samples other tested rows with their answers: {what} "
        "(few_shot: {contamination: leave_out} leaves them out, error forbids them)"
    )
    return renderer


def _parts(spec: DatasetSpec, loaded: LoadedSuite) -> list[Dataset]:
    """The two parts of a dataset of which rows are held out, these last; empty where none are."""
    part = spec.part
    if part is None or not part.held_out:
        return []
    takes = [part.model_copy(update={"take": take}) for take in ("search", "held_out")]
    specs = [spec.model_copy(update={"part": each}) for each in takes]
    return [open_dataset(each, loaded.base_dir, loaded.suite.seed) for each in specs]

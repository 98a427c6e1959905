"""Few-shot examples: which ones a sample is shown.

The choice depends on the seed, the sample's id and the pool's rows, and on nothing else: not on the order
of rows, the limit or concurrency (DESIGN part 5, rule 4). The pool is put in the order of its ids; a sample
draws places in it from SHA-256 of seed, sample id and a counter, passing over what it has drawn and what it
is itself. A draw costs the same for a pool of a hundred and of a million rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.canonical import canonical_json, seeded_bytes
from evalrun.datasets import Dataset, Item, open_dataset, open_examples
from evalrun.errors import UserError
from evalrun.types import JSON, Row

if TYPE_CHECKING:
    from evalrun.suite.dataset import DatasetSpec
    from evalrun.suite.prompt import FewShotSpec


class FewShotPool:
    """Rows to take examples from, all held in memory.

    `name` says in messages where they come from; `digest` is that of the dataset, for provenance.
    """

    def __init__(self, examples: Sequence[Item], name: str = "the examples", digest: str = "") -> None:
        self.examples = sorted(examples, key=lambda item: item.sample_id)
        self.name = name
        self.digest = digest

    def __len__(self) -> int:
        return len(self.examples)

    def without(self, places: Collection[int]) -> FewShotPool:
        """The pool without the examples in these places."""
        kept = [example for place, example in enumerate(self.examples) if place not in places]
        return FewShotPool(kept, self.name, self.digest)

    def pick(self, sample_id: str, count: int, seed: int, same: Callable[[Item], bool]) -> list[int]:
        """The places in `examples` of this sample's examples, in the order in which they are shown.

        An example with the sample's own id is never among them, nor one for which `same` is true.
        Gives fewer than `count` where no more are left.
        """
        chosen: list[int] = []
        passed: set[int] = set()
        for place in _draws(sample_id, seed, len(self.examples)):
            if len(chosen) == count or len(passed) == len(self.examples):
                break
            if place in passed:
                continue
            passed.add(place)
            example = self.examples[place]
            if example.sample_id != sample_id and not same(example):
                chosen.append(place)
        return chosen


_MARKS = r"[.,;:!?…\"'“”‘’«»„()\[\]。、·¿¡]+"  # noqa: RUF001
_PUNCTUATION = re.compile(rf"(?<!\w){_MARKS}|{_MARKS}(?!\w)")


def question_of(row: Row, columns: Iterable[str]) -> Hashable:
    """What a row asks in these columns, made comparable: texts without regard to case, white space, Unicode
    form, and punctuation at the ends of words; other values as they are. A column may be missing."""
    return tuple(_alike(row[name]) if name in row else _ABSENT for name in columns)


_ABSENT = object()


def _alike(value: JSON) -> Hashable:
    if not isinstance(value, str):
        return value if isinstance(value, int | float | None) else canonical_json(value)
    text = unicodedata.normalize("NFKC", value).casefold()
    return "".join(_PUNCTUATION.sub(" ", text).split()) or text


def open_pool(spec: DatasetSpec, few_shot: FewShotSpec, base_dir: Path, seed: int) -> FewShotPool:
    """Read the examples of a prompt for a dataset: from one of its splits, or from a file, with its settings.
    They are the same whichever part of the dataset is asked.

    Raises UserError when the dataset names no target, when an example has none, and as `open_dataset` does.
    """
    where = f"dataset {spec.id}"
    if spec.target is None:
        raise UserError("few-shot examples need the dataset's target", where=where, remedy="Set 'target'.")
    spec = spec.model_copy(update={"part": None})
    dataset: Dataset
    if few_shot.path is not None:
        dataset, name = open_examples(spec, few_shot.path, base_dir), str(few_shot.path)
    else:
        dataset = open_dataset(spec, base_dir, seed, few_shot.split or "")
        name = f"split '{few_shot.split}' of dataset {spec.id}"
    return FewShotPool(list(dataset), name, dataset.digest)


def target_text(target: JSON) -> str:
    """A target as an example shows it: text without blank ends, the first of several, else its JSON.

    Raises ValueError where there is none.
    """
    if isinstance(target, list) and target:
        return target_text(target[0])
    if target is None or target == []:
        raise ValueError("it has no target")
    return target.strip() if isinstance(target, str) else canonical_json(target).decode()


def _draws(sample_id: str, seed: int, size: int) -> Iterator[int]:
    """Endless places below `size`, each equally likely: four from each SHA-256."""
    block = 0
    while size:
        digest = seeded_bytes(seed, sample_id, block)
        for start in range(0, 32, 8):
            yield int.from_bytes(digest[start : start + 8]) % size
        block += 1

"""Rows held out, found again in texts: a prompt that quotes one is chosen by what it must not know."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.datasets import Item, open_dataset
from evalrun.errors import Problem, UserError
from evalrun.prompts import compile_prompt

if TYPE_CHECKING:
    from evalrun.search.space import Space
    from evalrun.suite.dataset import DatasetSpec

_GAPS = re.compile(r"[\W_]+")
_SHORTEST = 8
"""A text of fewer characters, or of one word without a digit, may stand in a prompt by chance."""


class HeldOut:
    """What the rows held out of a dataset say and no row that chooses does, nor any target."""

    def __init__(self, spec: DatasetSpec, base_dir: Path, seed: int) -> None:
        self._said: dict[str, str] = {}
        part = spec.part
        if part is None or not part.held_out:
            return
        rows = {
            take: open_dataset(
                spec.model_copy(update={"part": part.model_copy(update={"take": take})}), base_dir, seed
            )
            for take in ("held_out", "search")
        }
        for item in rows["held_out"]:
            self._said |= {text: item.sample_id for text in _texts(item) if _telling(text)}
        for item in rows["held_out"]:
            self._said.pop(_plain(item.target), None)  # a label is a name of the task
        for item in rows["search"]:
            for text in (*_texts(item), _plain(item.target)):
                self._said.pop(text, None)

    def quoted(self, text: str) -> str | None:
        """The id of a row of which the text has a column's whole value, apart from case, white space and
        punctuation; None where there is none."""
        plain = f" {_plain(text)} "
        for said, sample_id in self._said.items():
            # Writing without spaces has no words whose ends could be looked for.
            if (f" {said} " if said.isascii() else said) in plain:
                return sample_id
        return None


def check_prompts(space: Space, split: int) -> None:
    """Raises UserError for candidates whose prompts quote rows held out; sends nothing."""
    if not space.spec.hold_out:
        return
    base_dir, seed = space.loaded.base_dir, space.suite.seed
    held_out = HeldOut(space.held_out(split, space.baseline).suite.datasets[0], base_dir, seed)
    problems = []
    for prompt in {cell.prompt.id: cell.prompt for cell in space.candidates}.values():
        texts = compile_prompt(prompt, base_dir).source.values()
        row = next(filter(None, map(held_out.quoted, texts)), None)
        if row is not None:
            problems.append(
                Problem(
                    f"prompt {prompt.id} quotes the row '{row}', which is held out",
                    f"prompt {prompt.id}",
                    "Take it out of the prompt, or hold out other rows: another seed, or --fresh-split.",
                )
            )
    if problems:
        raise UserError(problems)


def _texts(item: Item) -> list[str]:
    return [_plain(value) for value in item.row.values() if isinstance(value, str)]


def _plain(text: Any) -> str:
    if not isinstance(text, str):
        return ""
    return _GAPS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _telling(text: str) -> bool:
    """Whether a text is one that no prompt has by chance."""
    words = " " in text or not text.isascii()
    named = any(map(str.isdigit, text)) and any(map(str.isalpha, text))
    return (words and len(text) >= _SHORTEST) or (named and len(text) >= _SHORTEST // 2)

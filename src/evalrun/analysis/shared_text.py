"""Do rows share a template? Rows with the same text up to a few words or numbers are not independent samples.

A cheap look at the first rows of a run: candidates by MinHash over their words (Broder 1997), checked word by
word, so that nothing is told that is not so.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.frozen import frozen
from evalrun.tracking.parquet import reading

ROWS = 250
"""So many rows are looked at."""
LEAST_SHARE = 0.2
"""A smaller share of rows that are like another one is not mentioned, nor fewer than LEAST rows."""
LEAST = 10
ROWS_ALIKE = "rows share a template and no cluster is named, so the interval is too narrow"
"""Beside every interval of such a run."""
_CHARACTERS = 500
_ALIKE = 0.7
_FEW = 2
"""Of short texts so many words may differ, where that is not half of them."""
_BANDS, _DEPTH = 6, 2
Words: TypeAlias = dict[str, None]
_WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+")


@frozen
class Shared:
    """`rows` of `looked_at` have the text of another row up to a few words; they make `templates`."""

    rows: int
    looked_at: int
    templates: int

    def sentence(self) -> str:
        """What to beware of; empty where that is little."""
        if self.rows < max(LEAST, LEAST_SHARE * self.looked_at):
            return ""
        of = "rows" if self.looked_at < ROWS else "first rows"
        templates = "one template" if self.templates == 1 else f"{self.templates} templates"
        return (
            f"{self.rows} of {self.looked_at} {of} share their text with others up to a few words or numbers "
            f"({templates}), and the dataset names no cluster: such samples are not independent, and "
            "intervals are too narrow (cluster: <column that names the template>)"
        )


def shared_text(path: Path) -> str:
    """A warning where many rows of a run's samples share a template, else empty."""
    return like_others(_texts(path)).sentence()


def _texts(path: Path) -> list[str]:
    """Each row's columns of text as one, without those columns that say the same in all rows."""
    import pyarrow as pa

    with reading(path) as file:
        schema = file.schema_arrow
        columns = [
            name
            for name in schema.names
            if name.startswith("vars.") and pa.types.is_string(schema.field(name).type)
        ]
        if not columns:
            return []
        batches = file.iter_batches(batch_size=ROWS, columns=["sample_id", *columns], use_threads=False)
        batch = next(batches, None)
    if batch is None:
        return []
    ids = batch.column("sample_id").to_pylist()
    first = list({id_: at for at, id_ in reversed(list(enumerate(ids)))}.values())
    texts = [batch.column(name).to_pylist() for name in columns]
    kept = [column for column in texts if len(first) < 2 or len({column[at] for at in first}) > 1]
    return [" ".join(column[at] or "" for column in kept)[:_CHARACTERS] for at in first]


def like_others(texts: Sequence[str]) -> Shared:
    """How many of the texts have another one's words, up to a few."""
    rows = [_words(text) for text in texts]
    at = [number for number, words in enumerate(rows) if len(words) > 2]
    leader, joined = list(range(len(rows))), [False] * len(rows)
    if len(at) > 1:
        for band in _bands([rows[number] for number in at]):
            places: dict[bytes, list[int]] = {}
            for number, key in zip(at, band, strict=True):
                bucket = places.setdefault(key, [])
                alike = None
                if not joined[number]:
                    alike = next((other for other in bucket if _alike(rows[number], rows[other])), None)
                if alike is not None:
                    joined[number] = True
                    leader[_root(leader, number)] = _root(leader, alike)
                elif len(bucket) < 4:
                    bucket.append(number)
    roots = [_root(leader, number) for number in at]
    _, sizes = np.unique(np.array(roots, np.int64), return_counts=True)
    several = sizes[sizes > 1]
    return Shared(int(several.sum()), len(texts), len(several))


def _words(text: str) -> Words:
    """The distinct words, all numbers being one, in their order (that of a set differs by process)."""
    return dict.fromkeys("0" if word[0].isdigit() else word for word in _WORD.findall(text.lower()))


def _alike(one: Words, other: Words) -> bool:
    common, most = len(one.keys() & other.keys()), max(len(one), len(other))
    return common >= _ALIKE * most or (most - common <= _FEW and common > most / 2)


def _bands(rows: Sequence[Words]) -> list[list[bytes]]:
    """For each band a key of every row; rows with many words in common are likely to share one."""
    known: dict[str, int] = {}
    flat = np.array([known.setdefault(word, len(known)) for words in rows for word in words])
    starts = np.cumsum([0, *(len(words) for words in rows[:-1])])
    rng = random.Random(0)  # NumPy's would be imported for this alone in most sweeps
    bands = []
    for _ in range(_BANDS):
        hashed = np.frombuffer(rng.randbytes(4 * _DEPTH * len(known)), np.uint32).reshape(_DEPTH, len(known))
        least: NDArray[np.uint32] = np.minimum.reduceat(hashed[:, flat], starts, axis=1)
        bands.append([row.tobytes() for row in np.ascontiguousarray(least.T)])
    return bands


def _root(leader: list[int], number: int) -> int:
    while leader[number] != number:
        number = leader[number] = leader[leader[number]]
    return number

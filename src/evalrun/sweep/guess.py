"""What a table is for, guessed from its cells: how the target is read and scored, which columns ask, which
one names a row. `evalrun init --data` explains each guess in the suite, where it is changed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.sweep.choices import Choices, choices
from evalrun.sweep.tables import Table
from evalrun.types import JSON

Kind: TypeAlias = Literal["letters", "labels", "number", "json", "short", "long"]

MOST_LABELS = 20
LABEL_LENGTH = 40
ROWS_A_LABEL = 3
"""A label that few rows share is rather an answer of its own."""
SHORT_LENGTH, SHORT_WORDS = 60, 6
NUMBERS_AS_LABELS = 10
FEW_ROWS = 20
TEXT_LENGTH = 12
"""A column whose cells are at least so long on average is a text to ask about."""

_NUMBER = re.compile(
    r"[$€£]?\s*[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?|(?:\d{1,3}(?:\.\d{3})+|\d+),\d+)"
    r"\s*[%$€£]?\Z"
)
"""With a point or a comma before the decimals."""
_KEY = re.compile(
    r"(?:.*[\s_.-])?(?:id|key|uuid|guid|nr|no|number|index)\.?\Z|.*[a-z]I[dD]\Z|#", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Guess:
    """`target` is its column; `labels` those of a choice, the commonest first, with `ignore_case` where they
    differ in case only; `choices` the options of multiple choice; `texts` what is asked about."""

    target: str
    kind: Kind
    why: str
    texts: Sequence[str]
    key: str | None
    labels: Sequence[str] = ()
    ignore_case: bool = False
    trim: bool = False
    choices: Choices | None = None
    empty: int = 0
    groups: Sequence[str] = ()
    nulls: frozenset[str] = field(default=frozenset())


def guess(table: Table, target: str | None, where: str) -> Guess:
    """Guess. Raises UserError that lists the columns where the target is none of them, or nothing is left."""
    column = _target(table, target, where)
    cells = [row[column] for row in table.rows]
    values = [value for value in cells if not _empty(value)]
    listed = f"Its columns are: {', '.join(table.columns)}."
    if not values:
        raise UserError(f"the column '{column}' is empty in every row", where=where, remedy=listed)
    chosen = choices(table, column)
    options = [*chosen.columns] if chosen else []
    kind, why, labels = ("letters", chosen.why, ()) if chosen else _kind(values)
    key = _key(table, column)
    others = [name for name in table.columns if name not in (column, key, *options)]
    others = [name for name in others if any(not _empty(row[name]) for row in table.rows)]
    others = [name for name in others if not _tells(table, name, column)]
    texts = _texts(table, others)
    if not texts and key and not options:
        texts, key = [key], None  # of two columns both are needed
    if not texts and not options:
        raise UserError(f"beside '{column}' no column is left to ask about", where=where, remedy=listed)
    words = [str(value) for value in values]
    return Guess(
        target=column,
        kind=kind,
        why=why,
        texts=texts,
        key=key,
        labels=labels,
        ignore_case=bool(labels) and len({word.strip() for word in words}) > len(labels),
        trim=any(isinstance(value, str) and value != value.strip() for value in values),
        choices=chosen,
        empty=len(cells) - len(values),
        groups=[name for name in others if name not in texts and _is_group(table, name)][:2],
        nulls=frozenset(name for name in table.columns if any(row[name] is None for row in table.rows)),
    )


def _target(table: Table, target: str | None, where: str) -> str:
    listed = f"Its columns are: {', '.join(table.columns)}."
    if target is None:
        raise UserError(
            "which column holds the right answer?", where=where, remedy=f"Give --target COLUMN. {listed}"
        )
    known = {name: name for name in table.columns}
    known |= {old: new for new, old in table.renamed.items() if old not in known}
    folded = {name.casefold().strip(): column for name, column in known.items()}
    column = known.get(target) or folded.get(target.casefold().strip())
    if column is None:
        near = nearest(target, table.columns)
        hint = f"Did you mean '{near}'? " if near else ""
        raise UserError(f"there is no column '{target}'", where=where, remedy=hint + listed)
    return column


def _empty(value: JSON) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _kind(values: Sequence[JSON]) -> tuple[Kind, str, Sequence[str]]:
    if _mostly(values, _is_json):
        return "json", "the targets are JSON", ()
    texts = [str(value).strip() if not isinstance(value, bool) else str(value).lower() for value in values]
    counts = Counter(text.casefold() for text in texts)
    labels = _labels(texts)
    few = 2 <= len(counts) <= MOST_LABELS and len(texts) >= ROWS_A_LABEL * len(counts)
    if _mostly(values, _is_number):
        whole = all(re.fullmatch(r"-?\d+", text) for text in texts)
        if not (few and whole and len(counts) <= NUMBERS_AS_LABELS and len(texts) >= FEW_ROWS):
            return "number", "the targets are numbers", ()
        return "labels", f"the targets are {len(counts)} different whole numbers, taken as labels", labels
    small = all(len(text) <= LABEL_LENGTH and "\n" not in text for text in texts)
    if (few or (2 <= len(counts) <= 3 and len(texts) < FEW_ROWS and len(counts) < len(texts))) and small:
        return "labels", f"the targets are {len(counts)} different labels", labels
    lengths = sorted(map(len, texts))
    middle = lengths[len(lengths) // 2]
    if middle <= SHORT_LENGTH and sum(len(text.split()) for text in texts) / len(texts) <= SHORT_WORDS:
        return "short", "the targets are short texts, most of them different", ()
    return "long", f"the targets are texts of {middle} characters or so", ()


def _mostly(values: Sequence[JSON], holds: Callable[[JSON], bool]) -> bool:
    return sum(map(holds, values)) >= 0.95 * len(values)


def _is_number(value: JSON) -> bool:
    if isinstance(value, str):
        text = value.strip()
        return any(c.isdigit() for c in text) and _NUMBER.match(text) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_json(value: JSON) -> bool:
    if isinstance(value, Mapping | list):
        return True
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return False
    try:
        return isinstance(json.loads(value), dict | list)
    except ValueError:
        return False


def _labels(texts: Sequence[str]) -> list[str]:
    """The labels as most rows write them, the commonest first."""
    spellings: dict[str, Counter[str]] = {}
    for text in texts:
        spellings.setdefault(text.casefold(), Counter())[text] += 1
    ordered = sorted(spellings.values(), key=lambda each: (-each.total(), min(each)))
    return [" ".join(each.most_common(1)[0][0].split()) for each in ordered]


def _key(table: Table, target: str) -> str | None:
    """The column that names rows: called so, filled everywhere, no value twice."""
    for name in table.columns:
        if name != target and _KEY.match(name.strip()):
            values = [row[name] for row in table.rows]
            plain = all(isinstance(value, str | int) and not isinstance(value, bool) for value in values)
            texts = {str(value).strip() for value in values}
            if plain and "" not in texts and len(texts) == len(values):
                return name
    return None


def _tells(table: Table, name: str, target: str) -> bool:
    """Whether a column gives the answer away: the same as the target wherever that is filled."""
    pairs = [(row[name], row[target]) for row in table.rows if not _empty(row[target])]
    return all(str(one).strip().casefold() == str(other).strip().casefold() for one, other in pairs)


def _texts(table: Table, others: Sequence[str]) -> list[str]:
    """The columns of text; where none is long, all that there are."""
    lengths: dict[str, float] = {}
    for name in others:
        texts = [value for row in table.rows if isinstance(value := row[name], str) and value.strip()]
        if texts and not all(re.fullmatch(r"\S+://\S+|\d{4}-\d\d-\d\d\S*(?: \S+)?", text) for text in texts):
            lengths[name] = sum(map(len, texts)) / len(texts)
    long = [name for name, length in lengths.items() if length >= TEXT_LENGTH and not _is_group(table, name)]
    if long:
        return long
    texts = [name for name in lengths if not _is_group(table, name)]
    return texts or list(lengths) or list(others)


def _is_group(table: Table, name: str) -> bool:
    """Whether a column has few values, each for many rows: a channel, a language, a kind of customer."""
    values = [row[name] for row in table.rows if not _empty(row[name])]
    if not all(isinstance(value, str | int | bool) for value in values):
        return False
    distinct = len({str(value) for value in values})
    return len(values) >= FEW_ROWS and 2 <= distinct <= 8 and len(values) >= 5 * distinct

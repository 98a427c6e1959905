"""Where it broke: which slices of a run hold more of some samples (regressions, errors) than chance would.

A slice is one value of a column: of the row, of a group, of the target, how an answer ended, or a quarter of
a number or of a text's length. Each is tested by the exact hypergeometric test (Fisher's, one-sided) with
Holm's correction over all slices that were looked at: where chance alone decides, 19 of 20 runs show none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from evalrun.analysis.correction import ALPHA, corrected
from evalrun.analysis.samples import plain_values
from evalrun.frozen import frozen
from evalrun.scoring.columns import as_text
from evalrun.sweep_results import Concentration
from evalrun.tracking.folder import MANIFEST
from evalrun.tracking.parquet import column_names, read_columns, read_head, reading

LEAST = 5
"""So few affected samples, or samples in a slice, say nothing of where."""

MOST_VALUES = 50
"""A column of more values is looked at by its length, or by quarters where it holds numbers."""

MOST_SHOWN = 3
SHOWN_IDS = 5
_LENGTH = "length of "
_HEAD = 200
_LOOKED_AT = 1_000
_SAME = 0.8
"""A slice that holds this share of the affected samples of one shown already says nothing more."""

_ENDINGS = ("finish_reason", "target")
_LENGTHS = ("prompt_tokens", "completion_tokens")
_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")

_RATES = {"error_rate": "failed", "unparsed_rate": "unparsed", "refused_rate": "refused"}

if TYPE_CHECKING:
    from evalrun.analysis.measures import RunSamples

_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]


@frozen
class _Slice:
    column: str
    value: str
    inside: _Bools
    hits: int
    size: int


def concentrations(
    path: Path, affected: Collection[str], among: Collection[str] | None = None, alpha: float = ALPHA
) -> tuple[Concentration, ...]:
    """The slices of a run's `samples.parquet` that hold more of the `affected` sample ids than chance.

    `among` are the ids that could have been affected (default: all). A sample that was asked several times
    counts once; of rows in one cluster the first counts, affected where any of them is. At most three slices,
    those of least p first. Empty where too few are affected, or nothing sets them apart.
    """
    if len(affected) < LEAST:
        return ()
    return _told(path, *_units(path, set(affected), None if among is None else set(among)), alpha)


def concentrations_of(run: RunSamples, samples: _Ints, affected: _Bools) -> tuple[Concentration, ...]:
    """As `concentrations`, of a run whose samples were read: `samples` are the codes of the ids that could
    have been affected, shape (n,), and `affected` says which of them were."""
    table, clusters = run.table, run.clusters
    first = np.full(table.distinct, len(table))
    np.minimum.at(first, table.ids, table.order)
    rows = first[samples]
    if clusters is not None:
        of = clusters[samples]
        first, hit = np.full(int(clusters.max()) + 1, len(table)), np.zeros(int(clusters.max()) + 1, np.bool_)
        np.minimum.at(first, of, rows)
        hit[of[affected]] = True
        rows, affected = first[first < len(table)], hit[first < len(table)]
    order = np.argsort(rows)
    return _told(run.folder.samples_path(run.run.run), rows[order], affected[order], ALPHA)


def _told(path: Path, first: _Ints, hit: _Bools, alpha: float) -> tuple[Concentration, ...]:
    """The slices to tell of, by the row that stands for each unit and whether the unit is affected."""
    total, hits = len(first), int(hit.sum())
    if hits < LEAST or hits == total:
        return ()
    slices = list(_slices(path, first, hit))
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, total + 1)))))
    ps = corrected([_tail(part.hits, total, hits, part.size, logs) for part in slices], "holm")
    apart = [
        (p, part)
        for part, p in zip(slices, ps, strict=True)
        if p is not None and p <= alpha and part.hits * total > part.size * hits
    ]
    # Of slices that say the same, a value says more than a length.
    apart.sort(key=lambda pair: (pair[0], pair[1].size, pair[1].column.startswith(_LENGTH), pair[1].column))
    shown: list[tuple[float, _Slice]] = []
    for p, part in apart:
        repeated = any((part.inside & other.inside & hit).sum() >= _SAME * part.hits for _, other in shown)
        if not repeated and len(shown) < MOST_SHOWN:
            shown.append((p, part))
    ids = read_columns(path, ["sample_id"]).column(0) if shown else ()
    return tuple(
        Concentration(
            part.column, part.value, part.hits, part.size, hits, total, p,
            tuple(str(ids[row].as_py()) for row in first[part.inside & hit][:SHOWN_IDS].tolist()),
        )
        for p, part in shown
    )  # fmt: skip


def ended_badly(path: Path, metric: str, scorer: str, slice_: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """The ids that speak against a metric, and all that it speaks of: samples that a scorer of 0 to 1 gave
    less than a half on average, or that ended as a rate (`error_rate`, `unparsed_rate`, …) counts.

    Both are empty where the metric is of no such kind.
    """
    names = column_names(path)
    column = f"score.{scorer}" if scorer else "status" if metric in _RATES else ""
    groups = {f"sensitive.{name}": value for name, value in slice_.items()}
    if column not in names or not groups.keys() <= {*names}:
        return set(), set()
    table = read_columns(path, ["sample_id", column, *groups])
    values = table.column(column).to_pylist()
    if scorer and not all(value is None or 0 <= float(value) <= 1 for value in values):
        return set(), set()
    given: dict[str, list[float]] = {}
    of_group = [[as_text(each) for each in table.column(name).to_pylist()] for name in groups]
    for row, (name, value) in enumerate(zip(table.column("sample_id").to_pylist(), values, strict=True)):
        within = all(col[row] == group for col, group in zip(of_group, groups.values(), strict=True))
        if within and value is not None:
            good = float(value) if scorer else float(value != _RATES[metric])
            given.setdefault(str(name), []).append(good)
    return {name for name, scores in given.items() if sum(scores) / len(scores) < 0.5}, {*given}


def _units(path: Path, affected: set[str], among: set[str] | None) -> tuple[_Ints, _Bools]:
    """The row that stands for each unit, and whether the unit is affected."""
    names = [name for name in ("sample_id", "cluster") if name in column_names(path)]
    table = read_columns(path, names)
    ids = [*map(str, table.column("sample_id").to_pylist())]
    units = ids
    if "cluster" in names and table.column("cluster").null_count < len(ids):
        clusters = table.column("cluster").to_pylist()
        units = [
            name if cluster is None else f"cluster {cluster}"
            for name, cluster in zip(ids, clusters, strict=True)
        ]
    rows = [row for row, name in enumerate(ids) if among is None or name in among]
    first = sorted(dict(zip([units[row] for row in reversed(rows)], reversed(rows), strict=True)).values())
    hit = {units[row] for row in rows if ids[row] in affected}
    return np.array(first, np.int64), np.array([units[row] in hit for row in first], np.bool_)


def _slices(path: Path, rows: _Ints, hit: _Bools) -> Iterator[_Slice]:
    with reading(path) as file:
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
    answers, keys = _answers(path, [*kinds]), _same_as(path, [*kinds], "sample_id")
    for name, kind in kinds.items():
        looked_at = name.startswith(("vars.", "sensitive.")) or name in _ENDINGS or name in _LENGTHS
        if looked_at and name not in answers:
            said = name.removeprefix("vars.").removeprefix("sensitive.")
            column = read_columns(path, [name], coded=kind == "string").column(name)
            codes, labels, what = _coded(column, rows, name)
            if what and name in keys:
                continue  # how long a row's name is says nothing of where
            size = np.bincount(codes + 1, minlength=len(labels) + 1)[1:]
            hits = np.bincount(codes[hit] + 1, minlength=len(labels) + 1)[1:]
            for code in np.flatnonzero((size >= LEAST) & (size < len(rows))):
                called = f"{what}{said}"
                yield _Slice(called, labels[code], codes == code, int(hits[code]), int(size[code]))


def _answers(path: Path, names: list[str]) -> set[str]:
    """Columns of the row that hold answers (provider: recorded), of this model or of others: they say nothing
    of where."""
    recorded = _recorded(path)
    return recorded | _same_as(path, [name for name in names if name not in recorded], "output")


def _same_as(path: Path, names: Sequence[str], what: str) -> set[str]:
    """The columns of the row that hold the very texts of another column, in the first rows."""
    if what not in names:
        return set()
    columns = [name for name in names if name.startswith("vars.")]
    head = read_head(path, [what, *columns], _HEAD)
    texts = head.column(what).to_pylist()
    return {name for name in columns if any(texts) and head.column(name).to_pylist() == texts}


def _recorded(path: Path) -> set[str]:
    """The columns from which the suite takes recorded answers, by the manifest of the file's sweep."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        manifest = orjson.loads((path.parents[2] / MANIFEST).read_bytes())
        suite = (manifest.get("suite") or {}).get("resolved") or {}
        models = suite.get("models") or ()
        taken = [model.get("column") for model in models if model.get("provider") == "recorded"]
        return {f"vars.{str(column).partition('.')[0]}" for column in taken if column}
    return set()


def _coded(column: Any, rows: _Ints, name: str) -> tuple[_Ints, list[str], str]:
    """A column as codes (-1: no value) and labels; many numbers by quarters, many texts by length."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return _coded_texts(column, rows, name)
    values = column.to_pylist()
    values = values if len(rows) == len(values) else [values[row] for row in rows.tolist()]
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not numeric:
        values = [None if value is None else as_text(value) for value in values]
    elif pa.types.is_floating(column.type):  # each NaN is another object, and no two are equal
        values = [value if value == value else math.nan for value in values]
    few = None if name in _LENGTHS else _few(values)
    if few is not None:
        return few[0], [as_text(label) for label in few[1]], ""
    if not numeric:
        values = [None if value is None else len(value) for value in values]
    return *_quarters(np.array(values, np.float64)), "" if numeric else _LENGTH


def _coded_texts(column: Any, rows: _Ints, name: str) -> tuple[_Ints, list[str], str]:
    """The same of texts that come as codes and labels, of which each part of the file has its own."""
    known: dict[str, int] = {}
    parts = []
    for part in column.chunks:
        labels = [known.setdefault(as_text(label), len(known)) for label in part.dictionary.to_pylist()]
        parts.append(np.array([*labels, -1])[plain_values(part.indices, np.int64, -1)])
    codes = np.concatenate(parts)[rows]
    used = np.flatnonzero(np.bincount(codes + 1, minlength=len(known) + 1)[1:]).tolist()
    if len(used) > MOST_VALUES or name in _LENGTHS:
        return *_quarters(np.array([*map(len, known), np.nan])[codes]), _LENGTH
    used.sort(key=lambda code: int(np.argmax(codes == code)))  # by their first rows
    place = np.full(len(known) + 1, -1)
    place[used] = np.arange(len(used))
    names = [*known]
    return place[codes], [names[code] for code in used], ""


def _quarters(numbers: NDArray[np.float64]) -> tuple[_Ints, list[str]]:
    """Numbers as codes of their quarters (-1: no number) and what these are called."""
    there = np.isfinite(numbers)
    if not there.any():
        return np.full(len(numbers), -1), []
    ends = np.quantile(numbers[there], (0.25, 0.5, 0.75))
    codes = np.where(there, np.searchsorted(ends, np.where(there, numbers, 0), side="left"), -1)
    bounds = (f"up to {ends[0]:g}", f"to {ends[1]:g}", f"to {ends[2]:g}", f"above {ends[2]:g}")
    quarters = [f"{quarter} ({bound})" for quarter, bound in zip(_QUARTERS, bounds, strict=True)]
    return codes.astype(np.int64), quarters


def _few(values: Sequence[Any]) -> tuple[_Ints, list[Any]] | None:
    """Values as codes (-1: no value) and the distinct ones; None of more than MOST_VALUES."""
    known: dict[Any, int] = {None: -1}
    for begin in range(0, len(values), _LOOKED_AT):
        for value in dict.fromkeys(values[begin : begin + _LOOKED_AT]):
            known.setdefault(value, len(known) - 1)
        if len(known) - 1 > MOST_VALUES:
            return None
    return np.array([known[value] for value in values], np.int64), [*known][1:]


def _tail(hits: int, total: int, affected: int, size: int, logs: NDArray[np.float64]) -> float:
    """P(X >= hits) of a hypergeometric X: `size` drawn of `total`, of which `affected` are marked. `logs` are
    the logarithms of the factorials."""

    def choose(n: Any, k: Any) -> Any:
        return logs[n] - logs[k] - logs[n - k]

    k = np.arange(max(hits, size - (total - affected)), min(affected, size) + 1)
    terms = choose(affected, k) + choose(total - affected, size - k) - choose(total, size)
    return float(min(1.0, np.exp(terms).sum()))

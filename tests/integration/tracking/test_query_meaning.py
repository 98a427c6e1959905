"""Random queries mean to the databases what they mean to Python."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import BOTH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tracking_samples import manifest_of, run_of

from evalrun.tracking.finding import Search
from evalrun.tracking.samples import find_samples
from evalrun.tracking.store import Store

CATALOGS = BOTH

TEXTS = ["", "a", "A", "a%b", "a'b", 'q"', "é", "日本", "x\\", "nan", "1", "\U0001f600_"]
NUMBERS: list[Any] = [0, 1, -1, 0.5, 1.5, 100, 2**40]
ROWS = [
    {"text": TEXTS[at % 12], "other": TEXTS[(at * 5) % 12], "number": NUMBERS[at % 7], "flag": at % 2 == 0}
    | ({"maybe": NUMBERS[(at * 3) % 7]} if at % 3 else {})
    for at in range(24)
]
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip

Meaning = Callable[[Mapping[str, Any]], bool]
Query = tuple[Callable[[Mapping[str, str]], str], Meaning]
"""A query as text, given what its names are called where it is asked, and what it means for a row."""


def _compared(name: str, op: str, value: Any) -> Query:
    def holds(row: Mapping[str, Any]) -> bool:
        return row.get(name) is not None and OPERATORS[op](row[name], value)

    return (lambda called: f"{called[name]} {op} {value!r}"), holds


def _listed(name: str, values: list[Any]) -> Query:
    return (lambda called: f"{called[name]} in {values!r}"), (lambda row: row.get(name) in values)


def _part(needle: str, name: str) -> Query:
    return (lambda called: f"{needle!r} in {called[name]}"), (lambda row: needle in row[name])


def _missing(name: str, none: bool) -> Query:
    words = "is" if none else "is not"
    return (lambda called: f"{called[name]} {words} None"), (lambda row: (row.get(name) is None) == none)


def _chain(low: Any, name: str, high: Any) -> Query:
    def holds(row: Mapping[str, Any]) -> bool:
        return row.get(name) is not None and low <= row[name] < high

    return (lambda called: f"{low!r} <= {called[name]} < {high!r}"), holds


def _two(one: str, op: str, other: str) -> Query:
    def holds(row: Mapping[str, Any]) -> bool:
        known = row.get(one) is not None and row.get(other) is not None
        return known and OPERATORS[op](row[one], row[other])

    return (lambda called: f"{called[one]} {op} {called[other]}"), holds


def _not(inner: Query) -> Query:
    return (lambda called: f"not ({inner[0](called)})"), (lambda row: not inner[1](row))


def _joined(word: str, parts: list[Query]) -> Query:
    of = all if word == "and" else any
    return (
        lambda called: "(" + f" {word} ".join(text(called) for text, _ in parts) + ")",
        lambda row: of(holds(row) for _, holds in parts),
    )


NAMES, TEXT_NAMES = st.sampled_from(["number", "maybe"]), st.sampled_from(["text", "other"])
OPS, NUMBER, TEXT = st.sampled_from([*OPERATORS]), st.sampled_from(NUMBERS), st.sampled_from(TEXTS)
LEAVES = st.one_of(
    st.builds(_compared, NAMES, OPS, NUMBER),
    st.builds(_compared, TEXT_NAMES, OPS, TEXT),
    st.builds(_compared, st.just("flag"), st.sampled_from(["==", "!="]), st.booleans()),
    st.builds(_listed, NAMES, st.lists(NUMBER, min_size=1, max_size=4)),
    st.builds(_listed, TEXT_NAMES, st.lists(TEXT, min_size=1, max_size=4)),
    st.builds(_part, TEXT, TEXT_NAMES),
    st.builds(_missing, st.sampled_from(["maybe", "text"]), st.booleans()),
    st.builds(_chain, NUMBER, NAMES, NUMBER),
    st.builds(_two, st.just("number"), OPS, st.just("maybe")),
    st.builds(_two, st.just("text"), OPS, st.just("other")),
)
QUERIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(_not, inner),
        st.builds(_joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)
QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def runs(store: Store) -> Store:
    """One sweep; each row is the parameters of a run, its `other` a model's name."""
    folder = store.create_sweep("meaning")
    plan = [run_of("m-p-d", run=f"r{at:02}", metrics=[]) for at in range(len(ROWS))]
    folder.write_manifest(manifest_of(folder, plan=plan))
    for at, row in enumerate(ROWS):
        params = {key: value for key, value in row.items() if key != "other"}
        folder.finish_run(f"r{at:02}", plan[at] | {"params": params, "model": row["other"]})
    store.index(folder)
    return store


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.parquet"
    columns: dict[str, list[Any]] = {
        name: [row.get(name) for row in ROWS] for name in ("text", "other", "flag")
    }
    for name in ("number", "maybe"):
        values = [row.get(name) for row in ROWS]
        columns[name] = [None if value is None else float(value) for value in values]
    pq.write_table(pa.table({"sample_id": [f"r{at:02}" for at in range(len(ROWS))], **columns}), path)
    return path


@QUICK
@given(query=QUERIES)
def test_runs_are_found_as_python_would(runs: Store, query: Query) -> None:
    called = {name: f"param.{name}" for name in ROWS[1]} | {"other": "model"}
    found = runs.find(Search.of(query[0](called), limit=None)).rows
    assert {row.run for row in found} == {f"r{at:02}" for at, row in enumerate(ROWS) if query[1](row)}


@QUICK
@given(query=QUERIES)
def test_samples_are_found_as_python_would(samples: Path, query: Query) -> None:
    found = find_samples(samples, query[0]({name: name for name in ROWS[1]})).rows
    wanted = {f"r{at:02}" for at, row in enumerate(ROWS) if query[1](row)}
    assert {row["sample_id"] for row in found} == wanted

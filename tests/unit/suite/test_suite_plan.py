"""The matrix: its order, its filters, the names of its runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.errors import UserError
from evalrun.suite.load import parse_suite
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import MAX_RUN_ID, cells, matrix


def suite_with(models=("a", "b"), prompts=("p",), datasets=("d",), **more):
    return parse_suite(
        {
            "name": "s",
            "models": [
                {"id": name, "provider": "echo", "base_url": "u", "params": {"temperature": 0, "top_p": 1}}
                for name in models
            ],
            "prompts": [{"id": name, "text": "x"} for name in prompts],
            "datasets": [{"id": name, "rows": [{"q": 1}]} for name in datasets],
            "scorers": ["same"],
            **more,
        }
    )


def ids(suite) -> list[str]:
    return [cell.run_id for cell in cells(suite)]


def test_order_is_that_of_the_suite_with_the_last_axis_fastest() -> None:
    suite = suite_with(
        ("b", "a"), ("p", "q"), ("d",), sweep={"temperature": [0, 0.7], "stop": ["x"]}, repeats=3
    )
    found = cells(suite)
    assert [cell.run_id for cell in found] == [
        f"{model}-{prompt}-d-temperature={value}-stop=x"
        for model in ("b", "a")
        for prompt in ("p", "q")
        for value in (0, 0.7)
    ]
    assert found[1].params == {"temperature": 0.7, "top_p": 1, "stop": "x"}
    assert found[1].swept == {"temperature": 0.7, "stop": "x"}
    assert found[1].repeats == 3


def test_without_a_sweep_the_ids_are_plain() -> None:
    assert ids(suite_with()) == ["a-p-d", "b-p-d"]


def test_limit_changes_no_run_id(load, minimal) -> None:
    assert ids(load(minimal).suite) == ids(load(minimal, Overrides(limit=1)).suite)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"include": [{"model": "a"}]}, ["a-p-d", "a-q-d"]),
        ({"include": [{"model": "a", "prompt": "p"}, {"model": "b", "prompt": ["q"]}]}, ["a-p-d", "b-q-d"]),
        ({"exclude": [{"prompt": "?"}], "include": [{"model": "*"}]}, []),
        ({"exclude": [{"model": ["a*", "[!b]"]}]}, ["b-p-d", "b-q-d"]),
        ({"exclude": [{"params": {"temperature": 0}}]}, []),
        ({"exclude": [{"params": {"temperature": False}}]}, ["a-p-d", "a-q-d", "b-p-d", "b-q-d"]),
    ],
)
def test_filters(filters, kept) -> None:
    suite = suite_with(("a", "b"), ("p", "q"), **filters)
    assert [cell.run_id for cell in matrix(suite)] == kept


def test_filters_by_swept_values() -> None:
    suite = suite_with(("a",), sweep={"n": [1, 2, 3, [1, 2]]}, exclude=[{"params": {"n": [1, 2]}}])
    # A list is any of its values, and also the list itself.
    assert [cell.swept["n"] for cell in cells(suite)] == [3]


def test_a_filter_changes_no_run_id() -> None:
    models, prompts = ("a-b", "a"), ("c", "b-c")
    all_ids = set(ids(suite_with(models, prompts)))
    assert set(ids(suite_with(models, prompts, include=[{"model": "a"}]))) < all_ids


def test_an_empty_matrix_is_an_error() -> None:
    with pytest.raises(UserError, match="leave no run"):
        cells(suite_with(exclude=[{"model": "*"}]))


def test_names_that_run_together_are_told_apart() -> None:
    found = ids(suite_with(("a-b", "a"), ("c", "b-c")))
    assert len(set(found)) == 4
    assert [name for name in found if name.startswith("a-c-d")] == ["a-c-d"]


NAME = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,40}\Z")
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 1) | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.lists(NAME, min_size=1, max_size=3, unique_by=str.casefold),
    st.lists(NAME, min_size=1, max_size=3, unique_by=str.casefold),
    st.dictionaries(
        st.text(min_size=1, max_size=12), st.lists(VALUE, min_size=1, max_size=3, unique_by=repr), max_size=2
    ),
)
def test_run_ids_are_unique_short_safe_and_stable(models, prompts, sweep) -> None:
    for axis in list(sweep):
        kept = []
        for value in sweep[axis]:
            if not any(
                value == other and isinstance(value, bool) == isinstance(other, bool) for other in kept
            ):
                kept.append(value)
        sweep[axis] = kept
    try:
        suite = suite_with(models, prompts, sweep=sweep)
    except UserError as error:
        pytest.fail(str(error))
    found = ids(suite)
    assert found == ids(suite)
    assert len({name.casefold() for name in found}) == len(found)
    assert all(len(name) <= MAX_RUN_ID for name in found)
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=+@-")
        for name in found
    )

"""Canonical JSON: equal values, equal bytes."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.canonical import canonical_json, digest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(values)
def test_it_reads_back_and_does_not_depend_on_the_order_of_keys(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(turned(value)) == text


def turned(value: object) -> object:
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(list(value))}
    return [turned(item) for item in value] if isinstance(value, list) else value


def test_the_written_form() -> None:
    assert (
        canonical_json({"b": [1, 1.0, None, True], "ä": "ü", "a": {}})
        == '{"a":{},"b":[1,1.0,null,true],"ä":"ü"}'.encode()
    )


def test_the_digest_is_sha256_of_it() -> None:
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert digest({"a": 1}) != digest({"a": 1.0})


@pytest.mark.parametrize(
    "value",
    [float("nan"), [1, {"a": float("inf")}], {"a": (float("-inf"),)}, {1: 2}, object(), "\ud800", {2**70: 1}],
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON form"):
        canonical_json(value)


def test_integers_beyond_64_bits_are_kept() -> None:
    assert canonical_json({"b": 2**70, "a": "ä"}) == f'{{"a":"ä","b":{2**70}}}'.encode()


def test_nan_beside_a_large_integer_is_refused_too() -> None:
    with pytest.raises(ValueError, match="JSON form"):
        canonical_json([2**70, float("nan")])

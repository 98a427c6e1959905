"""What a hostile or damaged file looks like: a good one, some of whose values or bytes were replaced."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

DEEP = "[" * 50 + "]" * 50
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "\ud800",
    "\u202e",
    "\x1b[2J",
    "a" * 5000,
    "../../../etc/passwd",
    "/dev/zero",
    "~",
    "=1+1",
    "${HOME}",
    "{{ 7 * 7 }}",
    "{% include 'x' %}",
    "<script>",
    "1e999",
    "true",
    "2026-13-45",
    [],
    [None],
    [[]],
    {},
    {"": {}},
    {"a": [1, {"b": None}]},
    [1, "a", None],
    -0.0,
    {"__class__": "os.system"},
    ["x"] * 300,
    json.loads(DEEP),
]
"""Values that readers do not expect."""

PIECES = [
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b'"',
    b"{",
    b"]",
    b"\\ud800",
    b"&a *a",
    b"!!python/object:os.system",
    b"\xef\xbb\xbf",
    b"9" * 400,
]

Text = Callable[[Any], bytes]


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def as_lines(values: Any) -> bytes:
    return (
        b"".join(as_json(value) + b"\n" for value in values) if isinstance(values, list) else as_json(values)
    )


def mutated(seed: Any, text: Text) -> st.SearchStrategy[bytes]:
    """A document with one to three of its values replaced, removed or under another key; or damaged bytes."""
    paths = list(_paths(seed))
    change = st.tuples(
        st.sampled_from(paths), st.sampled_from(["set", "drop", "rename"]), st.sampled_from(ODD)
    )
    changed = st.lists(change, min_size=1, max_size=3).map(lambda changes: text(_changed(seed, changes)))
    return st.one_of(changed, damaged(text(seed)))


def damaged(seed: bytes) -> st.SearchStrategy[bytes]:
    """Bytes cut, doubled, flipped or filled with what does not belong there."""
    at = st.integers(0, max(len(seed) - 1, 0))
    return st.one_of(
        st.tuples(at, st.integers(0, 255)).map(lambda m: seed[: m[0]] + bytes([m[1]]) + seed[m[0] + 1 :]),
        at.map(lambda end: seed[:end]),
        st.tuples(at, st.sampled_from(PIECES)).map(lambda m: seed[: m[0]] + m[1] + seed[m[0] :]),
        st.tuples(at, at).map(lambda m: seed[: max(m)] + seed[min(m) :]),
        st.binary(max_size=200),
    )


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _paths(item, (*path, at))


def _changed(seed: Any, changes: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
    root = {"root": copy.deepcopy(seed)}
    for path, what, odd in changes:
        *above, last = ("root", *path)
        holder: Any = root
        try:
            for step in above:
                holder = holder[step]
            if what == "drop" and above:
                del holder[last]
            elif what == "rename" and isinstance(holder, dict) and above:
                holder[str(odd)[:50]] = holder.pop(last)
            else:
                holder[last] = odd
        except (KeyError, IndexError, TypeError):  # an earlier change took it away
            continue
    return root["root"]

"""Salted leaves under one root: against RFC 6962 as it defines the tree, and what is seen of a change."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from evalrun.tracking.leaves import (
    GONE,
    LEAF_BYTES,
    SALT_BYTES,
    check_leaves,
    leaves_path,
    root,
    row_bytes,
    salts_path,
    write_leaves,
)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1: the left part is the largest power of two below n."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    both = by_definition(leaves[:half]) + by_definition(leaves[half:])
    return hashlib.sha256(b"\x01" + both).digest()


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70))
def test_the_root_is_that_of_the_rfc(leaves: list[bytes]) -> None:
    assert root(leaves) == by_definition(leaves)


def table(path: Path) -> str:
    columns = {"a": ["x", "yy", None, "x"], "b": [1.5, None, float("nan"), -0.0], "c": [1, 2, 3, 4]}
    pq.write_table(pa.table(columns), path)
    return write_leaves(path)


def test_rows_have_bytes_of_their_own(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": ["1", "11", "1:1", None, "-"], "b": ["11", "1", "", "-", None]}), tmp_path / "t"
    )
    assert len(set(row_bytes(tmp_path / "t"))) == 5


def erase(path: Path, gone: set[int]) -> None:
    rows = pq.read_table(path)
    pq.write_table(rows.take([at for at in range(rows.num_rows) if at not in gone]), path)
    salts = salts_path(path).read_bytes()
    parts = [salts[at : at + SALT_BYTES] for at in range(0, len(salts), SALT_BYTES)]
    salts_path(path).write_bytes(b"".join(GONE if at in gone else salt for at, salt in enumerate(parts)))


def test_only_what_is_told_of_may_go(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    top = table(path)
    assert check_leaves(path, top, set(), set()) == []
    erase(path, {1})
    assert check_leaves(path, top, {1}, {1}) == []
    assert "other rows lost their salt" in check_leaves(path, top, set(), set())[0]
    rows = pq.read_table(path)
    pq.write_table(rows.slice(0, 2), path)
    assert "row 4 of the finished run is gone" in check_leaves(path, top, {1}, {1})[0]
    pq.write_table(rows.set_column(0, "a", pa.array(["x", None, "z"])), path)
    assert "row 4 of the finished run is not what it was" in check_leaves(path, top, {1}, {1})[0]
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), path)
    assert "had not" in check_leaves(path, top, {1}, {1})[0]
    pq.write_table(rows, path)
    data = bytearray(leaves_path(path).read_bytes())
    data[LEAF_BYTES] ^= 1
    leaves_path(path).write_bytes(bytes(data))
    assert "its root is not" in check_leaves(path, top, {1}, {1})[0]
    leaves_path(path).unlink()
    assert "is gone" in check_leaves(path, top, {1}, {1})[0]

"""A salted leaf for every row of a run's samples, under one root: what lets rows be erased, and the trail
still prove that only these went.

`samples.leaves` holds 32 bytes a row: SHA-256(0x00, salt, the row's bytes); `samples.salts` its 16 random
bytes. The root (the Merkle tree of RFC 6962 over the leaves) stands in the event that finishes the run.
Erasing a row erases its salt: its leaf is then a random number that nobody can test a guess against, and the
leaves of all others still hold.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evalrun.atomic import write_private

LEAVES, SALTS = ".leaves", ".salts"
LEAF_BYTES, SALT_BYTES = 32, 16
GONE = bytes(SALT_BYTES)
"""What stands where the salt of an erased row was."""
_ROWS = 2048


def leaves_path(table: Path) -> Path:
    """Where the leaves of a table are."""
    return table.with_suffix(LEAVES)


def salts_path(table: Path) -> Path:
    """Where its salts are."""
    return table.with_suffix(SALTS)


def write_leaves(table: Path) -> str:
    """Give every row of a Parquet file a salt and a leaf; returns the root, in hexadecimal."""
    salts, leaves = bytearray(), bytearray()
    for row in row_bytes(table):
        salt = os.urandom(SALT_BYTES)
        salts += salt
        leaves += leaf(salt, row)
    write_private(salts_path(table), bytes(salts), durable=False)
    write_private(leaves_path(table), bytes(leaves), durable=False)
    return root(split(bytes(leaves), LEAF_BYTES)).hex()


def leaf(salt: bytes, row: bytes) -> bytes:
    """The leaf of a row."""
    return hashlib.sha256(b"\x00" + salt + row).digest()


def split(data: bytes, size: int) -> list[bytes]:
    """A file of values of one size as a list."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962, section 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    # Level by level, the last one going up alone where their number is odd: the same tree as the recursive
    # definition, whose left half is the largest power of two.
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)
        ]
        level = [*pairs, level[-1]] if len(level) % 2 else pairs
    return level[0]


def row_bytes(table: Path) -> Iterator[bytes]:
    """The rows of a Parquet file as bytes that no two different rows share.

    Each value is its length and its text (of numbers, their bits), so that nothing depends on how a library
    prints them. Made by column: a row costs a few microseconds.
    """
    from evalrun.tracking.parquet import reading

    with reading(table) as file:
        names = "\x1f".join(f"{each.name}:{each.type}" for each in file.schema_arrow)
        head = hashlib.sha256(names.encode()).digest()
        for batch in file.iter_batches(batch_size=_ROWS, use_threads=False):
            for parts in zip(*(_texts(column) for column in batch.columns), strict=True):
                yield head + "\x1f".join(parts).encode("utf-8", "surrogatepass")


def _texts(column: Any) -> list[str]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count == len(column):
        return ["-"] * len(column)
    if pa.types.is_floating(column.type):
        column = column.view(pa.int64())
    values = column.to_pylist()
    return ["-" if value is None else f"{len(text := str(value))}:{text}" for value in values]


def check_leaves(table: Path, expected_root: str, erased: set[int], absent: set[int]) -> list[str]:
    """What is wrong with the rows of a table that rows were erased from; empty where nothing is.

    `erased` are the places of the erased rows among those that there were, `absent` those of them that are
    in the table no more (others kept their numbers).
    """
    for path in (leaves_path(table), salts_path(table)):
        if not path.is_file():
            return [f"{path.name} is gone: nothing shows that only the erased rows went"]
    leaves = split(leaves_path(table).read_bytes(), LEAF_BYTES)
    salts = split(salts_path(table).read_bytes(), SALT_BYTES)
    if root(leaves).hex() != expected_root:
        return [f"{leaves_path(table).name} was altered: its root is not the one of the trail"]
    if len(salts) != len(leaves):
        return [f"{salts_path(table).name} was altered"]
    if {at for at, salt in enumerate(salts) if salt == GONE} != erased:
        return ["other rows lost their salt than the trail says were erased"]
    problems: list[str] = []
    rows = iter(row_bytes(table))
    for at in (place for place in range(len(leaves)) if place not in absent):
        row = next(rows, None)
        if row is None:
            return [*problems, f"row {at + 1} of the finished run is gone, and no event tells of it"]
        if salts[at] != GONE and leaf(salts[at], row) != leaves[at]:
            problems.append(f"row {at + 1} of the finished run is not what it was")
            if len(problems) > 2:
                return problems
    if next(rows, None) is not None:
        problems.append("it has rows that the finished run had not")
    return problems

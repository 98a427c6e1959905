"""Looking into the response cache: what is in it, why an answer is not found there, and clearing it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import ExitCode, UserError
from evalrun.runner.cache import CREDENTIALS, KeyMaker, create_tables
from evalrun.types import JSON, Request

_RUN, _SAMPLE, _REPEAT, _SEED, _MESSAGES, _PROMPT, _ASK = range(7)
"""Places in what `KeyMaker.parts` makes."""
_PARTS = "CAST(parts AS TEXT)"


@dataclass(frozen=True, slots=True)
class RunEntries:
    """Entries that share the run's part of their key. Times are Unix seconds; `bytes` are those of the
    answers. Provider, model, endpoint and params are empty for entries of an older evalrun."""

    provider: str
    model: str
    endpoint: str
    params: Mapping[str, JSON]
    entries: int
    bytes: int
    oldest: float
    newest: float


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache file holds; `bytes` is its size on disk."""

    path: str
    entries: int
    bytes: int
    runs: tuple[RunEntries, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A part of the key that two requests do not share: here, and in the entry. None where it is not there;
    texts are not kept, so of messages only which of them differ is known."""

    part: str
    here: JSON
    there: JSON


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a request's answer is in the cache, and the nearest entry that is another one.

    `stored_at` and `nearest_at` are Unix seconds, None where there is no such entry.
    """

    key: str
    stored_at: float | None
    nearest_at: float | None
    nearest_sample: str | None
    differs: tuple[Difference, ...]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The cache file, with the tables that this version has. Raises UserError where it is none."""
    if not path.exists():
        raise UserError(
            "there is no response cache", where=str(path), remedy="It is made by the first sweep of a store."
        )
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        create_tables(connection)
        yield connection
    except sqlite3.Error as error:
        raise UserError(
            f"the response cache cannot be used: {error}",
            where=str(path),
            remedy="Delete the file: the answers in it are asked for again.",
            exit_code=ExitCode.INCOMPLETE,
        ) from error
    finally:
        connection.close()


def cache_stats(path: Path) -> CacheStats:
    """Count the entries by the run's part of their key, the most first."""
    with opened(path) as connection:
        rows = connection.execute(
            f"SELECT json_extract({_PARTS}, '$[0]') AS run, count(*), sum(length(value)), min(created_at),"
            " max(created_at) FROM response GROUP BY run ORDER BY count(*) DESC"
        ).fetchall()
        documents = _run_parts(connection)
    sizes = [each.stat().st_size for each in path.parent.glob(path.name + "*") if each.is_file()]
    runs = tuple(_run_entries(documents.get(row[0], {}), row) for row in rows)
    return CacheStats(str(path), sum(run.entries for run in runs), sum(sizes), runs)


def _run_entries(document: Mapping[str, Any], row: tuple[Any, ...]) -> RunEntries:
    identity = document.get("identity", {})
    words = {name: str(identity.get(name) or "") for name in ("provider", "model", "endpoint")}
    _, entries, size, oldest, newest = row
    return RunEntries(
        **words,
        params=document.get("params", {}),
        entries=entries,
        bytes=size,
        oldest=oldest,
        newest=newest,
    )


def _run_parts(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    return {
        digest: orjson.loads(parts)
        for digest, parts in connection.execute("SELECT digest, parts FROM run_part")
    }


def kept_credentials(path: Path, identity: Mapping[str, JSON], params: Mapping[str, JSON]) -> list[JSON]:
    """What the keys of answers of this model with these parameters hold of secrets: None, which is always
    among them, where they hold nothing."""
    wanted = orjson.loads(KeyMaker(identity, params).run_part)
    with opened(path) as connection:
        documents = _run_parts(connection).values()
    found = [each[CREDENTIALS] for each in documents if {**each, CREDENTIALS: 0} == {**wanted, CREDENTIALS: 0}
             and CREDENTIALS in each]  # fmt: skip
    return [None, *found]


def explain(path: Path, keys: KeyMaker, key: bytes, request: Request) -> Explanation:
    """Look for a request's answer, and for the entry that shares most of its key without being it.

    Entries of the same sample, and of the same text, are compared; all others differ in what is asked.
    """
    mine = orjson.loads(keys.parts(request))
    with opened(path) as connection:
        stored = connection.execute("SELECT created_at FROM response WHERE key = ?", (key,)).fetchone()
        rows = connection.execute(
            f"SELECT created_at, {_PARTS} FROM response WHERE key <> ? AND parts IS NOT NULL AND"
            f" (json_extract({_PARTS}, '$[1]') = ? OR (json_extract({_PARTS}, '$[4]') = ?"
            f" AND json_extract({_PARTS}, '$[5]') IS ?))",
            (key, mine[_SAMPLE], orjson.dumps(mine[_MESSAGES]).decode(), mine[_PROMPT]),
        ).fetchall()
        documents = _run_parts(connection)
    documents[mine[_RUN]] = orjson.loads(keys.run_part)
    nearest: tuple[float, Any, tuple[Difference, ...]] | None = None
    for created_at, text in rows:
        theirs = orjson.loads(text)
        found = differences(mine, theirs, documents)
        if nearest is None or (len(found), -created_at) < (len(nearest[2]), -nearest[0]):
            nearest = (created_at, theirs[_SAMPLE], found)
    return Explanation(
        key=key.hex(),
        stored_at=stored[0] if stored else None,
        nearest_at=nearest[0] if nearest else None,
        nearest_sample=nearest[1] if nearest else None,
        differs=nearest[2] if nearest else (),
    )


def differences(
    mine: list[Any], theirs: list[Any], documents: Mapping[str, Mapping[str, Any]]
) -> tuple[Difference, ...]:
    """The parts of the key in which two entries differ, by what `KeyMaker.parts` kept of them.

    `documents` are the runs' parts by their digests.
    """
    found: list[Difference] = []
    if mine[_RUN] != theirs[_RUN]:
        ours, others = (_flat(documents.get(each[_RUN], {})) for each in (mine, theirs))
        found += [
            Difference(name, ours.get(name), others.get(name))
            for name in sorted({*ours, *others})
            if ours.get(name) != others.get(name)
        ]
    for place, name in ((_REPEAT, "repeat"), (_SEED, "seed")):
        if mine[place] != theirs[place] and not any(each.part == f"params.{name}" for each in found):
            found.append(Difference(name, mine[place], theirs[place]))
    count = len(mine[_MESSAGES]), len(theirs[_MESSAGES])
    if count[0] != count[1]:
        found.append(Difference("messages", f"{count[0]} messages", f"{count[1]} messages"))
    else:
        pairs = zip(mine[_MESSAGES], theirs[_MESSAGES], strict=True)
        found += [
            Difference(f"messages[{index}]", "this text", "another text")
            for index, (one, other) in enumerate(pairs)
            if one != other
        ]
    for place, name in ((_PROMPT, "prompt"), (_ASK, "ask")):
        if mine[place] != theirs[place]:
            here, there = ("this text" if each[place] is not None else None for each in (mine, theirs))
            found.append(Difference(name, here, "another text" if there else None))
    return tuple(found)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, JSON]:
    """A document's values by their dotted paths; those of the identity by their names alone."""
    found: dict[str, JSON] = {}
    for name, item in value.items():
        path = name if prefix in ("", "identity") else f"{prefix}.{name}"
        if isinstance(item, dict) and item:
            found |= _flat(item, path)
        else:
            found[path] = item
    return found


def clear(path: Path, *, older_than_s: float | None = None, model: str | None = None) -> int:
    """Delete entries, and give back how many: all, those older than so many seconds, those of a model (as the
    provider names it). Space is given back to the disk."""
    with opened(path) as connection:
        where: list[str] = ["1"]
        values: list[float | str] = []
        if older_than_s is not None:
            where.append("created_at < ?")
            values.append(time.time() - older_than_s)
        if model is not None:
            digests = [
                digest
                for digest, document in _run_parts(connection).items()
                if document.get("identity", {}).get("model") == model
            ]
            where.append(f"json_extract({_PARTS}, '$[0]') IN ({','.join('?' * len(digests))})")
            values += digests
        count = connection.execute(f"DELETE FROM response WHERE {' AND '.join(where)}", values).rowcount
        connection.execute(
            "DELETE FROM run_part WHERE digest NOT IN"
            f" (SELECT json_extract({_PARTS}, '$[0]') FROM response WHERE parts IS NOT NULL)"
        )
        with contextlib.suppress(sqlite3.OperationalError):  # a sweep that is running has it open
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return count

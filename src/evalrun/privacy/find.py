"""Which rows an erasure means, and what of them is looked for elsewhere. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import ExitCode, UserError
from evalrun.privacy.keys import key_path, store_key
from evalrun.privacy.plan import LEAST_ID, Plan, Rule, unfinished
from evalrun.privacy.scrub import strings_of
from evalrun.tracking.audit import hold_of
from evalrun.tracking.folder import SweepFolder, new_ulid
from evalrun.tracking.store import Store

_LEAST = 5
"""Shorter texts are not looked for elsewhere: they are labels, and words of everybody."""
_ASKED_IN = ("messages", "prompt")
"""Columns in which the texts of a row stand as examples in other rows' questions."""
_WORD = re.compile(r"\w+")
_NOT_TEXTS = frozenset({"status", "finish_reason", "model", "fingerprint", "cluster"})


def find(
    store: Store,
    folders: Sequence[SweepFolder],
    rule: Rule,
    reason: str,
    *,
    keep_numbers: bool = False,
    reading: bool = False,
) -> Plan:
    """The rows that a rule means, and what of them is to be looked for elsewhere. Changes nothing.

    Raises UserError where no sweep has a column that a query names, and, unless the rows are for `reading`
    alone, where a sweep is at work, on hold (exit 1), or half erased already.
    """
    if (waiting := unfinished(store)) and not reading:
        raise UserError(
            f"the erasure {waiting[0].parent.name} was ended half way",
            where=str(store.root),
            remedy="evalrun erase --resume goes on with it; then begin another.",
        )
    plan = Plan(new_ulid(), rule.kind, reason, keep_numbers)
    wanted = _values(store, rule)
    unknown: list[UserError] = []
    answered = False
    ids: set[str] = set()
    texts: set[str] = set()
    outputs: set[str] = set()
    for folder in folders:
        answered = _look(folder, rule, wanted, plan, (ids, texts, outputs), unknown) or answered
        if lines := _look_into_journals(folder, rule, wanted, ids, texts):
            plan.rows.setdefault(folder.ulid, {})
            plan.journal_lines += lines
    if unknown and not answered:
        raise unknown[0]
    if rule.kind == "retention":  # all of it goes: nothing is looked for by itself
        texts.clear()
    plan.ids, plan.outputs = sorted(ids), sorted(outputs)
    if rule.kind == "subject":
        texts |= {value for value in wanted if len(value) >= _LEAST - 1}
    texts |= {name for name in ids if len(name) >= LEAST_ID}  # made of the row: whoever has it could test it
    plan.texts = sorted(texts, key=len, reverse=True)
    if rule.kind != "retention":
        for folder in folders:
            if folder.ulid in plan.rows:
                _look_for_touched(folder, plan)
    if not reading:
        _check_free(folders, plan)
    return plan


def _look(
    folder: SweepFolder,
    rule: Rule,
    wanted: set[str],
    plan: Plan,
    gathered: tuple[set[str], set[str], set[str]],
    unknown: list[UserError],
) -> bool:
    """Put the rows of a sweep's finished runs into the plan; False where no run could be asked."""
    answered = False
    for run_id in folder.run_ids():
        table = folder.samples_path(run_id)
        if not table.exists():
            continue
        try:
            places = _places(folder, table, rule, wanted)
        except UserError as error:
            unknown.append(error)
            continue
        answered = True
        if places:
            plan.rows.setdefault(folder.ulid, {})[run_id] = places
            _gather(table, set(places), *gathered)
    return answered


def _check_free(folders: Sequence[SweepFolder], plan: Plan) -> None:
    for folder in folders:
        if folder.ulid not in plan.rows:
            continue
        if (held := hold_of(folder)) is not None:
            raise UserError(
                f"the sweep is on hold ({held}), so nothing was erased",
                where=folder.path.name,
                remedy=f"evalrun privacy release {folder.ulid} ends the hold.",
                exit_code=ExitCode.GATE_FAILED,
            )
        if folder.is_locked():
            raise UserError(
                "the sweep is at work, so nothing was erased",
                where=folder.path.name,
                remedy="Wait for it to end.",
                exit_code=ExitCode.INCOMPLETE,
            )


def _values(store: Store, rule: Rule) -> set[str]:
    """The forms in which a subject may be stored: as it is, and as a pseudonym of this store."""
    if rule.kind != "subject":
        return set()
    values = {rule.value}
    if key_path(store.root).exists():
        import hashlib
        import hmac

        key = store_key(store.root, make=False)
        values.add(hmac.new(key, rule.value.encode(), hashlib.sha256).hexdigest()[:16])
    return values


def _places(folder: SweepFolder, table: Path, rule: Rule, wanted: set[str]) -> list[int]:
    """The places of the rows in a table that a rule means."""
    from evalrun.tracking.parquet import column_names, read_columns

    if rule.kind == "retention":
        column = read_columns(table, ["sample_id"]).column(0).to_pylist()
        return [at for at, name in enumerate(column) if not str(name).startswith("erased-")]
    if rule.kind == "subject":
        names = column_names(table)
        subject = _subject_of(folder)
        columns = [f"vars.{subject}"] if subject and f"vars.{subject}" in names else []
        columns = columns or [name for name in names if name.startswith("vars.")]
        found: set[int] = set()
        for name in columns:
            values = read_columns(table, [name]).column(0).to_pylist()
            found |= {at for at, value in enumerate(values) if value is not None and str(value) in wanted}
        return sorted(found)
    keys = rule.ids
    if rule.kind == "where":
        from evalrun.tracking.samples import find_samples

        rows = find_samples(table, rule.value).rows
        keys = frozenset(f"{row['sample_id']}\x1f{row['repeat']}" for row in rows)
    both = read_columns(table, ["sample_id", "repeat"])
    pairs = zip(both.column(0).to_pylist(), both.column(1).to_pylist(), strict=True)
    return [at for at, (name, repeat) in enumerate(pairs) if name in keys or f"{name}\x1f{repeat}" in keys]


def _subject_of(folder: SweepFolder) -> str | None:
    resolved = folder.read_manifest()["suite"].get("resolved") or {}
    return (resolved.get("privacy") or {}).get("subject")


def _gather(table: Path, places: set[int], ids: set[str], texts: set[str], outputs: set[str]) -> None:
    """The ids of the rows, and the texts that no other row of the table has."""
    from evalrun.tracking.parquet import iter_batches

    mine: set[str] = set()
    asked: set[str] = set()
    for _, at, name, values in _columns(table):
        for place, value in enumerate(values, at):
            if place in places and value is not None:
                into = asked if name in _ASKED_IN else mine
                into.update(text for text in strings_of(value) if len(text) >= _LEAST)
                if name in ("output", "reasoning"):
                    outputs.add(value)
    for _, at, name, values in _columns(table):
        for place, value in enumerate(values, at):
            if place not in places and value is not None:
                said = set(strings_of(value))
                asked -= said
                if name not in _ASKED_IN:  # there they are examples, and go from there too
                    mine -= said
    mine |= asked
    at = 0
    for batch in iter_batches(table, 4096):
        names = batch.column("sample_id").to_pylist()
        ids.update(str(name) for place, name in enumerate(names, at) if place in places)
        at += len(names)
    texts |= mine


def _columns(table: Path) -> Iterator[tuple[Any, int, str, list[Any]]]:
    """The columns that hold texts, in parts: the part, its first row, the column's name and its values."""
    import pyarrow as pa

    from evalrun.tracking.arrow import ENCODING
    from evalrun.tracking.parquet import iter_batches

    at = 0
    for batch in iter_batches(table, 4096):
        for each, column in zip(batch.schema, batch.columns, strict=True):
            if each.name in _NOT_TEXTS or column.null_count == len(column):
                continue
            if pa.types.is_string(each.type):
                values = column.to_pylist()
                if (each.metadata or {}).get(ENCODING) == b"json":
                    values = [None if value is None else orjson.loads(value) for value in values]
                yield batch, at, each.name, values
            elif pa.types.is_integer(each.type) and each.name.startswith("vars."):
                yield batch, at, each.name, column.to_pylist()
        at += batch.num_rows


def _look_for_touched(folder: SweepFolder, plan: Plan) -> None:
    """Find the rows of a sweep that hold texts of the erased ones, among their examples, say.

    A text is looked for where its longest word occurs: to look for all of them everywhere would take minutes.
    """
    by_word: dict[str, list[str]] = {}
    for text in plan.texts:
        if len(text) >= LEAST_ID and (words := _WORD.findall(text)):
            by_word.setdefault(max(words, key=len), []).append(text)
    for run_id in folder.run_ids():
        table = folder.samples_path(run_id)
        gone = set(plan.rows[folder.ulid].get(run_id, ()))
        found: set[int] = set()
        for _, at, name, values in _columns(table) if table.exists() else ():
            if name not in (*_ASKED_IN, "output", "reasoning"):
                continue
            said = ["\n".join(strings_of(value)) if value else "" for value in values]
            present = by_word.keys() & set(_WORD.findall("\n".join(said)))
            here = [text for word in present for text in by_word[word]]
            if here:
                found |= {
                    place
                    for place, text in enumerate(said, at)
                    if place not in gone and any(one in text for one in here)
                }
        if found:
            plan.touched.setdefault(folder.ulid, {})[run_id] = sorted(found)


def _look_into_journals(
    folder: SweepFolder, rule: Rule, wanted: set[str], ids: set[str], texts: set[str]
) -> int:
    """How many such rows runs have that are not finished; a query is asked of finished ones alone."""
    from evalrun.runner.journal import read_journal

    subject, count = _subject_of(folder), 0
    mine: set[str] = set()
    others: set[str] = set()
    for journal in sorted(folder.path.glob("runs/*/journal.jsonl*")):
        for record in read_journal(journal):
            row = record.get("vars") or {}
            values = [row.get(subject)] if subject in row else list(row.values())
            hit = str(record["sample_id"]) in rule.ids or any(str(value) in wanted for value in values)
            count += hit
            said = (row, record.get("output"), record.get("reasoning"))
            (mine if hit else others).update(text for text in strings_of(said) if len(text) >= _LEAST)
            if hit:
                ids.add(str(record["sample_id"]))
    texts |= mine - others
    return count


def read_ids(path: Path) -> frozenset[str]:
    """Sample ids from a file: one a line, or JSON lines with `sample_id`. Raises UserError."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from error
    ids = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("{"):
            try:
                text = str(orjson.loads(text)["sample_id"])
            except (orjson.JSONDecodeError, KeyError) as error:
                raise UserError("is no JSON object with a sample_id", where=f"{path}:{number}") from error
        if text:
            ids.add(text)
    if not ids:
        raise UserError("names no sample", where=str(path))
    return frozenset(ids)

"""Erasing rows from finished sweeps so that the audit trail still verifies.

What is to go is found first, and written as a plan; then each sweep gets its new files beside the old ones,
one event that tells of all of them, and the new ones in the place of the old. A process that is killed
anywhere leaves a plan by which the next one goes on; no file is ever half one and half the other.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from evalrun.atomic import private_folder, sync, write_private
from evalrun.errors import ExitCode, UserError
from evalrun.privacy.keys import key_path, store_key
from evalrun.results import ERASED_SINCE
from evalrun.tracking.audit import ERASE, erasures_of, hold_of
from evalrun.tracking.events import utc_now
from evalrun.tracking.folder import ASKED, EVENTS, LOCK, MANIFEST, RUN, SAMPLES, SweepFolder, file_sha256
from evalrun.tracking.leaves import GONE, LEAVES, SALT_BYTES, SALTS, salts_path, split
from evalrun.tracking.plain import document_bytes
from evalrun.tracking.store import Store

ERASURES, PLAN, CERTIFICATE = "erasures", "plan.json", "certificate.json"
ERASED = "<ERASED>"
_LEAST = 5
"""Shorter texts are not looked for elsewhere: they are labels, and words of everybody."""
_LEAST_ID = 12
_NUMBERS_STAY = ("status", "finish_reason", "model", "fingerprint")
_ASKED_IN = ("messages", "prompt")
"""Columns in which the texts of a row stand as examples in other rows' questions."""
_WORD = re.compile(r"\w+")
_NOT_TEXTS = frozenset({"status", "finish_reason", "model", "fingerprint", "cluster"})
_OTHERS = {EVENTS, LOCK, "unfinished"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rows: those of a subject, those that a query holds for, or those with some ids."""

    kind: Literal["subject", "where", "samples", "retention"]
    value: str = ""
    ids: frozenset[str] = frozenset()


@dataclass(slots=True)
class Plan:
    """What is to be erased. `rows` are places in each run's samples as they are, by sweep and run; `ids` and
    `texts` what is looked for elsewhere: they are gone when the erasure is done."""

    erasure: str
    rule: str
    reason: str
    keep_numbers: bool = False
    rows: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    touched: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Other rows that hold a text of those, as an example: it is taken out, and the row stays."""
    journal_lines: int = 0
    """Rows of runs that are not finished."""

    @property
    def count(self) -> int:
        """All rows."""
        finished = sum(len(places) for runs in self.rows.values() for places in runs.values())
        return finished + self.journal_lines


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
    plan = Plan(_new_id(), rule.kind, reason, keep_numbers)
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
    texts |= {name for name in ids if len(name) >= _LEAST_ID}  # made of the row: whoever has it could test it
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


def _new_id() -> str:
    from evalrun.tracking.folder import new_ulid

    return new_ulid()


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
                into.update(text for text in _strings(value) if len(text) >= _LEAST)
                if name in ("output", "reasoning"):
                    outputs.add(value)
    for _, at, name, values in _columns(table):
        for place, value in enumerate(values, at):
            if place not in places and value is not None:
                said = set(_strings(value))
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
        if len(text) >= _LEAST_ID and (words := _WORD.findall(text)):
            by_word.setdefault(max(words, key=len), []).append(text)
    for run_id in folder.run_ids():
        table = folder.samples_path(run_id)
        gone = set(plan.rows[folder.ulid].get(run_id, ()))
        found: set[int] = set()
        for _, at, name, values in _columns(table) if table.exists() else ():
            if name not in (*_ASKED_IN, "output", "reasoning"):
                continue
            said = ["\n".join(_strings(value)) if value else "" for value in values]
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


def _stored_forms(text: str) -> set[str]:
    import json

    return {text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]}


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
            (mine if hit else others).update(text for text in _strings(said) if len(text) >= _LEAST)
            if hit:
                ids.add(str(record["sample_id"]))
    texts |= mine - others
    return count


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000_000:
        yield str(value)


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


# Doing it


def plan_path(store: Store, erasure: str) -> Path:
    """Where a plan lies while it is carried out."""
    return store.root / ERASURES / erasure / PLAN


def unfinished(store: Store) -> list[Path]:
    """Plans that were not carried out to the end."""
    return sorted((store.root / ERASURES).glob(f"*/{PLAN}"))


def read_plan(path: Path) -> Plan:
    """A plan from disk."""
    return Plan(**orjson.loads(path.read_bytes()))


def write_plan(store: Store, plan: Plan) -> None:
    """Keep a plan, durably: from here on it is carried out, whatever happens."""
    path = plan_path(store, plan.erasure)
    private_folder(path.parent)
    write_private(path, orjson.dumps(asdict(plan)))


def carry_out(store: Store, plan: Plan) -> dict[str, Any]:
    """Erase what a plan says, or what is left of it; returns the certificate. May be called again."""
    from evalrun.privacy.elsewhere import clean_cache, clean_catalog, clean_pages, unreached

    folders = {folder.ulid: folder for folder in store.folders()}
    sweeps = []
    for ulid, rows in plan.rows.items():
        folder = folders.get(ulid)
        if folder is None:  # deleted since
            continue
        with folder.lock():
            files = _erase_from(folder, plan, rows)
        store.record(folder)
        sweeps.append({"sweep": ulid, "rows": sum(map(len, rows.values())), "files": files})
        store.index(folder)
    touched = [folders[ulid] for ulid in plan.rows if ulid in folders]
    certificate: dict[str, Any] = {
        "erasure": plan.erasure,
        "at": utc_now(),
        "rule": plan.rule,
        "reason": plan.reason,
        "rows": plan.count,
        "numbers_kept": plan.keep_numbers,
        "sweeps": sweeps,
        "cache_entries": clean_cache(store, plan),
        "databases": clean_catalog(store),
        "pages": clean_pages(store, plan, touched),
        "unreached": unreached(store, plan, touched),
    }
    said = {"erasure": plan.erasure, "rule": plan.rule, "n": plan.count, "sweeps": sorted(plan.rows)}
    if not any(
        event["action"] == ERASE and event["detail"].get("erasure") == plan.erasure
        for event in _events(store.events_path)
    ):
        store.append_event(ERASE, said)
    place = plan_path(store, plan.erasure)
    write_private(place.with_name(CERTIFICATE), orjson.dumps(certificate, option=orjson.OPT_INDENT_2))
    _overwrite(place)
    return certificate


def _events(path: Path) -> Iterable[Mapping[str, Any]]:
    from evalrun.tracking.events import read_events

    return read_events(path)


def _overwrite(path: Path) -> None:
    """Remove a file whose text is not to be left in a free block of the disk."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync(path.parent)


def _erase_from(folder: SweepFolder, plan: Plan, rows: Mapping[str, Sequence[int]]) -> list[str]:
    """Erase rows from one sweep, or finish what was begun; returns the files that changed."""
    stage = folder.path / f".erase-{plan.erasure}"
    told = [
        event
        for event in folder.events()
        if event["action"] == ERASE and event["detail"].get("erasure") == plan.erasure
    ]
    if not told:
        shutil.rmtree(stage, ignore_errors=True)  # begun, and not told of: made anew
        changes, places, touched = _stage(folder, plan, rows, stage)
        detail = {
            "erasure": plan.erasure,
            "rule": plan.rule,
            "reason": plan.reason,
            "n": sum(map(len, rows.values())),
            "numbers_kept": plan.keep_numbers,
            "files": changes,
            "erased": places,
            **({"touched": touched} if touched else {}),
        }
        told = [folder.append_event(ERASE, detail)]
    if stage.is_dir():
        for new in _told_of(stage, salts=True):
            target = folder.path / new.relative_to(stage)
            if new.is_dir() and target.is_dir():  # a table of parts: the old one goes with the stage
                target.rename(stage / f"old-{os.urandom(4).hex()}")
            new.replace(target)
            sync(target.parent)
        shutil.rmtree(stage)
    return [str(each["path"]) for each in told[0]["detail"]["files"]]


def _stage(
    folder: SweepFolder, plan: Plan, rows: Mapping[str, Sequence[int]], stage: Path
) -> tuple[list[dict[str, Any]], dict[str, list[int]], dict[str, list[int]]]:
    """Write the new files of a sweep into `stage`; returns what the event says of them, the places of the
    rows among those of the finished runs, and of the rows that lost a text of theirs."""
    before = erasures_of(folder, folder.events())
    lines: dict[str, int] = {}
    places: dict[str, list[int]] = {}
    cleaned: dict[str, list[int]] = {}
    touched = plan.touched.get(folder.ulid, {})
    for run_id in dict.fromkeys([*rows, *touched]):
        at = set(rows.get(run_id, ())), set(touched.get(run_id, ()))
        gone, cleaned[run_id] = _stage_run(folder, plan, run_id, at, stage, before.absent.get(run_id, set()))
        if gone:
            places[run_id] = gone
    scrub = Scrub(plan.texts, frozenset(plan.ids), frozenset(rows), everything=plan.rule == "retention")
    for path in sorted(folder.path.rglob("*")):
        relative = path.relative_to(folder.path)
        known = path.suffix in (".parquet", LEAVES, SALTS) and path.name != "explain.parquet"
        if path.is_file() and not known and path.name not in _OTHERS and relative.parts[0] != stage.name:
            new, lost = scrub.file(path)
            if path.name == RUN and relative.parts[1] in cleaned:
                run_id = relative.parts[1]
                new = _told_run(new or path.read_bytes(), stage / relative.parent, len(rows.get(run_id, ())))
            if path.name == MANIFEST:
                new = _without_inline_rows(new or path.read_bytes(), scrub) or new
            if new is not None:
                private_folder((stage / relative).parent)
                write_private(stage / relative, new)
                lines[str(relative)] = lost
    private_folder(stage)
    changes = []
    for new_file in _told_of(stage):
        name = str(new_file.relative_to(stage))
        changes.append(
            {
                "path": name,
                "old": file_sha256(folder.path / name),
                "new": file_sha256(new_file),
                **({"lines": lines[name]} if lines.get(name) else {}),
            }
        )
    return changes, places, {run_id: of for run_id, of in cleaned.items() if of}


def _told_of(stage: Path, *, salts: bool = False) -> list[Path]:
    """The new files that the trail tells of, with the salts if wanted; a table of parts is one."""
    return [
        path
        for path in sorted(stage.rglob("*"))
        if path.parent.name != SAMPLES
        and not path.relative_to(stage).parts[0].startswith("old-")
        and (salts or path.suffix != SALTS)
        and (path.is_file() or path.name == SAMPLES)
    ]


def _stage_run(
    folder: SweepFolder, plan: Plan, run_id: str, at: tuple[set[int], set[int]], stage: Path, absent: set[int]
) -> tuple[list[int], list[int]]:
    """Write the new tables of a run; `at` are the rows that go, and those that lose a text. Returns where
    both were when the run was finished."""
    from evalrun.tracking.parquet import read_columns, rewrite_batches

    table = folder.samples_path(run_id)
    target = private_folder(stage / "runs" / run_id)
    pairs = read_columns(table, ["sample_id", "repeat"]).to_pylist()
    keys = {(pairs[place]["sample_id"], pairs[place]["repeat"]) for place in at[0]}
    there = [place for place in range(len(pairs) + len(absent)) if place not in absent]
    places = {place: there[place] for place in at[0]}
    touched = {place: there[place] for place in at[1]}
    change = _changed(places, touched, plan.texts, keep_numbers=plan.keep_numbers)
    rewrite_batches(table, target / SAMPLES, change)
    judged = table.with_name(ASKED)
    if judged.exists() and keys:
        rewrite_batches(judged, target / ASKED, _without_keys(keys))
    if salts_path(table).is_file():
        salts = split(salts_path(table).read_bytes(), SALT_BYTES)
        for place in (*places.values(), *touched.values()):
            salts[place] = GONE
        write_private(target / salts_path(table).name, b"".join(salts))
    return sorted(places.values()), sorted(touched.values())


def _changed(
    places: Mapping[int, int], touched: Mapping[int, int], texts: Sequence[str], *, keep_numbers: bool
) -> Callable[[Any, int], Any]:
    """Batches without the rows at the keys of `places` (with `keep_numbers` they lose their texts alone), and
    the rows of `touched` without the texts."""
    wanted = [(form, ERASED) for text in texts if len(text) >= _LEAST_ID for form in _stored_forms(text)]
    wanted.sort(key=lambda pair: -len(pair[0]))

    def value_of(value: Any, name: str, kind: Any, place: int) -> Any:
        import pyarrow as pa

        if place in touched and isinstance(value, str) and name != "sample_id":
            for form, put in wanted:
                value = value.replace(form, put)
        if place not in places:
            return value
        if name == "sample_id":
            return f"erased-{places[place] + 1}"
        text = pa.types.is_string(kind) or name.startswith(("vars.", "sensitive."))
        return None if text and name not in _NUMBERS_STAY else value

    def change(batch: Any, first: int) -> Any:
        import pyarrow as pa

        mine = [first + at in places for at in range(batch.num_rows)]
        if not any(mine) and not any(first + at in touched for at in range(batch.num_rows)):
            return batch
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            values = enumerate(column.to_pylist(), first)
            made_of = [value_of(value, name, column.type, at) for at, value in values]
            columns.append(pa.array(made_of, column.type))
        made = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
        return made if keep_numbers else made.filter(pa.array([not gone for gone in mine]))

    return change


def _without_keys(keys: set[tuple[Any, Any]]) -> Callable[[Any, int], Any]:
    """Batches without the rows of some samples."""
    ids = {name for name, _ in keys}

    def change(batch: Any, _: int) -> Any:
        import pyarrow as pa

        names = batch.schema.names
        if "sample_id" not in names:
            return batch
        samples = batch.column("sample_id").to_pylist()
        if "repeat" not in names:
            return batch.filter(pa.array([sample not in ids for sample in samples]))
        both = zip(samples, batch.column("repeat").to_pylist(), strict=True)
        return batch.filter(pa.array([key not in keys for key in both]))

    return change


def _told_run(document: bytes, staged: Path, erased: int) -> bytes:
    """`run.json` with the digests that its tables have now, and a word on what its figures are of."""
    run = orjson.loads(document)
    digests = run.get("digests") or {}
    for name in (SAMPLES, ASKED):
        key = f"{name.partition('.')[0]}_sha256"
        if (staged / name).exists() and key in digests:
            digests[key] = file_sha256(staged / name)
    rows = "sample was" if erased == 1 else "samples were"
    said = f"{erased:,} {rows} {ERASED_SINCE}"
    run["warnings"] = [*(run.get("warnings") or []), *([said] if erased else [])]
    return document_bytes(run)


def _without_inline_rows(document: bytes, scrub: Scrub) -> bytes | None:
    """The manifest without rows that stand in the suite itself; None where none of them goes."""
    from evalrun.suite.build import suite_text

    manifest = orjson.loads(document)
    resolved = manifest["suite"].get("resolved") or {}
    changed = False
    for dataset in resolved.get("datasets") or ():
        rows = dataset.get("rows") or []
        left = [row for row in rows if not scrub.touches(row)]
        if len(left) < len(rows):
            changed, dataset["rows"] = True, left or [{"erased": True}]
    if not changed:
        return None
    defaults = {name: value for name, value in resolved.items() if value not in (None, [], {})}
    text = suite_text(defaults)
    manifest["suite"]["text"] = f"# Written anew: rows that stood here were erased.\n{text}"
    return document_bytes(manifest)


@dataclass(frozen=True, slots=True)
class Scrub:
    """Takes texts and rows out of files that are no tables of samples."""

    texts: Sequence[str]
    ids: frozenset[str]
    runs: frozenset[str] = frozenset()
    """The runs that lost rows: a line that names another run is not about one of them."""
    everything: bool = False
    """All rows go: so do those that the sweep keeps of its data."""

    def file(self, path: Path) -> tuple[bytes | None, int]:
        """The file's new bytes, None where nothing of it goes, and how many lines went."""
        if path.name.endswith(".gz") and self.everything:
            return gzip.compress(b"", mtime=0), 0
        if path.name.endswith(".gz"):
            new, gone = self._lines(gzip.decompress(path.read_bytes()))
            return (None if new is None else gzip.compress(new, mtime=0)), gone
        data = path.read_bytes()
        if ".jsonl" in path.name:
            return self._lines(data)
        if path.suffix == ".json":
            return self._document(data), 0
        if path.suffix == ".parquet":
            return self._table(path), 0
        return self.page(data), 0

    def touches(self, value: Any) -> bool:
        """Whether a row has one of the texts."""
        if self.everything:
            return True
        wanted = set(self.texts)
        return any(text in wanted for text in _strings(value))

    def _here(self, data: bytes) -> list[str]:
        return [text for text in self.texts if any(form in data for form in forms(text))]

    def _document(self, data: bytes) -> bytes | None:
        here = self._here(data)
        if not here:
            return None
        try:
            return document_bytes(_replaced(orjson.loads(data), here))
        except orjson.JSONDecodeError:
            return self.page(data)

    def _lines(self, data: bytes) -> tuple[bytes | None, int]:
        here = self._here(data)
        kept, gone, changed = [], 0, False
        for line in data.splitlines(keepends=True):
            new = self._line(line, here)
            gone += new is None
            changed = changed or new != line
            kept.append(new or b"")
        return (b"".join(kept) if changed else None), gone

    def _line(self, line: bytes, here: Sequence[str]) -> bytes | None:
        from evalrun.lines import has_checksum, with_checksum

        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        if not isinstance(record, dict):
            return line if not here else self.page(line, here) or line
        checked = has_checksum(line)
        if checked:
            record.pop("crc32", None)
        named = any(str(record.get(key)) in self.ids for key in ("sample_id", "sample"))
        if named and (not record.get("run") or not self.runs or record["run"] in self.runs):
            return None
        if not here or not any(form in line for text in here for form in forms(text)):
            return line
        whole = set(here)
        if "sample_id" not in record and any(text in whole for text in _strings(record)):
            return None  # a row that the sweep keeps of its data
        new = orjson.dumps(_replaced(record, here))
        return with_checksum(new) if checked else new + b"\n"

    def _table(self, path: Path) -> bytes | None:
        """A table with a column of sample ids without the rows of the samples."""
        import tempfile

        from evalrun.tracking.parquet import column_names, read_columns, rewrite_batches

        if "sample_id" not in column_names(path):
            return None
        samples = read_columns(path, ["sample_id"]).column(0).to_pylist()
        if not self.ids.intersection(map(str, samples)):
            return None

        def change(batch: Any, _: int) -> Any:
            import pyarrow as pa

            names = batch.column("sample_id").to_pylist()
            return batch.filter(pa.array([str(name) not in self.ids for name in names]))

        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".erase-table-") as folder:
            rewrite_batches(path, Path(folder) / path.name, change)
            return (Path(folder) / path.name).read_bytes()

    def page(self, data: bytes, here: Sequence[str] | None = None) -> bytes | None:
        """Any other text with the texts replaced in all forms that they may have in it."""
        new = data
        for text in self._here(data) if here is None else here:
            for form in forms(text):
                new = new.replace(form, ERASED.encode())
        return None if new == data else new


def forms(text: str) -> list[bytes]:
    """A text as JSON, HTML and plain text have it, the longest first."""
    import html
    import json

    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    shown = {text, plain, json.dumps(text)[1:-1], plain.replace("<", "\\u003c")}
    shown |= {html.escape(text), html.escape(text, quote=False)}
    return sorted((form.encode("utf-8", "surrogatepass") for form in shown), key=len, reverse=True)


def _replaced(value: Any, texts: Sequence[str]) -> Any:
    if isinstance(value, str):
        for text in texts:
            if text in value:
                value = value.replace(text, ERASED)
        return value
    if isinstance(value, Mapping):
        return {_replaced(name, texts): _replaced(item, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, texts) for item in value]
    return value

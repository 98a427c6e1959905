"""The new files of one sweep, written beside the old ones: its tables without the rows, the rest without
their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from evalrun.atomic import private_folder, write_private
from evalrun.privacy.plan import LEAST_ID, Plan
from evalrun.privacy.scrub import ERASED, Scrub, stored_forms
from evalrun.results import ERASED_SINCE
from evalrun.tracking.audit import erasures_of
from evalrun.tracking.folder import ASKED, EVENTS, LOCK, MANIFEST, RUN, SAMPLES, SweepFolder, file_sha256
from evalrun.tracking.leaves import GONE, LEAVES, SALT_BYTES, SALTS, salts_path, split
from evalrun.tracking.plain import document_bytes

_NUMBERS_STAY = ("status", "finish_reason", "model", "fingerprint")
_OTHERS = {EVENTS, LOCK, "unfinished"}


def stage_sweep(
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
    for new_file in told_of(stage):
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


def told_of(stage: Path, *, salts: bool = False) -> list[Path]:
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
    wanted = [(form, ERASED) for text in texts if len(text) >= LEAST_ID for form in stored_forms(text)]
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

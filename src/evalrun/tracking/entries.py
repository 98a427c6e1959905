"""From a sweep folder to the rows that the catalog keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalrun.canonical import canonical_json
from evalrun.errors import UserError
from evalrun.results import RunResults
from evalrun.tracking.folder import MANIFEST, RUN, SweepFolder, stamp
from evalrun.tracking.model import SweepManifest, SweepStatus
from evalrun.tracking.people import Said, as_figure, fold, own_figures
from evalrun.tracking.plain import flatten, plain
from evalrun.tracking.running import running_runs
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.tracking.rows import Rows

_TEXT_LENGTH = 500
"""Longest text of a parameter in the catalog, as databases limit what an index takes. `run.json` has all."""

_COUNTS = ("samples", "scored", "unparsed", "refused", "failed", "cached", "retried")
_INT32 = 1 << 31

_METRIC_FIELDS = ("name", "value", "n", "se", "ci_low", "ci_high", "unit", "direction", "method", "note",
                  "incomplete", "bound_low", "bound_high")  # fmt: skip


@dataclass(frozen=True, slots=True)
class SweepEntry:
    """All that the catalog keeps of one sweep, read from its folder.

    `status` is `interrupted` where the manifest says `running` and no living process holds the sweep.
    """

    folder: SweepFolder
    stamp: str
    status: SweepStatus
    manifest: SweepManifest
    runs: tuple[RunResults, ...]
    events: tuple[dict[str, Any], ...]


def read_entry(folder: SweepFolder) -> SweepEntry:
    """Read a folder. Raises UserError that names the file which is missing, broken, unreadable or later."""
    try:
        return _read_entry(folder)
    except OSError as error:
        where = str(error.filename or folder.path)
        raise UserError(f"cannot be read: {error.strerror or error}", where=where) from error


def _read_entry(folder: SweepFolder) -> SweepEntry:
    runs = {run_id: folder.run(run_id) for run_id in folder.run_ids()}
    for run_id, run_ in runs.items():
        if run_.run != run_id:
            what = f"says that it is run '{run_.run}', but lies in the folder of '{run_id}'"
            raise UserError(what, where=str(folder.path / "runs" / run_id / RUN))
    seen, manifest = stamp(folder), folder.manifest()
    _check_numbers(folder, manifest, runs)
    held = seen.endswith(":held")
    dead = manifest.status == "running" and not held
    running = [each.results for each in running_runs(folder)] if held else []
    return SweepEntry(
        folder=folder,
        stamp=seen,
        status="interrupted" if dead else manifest.status,
        manifest=manifest,
        runs=(*runs.values(), *running),
        events=tuple(folder.events()),
    )


def fresh(entry: SweepEntry) -> SweepEntry:
    """The entry, read again if its folder has changed since. For whoever holds the write lock: another may
    have changed the folder, and entered it, between our reading and our turn."""
    last = entry.folder.last_event()
    seen = entry.events[-1]["hash"] if entry.events else None
    if (last["hash"] if last else None) == seen and stamp(entry.folder) == entry.stamp:
        return entry
    return read_entry(entry.folder)


def _check_numbers(folder: SweepFolder, manifest: SweepManifest, runs: Mapping[str, RunResults]) -> None:
    """Nothing counts so far in earnest, and one such folder must not keep the others out of the catalog."""
    numbers = {folder.path / MANIFEST: [manifest.exit_code or 0]}
    for run_id, run_ in runs.items():
        counts = [getattr(run_.counts, each) for each in _COUNTS]
        found = [run_.repeats, *counts, *(metric.n for metric in run_.metrics)]
        numbers[folder.path / "runs" / run_id / RUN] = found
    for path, found in numbers.items():
        too_large = [each for each in found if not -_INT32 <= each < _INT32]
        if too_large:
            raise UserError(f"holds a count that cannot be: {too_large[0]}", where=str(path))


def insert(into: Rows, *entries: SweepEntry) -> None:
    """Put sweeps in the place of what was known of them: a statement or two a table for all of them."""
    if not entries:
        return
    ulids = [entry.folder.ulid for entry in entries]
    into.forget(ulids)
    told = [fold(entry.manifest.tags, entry.events) for entry in entries]
    names = dict.fromkeys(entry.manifest.project for entry in entries)
    projects = {name: into.id_of("project", {"name": name}) for name in names}
    rows = [
        _sweep_row(entry, said, projects[entry.manifest.project])
        for entry, said in zip(entries, told, strict=True)
    ]
    into.add("sweep", rows)
    tags = [
        {"sweep": ulid, "key": key, "value": value, "num": as_figure(value)}
        for ulid, said in zip(ulids, told, strict=True)
        for key, value in said.tags.items()
    ]
    into.add("sweep_tag", tags)
    _insert_runs(into, entries, told)
    events = [row for entry in entries for row in _event_rows(entry.folder.ulid, entry.events)]
    into.add("event", events)


def _sweep_row(entry: SweepEntry, said: Said, project_id: int) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "ulid": entry.folder.ulid,
        "project_id": project_id,
        "name": said.name or manifest.name,
        "folder": entry.folder.path.name,
        "status": entry.status,
        "started_at": manifest.started_at,
        "finished_at": manifest.finished_at,
        "exit_code": manifest.exit_code,
        "spec_digest": manifest.spec_digest,
        "suite_digest": manifest.suite.digest,
        "git_commit": _text(manifest.provenance.get("git"), "commit"),
        "user_name": _text(manifest.provenance, "user"),
        "planned": len(manifest.plan),
        "runs": len(entry.runs),
        "samples": sum(each.counts.samples for each in entry.runs),
        "failed": sum(each.counts.failed for each in entry.runs),
        "stamp": entry.stamp,
        "archived": int(said.archived),
        "note": said.notes_of()[-1].text if said.notes_of() else None,
    }


def _insert_runs(into: Rows, entries: Sequence[SweepEntry], told: Sequence[Said]) -> None:
    """The runs in one statement, then the parameters and the metrics of all of them in one each."""
    versions: dict[tuple[str, JSON], int | None] = {}
    rows = []
    for entry in entries:
        for each in entry.runs:
            key = each.dataset, entry.manifest.datasets.get(each.dataset, {}).get("digest")
            if key not in versions:
                versions[key] = _dataset_version(into, each.dataset, entry.manifest.datasets)
            rows.append(_run_row(entry, each, versions[key]))
    if not rows:
        return
    into.add("run", rows)
    ids = into.run_ids([entry.folder.ulid for entry in entries])
    params: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    for entry, said in zip(entries, told, strict=True):
        for each in entry.runs:
            run_id = ids[entry.folder.ulid, each.run]
            params += _param_rows(run_id, each)
            measured = _metric_rows(run_id, each)
            metrics += measured
            known = {row["name"] for row in measured}
            own = {name: value for name, value in own_figures(said, each.run).items() if name not in known}
            metrics += [_own_row(run_id, name, value, each) for name, value in own.items()]
    into.add("run_param", params)
    into.add("run_metric", metrics)


def _run_row(entry: SweepEntry, result: RunResults, version: int | None) -> dict[str, Any]:
    counts, manifest = result.counts, entry.manifest
    return {
        "sweep": entry.folder.ulid,
        **{key: getattr(result, key) for key in ("run", "model", "prompt", "dataset", "status", "repeats")},
        **{key: getattr(counts, key) for key in _COUNTS},
        "dataset_version_id": version,
        "prompt_digest": _text(manifest.prompts.get(result.prompt), "digest"),
        "started_at": result.timings.started_at,
        "wall_s": result.timings.wall_s,
        "samples_sha256": result.digests.get("samples_sha256"),
        "training": result.training or None,
        "step": result.step,
    }


def _param_rows(run_id: int, result: RunResults) -> list[dict[str, Any]]:
    rows = {name: {"run_id": run_id, "key": name, **_typed(value)} for name, value in flatten(result.params)}
    return list(rows.values())


def _metric_rows(run_id: int, result: RunResults) -> list[dict[str, Any]]:
    rows = {}
    for metric in result.metrics:
        row = {name: getattr(metric, name) for name in _METRIC_FIELDS}
        row["incomplete"] = int(metric.incomplete)
        row |= {"run_id": run_id, "slice": canonical_json(plain(metric.slice)).decode()}
        rows[row["name"], row["slice"]] = row
    return list(rows.values())


def _own_row(run_id: int, name: str, value: float, result: RunResults) -> dict[str, Any]:
    """A figure that somebody logged: it is of the run as a whole, and nothing is known of its spread."""
    row = dict.fromkeys(_METRIC_FIELDS, None) | {"name": name, "value": value, "n": result.counts.samples}
    texts = {"unit": "", "direction": "none", "method": "", "note": "logged"}
    return {**row, **texts, "incomplete": 0, "run_id": run_id, "slice": "{}"}


def _event_rows(ulid: str, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    same = ("seq", "ts", "actor", "action", "target", "hash")
    rows = {
        each["seq"]: {
            "sweep": ulid,
            **{key: each.get(key, "") for key in same},
            "detail": canonical_json(plain(each.get("detail"))).decode(),
        }
        for each in events
    }
    return list(rows.values())


def _typed(value: JSON) -> dict[str, Any]:
    """A parameter as type, number and text: numbers compare as numbers, text as text."""
    if isinstance(value, bool):
        return {"type": "bool", "num": float(value), "text": str(value).lower()}
    if isinstance(value, int | float):
        return {"type": "number", "num": _number(value), "text": canonical_json(plain(value)).decode()}
    if isinstance(value, str):
        return {"type": "text", "num": None, "text": plain(value)[:_TEXT_LENGTH]}
    kind = "null" if value is None else "json"
    return {"type": kind, "num": None, "text": canonical_json(plain(value)).decode()[:_TEXT_LENGTH]}


def _dataset_version(into: Rows, name: str, datasets: Mapping[str, Mapping[str, JSON]]) -> int | None:
    known = datasets.get(name, {})
    digest = known.get("digest")
    if not isinstance(digest, str):
        return None
    source = canonical_json(plain(known.get("source"))).decode()
    n = known.get("n")
    extra = {"n": n if isinstance(n, int) and abs(n) < _INT32 else None, "source": source}
    return into.id_of("dataset_version", {"name": name, "digest": digest}, extra)


def _text(values: JSON, key: str) -> str | None:
    value = values.get(key) if isinstance(values, Mapping) else None
    return value if isinstance(value, str) else None


def _number(value: JSON) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None

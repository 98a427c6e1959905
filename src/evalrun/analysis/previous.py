"""A sweep against the one before it in its project: what changed, and what that did to each run.

The comparison is that of `evalrun compare`, made once at the end of a sweep, so that the second iteration
says at once whether it was one forward.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from evalrun.analysis.conclude import RESULTS
from evalrun.documents import read
from evalrun.errors import UserError
from evalrun.served import served_by_model, served_change
from evalrun.sweep_results import Previous, Primary, RunBefore
from evalrun.tracking.folder import MANIFEST, SweepFolder
from evalrun.tracking.model import SweepManifest
from evalrun.tracking.naming import read_numbers
from evalrun.tracking.store import Store
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.analysis.compare import Compared, Comparison

PREVIOUS = "previous"
"""The key of `sweep.json`."""

MOST_RUNS, MOST_SAMPLES = 200, 50_000
"""More are left to `evalrun compare`: it would take more time and memory than the end of a sweep should."""

_UNSAID = frozenset(
    {"name", "project", "description", "tags", "gates", "baseline", "inconclusive", "alerts", "include",
     "exclude", "budget", "models", "prompts", "datasets", "errors", "allow", "performance", "fairness"}
)  # fmt: skip
"""Keys of a suite that change no answer and no score, or are told by name."""
_UNANSWERED = frozenset({"concurrency", "timeout_s", "price", "limits", "batch"})
"""Keys of a model that change no answer."""
_SAID = {"parse": "parsers", "derive": "derived scores", "sweep": "swept parameters"}


def previous_document(
    store: Store, folder: SweepFolder, concluded: Mapping[str, Any], models: Mapping[str, Any]
) -> dict[str, JSON]:
    """What `sweep.json` is to say of the sweep before, given what `conclude_sweep` said of this one, and what
    its models were found to be."""
    primary = concluded[RESULTS]["primary"]
    found = previous_sweep(store, folder, read(Primary, primary) if primary else None, models)
    return {PREVIOUS: asdict(found) if found else None}


def previous_sweep(
    store: Store, folder: SweepFolder, primary: Primary | None, models: Mapping[str, Any]
) -> Previous | None:
    """Compare a sweep with the newest one before it in its project that has finished runs.

    None where there is none, nothing to compare by, or the earlier one cannot be read.
    """
    if primary is None:
        return None
    with contextlib.suppress(UserError):
        served = served_by_model(folder.run(run_id) for run_id in folder.run_ids())
        manifest = replace(folder.manifest(), models=dict(models), served=served)
        before = next(_before(store, folder, manifest.project), None)
        return None if before is None else _against(store, before, folder, manifest, primary)
    return None


def _before(store: Store, folder: SweepFolder, project: str) -> Iterator[SweepFolder]:
    for each in store.folders():
        if each.ulid < folder.ulid and (each.path / MANIFEST).exists():
            with contextlib.suppress(UserError):
                if each.manifest().project == project and each.run_ids():
                    yield each


def _against(
    store: Store, before: SweepFolder, folder: SweepFolder, manifest: SweepManifest, primary: Primary
) -> Previous | None:
    earlier = before.manifest()
    found = Previous(
        sweep=earlier.sweep,
        name=earlier.name,
        started_at=earlier.started_at,
        metric=primary.metric,
        unit="",
        direction="none",
        number=read_numbers(store, [each.ulid for each in store.folders()]).get(before.ulid),
        changed=tuple(what_changed(earlier, manifest)),
    )
    runs = [folder.run(run_id) for run_id in folder.run_ids()]
    samples = sum(run.counts.samples for run in runs)
    if len(runs) > MOST_RUNS or samples > MOST_SAMPLES:
        return replace(found, notes=(f"{samples:,} samples were not compared",))
    comparison = _compared(before, folder, primary)
    if comparison is None or not comparison.compared:
        return None
    rows = comparison.compared
    new = {run.run for run in comparison.unmatched if run.sweep == manifest.sweep}
    return replace(
        found,
        metric=rows[0].metric,
        unit=rows[0].unit,
        direction=rows[0].direction,
        runs=tuple(_run(row) for row in rows),
        added=tuple(run.run for run in runs if run.run in new),
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def _compared(before: SweepFolder, folder: SweepFolder, primary: Primary) -> Comparison | None:
    """By the primary metric, or where that is no mean over samples of both, by the score behind it."""
    # Not at the top: the first sweep of a project has none before it.
    from evalrun.analysis.compare import CompareOptions, compare
    from evalrun.analysis.pairing import Chosen

    names = (primary.metric, primary.score) if primary.exact else (primary.score, primary.metric)
    few = (f"score.{primary.score}", "cluster") if primary.exact and primary.score else None
    for name, columns in dict.fromkeys((name, columns) for columns in (few, None) for name in names if name):
        with contextlib.suppress(UserError):
            chosen = [Chosen(sweep, columns=columns) for sweep in (before, folder)]
            return compare(chosen, CompareOptions((name,), common=True))
    return None


def _run(row: Compared) -> RunBefore:
    result = row.result
    return RunBefore(
        run=row.b.run,
        before=row.a.run,
        verdict=row.verdict.word,
        n=result.n,
        difference=result.difference,
        ci_low=result.ci_low,
        ci_high=result.ci_high,
        p=row.p_corrected,
        better=row.better,
        worse=row.worse,
        where=row.where,
    )


def what_changed(before: SweepManifest, after: SweepManifest) -> Iterator[str]:
    """What differs between two sweeps and shapes answers or scores, each in a few words: `prompt rules`."""
    one, other = _resolved(before), _resolved(after)
    yield from _by_id("model", _models(before, one), _models(after, other), _same_model)
    for model, served in before.served.items():
        if said := served_change(served, after.served.get(model) or {}):
            yield f"model {model}: {said}"
    yield from _by_id("prompt", _digests(before.prompts), _digests(after.prompts))
    yield from _by_id("data", _digests(before.datasets), _digests(after.datasets))
    for key in dict.fromkeys([*one, *other]):
        if key not in _UNSAID and key in one and key in other and not _alike(one[key], other[key]):
            yield _SAID.get(key, key)


def _alike(one: Any, other: Any) -> bool:
    """Whether two resolved values say the same. An option that one version of evalrun did not have is no
    change: resolved suites have all options that there are."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_alike(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def _by_id(
    what: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    same: Callable[[Any, Any], bool] = operator.eq,
) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        if name not in before:
            yield f"new {what} {name}"
        elif name not in after:
            yield f"{what} {name} left out"
        elif not same(before[name], after[name]):
            yield f"{what} {name}"


def _resolved(manifest: SweepManifest) -> Mapping[str, Any]:
    return manifest.suite.resolved if isinstance(manifest.suite.resolved, Mapping) else {}


def _models(manifest: SweepManifest, suite: Mapping[str, Any]) -> dict[str, Any]:
    """Each model as the suite has it, with what it was found to be."""
    return {
        str(entry["id"]): (
            {key: value for key, value in entry.items() if key not in _UNANSWERED},
            manifest.models.get(str(entry["id"])) or None,
        )
        for entry in suite.get("models") or ()
    }


def _same_model(one: Any, other: Any) -> bool:
    """What was not found out on one side (every answer came from the cache) is no difference."""
    (entry, found), (entry_after, found_after) = one, other
    return _alike(entry, entry_after) and (found is None or found_after is None or found == found_after)


def _digests(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: part.get("digest") for name, part in parts.items() if not part.get("ablates")}

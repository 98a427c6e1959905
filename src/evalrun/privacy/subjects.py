"""What is kept of somebody, for who asks; holds; and what is kept longer than the suites say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from evalrun.errors import UserError
from evalrun.privacy.find import find
from evalrun.privacy.plan import Rule
from evalrun.suite.privacy import RetentionSpec
from evalrun.tracking.audit import HOLD, RELEASE, hold_of
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


def rows_of(store: Store, folders: Sequence[SweepFolder], subject: str) -> Iterator[dict[str, Any]]:
    """All rows of a subject: sweep, run, and the columns of the samples."""
    from evalrun.tracking.parquet import iter_samples

    plan = find(store, folders, Rule("subject", subject), "", reading=True)
    by_id = {folder.ulid: folder for folder in folders}
    for ulid, runs in plan.rows.items():
        for run_id, places in runs.items():
            wanted = set(places)
            for at, row in enumerate(iter_samples(by_id[ulid].samples_path(run_id), decode=True)):
                if at in wanted:
                    yield {"sweep": ulid, "run": run_id, "row": row}


def hold(store: Store, folder: SweepFolder, reason: str) -> None:
    """Put a legal hold on a sweep: nothing of it is erased or deleted by retention while it holds."""
    if not reason.strip():
        raise UserError("say why: --reason TEXT", where=folder.path.name)
    folder.append_event(HOLD, {"reason": reason})
    store.record(folder)


def release(store: Store, folder: SweepFolder, reason: str) -> None:
    """End the hold on a sweep. Raises UserError where there is none."""
    if hold_of(folder) is None:
        raise UserError("the sweep is not on hold", where=folder.path.name)
    folder.append_event(RELEASE, {"reason": reason})
    store.record(folder)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done with a sweep, and why: its `texts` erased, all of it deleted, or nothing."""

    sweep: str
    action: Literal["texts", "delete", "nothing"]
    why: str


def due(folders: Sequence[SweepFolder], now: datetime | None = None) -> list[Due]:
    """What the suites' retention says of sweeps today; sweeps whose suites say nothing are left out."""
    now = now or datetime.now(UTC)
    found = []
    for folder in folders:
        manifest = folder.read_manifest()
        resolved = (manifest["suite"].get("resolved") or {}).get("retention")
        ended = manifest.get("finished_at")
        if not resolved or not ended:
            continue
        rules = RetentionSpec.model_validate(resolved)
        age = now - datetime.fromisoformat(ended)
        found.append(_due(folder, rules, age))
    return found


def _due(folder: SweepFolder, rules: RetentionSpec, age: timedelta) -> Due:
    if (held := hold_of(folder)) is not None:
        return Due(folder.ulid, "nothing", f"on hold: {held}")
    least = rules.days("minimum") or 0
    steps: tuple[tuple[Literal["delete", "texts"], str], ...] = (("delete", "sweeps"), ("texts", "samples"))
    for action, key in steps:
        days = rules.days(key)
        if days is None or age < timedelta(days=max(days, least)):
            continue
        if action == "texts" and _has_no_texts(folder):
            continue
        return Due(folder.ulid, action, f"{age.days} days old, {key}: {days} days")
    wanted = [days for key in ("samples", "sweeps") if (days := rules.days(key)) is not None]
    if wanted and age >= timedelta(days=min(wanted)) and age < timedelta(days=least):
        return Due(folder.ulid, "nothing", f"{age.days} days old, and kept for {least} days at least")
    return Due(folder.ulid, "nothing", f"{age.days} days old")


def _has_no_texts(folder: SweepFolder) -> bool:
    """Whether an earlier retention has erased the texts of all its rows."""
    from evalrun.tracking.audit import erasures_of

    return any(
        event["detail"].get("rule") == "retention" for event in erasures_of(folder, folder.events()).events
    )


def plan_texts(store: Store, folders: Sequence[SweepFolder], dues: Sequence[Due]) -> Any:
    """The plan by which the texts of sweeps are erased and their numbers stay."""
    wanted: Mapping[str, Due] = {each.sweep: each for each in dues if each.action != "nothing"}
    chosen = [folder for folder in folders if folder.ulid in wanted]
    return find(store, chosen, Rule("retention"), "retention", keep_numbers=True)

"""Alerts that have a state: open, acknowledged, closed. One message an episode.

State is what the store's audit trail says of it: an event where an episode opens, where somebody takes
note of it, where it ends. An alarm that goes off and on within `SETTLE_S` is one episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.spans import within_hours
from evalrun.tracking.events import read_events
from evalrun.tracking.store import Store
from evalrun.webhook import escaped, post

if TYPE_CHECKING:
    from evalrun.suite.schema import AlertsSpec
    from evalrun.tracking.folder import SweepFolder

OPEN, QUIET, CLOSE, ACKNOWLEDGE, POST = (
    "alarm_open", "alarm_quiet", "alarm_close", "alarm_acknowledge", "alarm_post",
)  # fmt: skip
HELD = "not posted: quiet hours"
SETTLE_S = 900.0
"""An alarm is over once it has been off for so long, and for two looks at least."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition on a run, whether it holds now, and what was seen."""

    name: str
    run: str
    on: bool
    why: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others of its project."""
        return self.name, self.run


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm that was opened. Times are Unix seconds; `quiet_since` is when it went off, if it did."""

    name: str
    run: str
    state: Literal["open", "acknowledged", "closed"]
    opened: float
    why: str
    closed: float | None = None
    acknowledged_by: str = ""
    posted: str = ""
    quiet_since: float | None = None


def episodes(store: Store, project: str) -> list[Episode]:
    """All episodes of a project, the oldest first."""
    told: list[Episode] = []
    at: dict[tuple[str, str], int] = {}
    for event in read_events(store.events_path):
        if event["target"] != project or event["action"] not in (OPEN, QUIET, CLOSE, ACKNOWLEDGE, POST):
            continue
        detail = event["detail"]
        key = str(detail.get("alarm")), str(detail.get("run"))
        moment = float(detail.get("at") or 0)
        if event["action"] == OPEN:
            at[key] = len(told)
            why, posted = str(detail.get("why", "")), str(detail.get("webhook", ""))
            told.append(Episode(*key, "open", moment, why, posted=posted))
        elif key in at:
            told[at[key]] = _after(told[at[key]], event, moment)
    return told


def _after(episode: Episode, event: Mapping[str, Any], moment: float) -> Episode:
    if event["action"] == ACKNOWLEDGE and episode.state == "open":
        return replace(episode, state="acknowledged", acknowledged_by=str(event["actor"]))
    if event["action"] == QUIET:
        return replace(episode, quiet_since=moment if event["detail"].get("quiet") else None)
    if event["action"] == POST:
        return replace(episode, posted=str(event["detail"].get("webhook", "")))
    if event["action"] == CLOSE:
        return replace(episode, state="closed", closed=moment)
    return episode


def current(told: Iterable[Episode]) -> dict[tuple[str, str], Episode]:
    """The episodes that are not over, by alarm and run."""
    last = {(each.name, each.run): each for each in told}
    return {key: each for key, each in last.items() if each.state != "closed"}


def tell(
    store: Store, project: str, alarms: Sequence[Alarm], how: AlertsSpec | None, now: float
) -> tuple[tuple[Alarm, ...], tuple[str, ...]]:
    """Open, keep and close episodes by what holds now; post what opens. Returns the alarms whose episode is
    not over, and what could not be posted."""
    going_on, warnings = current(episodes(store, project)), []
    for alarm in alarms:
        episode = going_on.get(alarm.key)
        detail = {"alarm": alarm.name, "run": alarm.run, "at": now, "why": alarm.why}
        if alarm.on and (episode is None or (episode.state == "open" and episode.posted == HELD)):
            said = _post(project, alarm, how, now)
            if episode is None:
                store.append_event(OPEN, {**detail, "webhook": said}, target=project)
            elif said != HELD:
                store.append_event(POST, {**detail, "webhook": said}, target=project)
            warnings += [] if said in ("none", "posted", HELD) else [f"alerts: {said}"]
        if episode is None:
            continue
        if alarm.on and episode.quiet_since is not None:
            store.append_event(QUIET, {**detail, "quiet": False}, target=project)
        elif not alarm.on and episode.quiet_since is None:
            store.append_event(QUIET, {**detail, "quiet": True}, target=project)
        elif not alarm.on and now - (episode.quiet_since or now) >= SETTLE_S:
            store.append_event(CLOSE, detail, target=project)
    left = current(episodes(store, project))
    return tuple(alarm for alarm in alarms if alarm.key in left), tuple(warnings)


def acknowledge(store: Store, project: str, name: str) -> list[Episode]:
    """Take note of the open episodes of an alarm (`all`: of every one). Raises UserError for one that is not
    open."""
    open_ = [each for each in current(episodes(store, project)).values() if each.state == "open"]
    chosen = [each for each in open_ if name in ("all", each.name)]
    if not chosen:
        near = nearest(name, [each.name for each in open_])
        names = ", ".join(f"'{each.name}'" for each in open_) or "none"
        raise UserError(
            f"no alert '{name}' of {project} is open",
            remedy=f"Did you mean '{near}'?" if near else f"Open: {names}.",
        )
    for each in chosen:
        store.append_event(ACKNOWLEDGE, {"alarm": each.name, "run": each.run}, target=project)
    return chosen


def _post(project: str, alarm: Alarm, how: AlertsSpec | None, now: float) -> str:
    """Post an alarm that opens, unless these are quiet hours. Returns "posted", "none" without a webhook,
    HELD, or what went wrong."""
    if how is None or how.webhook is None:
        return "none"
    if how.quiet_hours is not None and within_hours(how.quiet_hours, now):
        return HELD
    text = (
        f"*evalrun: {escaped(project)}*: {escaped(alarm.name)} ({escaped(alarm.run)}): {escaped(alarm.why)}"
    )
    return post(how.webhook, {"text": text}, private_network=how.private_network) or "posted"


def alerts_of(folder: SweepFolder) -> AlertsSpec | None:
    """The alerts of a finished sweep's suite. The webhook's address is stored nowhere: it is read from the
    suite's file, where that is still there and valid."""
    from evalrun.suite.load import load_suite
    from evalrun.suite.schema import AlertsSpec

    about = folder.read_manifest().get("suite") or {}
    resolved = (about.get("resolved") or {}).get("alerts")
    if not isinstance(resolved, dict):
        return None
    kept = AlertsSpec.model_validate(resolved)
    try:
        now = load_suite(Path(str(about.get("path")))).suite.alerts
    except (UserError, OSError):
        return kept
    return kept if now is None else kept.model_copy(update={"webhook": now.webhook})

"""A deployment as all sources see it: what was measured offline, by probes, of traffic, and what users said;
and the sweep, training and approvals that it came from.

The figures stand side by side and are never pooled: their rows, loads and clocks differ.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from evalrun.errors import UserError
from evalrun.gates.alarms import Episode, current, episodes
from evalrun.production.records import DAY_S, history, probed
from evalrun.production.slo import Rules
from evalrun.production.summary import RunSummary, Summary, summarise
from evalrun.tracking.changes import Placed, said
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

BACK_S = 30 * DAY_S
"""What of a probe is told of."""
_OF_US = ("memory.", "cpu.", "gpu.", "energy.", "disk.", "network.", "performance.client_")
"""Metrics of the machine that scored traffic, which say nothing of the deployment."""
OFFLINE, PROBE, TRAFFIC, FEEDBACK = "offline", "probe", "traffic", "feedback"


@dataclass(frozen=True, slots=True)
class Side:
    """A figure by one source. `since` and `until` are ISO days where it is of a span of time."""

    source: str
    metric: str
    value: float | None
    n: int | None
    ci_low: float | None = None
    ci_high: float | None = None
    sweep: str = ""
    since: str = ""

    def told(self) -> str:
        """The value with its interval and n."""
        if self.value is None:
            return "-"
        interval = "" if self.ci_low is None else f" [{self.ci_low:.4g}, {self.ci_high:.4g}]"
        return f"{self.value:.4g}{interval}{f' n={self.n:,}' if self.n is not None else ''}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a deployment came from: its sweep, the training and step of its model, who approved it."""

    sweep: str
    name: str = ""
    started_at: str = ""
    suite_digest: str = ""
    training: str = ""
    step: int | None = None
    approvals: tuple[Mapping[str, Any], ...] = ()

    def sentences(self) -> list[str]:
        """In words."""
        said = [f"from the sweep {self.name} of {self.started_at[:16]} UTC"] if self.name else []
        if self.training:
            said.append(f"its model is step {self.step:,} of the training {self.training}")
        return said + [
            f"{each['verdict']} by {each['actor']} at {each['ts'][:16]}: {each['reason'] or '-'}"
            for each in self.approvals
        ]


@dataclass(frozen=True, slots=True)
class Beside:
    """All sides of a deployment, its origin, and the alerts that are not closed."""

    sides: tuple[Side, ...]
    origin: Origin
    alerts: tuple[Episode, ...] = field(default=())
    drift: tuple[str, ...] = ()
    """What the last comparison of its traffic (`evalrun drift`) said."""

    @property
    def elsewhere(self) -> bool:
        """Whether anything but offline figures is known."""
        return any(side.source != OFFLINE for side in self.sides)

    def table(self, sources: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Each metric with what each source says of it."""
        for metric in dict.fromkeys(side.metric for side in self.sides):
            told = {side.source: side.told() for side in self.sides if side.metric == metric}
            yield metric, [told.get(source, "-") for source in sources]


def beside(store: Store, now: Placed, deployments: Sequence[Placed], at: float | None = None) -> Beside:
    """What all sources say of a run that stands for a name, at a moment (Unix seconds; now).

    Probes and traffic are those of an environment that the run is deployed to or of its name, and those of
    its project.
    """
    moment = time.time() if at is None else at
    names = {now.name, *(place.name for place in deployments)}
    sides = [
        Side(
            OFFLINE, str(each["name"]), each["value"], each["n"], each.get("ci_low"), each.get("ci_high"),
            now.sweep,
        )
        for each in now.metrics
    ]  # fmt: skip
    since = max(moment - BACK_S, _since(now, deployments))
    probes = probes_of(store, now.project, names, since, moment)
    for seen in probes.values():
        for run in seen.runs[:1]:
            sides += _of_probe(run)
    of_traffic, drift = _of_traffic(store, now.project, names)
    sides += of_traffic
    open_ = [
        each for project in {*probes, now.project} for each in current(episodes(store, project)).values()
    ]
    return Beside(tuple(sides), _origin(store, now), tuple(open_), drift)


def probes_of(
    store: Store, project: str, names: Collection[str], since: float, until: float
) -> dict[str, Summary]:
    """What probes of a project, and of environments that are named, saw between two moments (Unix seconds),
    by the probe's own project."""
    seen = {}
    for probe in [name for name, env in probed(store).items() if env in names or name == project]:
        turns = history(store, probe, since)
        own = replace(turns, turns=tuple(turn for turn in turns.turns if turn.begun >= since))
        seen[probe] = summarise(probe, own, Rules(None), until)
    return seen


def traffic_of(store: Store, project: str, names: Collection[str]) -> SweepFolder | None:
    """The newest sweep over traffic (tag `kind: traffic`) of a project, or of an environment (tag `env`)."""
    for row in store.list(200, None):
        tags = row.tags
        if tags.get("kind") == TRAFFIC and (tags.get("env") in names or row.project == project):
            return store.resolve(row.sweep)
    return None


def _since(now: Placed, deployments: Sequence[Placed]) -> float:
    """From when on the run is what is deployed, as far as that was noted (Unix seconds)."""
    noted = [place.ts for place in (now, *deployments) if place.ts >= now.ts] or [now.ts]
    return datetime.fromisoformat(min(noted)).timestamp()


def _of_probe(run: RunSummary) -> list[Side]:
    since = time.strftime("%Y-%m-%d", time.gmtime(run.since))
    share = run.availability
    sides = [Side(PROBE, "availability", share.value, share.n, share.low, share.high, since=since)]
    if run.scorer:
        score = run.score
        sides.append(Side(PROBE, run.scorer, score.value, score.n, score.low, score.high, since=since))
    for name, spread in (("e2e_s", run.e2e_s), ("ttft_s", run.ttft_s)):
        if spread.n:
            sides += [
                Side(PROBE, f"performance.{name}.{part}", value, spread.n, since=since)
                for part, value in (("p50", spread.p50), ("p95", spread.p95))
            ]
    return sides


def _of_traffic(store: Store, project: str, names: set[str]) -> tuple[list[Side], tuple[str, ...]]:
    """The newest sweep over traffic of the project or the environment; what users said are its metrics whose
    names begin with `feedback`. With what drift was last seen on it."""
    folder = traffic_of(store, project, names)
    if folder is None:
        return [], ()
    sweep, day = folder.ulid, folder.manifest().started_at[:10]
    seen = [event["detail"] for event in folder.events() if event["action"] == "drift"]
    told = tuple(map(str, (seen[-1].get("sentences") or ())[:5])) if seen else ()
    runs = folder.runs()[:1]
    logged = [
        Side(FEEDBACK, name, value, run["counts"]["samples"], None, None, sweep, day)
        for run in runs
        for name, value in said(folder).figures.get(run["run"], {}).items()
        if name.startswith(FEEDBACK)
    ]
    return logged + [
        Side(
            FEEDBACK if each["name"].startswith(FEEDBACK) else TRAFFIC, each["name"], each["value"],
            each["n"], each["ci_low"], each["ci_high"], sweep, day,
        )
        for run in runs
        for each in run["metrics"]
        if not each["slice"] and each["value"] is not None and not each["name"].startswith(_OF_US)
    ], told  # fmt: skip


def _origin(store: Store, now: Placed) -> Origin:
    """Read from the sweep's folder; the sweep alone where it was deleted since."""
    if not now.present:
        return Origin(now.sweep)
    with contextlib.suppress(UserError, OSError):
        folder: SweepFolder = store.resolve(now.sweep)
        manifest, run = folder.manifest(), folder.run(now.run)
        return Origin(
            now.sweep, manifest.name, manifest.started_at, manifest.suite.digest, run.training,
            run.checkpoint.step if run.checkpoint else None, tuple(_approvals(folder, now.run)),
        )  # fmt: skip
    return Origin(now.sweep)


def _approvals(folder: SweepFolder, run: str) -> Iterator[dict[str, Any]]:
    for event in folder.events():
        if event["action"] == "approve" and event["target"] in ("", run):
            detail = event["detail"]
            yield {
                "actor": event["actor"], "ts": event["ts"], "verdict": str(detail.get("verdict", "")),
                "reason": str(detail.get("reason", "")),
            }  # fmt: skip

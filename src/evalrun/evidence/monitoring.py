"""What was seen of a system after its release: by probes, on its traffic, and by `evalrun drift`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evalrun.evidence.document import Evidence, Line
from evalrun.reports import numbers
from evalrun.tracking.folder import EVENTS, RUN, SweepFolder
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.evidence.facts import Facts
    from evalrun.production.summary import RunSummary


def monitoring(facts: Facts) -> Iterator[Line]:
    """Lines of the probes and the traffic of the sweep's project, and of the environments that its run was
    deployed to. None where the store has none."""
    from evalrun.production.whatis import probes_of, traffic_of

    store = Store(facts.folder.path.parent.parent)
    placed = [event for event in facts.events if event["action"] in ("promote", "deploy")]
    said = (event["detail"].get("as") or event["detail"].get("env") for event in placed)
    names = {str(name) for name in said if name}
    begun = placed[0]["ts"] if placed else facts.manifest.started_at
    since = datetime.fromisoformat(begun).timestamp()
    project = facts.manifest.project
    for probe, seen in probes_of(store, project, names, since, time.time()).items():
        for run in seen.runs[:1]:
            yield from _probed(facts, store, probe, run)
    folder = traffic_of(store, project, names)
    if folder is not None and folder.ulid != facts.folder.ulid:
        yield from _traffic(facts, folder)
    for each in {each.ulid: each for each in (facts.folder, folder) if each is not None}.values():
        yield from _drift(facts, each)


def _there(facts: Facts, folder: SweepFolder, file: str) -> str:
    """A file of another sweep, as seen from that of the document."""
    return os.path.relpath(folder.path / file, facts.folder.path)


def _probed(facts: Facts, store: Store, probe: str, run: RunSummary) -> Iterator[Line]:
    from evalrun.production.records import RECORDS, days

    folder = days(store, probe)[-1][1]
    evidence = Evidence(_there(facts, folder, RECORDS), run.run, f"evalrun show {folder.ulid}")
    of = f"probe {probe} since {time.strftime('%Y-%m-%d', time.gmtime(run.since))}"
    for label, share in (("Availability", run.availability), (run.scorer, run.score)):
        if share.value is not None:
            text = f"{numbers.measured(share.value, share.low, share.high)}, n = {share.n:,}"
            yield Line(
                f"{label} ({of})", text, value=share.value, n=share.n, low=share.low, high=share.high,
                evidence=evidence,
            )  # fmt: skip
    if run.e2e_s.p95 is not None:
        text = f"{numbers.seconds(run.e2e_s.p95)}, n = {run.e2e_s.n:,}"
        yield Line(
            f"performance.e2e_s.p95 ({of})", text, value=run.e2e_s.p95, unit="s", n=run.e2e_s.n,
            evidence=evidence,
        )  # fmt: skip
    text = f"{len(run.outages)}, now {run.state}, n = {run.turns:,} turns"
    yield Line(f"Outages ({of})", text, value=len(run.outages), n=run.turns, evidence=evidence)


def _traffic(facts: Facts, folder: SweepFolder) -> Iterator[Line]:
    """The metric that leads, and what users said, of a sweep over traffic."""
    from evalrun.evidence.facts import metric_line

    for run in (folder.run(each) for each in folder.run_ids()[:1]):
        lead = run.headline or facts.primary
        for metric in run.metrics:
            if not metric.slice and (metric.name == lead or metric.name.startswith("feedback")):
                line = metric_line(facts, run, metric)
                at = Evidence(
                    _there(facts, folder, f"runs/{run.run}/{RUN}"),
                    f"metrics: {metric.name}",
                    f"evalrun samples {folder.ulid}/{run.run}",
                )
                yield replace(line, label=f"{metric.name} (traffic, {folder.ulid})", evidence=at)


def _drift(facts: Facts, folder: SweepFolder) -> Iterator[Line]:
    """What `evalrun drift` said last of a sweep."""
    seen = [event for event in folder.events() if event["action"] == "drift"]
    for event in seen[-1:]:
        detail: Mapping[str, Any] = event["detail"]
        rows, said = detail.get("rows"), " ".join(map(str, (detail.get("sentences") or ())[:2]))
        of = f"n = {rows:,}" if isinstance(rows, int) else "n was not kept"
        yield Line(
            f"Drift of {folder.ulid} against {detail.get('against')}",
            f"{said} {len(detail.get('drifted') or ())} of {detail.get('tests')} tests, {of}",
            n=rows,
            evidence=Evidence(_there(facts, folder, EVENTS), f"event {event['seq']}"),
        )

"""Two weeks of a deployment in two minutes, alone on this machine: a release, probes, an outage, traffic, an
experiment that a better prompt wins, and users who begin to ask for something else.

    python suites/production_demo/run.py [--days 14] [--out out/production_demo]

The days are simulated: they end today, and the clock of the audit trail goes with them. The service is fake,
and everything else is what a real one would be watched by.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from service import Deployment, answer, message, serve, share

import evalrun
from evalrun.analysis.drift import Asked
from evalrun.drift_results import DriftResults
from evalrun.gates.alarms import episodes
from evalrun.production.assignment import ExperimentSpec, load_experiment
from evalrun.production.experiment import analyse, promote_winner, read_rows
from evalrun.production.experiment_page import write_page as write_experiment
from evalrun.production.page import write_page
from evalrun.production.probe import project_of, status
from evalrun.production.turn import Due, take_turn
from evalrun.suite.overrides import Overrides
from evalrun.sweep.options import SweepOptions
from evalrun.tracking import changes, events
from evalrun.tracking.store import Store
from evalrun.tracking.targets import find_run_target
from evalrun.traffic.drift import compare

HERE = Path(__file__).parent
DAY_S, EVERY_S = 86_400.0, 7_200.0
OUTAGE = 5.25, 5.75
"""Days on which the service is down."""
EXPERIMENT, NEW_PROMPT = 3, 8
"""Days on which half of the users get the new prompt, and on which all do."""
GIFT_CARDS = 9
"""The day on which users begin to ask for something else."""
A_DAY = 400
"""Requests of users a day."""


@dataclass
class Demo:
    """The store, the service, and the day it is."""

    store: Store
    deployment: Deployment
    url: str
    begin: float

    def at(self, day: float) -> float:
        """Unix seconds of a day of the demonstration, which the audit trail shows from now on."""
        moment = self.begin + day * DAY_S
        events.utc_now = lambda: datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
        return moment

    def overrides(self, models: int, **data: Path) -> Overrides:
        """The address of the service, and data, in place of what the suites say."""
        sets = tuple(f"models.{at}.base_url={self.url}" for at in range(models))
        return Overrides(sets=sets, data=data)

    def release(self, run: str, model: str, reason: str) -> None:
        """Promote a run, note that it is deployed, and deploy it."""
        target = find_run_target(self.store, run)
        if reason:
            changes.promote(self.store, target, changes.Wish("production", reason))
        changes.deployed(self.store, target, "prod", self.url)
        self.deployment.released = model

    def turn(self, day: float) -> None:
        """One turn of the probe."""
        slot = self.at(day)
        self.deployment.turn += 1
        self.deployment.up = not OUTAGE[0] <= day < OUTAGE[1]
        options = SweepOptions(overrides=self.overrides(1), store=self.store.root)
        take_turn(HERE / "probe.yaml", options, Due(slot, EVERY_S, offset_s=slot - time.time()))

    def requests(self, days: int, spec: ExperimentSpec, out: Path) -> Path:
        """What users asked, and were answered, as the application logs it."""
        rows = []
        for number in range(days * A_DAY):
            day = number / A_DAY
            if OUTAGE[0] <= day < OUTAGE[1]:
                continue
            user = f"user-{int(share('user', number) * 1500)}"
            arm = spec.assign(user) if EXPERIMENT <= day < NEW_PROMPT else None
            model = "triage-v2" if arm == "treatment" or day >= NEW_PROMPT else "triage-v1"
            text, label = message(number, day)
            rows.append({
                "request_id": f"r{number}", "ts": self.begin + day * DAY_S, "user_key": user, "arm": arm,
                "text": text, "label": label, "output": answer(model, text),
                "took_s": 0.5 + share("took", number),
                "week": f"days {int(day) // 3 * 3 + 1} to {int(day) // 3 * 3 + 3}",
            })  # fmt: skip
        path = out / "requests.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def drift(self, rows: Path, out: Path) -> DriftResults:
        """What users ask since the gift cards came, against the day before."""
        sides = {}
        for name, first, last in (("before", NEW_PROMPT, GIFT_CARDS), ("since", GIFT_CARDS, 99)):
            lines = rows.read_text().splitlines()
            asked = [row for row in map(json.loads, lines) if first <= self._day(row["ts"]) < last]
            path = out / f"{name}.jsonl"
            path.write_text("".join(json.dumps({**row, "week": None}) + "\n" for row in asked))
            sides[name] = evalrun.run(
                HERE / "traffic.yaml", overrides=Overrides(data={"requests": path}), store=self.store.root,
                write_report=False,
            )  # fmt: skip
        return compare(self.store, sides["since"].id, sides["before"].id, Asked())

    def _day(self, moment: float) -> float:
        return (moment - self.begin) / DAY_S


def main() -> None:
    """Run the demonstration and say what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--out", type=Path, default=Path("out/production_demo"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    deployment = Deployment()
    server = serve(deployment)
    begin = time.time() // DAY_S * DAY_S - given.days * DAY_S
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    demo = Demo(Store(given.out / "store"), deployment, url, begin)
    run(demo, given.days, given.out)
    server.shutdown()


def run(demo: Demo, days: int, out: Path) -> None:
    """The days, one after another."""
    demo.at(0)
    offline = evalrun.run(
        HERE / "triage.yaml", overrides=demo.overrides(2), store=demo.store.root, write_report=False
    )
    old, new = (f"{offline.id}/{name.id}" for name in offline.runs)
    demo.release(old, "triage-v1", "the first release")
    spec = load_experiment(HERE / "experiment.yaml")
    spec = spec.model_copy(update={"arms": {"control": old, "treatment": new}})
    rows = demo.requests(days, spec, out)
    demo.at(days)
    traffic = evalrun.run(
        HERE / "traffic.yaml", overrides=Overrides(data={"requests": rows}), store=demo.store.root,
        report=out / "traffic.html",
    )  # fmt: skip
    analysis = analyse(spec, read_rows(demo.store, traffic.id)) if days > NEW_PROMPT else None
    for number in range(int(days * DAY_S / EVERY_S)):
        day = number * EVERY_S / DAY_S
        if day == NEW_PROMPT and analysis is not None:
            demo.at(day)
            promote_winner(demo.store, spec, analysis, "production")
            demo.release(new, "triage-v2", "")
        demo.turn(day)
    now = demo.at(days)
    drifted = demo.drift(rows, out) if days > GIFT_CARDS + 1 else None
    project, rules = project_of(HERE / "probe.yaml", demo.overrides(1))
    summary = status(demo.store, project, rules, now=now, since=demo.begin)
    write_page(demo.store, project, summary, out / "production.html", since=demo.begin)
    probe = summary.runs[0]
    click.echo(f"probe: {probe.availability.value:.2%} answered, {len(probe.outages)} outage(s)")
    click.echo(f"page: {out}/production.html")
    for each in episodes(demo.store, project):
        click.echo(f"alert: {each.name}, {each.state}: {each.why}")
    if analysis is not None:
        write_experiment(analysis, out / "experiment.html")
        click.echo(f"experiment: {analysis.verdict} ({analysis.winner}): {analysis.reason()}")
    for sentence in drifted.sentences if drifted is not None else ():
        click.echo(f"drift: {sentence}")
    click.echo(f"traffic by days: see {out}/traffic.html")
    click.echo(f"next: evalrun whatis production --store {demo.store.root}")


if __name__ == "__main__":
    main()

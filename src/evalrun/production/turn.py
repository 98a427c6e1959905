"""One turn of a probe: the suite is asked once more, and its samples are added to the day's sweep.

The sweep of a day is an ordinary one whose rows are repeated, a repeat (or as many as the suite has) a turn.
So it is scored, concluded, gated and reported like any other. The lines of all its turns are kept in
`turns.jsonl` beside each run's samples, under a second name for the run's journal: a turn appends to it, and
whatever is killed is lost with its own turn only.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import write_private
from evalrun.canonical import digest
from evalrun.errors import Problem, UserError
from evalrun.gates.alarms import Alarm, tell
from evalrun.production import records
from evalrun.production.conditions import DAYS, LEVEL, over_turns
from evalrun.production.records import Turn
from evalrun.production.schedule import missed_between
from evalrun.production.slo import Rules, burn_alarms
from evalrun.production.wire import Wire, look
from evalrun.reports.progress import make_progress
from evalrun.runner.journal import Earlier, encode_record, read_journal
from evalrun.scoring.derived import Derived
from evalrun.spans import span_s
from evalrun.suite.load import LoadedSuite, load_suite
from evalrun.suite.probe import ProbeSpec
from evalrun.sweep.endpoints import run_jobs
from evalrun.sweep.main import Outcome, run_sweep
from evalrun.sweep.matrix_job import MatrixJob
from evalrun.sweep.options import SweepOptions
from evalrun.sweep.phase import Phase
from evalrun.tracking.store import Store
from evalrun.types import SampleRecord, Status

if TYPE_CHECKING:
    from evalrun.analysis.run import RunAnalysis
    from evalrun.gates.conditions import GateResult
    from evalrun.providers.base import Provider
    from evalrun.runner.limits import Throttle
    from evalrun.runner.watch import LoadOnce
    from evalrun.suite.plan import RunSpec
    from evalrun.tracking.folder import SweepFolder

KEPT = "turns.jsonl"
"""All lines of a run's turns."""
ABSENT = "not there"
"""The kind of error of requests that could not be sent, since nothing took a connection."""


@dataclass(frozen=True, slots=True)
class Due:
    """Which turn is taken: its slot, how long a period is, and how late the clock of the machine is."""

    slot: float
    every_s: float
    why_missed: str = "nobody probed"
    offset_s: float = 0.0
    """Added to the clock: for days that are simulated."""

    def now(self) -> float:
        """The time, in Unix seconds."""
        return time.time() + self.offset_s


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn that was taken: its records, the day's sweep as it stands, and the alarms that are open."""

    turns: tuple[Turn, ...]
    outcome: Outcome
    alarms: tuple[Alarm, ...] = ()
    warnings: tuple[str, ...] = ()


def take_turn(suite: Path, options: SweepOptions, due: Due) -> Taken:
    """Ask the suite once, and record what came of it.

    Raises UserError where the suite is invalid or is none for a probe (exit 2), or where another turn of it
    is at work (exit 3).
    """
    loaded = load_suite(suite, options.overrides)
    rules = check(loaded)
    store = Store(options.store)
    project, day = loaded.suite.project, records.day_of(due.slot)
    earlier = records.history(store, project, due.slot - 2 * records.DAY_S)
    folder = _day(store, loaded, day)
    with_turns = records.read([folder])
    first = with_turns.begun[0][1] if with_turns.begun else due.slot
    number = max((turn for turn, _ in with_turns.begun), default=0) + 1
    if missed := missed_between(earlier.newest, due.slot, due.every_s, due.why_missed):
        records.append_missed(folder, missed)
    begun = due.now()
    records.append(folder, "begin", {"turn": number, "slot": due.slot, "begun": begun})
    asked = loaded.suite.repeats
    conduct = _Turn(loaded, number, asked, begun - first)
    outcome = run_sweep(
        _once_more(loaded, number * asked), _quietly(options, folder), make_progress(quiet=True), conduct
    )
    turns = conduct.turns(folder, rules, Due(due.slot, due.every_s), (begun, due.now()))
    for turn in turns:
        records.append_turn(folder, turn)
    alarms, warnings = _alarms(store, loaded, folder, rules, due)
    return Taken(turns, outcome, alarms, warnings)


def check(loaded: LoadedSuite) -> ProbeSpec:
    """What the suite says of its probe. Raises UserError for what cannot be probed."""
    suite, problems = loaded.suite, []
    wrong = {
        "load": suite.load, "tasks": suite.tasks, "search": suite.search, "stop_early": suite.stop_early,
        "judges": suite.judges,
    }  # fmt: skip
    for key, value in wrong.items():
        if value:
            remedy = "A probe is small and asks every row once a turn: leave it out."
            problems.append(Problem(f"a probe has no {key}", loaded.locate(key), remedy))
    if problems:
        raise UserError(problems)
    return suite.probe or ProbeSpec()


def _once_more(loaded: LoadedSuite, repeats: int) -> LoadedSuite:
    """The suite as a turn asks it: no request is tried again, since what failed is what is looked for; all
    may fail; alerts are decided over turns."""
    suite = loaded.suite
    performance = suite.performance.model_copy(
        update={"retries": 0, "warmup": 0, "concurrency": suite.performance.concurrency or 1}
    )
    changes = {
        "repeats": repeats,
        "performance": performance,
        "alerts": None,
        "probe": suite.probe or ProbeSpec(),
        "errors": suite.errors.model_copy(update={"tolerate": 1.0}),
        "tags": {"kind": "probe", **suite.tags},
    }
    return replace(loaded, suite=suite.model_copy(update=changes))


def _quietly(options: SweepOptions, folder: SweepFolder) -> SweepOptions:
    return replace(options, into=folder.path, fresh=True, use_cache=False, write_report=False)


def _day(store: Store, loaded: LoadedSuite, day: str) -> SweepFolder:
    """The sweep of the day, begun where there is none: another text of the suite begins another."""
    project, text = loaded.suite.project, digest([loaded.text, loaded.suite.resolved()])
    for mark, folder in records.days(store, project, day):
        if mark["day"] == day and mark["suite"] == text:
            return folder
    folder = store.create_sweep(loaded.suite.name)
    env = loaded.suite.probe.env if loaded.suite.probe else ""
    records.write_mark(folder, project, text, day, env)
    return folder


@dataclass(slots=True)
class _Turn:
    """Asks one turn of every run: the `Conduct` of its sweep."""

    loaded: LoadedSuite
    number: int
    asked: int
    """How often a turn asks each row."""
    since_s: float
    """Seconds from the day's first turn to this one."""
    wires: dict[str, Wire] = field(default_factory=dict)
    specs: list[RunSpec] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    deployment: dict[str, Any] = field(default_factory=dict)

    @property
    def repeats(self) -> range:
        """The repeats of this turn."""
        return range((self.number - 1) * self.asked, self.number * self.asked)

    async def ask(self, phase: Phase, jobs: Sequence[MatrixJob]) -> None:
        """Ask the runs; note the failures of those whose server took no connection."""
        jobs = [replace(job, earlier=self._earlier(job)) for job in jobs]
        for job in jobs:
            self.specs.append(job.spec)
            self.rows[job.name] = len(job.prepared.dataset(job.spec))
            self.wires[job.name] = await look(phase.providers[job.model.id].endpoint)
        turns = [_TurnJob(job) for job in jobs]
        await run_jobs(phase, turns)
        for turn in turns:
            if not turn.begun:
                self._not_there(turn.job, _why(phase, turn.job))

    def _earlier(self, job: MatrixJob) -> Earlier:
        samples = [item.sample_id for item in job.prepared.dataset(job.spec)]
        done = {(sample, repeat) for sample in samples for repeat in range(self.repeats.start)}
        return Earlier(done, self.since_s)

    def _not_there(self, job: MatrixJob, why: str) -> None:
        """The lines of requests that had nowhere to go. The next turn that is answered concludes them."""
        unasked = [
            SampleRecord(
                item.sample_id, repeat, item.position, item.row, item.target, Status.FAILED,
                error=f"connection: {why}", attempts=1, sensitive=item.sensitive, cluster=item.cluster,
            )
            for repeat in self.repeats
            for item in job.prepared.dataset(job.spec)
        ]  # fmt: skip
        redact = job.prepared.redact_record
        lines = [encode_record(record if redact is None else redact(record)) for record in unasked]
        path = _journal(job.folder.run_dir(job.name))
        with path.open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def enter(self, spec: RunSpec, analysis: RunAnalysis) -> RunAnalysis:
        """As they are."""
        return analysis

    def gates(self, results: Sequence[GateResult]) -> list[GateResult]:
        """As they are."""
        return list(results)

    def document(self) -> Mapping[str, Any]:
        """What the manifest says of the kind of sweep."""
        probe = self.loaded.suite.probe
        return {"kind": "probe", "deployment": {"env": probe.env if probe else ""}, "turns": self.number}

    def turns(
        self, folder: SweepFolder, rules: ProbeSpec, due: Due, times: tuple[float, float]
    ) -> tuple[Turn, ...]:
        """The records of this turn, a run each."""
        good = Derived("good", rules.slo.good) if rules.slo else None
        return tuple(self._turn(folder, spec, due, times, good, rules.control) for spec in self.specs)

    def _turn(
        self, folder: SweepFolder, spec: RunSpec, due: Due, times: tuple[float, float],
        good: Derived | None, control: str | None,
    ) -> Turn:  # fmt: skip
        lines = [
            line
            for line in read_journal(folder.run_dir(spec.run_id) / KEPT)
            if line.get("repeat", 0) in self.repeats
        ]
        requests = self.rows[spec.run_id] * self.asked
        answered = [line for line in lines if line.get("status") != Status.FAILED]
        failed = Counter(_kind(line) for line in lines if line.get("status") == Status.FAILED)
        if requests > len(lines):
            failed["not asked"] += requests - len(lines)
        wire, scorer = self.wires[spec.run_id], self._scorer(answered)
        state = state_of(requests, len(answered))
        if state != "up" and control is not None and not wire.reaches(control):
            state = "unknown"
        return Turn(
            run=spec.run_id, turn=self.number, slot=due.slot, begun=times[0], ended=times[1], state=state,
            requests=requests, ok=len(answered),
            good=sum(is_good(line, scorer, good) for line in answered),
            e2e_s=_numbers(line.get("e2e_s") for line in answered),
            ttft_s=_numbers(line.get("ttft_s") for line in answered),
            scores=_numbers((line.get("scores") or {}).get(scorer) for line in answered),
            scorer=scorer, errors=dict(failed), tls_days=wire.tls_days, address=wire.address,
            every_s=due.every_s, sweep=folder.ulid,
        )  # fmt: skip

    def _scorer(self, answered: Sequence[Mapping[str, Any]]) -> str:
        """The column of scores of the suite's first scorer."""
        named = next((scorer.id for scorer in self.loaded.suite.scorers), "")
        columns = [name for line in answered for name in line.get("scores") or ()]
        return next((name for name in columns if name.split(".")[0] == named), named)


@dataclass(slots=True)
class _TurnJob:
    """One run's turn: a job of the matrix whose journal goes on."""

    job: MatrixJob
    begun: bool = False

    @property
    def name(self) -> str:
        """The run's id."""
        return self.job.name

    @property
    def model(self) -> Any:
        """The model that is asked."""
        return self.job.model

    async def run(self, phase: Phase, provider: Provider, throttle: Throttle, load: LoadOnce) -> None:
        """Ask the turn. A server that calls itself otherwise since is no reason to begin anew: the day's
        sweep tells of the change."""
        self.begun = True
        path = self.job.folder.run_dir(self.job.name)
        write_private(path / "identity.json", digest(provider.identity()).encode(), durable=False)
        _journal(path)
        await self.job.run(phase, provider, throttle, load, again=True)


def _journal(path: Path) -> Path:
    """The journal of a run's folder, which has all its turns, under both of its names."""
    kept, journal = path / KEPT, path / "journal.jsonl"
    if not kept.exists():
        write_private(kept, b"") if not journal.exists() else os.link(journal, kept)
    if not journal.exists():
        os.link(kept, journal)
    return journal


def _why(phase: Phase, job: MatrixJob) -> str:
    where = f"model {job.model.id}"
    told = [p.what for fault in phase.execution.faults for p in fault.problems if p.where == where]
    return told[0] if told else "the model could not be asked"


def state_of(requests: int, ok: int) -> records.State:
    """`up` where all were answered, `down` where more than half were not."""
    if ok == requests:
        return "up"
    return "down" if 2 * ok < requests else "degraded"


def is_good(line: Mapping[str, Any], scorer: str, good: Derived | None) -> bool:
    """Whether an answered request is one that the SLO wants; what has no value is not good."""
    if good is None:
        return True
    scores = line.get("scores") or {}
    values = {**scores, "ok": 1.0, "score": scores.get(scorer), "e2e_s": line.get("e2e_s")}
    return bool(good.derive({**values, "ttft_s": line.get("ttft_s")})[0])


def _kind(line: Mapping[str, Any]) -> str:
    """The kind of a failure: what stands before the message, and the status where it says more."""
    return str(line.get("error") or "unknown").partition(":")[0]


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values if value is not None)


def _alarms(
    store: Store, loaded: LoadedSuite, folder: SweepFolder, rules: ProbeSpec, due: Due
) -> tuple[tuple[Alarm, ...], tuple[str, ...]]:
    """What is to be alarmed about after this turn, told once an episode."""
    suite, now = loaded.suite, due.slot
    window = span_s(rules.slo.window) if rules.slo else None
    seen = records.history(store, suite.project, now - max(window or 0.0, records.DAY_S))
    alarms = burn_alarms(seen, Rules.of(rules), now)
    if suite.alerts is not None:
        alarms += _conditions(suite.alerts.when, store, folder, seen)
    return tell(store, suite.project, alarms, suite.alerts, now)


def _conditions(
    texts: Sequence[str], store: Store, folder: SweepFolder, seen: records.History
) -> list[Alarm]:
    """The suite's own conditions: thresholds over the day's turns, or on its sweep as it stands. Changes
    against days before are looked at once, at the first turn after a day, on that day."""
    from evalrun.gates.alerts import check_alerts, parse_alert

    parsed = [alert for text in texts if not isinstance(alert := parse_alert(text), Problem)]
    today = [turn for turn in seen.turns if turn.sweep == folder.ulid]
    alarms, left = [], []
    for alert in parsed:
        for run in dict.fromkeys(turn.run for turn in today) if alert.kind == "threshold" else ():
            alarm = over_turns(alert, [turn for turn in today if turn.run == run])
            alarms += [alarm] if alarm is not None else []
            left += [alert] if alarm is None and alert not in left else []
    checks = [(left, folder)]
    before = [turn.sweep for turn in seen.turns if turn.sweep != folder.ulid]
    if before and len({turn.turn for turn in today}) == 1:
        checks.append(([alert for alert in parsed if alert.kind != "threshold"], store.resolve(before[-1])))
    for alerts, of in checks:
        planned = of.read_manifest()["plan"] if alerts else []
        results = check_alerts(alerts, of, planned, store, 2 * LEVEL / DAYS) if alerts else []
        alarms += [Alarm(each.alert, each.run, each.fired, each.reason) for each in results if each.checked]
    return alarms

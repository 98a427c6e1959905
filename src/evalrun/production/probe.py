"""The room's door for probes: keep turns, take one, tell how it stands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import ExitCode
from evalrun.production.schedule import Clock, keep_turns

if TYPE_CHECKING:
    from evalrun.production.summary import Summary
    from evalrun.production.turn import Taken
    from evalrun.suite.overrides import Overrides
    from evalrun.tracking.changes import Placed
    from evalrun.tracking.store import Store

HOUR_S = 3600.0
LONGEST_TURN_S = 6 * HOUR_S
"""A turn that takes longer is ended: a prober must not hang for good."""


@dataclass(slots=True)
class Keeper:
    """Takes each turn in a process of its own, so that this one stays small between them.

    `words` are the arguments of `evalrun probe --once`; `code` is the exit code of the newest turn.
    """

    words: Sequence[str]
    every_s: float
    clock: Clock = field(default_factory=Clock)
    code: int = 0
    _ended: float | None = None
    _steady: float = 0.0
    _slot: float | None = None

    def run(self, lasts_s: float) -> int:
        """Take turns for so many seconds. Returns the exit code of the last one."""
        keep_turns(self._take, self.every_s, lasts_s=lasts_s, clock=self.clock)
        return self.code

    def _take(self, slot: float) -> bool:
        """Take the turn. A suite that is wrong from the start (exit 2) ends it all."""
        first = self._slot is None
        command = [sys.executable, "-m", "evalrun", "probe", *self.words, "--once"]
        command += ["--slot", repr(slot), "--missed", self._why(slot)]
        try:
            self.code = subprocess.run(command, check=False, timeout=LONGEST_TURN_S).returncode
        except subprocess.TimeoutExpired:
            self.code = int(ExitCode.INCOMPLETE)
        self._slot, self._ended, self._steady = slot, self.clock.now(), self.clock.steady()
        return not (first and self.code == ExitCode.USAGE)

    def _why(self, slot: float) -> str:
        """Why the slots before this one were missed, should any have been."""
        if self._ended is None or self._slot is None:
            return "nobody probed"
        jumped = (self.clock.now() - self._ended) - (self.clock.steady() - self._steady)
        if abs(jumped) > self.every_s / 2:
            return f"the clock jumped by {jumped:+,.0f} s"
        return f"the turn before took {self._ended - self._slot:,.0f} s"


def project_of(suite: Path, overrides: Overrides | None = None) -> tuple[str, Any]:
    """The project of a suite, and what it says of its probe. Raises UserError where it is invalid."""
    from evalrun.production.turn import check
    from evalrun.suite.load import load_suite

    loaded = load_suite(suite, overrides)
    return loaded.suite.project, check(loaded)


def status(store: Store, project: str, rules: Any, *, now: float, since: float = 0.0) -> Summary:
    """How a project's probe stands at a moment, by what is recorded from `since` on; with the alerts that
    were open since then."""
    from evalrun.gates.alarms import episodes
    from evalrun.production.records import history
    from evalrun.production.slo import Rules
    from evalrun.production.summary import summarise

    kept = Rules.of(rules)
    seen = history(store, project, since)
    told = [each for each in episodes(store, project) if each.closed is None or each.closed >= since]
    return summarise(project, seen, kept, now, since=since, alerts=told)


def turn_document(taken: Taken, summary: Summary) -> dict[str, Any]:
    """What `evalrun probe --once --json` prints. On top stand the availability (of the first run, over the
    span that is told of), and of this turn the median times and the mean score; `runs` has all of it."""
    document = summary.document()
    turns = taken.turns
    first = summary.runs[0] if summary.runs else None
    return {
        "status": worst(turn.state for turn in turns),
        "ok": all(turn.state == "up" and turn.good == turn.requests for turn in turns),
        "availability": first.availability.value if first else None,
        "ttft_s": _median([value for turn in turns for value in turn.ttft_s]),
        "e2e_s": _median([value for turn in turns for value in turn.e2e_s]),
        "score": _mean([value for turn in turns for value in turn.scores]),
        "outages": document["runs"][0]["outages"] if first else [],
        "tls_days_left": first.tls_days if first else None,
        "sweep": taken.outcome.folder.ulid,
        "turn": taken.turns[0].turn if taken.turns else None,
        "turns": [asdict(turn) for turn in turns],
        **{key: document[key] for key in ("missed", "ended", "alerts", "runs")},
        "gates": taken.outcome.manifest["gates"],
        "warnings": list(taken.warnings),
    }


def _median(values: Sequence[float]) -> float | None:
    from statistics import median

    return median(values) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def worst(states: Any) -> str:
    """The worst of states."""
    order = ("down", "degraded", "unknown", "up")
    return min(states, key=order.index, default="unknown")


def code_of_turn(taken: Taken) -> ExitCode:
    """0 where it is up, its gates hold and no alert is open; 1 where not; 3 where nothing is known."""
    state = worst(turn.state for turn in taken.turns)
    if state == "unknown":
        return ExitCode.INCOMPLETE
    failed = any(gate["verdict"] == "fail" for gate in taken.outcome.manifest["gates"])
    bad = state != "up" or failed or any(alarm.on for alarm in taken.alarms)
    return ExitCode.GATE_FAILED if bad else ExitCode.OK


def releases(store: Store, project: str, since: float = 0.0) -> list[tuple[float, Placed]]:
    """Promotions and deployments of a project, by their time in Unix seconds, from `since` on."""
    from datetime import datetime

    from evalrun.tracking.changes import placed

    timed = [(datetime.fromisoformat(each.ts).timestamp(), each) for each in placed(store, project)]
    return [pair for pair in timed if pair[0] >= since]

"""`evalrun watch SUITE`: a sweep that is kept open while a training writes checkpoints.

It looks for new ones, evaluates what is whole, and writes the one report anew; runs are added to the same
sweep. A mark in its folder says whose it is: after a kill the same command goes on with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.analysis.measures import KeptTables, keeping_tables
from evalrun.atomic import write_private
from evalrun.canonical import digest
from evalrun.checkpoints import Checkpoint, find_checkpoints, trainer_state
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.suite.checkpoints import (
    Awaiting,
    CheckpointSpec,
    CheckpointsSpec,
    NothingYetError,
    WatchSpec,
)
from evalrun.suite.load import LoadedSuite, load_suite
from evalrun.sweep.main import Outcome, run_sweep
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.reports.progress import Progress
    from evalrun.sweep.options import SweepOptions
    from evalrun.tracking.folder import SweepFolder

MARK = "watching"
"""The file in a sweep's folder that says that it is kept open, and for which suite."""
MOST_TRIES = 3
"""So often a checkpoint is tried that cannot be evaluated."""
_ENDED = ("finished", "diverged", "failed", "interrupted")

State = dict[str, tuple[Checkpoint, ...]]


def watch_training(
    suite: Path,
    options: SweepOptions,
    display: Progress,
    *,
    rule: Mapping[str, Any] | None = None,
    once: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome | None:
    """Evaluate checkpoints as they become whole, until the rule of the suite says to stop. `rule` replaces
    parts of what the suite says under `checkpoints: {watch: …}`; `once`: one look only.

    The outcome is that of the last round, or as the sweep lies on disk where nothing was new; None where
    there never was a checkpoint. Ctrl-C ends it, with exit code 130 in the outcome. Raises UserError where
    the suite is invalid or has no checkpoints.
    """
    watcher = _Watcher(suite, options, display, rule or {})
    try:
        watcher.run(once=once, sleep=sleep)
    except KeyboardInterrupt:
        display.message("Stopped. The same command goes on with the sweep.")
        outcome = watcher.outcome or watcher.stored()
        if outcome is None:
            raise
        return replace(outcome, exit_code=ExitCode.INTERRUPTED)
    return watcher.outcome or watcher.stored()


class _Watcher:
    def __init__(
        self, suite: Path, options: SweepOptions, display: Progress, rule: Mapping[str, Any]
    ) -> None:
        self._path, self._options, self._display = suite, options, display
        self._store = Store(options.store)
        loaded = self._load(Awaiting())
        self._specs = _specs(suite, options, loaded)
        own = loaded.suite.checkpoints if loaded is not None else None
        self.rule = _rule({**(own.watch.model_dump() if own is not None else {}), **rule})
        self._key = digest([suite.read_text("utf-8"), asdict(options.overrides)])
        self.folder = self._kept_open()
        self.outcome: Outcome | None = None
        self._tries: dict[str, int] = {}
        self._tables: KeptTables = {}
        self._seen: tuple[State, bool] | None = None

    def run(self, *, once: bool, sleep: Callable[[float], None]) -> None:
        """Look, evaluate, wait, until it is to stop."""
        last_new = time.monotonic()
        self._display.message(f"watching {', '.join(spec.path for spec in self._specs.values())}")
        while True:
            state = self._look()
            finished = self._finished(state)
            if (state, finished) != self._seen and self._round(finished):
                last_new = time.monotonic()
            if self.outcome is not None and self.outcome.exit_code is ExitCode.INTERRUPTED:
                return
            self._seen = state, finished
            idle_s = time.monotonic() - last_new
            if why := self._stop(idle_s, finished):
                self._end(why)
                return
            if once:
                return
            sleep(self.rule.every_s)

    def stored(self) -> Outcome | None:
        """The sweep as it lies on disk, where there is one."""
        if self.folder is None or not self.folder.has_manifest():
            return None
        manifest = self.folder.read_manifest()
        code = ExitCode(manifest["exit_code"] if manifest["exit_code"] is not None else ExitCode.INCOMPLETE)
        return Outcome(self.folder, manifest, self.folder.runs(), None, code)

    def _look(self) -> State:
        """What lies in the folders now. Cheap: only what changed is read again."""
        found: State = {}
        for model, spec in self._specs.items():
            folder = self._path.parent / Path(spec.path).expanduser()
            if folder.is_dir():
                known = find_checkpoints(folder, spec.pattern, settled_s=spec.settled_s)
                found[model] = tuple(replace(one, lacks="..." if one.lacks else "") for one in known)
        return found

    def _finished(self, state: State) -> bool:
        """Whether every training has ended: by its own word in the store, or the steps that it was to do."""
        return all(
            self._ended_in_store(spec.training) or _all_steps(state.get(model, ()))
            for model, spec in self._specs.items()
        )

    def _ended_in_store(self, name: str) -> bool:
        if not name:
            return False
        from evalrun.tracking.trainings import resolve_training

        with contextlib.suppress(UserError, OSError):
            return resolve_training(self._store, name).status() in _ENDED
        return False

    def _round(self, finished: bool) -> bool:
        """Evaluate what is new. False where nothing is."""
        loaded = self._load(Awaiting(finished, self._kept()))
        loaded = self._without_hopeless(loaded) if loaded is not None else None
        if loaded is None or not self._new(loaded):
            return False
        if self.folder is None:
            self.folder = self._store.create_sweep(loaded.suite.name)
            write_private(self.folder.path / MARK, self._key.encode())
        options = replace(self._options, into=self.folder.path, fresh=True)
        with keeping_tables(self._tables):
            self.outcome = run_sweep(loaded, options, self._display)
        done = set(self.folder.run_ids())
        planned = [(run.model, run.run) for run in self.folder.manifest().plan]
        for model in {model for model, run in planned if run not in done}:
            self._tries[model] = self._tries.get(model, 0) + 1
        return True

    def _load(self, awaiting: Awaiting) -> LoadedSuite | None:
        try:
            return load_suite(self._path, self._options.overrides, awaiting=awaiting)
        except NothingYetError:
            return None

    def _without_hopeless(self, loaded: LoadedSuite) -> LoadedSuite | None:
        """The suite without the checkpoints that could not be evaluated time and again."""
        models = [model for model in loaded.suite.models if self._tries.get(model.id, 0) < MOST_TRIES]
        if len(models) == len(loaded.suite.models):
            return loaded
        if not models:
            return None
        return replace(loaded, suite=loaded.suite.model_copy(update={"models": models}))

    def _new(self, loaded: LoadedSuite) -> bool:
        """Whether any model of the suite is not evaluated."""
        if self.folder is None or not self.folder.has_manifest():
            return True
        done = set(self.folder.run_ids())
        known = {run.model for run in self.folder.manifest().plan}
        waiting = {run.model for run in self.folder.manifest().plan if run.run not in done}
        return any(model.id not in known or model.id in waiting for model in loaded.suite.models)

    def _kept(self) -> tuple[CheckpointSpec, ...]:
        """The checkpoints of the sweep so far: their runs stay, though a trainer deletes what it saved."""
        if self.folder is None or not self.folder.has_manifest():
            return ()
        fields = CheckpointSpec.model_fields
        entries = [entry for entry in self.folder.read_manifest()["plan"] if entry.get("checkpoint")]
        done = set(self.folder.run_ids())
        return tuple(
            CheckpointSpec(**{key: value for key, value in entry["checkpoint"].items() if key in fields})
            for entry in entries
            if entry["run"] in done
        )

    def _kept_open(self) -> SweepFolder | None:
        """The sweep of this suite that is kept open, from before a kill or Ctrl-C."""
        if self._options.fresh:
            return None
        for folder in self._store.folders():
            with contextlib.suppress(OSError):
                if (folder.path / MARK).read_text() == self._key:
                    if folder.is_locked():
                        raise UserError(
                            "another evalrun is watching this suite",
                            where=str(folder.path),
                            remedy="End it, or begin a sweep of its own with --fresh.",
                            exit_code=ExitCode.INCOMPLETE,
                        )
                    self._display.message(f"the sweep {folder.ulid} is taken up again")
                    return folder
        return None

    def _stop(self, idle_s: float, finished: bool) -> str:
        """Why it ends now; "" where it does not."""
        if finished and self.rule.with_training:
            return "the training finished"
        if self.rule.idle_s is not None and idle_s >= self.rule.idle_s:
            return f"no new checkpoint for {idle_s:,.0f} s"
        return ""

    def _end(self, why: str) -> None:
        self._display.message(f"watching ends: {why}")
        if self.folder is not None:
            (self.folder.path / MARK).unlink(missing_ok=True)


def _rule(values: Mapping[str, Any]) -> WatchSpec:
    from pydantic import ValidationError

    from evalrun.suite.findings import from_pydantic

    try:
        return WatchSpec(**values)
    except ValidationError as error:
        problems = [
            Problem(item.what, ".".join(map(str, item.path)), item.remedy)
            for item in from_pydantic(error.errors(), dict(values), WatchSpec)
        ]
        raise UserError(problems) from None


def _specs(suite: Path, options: SweepOptions, loaded: LoadedSuite | None) -> dict[str, CheckpointsSpec]:
    """The checkpoints of each model of the suite, as it is written."""
    from evalrun.suite.load import written_checkpoints

    found = written_checkpoints(suite, options.overrides)
    if not found:
        raise UserError(
            "no model of the suite has checkpoints",
            where=str(suite),
            remedy="Write checkpoints: {path: out/} in a model's entry (docs/checkpoints.md).",
        )
    return found


def _all_steps(checkpoints: tuple[Checkpoint, ...]) -> bool:
    """Whether the last checkpoint says that all steps are done."""
    state = trainer_state(checkpoints[-1].path) if checkpoints else None
    if not state or not checkpoints[-1].complete:
        return False
    step, most = state.get("global_step"), state.get("max_steps")
    return isinstance(step, int) and isinstance(most, int) and 0 < most <= step

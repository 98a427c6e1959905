"""`evalrun.track`: a training as it runs, into a folder of the store.

    with evalrun.track("triage-lora", config={"lr": 2e-4}) as run:
        run.log({"loss": 1.2, "grad_norm": 0.7}, step=10)
        run.checkpoint("out/checkpoint-10", step=10)

Nothing here raises into a training once it began: the first error is told by `logging`, and what could not be
written is counted. Only the process of rank 0 writes.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from evalrun.training.alerts import AlertWatch, TrainingAlert, read_rules

if TYPE_CHECKING:
    from evalrun.runner.monitor import Monitor, SystemSample
    from evalrun.tracking.trainings import CheckpointRow, TrainingFolder
    from evalrun.training.journal import JournalWriter, Line

_log = logging.getLogger("evalrun.track")
_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
SYSTEM_INTERVAL_S = 1.0
BEGIN_S = 30.0
"""A store that hangs (a network disk) keeps a training from beginning no longer than this."""
MAX_STEP = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """How a training is tracked. `alerts` are rules (all by default; none: an empty list turns them off),
    `webhook` where they are posted to, `on_alert` what is called with each; `system` says whether the machine
    is watched; `per_rank` lets each rank of a distributed training keep a training of its own; `resume` goes
    on with the newest training of the name that was not finished."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    project: str = ""
    store: str | Path | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    planned_steps: int | None = None
    alerts: Sequence[str] | None = None
    webhook: str | None = None
    private_network: bool = False
    on_alert: Callable[[TrainingAlert], None] | None = None
    system: bool = True
    per_rank: bool = False
    resume: bool = True
    framework: str = "evalrun"


class Tracked:
    """A training that is tracked. What is public here never raises, except that a `with` block passes on what
    was raised in it."""

    def __init__(self, options: TrackOptions) -> None:
        self._options = options
        self._pid = os.getpid()
        self._step = -1
        self._steps: dict[Any, int] = {}  # the last one of each metric
        self._told = self._ended = False
        self._folder: TrainingFolder | None = None
        self._journal: JournalWriter | None = None
        self._monitor: Monitor | None = None
        self._lock = contextlib.ExitStack()
        self._checkpoints: dict[int, CheckpointRow] = {}
        self._config: dict[str, Any] = dict(options.config)
        self._alerts: list[TrainingAlert] = []
        self._system_at = -1e9
        self._idle_from = time.time()
        rules = {} if options.alerts is not None and not options.alerts else read_rules(options.alerts or ())
        self._watch = AlertWatch(rules, options.planned_steps)
        rank = _rank()
        if rank and not options.per_rank:
            self._ended = True  # another process writes
            return
        from evalrun.tracking.trainings import fit_name

        name = fit_name(str(options.name))
        self._name = f"{name}-rank{rank}" if options.per_rank and rank else name
        beginning = threading.Thread(target=self._begin_or_tell, name="evalrun-track-begin", daemon=True)
        beginning.start()
        beginning.join(BEGIN_S)
        if beginning.is_alive():  # it may come to an end yet, and then tracks nothing
            self._ended = True
            self._failed(OSError(f"the store did not answer within {BEGIN_S:g} s"))

    # What a training calls

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at a step (optimizer steps done). The same step again adds to it, none is the one after
        the last. A step lower than that of the same metric before says that the training was taken up again
        from there; metrics that count otherwise (by epoch) may go side by side."""
        try:
            at = self._step + 1 if step is None else int(step)
            journal = self._journal
            if self._ended or journal is None or not 0 <= at <= MAX_STEP:
                return
            now = time.time()
            steps, falls, kept = self._steps, False, {}
            for name, value in values.items():
                kind = type(value)
                # A tensor may change before it is written.
                kept[name] = value if kind is float or kind is int else _number(value)
                falls = falls or at < steps.get(name, -1)
                steps[name] = at
            if falls:
                journal.append((at, now, {"from": at}))
                self._steps = dict.fromkeys(kept, at)
            if falls or at > self._step:
                self._step = at
            journal.append((at, now, kept))
        except Exception as error:
            self._failed(error)

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, walltime: Any = None
    ) -> None:
        """One number, as TensorBoard's SummaryWriter takes it."""
        self.log({tag: scalar_value}, global_step if global_step is not None else max(self._step, 0))

    def checkpoint(self, path: str | Path, step: int | None = None) -> None:
        """Note that a checkpoint was written. Its digest is computed when the training ends."""
        try:
            if self._ended or self._folder is None or os.getpid() != self._pid:
                return
            from evalrun.tracking.trainings import CheckpointRow

            place = Path(path).absolute()
            at = max(self._step, 0) if step is None else int(step)
            kind = "adapter" if (place / "adapter_config.json").exists() else "model"
            self._checkpoints[at] = CheckpointRow(at, str(place), kind=kind)
            rows = list(self._checkpoints.values())

            def keep(folder: TrainingFolder) -> None:
                folder.append_event("checkpoint", {"step": at, "path": str(place)})
                folder.write_checkpoints(rows)

            self._later(keep)
        except Exception as error:
            self._failed(error)

    def config(self, values: Mapping[str, Any]) -> None:
        """Add hyperparameters."""
        try:
            if self._ended or self._folder is None:
                return
            from evalrun.tracking.plain import plain

            self._config |= plain(dict(values))
            known = dict(self._config)
            self._later(lambda folder: folder.update(hyperparameters=known))
        except Exception as error:
            self._failed(error)

    def plan(self, steps: int) -> None:
        """Say how many steps the training will have."""
        with contextlib.suppress(Exception):
            planned = self._watch.planned_steps = int(steps)
            self._later(lambda folder: folder.update(planned_steps=planned))

    def _later(self, change: Callable[[TrainingFolder], object]) -> None:
        """Change the folder in the writer's thread: a disk that hangs keeps no training waiting."""
        folder, journal = self._folder, self._journal
        if folder is not None and journal is not None and not self._ended:
            journal.later(lambda: change(folder))

    @property
    def alerts(self) -> tuple[TrainingAlert, ...]:
        """What was told so far."""
        return tuple(self._alerts)

    @property
    def path(self) -> Path | None:
        """The training's folder; None where nothing is written (another rank, or it could not be made)."""
        return self._folder.path if self._folder is not None else None

    def finish(self, status: str = "finished") -> None:
        """Write what is left and end the training: `finished`, `failed` or `interrupted`. One whose last
        values are no numbers is kept as `diverged`."""
        if self._ended or os.getpid() != self._pid:
            return
        self._ended = True
        atexit.unregister(self._at_exit)
        try:
            self._end(status)
        except Exception as error:
            self._told = False  # that its end is not kept is told by itself
            self._failed(error)
        finally:
            with contextlib.suppress(Exception):
                self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        well = kind is None or (isinstance(error, SystemExit) and not error.code)
        interrupted = isinstance(error, KeyboardInterrupt)
        self.finish("finished" if well else "interrupted" if interrupted else "failed")

    # How it is done

    def _begin_or_tell(self) -> None:
        try:
            self._begin()
        except Exception as error:
            self._failed(error)

    def _begin(self) -> None:
        from evalrun.paths import default_store
        from evalrun.tracking.store import Store
        from evalrun.tracking.trainings import JOURNAL
        from evalrun.training.journal import JournalWriter, last_line, last_steps

        store = self._store = Store(Path(self._options.store or default_store()))
        folder = self._unfinished(store) if self._options.resume else None
        if folder is None:
            folder = self._made(store)
        else:
            known = folder.training()
            last = last_line(folder.path / JOURNAL)
            self._step = last[0] if last is not None else -1
            self._steps = {**last_steps(folder.path / JOURNAL)}
            self._config = {**known.hyperparameters, **self._config}
            self._checkpoints = {row.step: row for row in folder.checkpoints()}
            folder.append_event("resume", {"step": max(self._step, 0)})
            folder.update(
                status="running", finished_at=None, hyperparameters=_plain(self._config),
                resumed=(*known.resumed, max(self._step, 0)),
            )  # fmt: skip
            self._lock.enter_context(folder.lock())
        if self._ended:  # it took so long that the training went on without
            self._lock.close()
            return
        self._folder = folder
        self._journal = JournalWriter(folder.path / JOURNAL, self._failed, self._written)
        atexit.register(self._at_exit)
        if self._options.system:
            self._watch_machine()

    def _unfinished(self, store: Any) -> TrainingFolder | None:
        from evalrun.tracking.trainings import name_of, training_folders

        for folder in training_folders(store):
            with contextlib.suppress(Exception):
                if name_of(folder) == self._name:
                    return (
                        folder if folder.training().status == "running" and not folder.is_locked() else None
                    )
        return None

    def _made(self, store: Any) -> TrainingFolder:
        from evalrun.tracking.events import utc_now
        from evalrun.tracking.git_state import git_state
        from evalrun.tracking.provenance import gpus, machine
        from evalrun.tracking.trainings import TrainingManifest, create_training

        options = self._options
        folder = create_training(store, self._name)
        provenance: dict[str, Any] = {}
        for key, collect in (("git", lambda: git_state(Path.cwd())), ("machine", machine), ("gpus", gpus)):
            with contextlib.suppress(Exception):
                provenance[key] = collect()
        config = _plain(self._config)
        self._lock.enter_context(folder.lock())
        folder.write_training(
            TrainingManifest(
                training=folder.ulid,
                name=self._name,
                project=options.project or self._name,
                framework=options.framework,
                started_at=utc_now(),
                planned_steps=options.planned_steps,
                hyperparameters=config,
                data=_plain(options.data),
                provenance=_plain(provenance),
                seeds={key: config[key] for key in ("seed", "data_seed") if key in config},
                tags={str(key): str(value) for key, value in options.tags.items()},
            )
        )
        folder.append_event("start", {"name": self._name})
        return folder

    def _watch_machine(self) -> None:
        from evalrun.runner.gpus import open_gpus
        from evalrun.runner.monitor import Monitor, Watched
        from evalrun.runner.rapl import open_rapl

        with contextlib.suppress(Exception):
            gpus, no_gpus = open_gpus()
            rapl, no_rapl = open_rapl()
            # The training is our own process, and what it started.
            watched = Watched(lambda: None, gpus, no_gpus, rapl, no_rapl)
            self._monitor = Monitor(watched, self._machine)
            self._monitor.start("training")

    def _machine(self, sample: SystemSample) -> None:
        """A reading, once a second, the first and the last always."""
        if sample.t_s - self._system_at < SYSTEM_INTERVAL_S * 0.9 and not self._ended:
            return
        self._system_at = sample.t_s
        row = {"memory_bytes": sample.client_pss_bytes, "cpu_s": sample.client_cpu_s}
        row |= {
            "disk_read_bytes": sample.client_read_bytes,
            "disk_written_bytes": sample.client_written_bytes,
        }
        row |= {"cgroup_bytes": sample.cgroup_bytes, "cpu_energy_j": sample.cpu_energy_j}
        for gpu in sample.gpus:
            values = asdict(gpu)
            index = values.pop("index")
            row |= {f"gpu.{index}.{name}": value for name, value in values.items()}
        known = {f"system.{name}": value for name, value in row.items() if isinstance(value, int | float)}
        journal = self._journal
        if journal is not None:
            journal.append((max(self._step, 0), time.time(), known))

    def _written(self, lines: Sequence[Line]) -> None:
        """Called in the writer's thread with what was written, and with nothing from time to time."""
        for step, wall_s, values in lines:
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            if "from" in values or any(name.startswith("system.") for name in values):
                continue
            self._tell(self._watch.add(step, numbers, wall_s))
            self._idle_from = wall_s
        if not lines:
            self._tell(self._watch.idle(time.time()))

    def _tell(self, alerts: Iterable[TrainingAlert]) -> None:
        for alert in alerts:
            self._alerts.append(alert)
            _log.warning("%s: %s", self._name, alert)
            if self._folder is not None:
                self._folder.append_event("alert", asdict(alert))
            if self._options.on_alert is not None:
                self._options.on_alert(alert)
            if self._options.webhook is not None:
                # A slow webhook keeps nothing from being written.
                threading.Thread(target=self._post, args=(alert,), daemon=True).start()

    def _post(self, alert: TrainingAlert) -> None:
        from evalrun.webhook import escaped, post

        url = self._options.webhook or ""
        text = f"*evalrun: {escaped(self._name)}*, {escaped(str(alert))}"
        trouble = post(url, {"text": text}, private_network=self._options.private_network)
        if trouble:
            self._failed(RuntimeError(trouble))

    def _end(self, status: str) -> None:
        if self._monitor is not None:
            self._monitor.stop()
        if self._journal is not None and not self._journal.close():
            raise OSError("the disk does not answer, and the end of the training is not kept")
        if self._folder is None:
            return
        system = self._monitor.figures.figures() if self._monitor is not None else {}
        from evalrun.training.ending import end_training

        lost = self._journal.lost if self._journal is not None else 0
        end_training(self._store, self._folder, status, system, list(self._checkpoints.values()), lost)

    def _at_exit(self) -> None:
        # An exception that nobody caught is kept there by the interpreter.
        self.finish("failed" if getattr(sys, "last_value", None) is not None else "finished")

    def _failed(self, error: BaseException) -> None:
        """Tell the first error; a training goes on without its tracking."""
        with contextlib.suppress(Exception):
            if not self._told:
                self._told = True
                _log.warning("the training is not tracked in full: %s", " ".join(str(error).split())[:300])


def _number(value: Any) -> Any:
    """What a logged value is as a number, now; itself where it is none, to be left out when it is written."""
    try:
        return float(value)
    except Exception:
        return None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    from evalrun.tracking.plain import plain

    found: dict[str, Any] = plain(dict(values))
    return found


def _rank() -> int:
    """The rank of this process in a distributed training; 0 where it is alone."""
    for name in _RANKS:
        with contextlib.suppress(ValueError):
            if (text := os.environ.get(name)) is not None:
                return int(text)
    return 0


class _Track:
    """`evalrun.track`: called, it begins to track; its attributes are what other frameworks plug in."""

    def __call__(self, name: str, config: Mapping[str, Any] | None = None, **options: Any) -> Tracked:
        """Begin to track a training; see `TrackOptions` for what may be given.

        Raises TypeError for an unknown option and UserError for an unknown alert: before the training began.
        """
        return Tracked(TrackOptions(name, dict(config or {}), **options))

    @property
    def TrainerCallback(self) -> Any:
        """A callback for the Hugging Face Trainer:
        `trainer.add_callback(evalrun.track.TrainerCallback(run))`."""
        from evalrun.training.frameworks import trainer_callback

        return trainer_callback()

    @property
    def LightningLogger(self) -> Any:
        """A logger for Lightning: `Trainer(logger=evalrun.track.LightningLogger(run))`."""
        from evalrun.training.frameworks import lightning_logger

        return lightning_logger()


track = _Track()

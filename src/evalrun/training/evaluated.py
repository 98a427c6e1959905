"""Which runs of sweeps answered from a training's checkpoints, and how they scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.tables import run, run_metric, sweep
from evalrun.tracking.trainings import TrainingFolder, name_of

_LAST = ("performance.", "memory.", "cost.", "cpu.", "energy.", "fairness.", "gpu.", "disk.", "engine.")
_RATES = ("error_rate", "unparsed_rate", "refused_rate")


@dataclass(frozen=True, slots=True)
class StepValue:
    """A metric of one checkpoint, with its interval: of the newest sweep that evaluated this step by this
    prompt on this dataset."""

    step: int
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int
    sweep: str
    run: str
    verdict: str = ""
    behind: float | None = None
    behind_low: float | None = None
    behind_high: float | None = None


@dataclass(frozen=True, slots=True)
class QualityLine:
    """A metric over the steps of a training, for one prompt and dataset.

    Where one sweep has several steps, `best` is the earliest that is not shown to be worse than the one that
    looks best, bounds hold for all steps at once, values say how far they are `behind`, and `sentence` says
    it all; else bounds are those of each step by itself.
    """

    metric: str
    prompt: str
    dataset: str
    unit: str
    direction: str
    values: tuple[StepValue, ...]
    best: int | None = None
    worth: float | None = None
    sentence: str = ""

    @property
    def label(self) -> str:
        """What names the line."""
        return f"{self.prompt} · {self.dataset}"


def quality(store: Store, folder: TrainingFolder, metric: str | None = None) -> list[QualityLine]:
    """The metric (by default the first of quality, by name) over the training's steps, a line for each prompt
    and dataset; nothing where none of its checkpoints was evaluated.

    Raises UserError for a metric that none of its runs has.
    """
    names = {folder.ulid, name_of(folder), folder.training().name}
    rows = store.read(lambda connection: list(connection.execute(_query(names))))
    known = sorted({str(row.name) for row in rows})
    if metric is not None and rows and metric not in known:
        near = nearest(metric, known)
        remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(known[:20])}."
        raise UserError(f"no run of '{name_of(folder)}' has a metric '{metric}'", remedy=remedy)
    chosen = metric or _first(known)
    return list(_lines([row for row in rows if row.name == chosen], chosen))


def sweeps_of(store: Store, folder: TrainingFolder) -> list[SweepFolder]:
    """The sweeps that evaluated its checkpoints, the newest first."""
    names = {folder.ulid, name_of(folder), folder.training().name}
    query = (
        sa.select(sweep.c.folder)
        .join(run, run.c.sweep == sweep.c.ulid)
        .where(run.c.training.in_(names), run.c.step.is_not(None), sweep.c.archived == 0)
        .distinct()
        .order_by(sweep.c.folder.desc())
    )
    found = store.read(lambda connection: list(connection.scalars(query)))
    return [SweepFolder(store.sweeps / name) for name in found]


def evaluated_steps(store: Store, folder: TrainingFolder) -> dict[int, list[str]]:
    """The runs (SWEEP/RUN) that answered from each step."""
    names = {folder.ulid, name_of(folder), folder.training().name}
    query = (
        sa.select(run.c.step, run.c.run, run.c.sweep)
        .where(run.c.training.in_(names), run.c.step.is_not(None))
        .order_by(run.c.step, run.c.sweep, run.c.run)
    )
    found: dict[int, list[str]] = {}
    for row in store.read(lambda connection: list(connection.execute(query))):
        found.setdefault(row.step, []).append(f"{row.sweep}/{row.run}")
    return found


def _query(names: set[str]) -> sa.Select[tuple[object, ...]]:
    return (
        sa.select(
            run.c.step,
            run.c.run,
            run.c.prompt,
            run.c.dataset,
            run.c.sweep,
            *(
                run_metric.c[part]
                for part in ("name", "value", "ci_low", "ci_high", "n", "unit", "direction")
            ),
        )
        .join(run_metric, run_metric.c.run_id == run.c.id)
        .join(sweep, run.c.sweep == sweep.c.ulid)
        .where(run.c.training.in_(names), run.c.step.is_not(None), sweep.c.archived == 0)
        .where(run_metric.c.slice == "{}", run_metric.c.value.is_not(None))
        .order_by(run.c.step, run.c.sweep)
    )


def _first(names: Sequence[str]) -> str:
    plain = [name for name in names if not name.startswith(_LAST) and name not in _RATES]
    return (plain or [*names] or [""])[0]


def _lines(rows: Sequence[sa.Row[tuple[object, ...]]], metric: str) -> Iterator[QualityLine]:
    cells: dict[tuple[str, str], dict[int, StepValue]] = {}
    about: dict[tuple[str, str], tuple[str, str]] = {}
    for row in rows:
        values = row._mapping
        cell = (values["prompt"], values["dataset"])
        same = ("step", "value", "ci_low", "ci_high", "n", "sweep", "run")
        # Rows come by step and sweep: the newest sweep of a step stays.
        cells.setdefault(cell, {})[values["step"]] = StepValue(**{key: values[key] for key in same})
        about[cell] = (values["unit"], values["direction"])
    for (prompt, dataset), steps in sorted(cells.items()):
        unit, direction = about[prompt, dataset]
        values_ = tuple(steps[step] for step in sorted(steps))
        yield QualityLine(metric, prompt, dataset, unit, direction, values_)

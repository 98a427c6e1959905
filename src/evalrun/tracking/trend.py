"""A metric of a project over time, one line a cell of the matrix, read from the catalog.

Points of a line are compared only where they speak of the same data: where the dataset's digest changed a
new segment begins. Releases (promotions, deployments) stand beside the points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import orjson
import sqlalchemy as sa

from evalrun.canonical import canonical_json
from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.served import served_change
from evalrun.tracking.changes import Placed, placed, said
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.people import with_own_figures
from evalrun.tracking.store import Store
from evalrun.tracking.tables import dataset_version, project, run, run_metric, run_param, sweep
from evalrun.types import JSON

MOST = 200
"""So many sweeps are looked at, the newest."""

_QUALITY_LAST = ("performance.", "memory.", "cost.", "cpu.", "energy.", "fairness.")
_RATES = ("error_rate", "unparsed_rate", "refused_rate")


@dataclass(frozen=True, slots=True)
class Point:
    """A metric of one run. `segment` counts from 0 and rises where the data changed; `served` says what the
    server calls the model from here on, where that is not as before. `incomplete` says that too many rows
    were lost: the value lies between the bounds, and is compared with no other."""

    sweep: str
    run: str
    name: str
    started_at: str
    value: float
    n: int
    se: float | None
    ci_low: float | None
    ci_high: float | None
    dataset_digest: str | None
    prompt_digest: str | None
    segment: int = 0
    served: str = ""
    incomplete: bool = False
    bound_low: float | None = None
    bound_high: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change that lasts: from the sweep `sweep` on, seen at `seen`; means before and after it, the latter
    of so many `sweeps`. `way` is better or worse, or for metrics without a better end higher or lower."""

    way: str
    sweep: str
    started_at: str
    seen: str
    seen_at: str
    before: float
    after: float
    sweeps: int


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one cell, the oldest first. `params` are as the catalog shows them."""

    model: str
    prompt: str
    dataset: str
    params: Mapping[str, str]
    points: tuple[Point, ...]
    changes: tuple[Change, ...] = ()
    """Changes that last, where they were looked for (`analysis.over_time`)."""

    @property
    def label(self) -> str:
        """What names the cell."""
        named = [f"{key}={value}" for key, value in self.params.items()]
        return " · ".join([self.prompt, self.model, self.dataset, *named])

    @property
    def breaks(self) -> list[Point]:
        """The first points on other data than those before."""
        return [
            now
            for before, now in zip(self.points, self.points[1:], strict=False)
            if now.segment != before.segment
        ]

    @property
    def served(self) -> list[Point]:
        """The points at which the server began to name another model, or another build of it."""
        return [point for point in self.points if point.served]

    @property
    def comparable(self) -> tuple[Point, ...]:
        """The last points that speak of the same data, without those that lost too many rows."""
        last = self.points[-1].segment
        return tuple(point for point in self.points if point.segment == last and not point.incomplete)


@dataclass(frozen=True, slots=True)
class Trend:
    """A metric over the sweeps of a project. `unit` and `direction` are the metric's, as last recorded."""

    project: str
    metric: str
    slice: Mapping[str, str]
    unit: str
    direction: str
    lines: tuple[Line, ...]
    releases: tuple[Placed, ...]
    others: tuple[str, ...] = ()

    def document(self) -> dict[str, JSON]:
        """As JSON."""
        return asdict(self)


def read_trend(
    store: Store, project_name: str, metric: str | None = None, slice_: Mapping[str, str] | None = None,
    limit: int = MOST,
) -> Trend:  # fmt: skip
    """The metric (by default the first of quality, by name) over the last `limit` sweeps of a project.

    Only complete sweeps that are not archived. Raises UserError for a project or metric that is not there.
    """
    chosen = dict(slice_ or {})

    def ask(connection: sa.Connection) -> tuple[list[str], str, list[dict[str, Any]]]:
        sweeps = _sweeps(connection, project_name, limit)
        names = _metric_names(connection, sweeps)
        name = metric or _default(names)
        rows = _rows(connection, sweeps, name, chosen)
        return names, name, rows

    names, name, rows = store.read(ask)
    if not rows:
        raise _no_points(project_name, name, chosen, names)
    rows.sort(key=lambda row: (row["sweep"], row["run"]))
    folders = {folder.ulid: folder for folder in store.folders()}
    lines = tuple(_with_served(folders, line) for line in _lines(rows))
    since = min(row["started_at"] for row in rows)
    releases = tuple(each for each in placed(store, project_name) if each.ts >= since)
    last = rows[-1]
    return Trend(project_name, name, chosen, last["unit"], last["direction"], lines, releases, tuple(names))


def _with_served(folders: Mapping[str, SweepFolder], line: Line) -> Line:
    """The line with what its server began to call itself, read from the sweeps' manifests."""
    points: list[Point] = []
    before: Mapping[str, Any] = {}
    for point in line.points:
        folder, said = folders.get(point.sweep), ""
        if folder is not None:
            with contextlib.suppress(UserError):
                now = folder.manifest().served.get(line.model) or {}
                said = served_change(before, now) if before else ""
                before = {**before, **now}
        points.append(replace(point, served=said))
    return replace(line, points=tuple(points))


def projects(store: Store) -> list[str]:
    """The projects of the store that have sweeps, in order of their names."""
    query = sa.select(project.c.name).join(sweep, sweep.c.project_id == project.c.id).distinct()
    return sorted(store.read(lambda connection: list(connection.scalars(query))))


def _sweeps(connection: sa.Connection, name: str, limit: int) -> list[str]:
    query = (
        sa.select(sweep.c.ulid)
        .join(project, sweep.c.project_id == project.c.id)
        .where(project.c.name == name, sweep.c.status == "complete", sweep.c.archived == 0)
        .order_by(sweep.c.ulid.desc())
        .limit(limit)
    )
    found = list(connection.scalars(query))
    if found:
        return found
    known = sorted(connection.scalars(sa.select(project.c.name)))
    near = nearest(name, known)
    listed = f"Projects: {', '.join(known[:20])}." if known else "The store holds no sweep yet."
    raise UserError(
        f"project '{name}' has no complete sweep",
        remedy=f"Did you mean '{near}'?" if near and near != name else listed,
    )


def _metric_names(connection: sa.Connection, sweeps: Sequence[str]) -> list[str]:
    """The metrics over all samples of the newest sweep."""
    query = (
        sa.select(run_metric.c.name)
        .join(run, run_metric.c.run_id == run.c.id)
        .where(run.c.sweep == sweeps[0], run_metric.c.slice == "{}", run_metric.c.value.is_not(None))
        .distinct()
    )
    return sorted(connection.scalars(query))


def _default(names: Sequence[str]) -> str:
    """The first metric of quality by name; people who want another one say so."""
    quality = [name for name in names if not name.startswith(_QUALITY_LAST) and name not in _RATES]
    return (quality or [*names] or [""])[0]


def _rows(
    connection: sa.Connection, sweeps: Sequence[str], name: str, slice_: Mapping[str, str]
) -> list[dict[str, Any]]:
    wanted = canonical_json(dict(slice_)).decode()
    query = (
        sa.select(
            run.c.id, run.c.sweep, run.c.run, run.c.model, run.c.prompt, run.c.dataset, run.c.prompt_digest,
            sweep.c.name.label("sweep_name"), sweep.c.started_at, dataset_version.c.digest,
            *(run_metric.c[part] for part in ("value", "n", "se", "ci_low", "ci_high", "unit", "direction",
                                              "incomplete", "bound_low", "bound_high")),
        )
        .join(sweep, run.c.sweep == sweep.c.ulid)
        .join(run_metric, run_metric.c.run_id == run.c.id)
        .outerjoin(dataset_version, run.c.dataset_version_id == dataset_version.c.id)
        .where(run.c.sweep.in_(sweeps), run_metric.c.name == name, run_metric.c.slice == wanted)
        .where(run_metric.c.value.is_not(None))
    )  # fmt: skip
    rows = [dict(row._mapping) for row in connection.execute(query)]
    params: dict[int, dict[str, str]] = {}
    of_params = sa.select(run_param).join(run, run_param.c.run_id == run.c.id).where(run.c.sweep.in_(sweeps))
    for each in connection.execute(of_params):
        params.setdefault(each.run_id, {})[each.key] = each.text
    return [{**row, "params": params.get(row["id"], {})} for row in rows]


def _cell(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["model"], row["prompt"], row["dataset"], orjson.dumps(sorted(row["params"].items())).decode()


def _lines(rows: Sequence[dict[str, Any]]) -> tuple[Line, ...]:
    varying = _varying(rows)
    found = []
    for _, group in groupby(sorted(rows, key=lambda row: (_cell(row), row["sweep"])), key=_cell):
        cell = list(group)
        params = {key: value for key, value in cell[0]["params"].items() if key in varying}
        first = cell[0]
        found.append(Line(first["model"], first["prompt"], first["dataset"], params, _points(cell)))
    # The lines that go on until now first.
    return tuple(sorted(found, key=lambda line: line.points[-1].sweep, reverse=True))


def _varying(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    values: dict[str, set[str | None]] = {}
    for row in rows:
        for key in row["params"]:
            values.setdefault(key, set())
    for row in rows:
        for key, seen in values.items():
            seen.add(row["params"].get(key))
    return {key for key, seen in values.items() if len(seen) > 1}


_COPIED = (
    "sweep", "run", "started_at", "value", "n", "se", "ci_low", "ci_high", "prompt_digest", "bound_low",
    "bound_high",
)  # fmt: skip


def _points(rows: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    points: list[Point] = []
    for row in rows:
        same = not points or points[-1].dataset_digest == row["digest"]
        segment = (points[-1].segment if points else 0) + (not same)
        values = {key: row[key] for key in _COPIED} | {"incomplete": bool(row["incomplete"])}
        points.append(Point(**values, name=row["sweep_name"], dataset_digest=row["digest"], segment=segment))
    return tuple(points)


def _no_points(project_name: str, name: str, slice_: Mapping[str, str], names: Sequence[str]) -> UserError:
    where = "[" + ",".join(f"{key}={value}" for key, value in slice_.items()) + "]" if slice_ else ""
    near = nearest(name, names) if name not in names else None
    return UserError(
        f"no run of project '{project_name}' has a metric '{name}{where}'",
        where="--metric",
        remedy=f"Did you mean '{near}'?" if near else f"There are: {', '.join(names[:30])}.",
    )


def earlier_runs(
    store: Store, folder: SweepFolder, run_id: str, limit: int
) -> list[tuple[SweepFolder, dict[str, Any]]]:
    """The same cell in the complete sweeps before, on data of the same digest: at most `limit`, newest first.

    Each as its sweep's folder and its `run.json`.
    """
    manifest, mine = folder.manifest(), folder.run(run_id)
    digest = manifest.datasets.get(mine.dataset, {}).get("digest")
    query = (
        sa.select(sweep.c.folder, run.c.run)
        .join_from(run, sweep, run.c.sweep == sweep.c.ulid)
        .join(project, sweep.c.project_id == project.c.id)
        .join(dataset_version, run.c.dataset_version_id == dataset_version.c.id)
        .where(project.c.name == manifest.project, sweep.c.status == "complete", sweep.c.archived == 0)
        .where(run.c.model == mine.model, run.c.prompt == mine.prompt, run.c.dataset == mine.dataset)
        .where(dataset_version.c.digest == str(digest), sweep.c.ulid < folder.ulid)
        .order_by(sweep.c.ulid.desc(), run.c.run)
    )
    found: list[tuple[SweepFolder, dict[str, Any]]] = []
    for row in store.read(lambda connection: list(connection.execute(query))):
        if len(found) == limit:
            break
        earlier = SweepFolder(store.sweeps / row.folder)
        document = with_own_figures(said(earlier), earlier.read_run(row.run))
        if document["params"] == mine.params:
            found.append((earlier, document))
    return found

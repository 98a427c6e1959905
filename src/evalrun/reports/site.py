"""A whole store as static files: projects, sweeps, trends, reports, and a search over all of them.

index.html                 every project and every sweep
projects/<project>.html    the sweeps of one project
trends/<project>.html      its first metric over time, where there is one
sweeps/<sweep>.html        the report of a sweep
sweeps.json                what the pages were made from; the next time only what changed is written again
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from evalrun._version import __version__
from evalrun.atomic import disk_errors, replacing
from evalrun.errors import UserError
from evalrun.reports import page
from evalrun.reports.numbers import moment
from evalrun.reports.report import write_report
from evalrun.reports.source import Source
from evalrun.reports.trend import figure, trend_of, write_trend
from evalrun.reports.verdicts import judge
from evalrun.reports.view import words
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.glance import SweepRow
from evalrun.tracking.naming import read_numbers
from evalrun.tracking.store import Store, slug
from evalrun.tracking.trend import Line, Trend

FORMAT = 1
"""Raised when what `sweeps.json` holds changes, so that older sites are made anew."""

INDEX = "sweeps.json"
SCRIPTS = ("page.js", "sorting.js", "site.js")


@dataclass(frozen=True, slots=True)
class Entry:
    """One sweep of the site. `stamp` is the state of its folder, and of evalrun, that its report shows;
    `verdicts` are the report's first sentences, one a dataset."""

    sweep: str
    stamp: str
    project: str
    name: str
    status: str
    started_at: str
    samples: int
    failed: int
    runs: int
    verdicts: Sequence[str]
    gates: Mapping[str, int]
    tags: Mapping[str, str]
    note: str
    user: str

    @property
    def when(self) -> str:
        """When it began, for people."""
        return moment(self.started_at)

    @property
    def link(self) -> str:
        """Its report, from the site's top."""
        return f"sweeps/{self.sweep}.html"


@dataclass(frozen=True, slots=True)
class Project:
    """The sweeps of one project, the newest first."""

    name: str
    page: str
    entries: Sequence[Entry]
    trend: Trend | None = None

    @property
    def newest(self) -> Entry:
        """The newest complete sweep, or the newest of all."""
        return next((entry for entry in self.entries if entry.status == "complete"), self.entries[0])

    @property
    def line(self) -> Line | None:
        """The trend's longest line, to be drawn small."""
        return max(self.trend.lines, key=lambda line: len(line.points)) if self.trend else None


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_site` did: sweeps on the site, reports written, sweeps that could not be read."""

    out: Path
    sweeps: int
    reports: int
    problems: tuple[str, ...] = field(default=())


def write_site(store: Store, out: Path, *, project: str | None = None) -> Written:
    """Write the store's sweeps, or those of one project, as a site into the folder `out`.

    Archived sweeps are left out. Reports of sweeps that did not change since are left as they are. Raises
    UserError where `out` holds something else, or cannot be written.
    """
    earlier = _earlier(out)
    rows = store.list(None, project, archived=False)
    entries, problems, written = [], [], 0
    for row in rows:
        folder = SweepFolder(row.folder)
        stamp = _stamp(folder)
        entry = earlier.get(row.sweep)
        report = out / "sweeps" / f"{row.sweep}.html"
        try:
            if entry is None or entry.stamp != stamp or not report.exists():
                entry = _entry(folder, row, stamp)
                _folder(report.parent)
                write_report(folder, report, home="../index.html")
                written += 1
        except UserError as error:
            problems.append(f"{row.sweep}: {error}")
            continue
        entries.append(entry)
    known = read_numbers(store, store.ulids())
    projects = _write_projects(store, out, entries, known, earlier)
    pages = {project.name: project.page for project in projects}
    shown = {"projects": projects, "entries": entries, "pages": pages, "known": known}
    _page(out / "index.html", "site_index.html.j2", root="", **shown)
    _forget(out, earlier, entries)
    document = {"format": FORMAT, "evalrun": __version__, "sweeps": [asdict(each) for each in entries]}
    _write(out / INDEX, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return Written(out, len(entries), written, tuple(problems))


def _write_projects(
    store: Store,
    out: Path,
    entries: Sequence[Entry],
    known: Mapping[str, int],
    earlier: Mapping[str, Entry],
) -> list[Project]:
    """Projects of which no sweep changed, came or went keep their pages."""
    before: dict[str, dict[str, str]] = {}
    for entry in earlier.values():
        before.setdefault(entry.project, {})[entry.sweep] = entry.stamp
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(entry.project, []).append(entry)
    projects = []
    for name, file in _pages(by_name).items():
        page_, chart = out / "projects" / f"{file}.html", out / "trends" / f"{file}.html"
        same = before.get(name) == {entry.sweep: entry.stamp for entry in by_name[name]} and page_.exists()
        trend = _trend(store, chart, name, write=not (same and chart.exists()))
        project = Project(name, file, by_name[name], trend)
        if not same:
            _page(page_, "site_project.html.j2", root="../", project=project, known=known)
        projects.append(project)
    return projects


def _pages(names: Iterable[str]) -> dict[str, str]:
    """A file name for each project; names that look alike as file names are told apart by a digest."""
    names = list(names)
    slugs = [slug(name) for name in names]
    return {
        name: each if slugs.count(each) == 1 else f"{each}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, each in zip(names, slugs, strict=True)
    }


def _trend(store: Store, out: Path, project: str, *, write: bool) -> Trend | None:
    """The project's trend, written to `out`, if there are two points to draw a line between."""
    try:
        trend = trend_of(store, project)
    except UserError:
        return None
    if all(len(line.points) < 2 for line in trend.lines):
        return None
    if write:
        write_trend(trend, out, home="../index.html")
    return trend


def _entry(folder: SweepFolder, row: SweepRow, stamp: str) -> Entry:
    source = Source.of(folder)
    gates: dict[str, int] = {}
    for gate in source.manifest.gates:
        gates[gate.verdict] = gates.get(gate.verdict, 0) + 1
    return Entry(
        sweep=row.sweep,
        stamp=stamp,
        project=row.project,
        name=row.name,
        status=row.status,
        started_at=row.started_at,
        samples=row.samples,
        failed=row.failed,
        runs=row.runs,
        verdicts=[words(answer.verdict) for answer in judge(source).answers],
        gates=gates,
        tags=dict(row.tags),
        note=row.note or "",
        user=row.user or "",
    )


def _stamp(folder: SweepFolder) -> str:
    """Changes whenever the sweep's documents do, or evalrun does."""
    state = hashlib.sha256(f"{FORMAT} {__version__} ".encode())
    last = folder.last_event()
    state.update((folder.path / "sweep.json").read_bytes())
    state.update(str(last and last["hash"]).encode())
    return state.hexdigest()


def _earlier(out: Path) -> dict[str, Entry]:
    """The sweeps that the folder shows already. Raises UserError where it holds something else."""
    index = out / INDEX
    if not index.exists():
        if out.is_dir() and any(out.iterdir()):
            raise UserError(
                "the folder is not empty, and holds no site that evalrun wrote",
                where=str(out),
                remedy="Name a new or empty folder.",
            )
        return {}
    try:
        document = orjson.loads(index.read_bytes())
        if document["format"] != FORMAT:
            return {}
        return {sweep["sweep"]: Entry(**sweep) for sweep in document["sweeps"]}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        remedy = "Remove the folder, or name another one."
        raise UserError("this is not the index of a site", where=str(index), remedy=remedy) from error


def sparks(line: Line) -> list[str]:
    """A line drawn small, 100 x 20, as SVG paths: one for each stretch of equal data."""
    values = [point.value for point in line.points]
    low, high = min(values), max(values)
    paths: dict[int, str] = {}
    for at, point in enumerate(line.points):
        x = 100 * at / max(1, len(values) - 1)
        y = 20 - 20 * (point.value - low) / (high - low) if high > low else 10
        drawn = paths.get(point.segment)
        # A stretch of one point is a dot: a line of no length with a round end.
        paths[point.segment] = f"{drawn}L{x:.1f} {y:.1f}" if drawn else f"M{x:.1f} {y:.1f}h0"
    return list(paths.values())


def _forget(out: Path, earlier: Mapping[str, Entry], entries: Sequence[Entry]) -> None:
    """Remove the pages of sweeps and projects that are gone."""
    for sweep in earlier.keys() - {entry.sweep for entry in entries}:
        (out / "sweeps" / f"{sweep}.html").unlink(missing_ok=True)
    gone = {each.project for each in earlier.values()} - {entry.project for entry in entries}
    for file in _pages(gone).values():
        for kind in ("projects", "trends"):
            (out / kind / f"{file}.html").unlink(missing_ok=True)


def _folder(path: Path) -> None:
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def _page(out: Path, template: str, **values: Any) -> None:
    text = (
        page.environment()
        .get_template(template)
        .render(
            **values, sparks=sparks, figure=figure, **page.frame(SCRIPTS, home=f"{values['root']}index.html")
        )
    )
    _write(out, text.encode("utf-8", "replace"))


def _write(out: Path, data: bytes) -> None:
    _folder(out.parent)
    with replacing(out) as temporary:
        temporary.write_bytes(data)
        temporary.chmod(page.REPORT_MODE)

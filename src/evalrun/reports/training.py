"""A training, or several laid over one another: in a terminal, and as one HTML page of small charts over one
axis of steps.

Series are thinned for drawing: the least and the greatest of each bucket stay, so that no spike is lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalrun.analysis.trainings import quality_of
from evalrun.atomic import replacing
from evalrun.reports import numbers, page
from evalrun.reports.card import card_line, card_rows
from evalrun.reports.charts.training import Drawn, training_charts
from evalrun.reports.numbers import moment
from evalrun.reports.view import Table
from evalrun.reports.visible import terminal, visible
from evalrun.tracking.naming import plain_value
from evalrun.tracking.plain import flatten
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import (
    CheckpointRow,
    LastValue,
    TrainingFolder,
    TrainingManifest,
    name_of,
)
from evalrun.training.alerts import TrainingAlert, watched
from evalrun.training.ending import series_of
from evalrun.training.evaluated import QualityLine, StepValue, evaluated_steps
from evalrun.training.series import Series, kind_of, pairs
from evalrun.training.series import time_left as seconds_left

EVERY_S = 5.0
"""Seconds between two writings of a page that is live."""
MOST_ROWS = 300
"""Metrics of which the page has a row: a training may log one for each of its layers."""
ENDED = ("finished", "interrupted")
_LAST = ("metric", "step", "last", "least", "greatest")
SCRIPTS = ("page.js", "download.js", "charts.js")


@dataclass(frozen=True, slots=True)
class TrainingView:
    """What is shown of a training. `quality` are the lines of one metric, `runs` the runs (SWEEP/RUN) by
    step, `diverged` is the step from which on it had diverged for good."""

    folder: TrainingFolder
    name: str
    status: str
    manifest: TrainingManifest
    series: Series
    checkpoints: tuple[CheckpointRow, ...]
    quality: tuple[QualityLine, ...]
    runs: Mapping[int, Sequence[str]]
    alerts: tuple[TrainingAlert, ...]
    diverged: int | None = None

    @classmethod
    def of(cls, store: Store, folder: TrainingFolder, metric: str | None = None) -> TrainingView:
        """Read it as it is now. Raises UserError for a metric that no run of it has."""
        manifest, series = folder.training(), series_of(folder)
        alerts, diverged = watched(series, manifest.planned_steps) if len(series) else ([], None)
        status = folder.status()
        return cls(
            folder,
            name_of(folder),
            "diverged" if diverged is not None and status in ENDED else status,
            manifest,
            series,
            tuple(folder.checkpoints()),
            tuple(quality_of(store, folder, metric)),
            evaluated_steps(store, folder),
            tuple(alerts),
            diverged,
        )

    @property
    def steps(self) -> int:
        """Steps done."""
        known = [self.manifest.steps, *(row.step for row in self.checkpoints)]
        return max([*known, int(self.series.step.max())] if len(self.series) else known)

    @property
    def last(self) -> list[LastValue]:
        """The metrics in short, without those of the machine."""
        found = self.series.last() if len(self.series) else ()
        return [each for each in found if each.name in self.series.names and kind_of(each.name) != "system"]

    def document(self) -> dict[str, Any]:
        """As JSON. `last` has the last value of each metric, under the name of its role as well (`loss` of
        train/loss), `metrics` more of it; `series` pairs of step and value, null where that is no number. A
        series of more than MOST_WHOLE points is thinned, and named under `thinned`; `metrics.parquet` has
        all of them."""
        metrics = self.series.last() if len(self.series) else ()
        names = [name for name in self.series.names if kind_of(name) != "system"]
        series = {name: pairs(self.series, name) for name in names}
        points = {each.name: each.points for each in metrics}
        return {
            **asdict(self.manifest),
            "name": self.name,
            "status": self.status,
            "steps": self.steps,
            "folder": str(self.folder.path),
            "last": {each.name: each.value for each in metrics},
            "metrics": [asdict(each) for each in metrics],
            "series": series,
            "thinned": [name for name, kept in series.items() if len(kept) < points[name]],
            "checkpoints": [
                {**asdict(row), "evaluated": list(self.runs.get(row.step, ()))} for row in self.checkpoints
            ],
            "quality": [asdict(line) for line in self.quality],
            "alerts": [asdict(alert) for alert in self.alerts],
            "time_left_s": time_left(self),
        }


def time_left(view: TrainingView) -> tuple[float, float, float] | None:
    """Seconds that a running training has left: steps left times the median seconds per step of the last 50
    logs, and the same with their quartiles; None where it does not run or its end is not known."""
    planned, name = view.manifest.planned_steps, view.series.named("loss")
    if view.status != "running" or planned is None or name is None or planned <= view.steps:
        return None
    return seconds_left(view.series, name, planned - view.steps)


def differences(views: Sequence[TrainingView]) -> list[list[str]]:
    """Hyperparameters, architecture and data that are not the same in all trainings: name, then each one's
    value ("-" where it has none)."""
    flat = [dict(_settings(view.manifest)) for view in views]
    names = list(dict.fromkeys(name for each in flat for name in each))
    rows = []
    for name in names:
        told = [plain_value(each[name]) if name in each else "-" for each in flat]
        if len(set(told)) > 1:
            rows.append([name, *told])
    return rows


def _settings(manifest: TrainingManifest) -> Iterator[tuple[str, Any]]:
    yield from flatten(manifest.hyperparameters)
    for part in ("architecture", "data"):
        yield from flatten({part: getattr(manifest, part)})


# The terminal


def training_lines(view: TrainingView) -> list[str]:
    """The training as lines of text."""
    manifest = view.manifest
    planned = f" of {manifest.planned_steps:,}" if manifest.planned_steps else ""
    how = f"{view.status}, {view.steps:,}{planned} steps, {manifest.framework}"
    lines = [terminal(f"{view.name} ({view.folder.ulid}): {how}", 200)]
    left = time_left(view)
    if left is not None:
        least, middle, most = (numbers.seconds(each) for each in (left[1], left[0], left[2]))
        lines.append(f"about {middle} left ({least} to {most})")
    lines += [terminal(line.sentence, 1000) for line in view.quality if line.sentence]
    lines += [terminal(f"model: {text}", 200) for text in [card_line(manifest.architecture)] if text]
    lines += [
        "",
        *_aligned(_LAST, [_last_row(each) for each in view.last]),
    ]
    if view.checkpoints or view.quality:
        lines += ["", *_aligned(*_checkpoint_rows(view))]
    told = [f"alert: {alert}" for alert in view.alerts] + [f"note: {note}" for note in manifest.notes]
    lines += ["", *(terminal(text, 240) for text in told)] if told else []
    return lines


def compared_lines(views: Sequence[TrainingView]) -> list[str]:
    """Several trainings as lines of text: what differs, and their last values."""
    names = [view.name for view in views]
    lines = _aligned(["differs", *names], differences(views)) or []
    metrics = [name for name in views[0].series.names if all(name in view.series.names for view in views)]
    rows = [
        [name, *(numbers.significant(float(view.series.of(name)[1][-1]), 4) for view in views)]
        for name in metrics
        if kind_of(name) != "system"
    ]
    return [*lines, "", *_aligned(["last value", *names], rows)]


def _last_row(each: Any) -> list[str]:
    value = each.reason or numbers.significant(each.value, 4)
    return [each.name, f"{each.step:,}", value, *(numbers.significant(x, 4) for x in (each.low, each.high))]


def _checkpoint_rows(view: TrainingView) -> tuple[list[str], list[list[str]]]:
    """Step, scores, size and digest of each checkpoint that is known or was evaluated."""
    by_step = {row.step: row for row in view.checkpoints}
    scores = {line: {value.step: value for value in line.values} for line in view.quality}
    header = ["step"]
    for line in scores:
        header += [f"{line.metric} ({line.label})", "behind the best"]
    header += ["runs", "size", "digest", ""]
    rows = []
    for step in sorted({*by_step, *view.runs}):
        row = by_step.get(step)
        told = [cell for line, of in scores.items() for cell in _score(line, of.get(step))]
        notes = ", ".join(filter(None, [row.lacks, row.note, "" if row.kept else "not kept"])) if row else ""
        size, digest = (numbers.size(row.bytes), row.sha256[:12]) if row else ("-", "-")
        rows.append([f"{step:,}", *told, str(len(view.runs.get(step, ()))), size, digest or "-", notes])
    return header, rows


def _score(line: QualityLine, value: StepValue | None) -> tuple[str, str]:
    """The score of a step, and how it stands against the one that looks best."""
    if value is None:
        return "-", ""
    shown = _measured(value.value, value.ci_low, value.ci_high, line.unit)
    if value.verdict != "behind" or value.behind is None:
        return shown, f"{value.verdict}{', take this' if value.step == line.best else ''}"
    return (
        shown,
        f"behind by {_measured(value.behind, value.behind_low, value.behind_high, line.unit)}",
    )


def _measured(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    """A value with its bounds, the unit said once: rows are narrow."""
    text, said = numbers.measured(value, low, high, unit), f" {unit}"
    return f"{text.replace(said, '')}{said}" if unit and text.count(said) > 1 else text


def quality_lines(view: TrainingView) -> list[str]:
    """The scores over the steps as lines of text, each prompt and dataset with what to take."""
    lines: list[str] = []
    for line in view.quality:
        better = {"higher": ", higher is better", "lower": ", lower is better"}.get(line.direction, "")
        lines.append(terminal(f"{line.metric} of {view.name} over its steps ({line.label}{better})", 200))
        rows = [[f"{value.step:,}", *_score(line, value), f"{value.n:,}", value.run] for value in line.values]
        lines += _aligned(["step", "value, 95 % interval", "", "n", "run"], rows)
        lines += [terminal(line.sentence, 1000)] if line.sentence else []
        lines += [
            terminal(f"step {row.step:,}: {row.path}", 400)
            for row in view.checkpoints
            if row.step == line.best
        ]
        lines.append("")
    return lines[:-1]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    cells = [[terminal(text, 60) for text in row] for row in (header, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


# The page


def write_page(views: Sequence[TrainingView], out: Path, *, live: bool = False) -> None:
    """Write the page to `out`, whole or not at all. A live one loads itself again."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text(render_page(views, live=live), encoding="utf-8", errors="replace")
        temporary.chmod(page.REPORT_MODE)


def follow_page(
    store: Store, folders: Sequence[TrainingFolder], metric: str | None, out: Path, every_s: float = EVERY_S
) -> None:
    """Write the page again and again while one of the trainings runs, and once more at the end."""
    while True:
        views = [TrainingView.of(store, folder, metric) for folder in folders]
        running = any(view.status == "running" for view in views)
        write_page(views, out, live=running)
        if not running:
            return
        time.sleep(every_s)


def render_page(views: Sequence[TrainingView], *, live: bool = False) -> str:
    """The page of one training, or of several laid over one another."""
    names = _labels(views)
    charts = list(training_charts([_drawn(view, name) for view, name in zip(views, names, strict=True)]))
    several = len(views) > 1
    return (
        page.environment()
        .get_template("training.html.j2")
        .render(
            title=" · ".join(map(visible, names)),
            several=several,
            live=EVERY_S if live else 0,
            views=[_shown(view, name) for view, name in zip(views, names, strict=True)],
            differences=Table("What differs", ["", *map(visible, names)], _visible(differences(views)))
            if several
            else None,
            charts=[chart for chart in charts if not chart.folded],
            others=[chart for chart in charts if chart.folded],
            **page.frame(SCRIPTS, charts),
        )
    )


def _shown(view: TrainingView, name: str) -> dict[str, Any]:
    manifest = view.manifest
    header, rows = _checkpoint_rows(view)
    left = time_left(view)
    planned = f" of {manifest.planned_steps:,}" if manifest.planned_steps else ""
    facts = [
        ("status", view.status),
        ("steps", f"{view.steps:,}{planned}"),
        ("framework", manifest.framework),
        ("started", moment(manifest.started_at) if manifest.started_at else "-"),
        ("ended", moment(manifest.finished_at) if manifest.finished_at else "-"),
        *([("time left", f"about {numbers.seconds(left[0])}")] if left else []),
        *((key, visible(value)) for key, value in manifest.tags.items()),
    ]
    return {
        "name": visible(name),
        "lead": visible(card_line(manifest.architecture)),
        "said": [visible(line.sentence) for line in view.quality if line.sentence],
        "facts": facts,
        "last": _last_table(view.last),
        "checkpoints": Table("Checkpoints", header, _visible(rows), frozenset({0})) if rows else None,
        "hyperparameters": _pairs(manifest.hyperparameters),
        "card": card_rows(manifest.architecture),
        "data": _pairs(manifest.data),
        "sources": [(visible(each.path), each.sha256) for each in manifest.sources],
        "alerts": [visible(str(alert)) for alert in view.alerts],
        "notes": [visible(note) for note in manifest.notes],
    }  # fmt: skip


def _last_table(values: Sequence[LastValue]) -> Table:
    more = f", the first {MOST_ROWS} of {len(values):,}" if len(values) > MOST_ROWS else ""
    rows = _visible(map(_last_row, values[:MOST_ROWS]))
    return Table(f"Last values{more}", _LAST, rows, frozenset(range(1, 5)))


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(visible(key), visible(plain_value(value))) for key, value in flatten(values)]


def _drawn(view: TrainingView, name: str) -> Drawn:
    steps = tuple(row.step for row in view.checkpoints)
    return Drawn(name, view.series, steps, view.quality, max([view.steps, *view.runs]), view.diverged)


def _visible(rows: Any) -> list[list[str]]:
    return [[visible(cell) for cell in row] for row in rows]


def _labels(views: Sequence[TrainingView]) -> list[str]:
    names = [view.name for view in views]
    return [
        name if names.count(name) == 1 else f"{name} ({view.folder.ulid[-6:]})"
        for name, view in zip(names, views, strict=True)
    ]

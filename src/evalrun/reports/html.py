"""Writes the HTML report of a sweep: one file that needs no network, made from the sweep folder alone."""

from __future__ import annotations

from pathlib import Path

from evalrun.atomic import replacing
from evalrun.reports import page
from evalrun.reports.report import Report, build_report
from evalrun.reports.samples import SampleWriter
from evalrun.reports.source import Folder, Source
from evalrun.reports.standings import lower_is_better

SAMPLES_MARK = "<!--samples-->"
SCRIPTS = (
    "page.js", "sorting.js", "download.js", "charts.js", "text.js", "metrics.js", "diff.js", "store.js",
    "sample.js", "samples.js",
)  # fmt: skip

SHAPES = (
    "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6Z", "M-5.3-5.3H5.3V5.3H-5.3Z", "M0-6.4L6.2 4.8H-6.2Z",
    "M0-7.2L6 0L0 7.2L-6 0Z", "M0 6.4L6.2-4.8H-6.2Z", "M-2-6.2H2V-2H6.2V2H2V6.2H-2V2H-6.2V-2H-2Z",
    "M6.4 0L-4.8 6.2V-6.2Z", "M-6.4 0L4.8 6.2V-6.2Z",
)  # fmt: skip
"""The shapes of the charts' points (charts/theme.py), as SVG paths for the names of runs."""


def write_report(folder: Folder, out: Path, *, home: str = "") -> None:
    """Write the report of a sweep folder to `out`, whole or not at all.

    Reads sweep.json, runs/*/run.json, samples.parquet and system.parquet; samples are streamed, so memory
    does not grow with them. Where the charts' JavaScript cannot be made the report is written without
    charts and says so. `home` is a page that it links back to. Raises UserError when the folder cannot be
    read or `out` cannot be written.
    """
    source = Source.of(folder)
    report = build_report(source)
    head, tail = render(report, home).split(SAMPLES_MARK)
    with replacing(out) as temporary:
        with temporary.open("wb", buffering=1 << 20) as file:
            file.write(head.encode("utf-8", "replace"))
            score = report.primary.score if report.primary else None
            total = sum(run.counts.samples for run in report.runs)
            writer = SampleWriter(file, score, lower=lower_is_better(report.runs), total=total)
            for run in report.runs:
                samples = source.samples(run.run)
                if samples is not None:
                    writer.add_run(run, samples)
            writer.finish()
            file.write(tail.encode("utf-8", "replace"))
        temporary.chmod(page.REPORT_MODE)


def render(report: Report, home: str = "") -> str:
    """The page without its samples, which belong where SAMPLES_MARK stands."""
    from markupsafe import Markup

    table = report.metrics
    metrics = {"columns": table.columns, "rows": table.rows, "numeric": sorted(table.numeric)}
    return (
        page.environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            metrics=Markup(page.safe_json(metrics)),  # JSON in which no < is left
            shapes=SHAPES,
            samples=Markup(SAMPLES_MARK),
            **page.frame(SCRIPTS, report.charts, home),
        )
    )


def prepare_templates() -> None:
    """Compile the templates into the cache folder, so that the next report need not."""
    environment = page.environment()
    for name in environment.list_templates():
        environment.get_template(name)

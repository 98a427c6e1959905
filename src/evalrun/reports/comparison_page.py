"""A comparison as one HTML file: differences, what changed in between, and the samples of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalrun.analysis.comparison import Comparison
from evalrun.atomic import disk_errors, replacing
from evalrun.reports import page
from evalrun.reports.comparison import ComparisonView, view
from evalrun.reports.html import SAMPLES_MARK
from evalrun.reports.samples import SampleWriter
from evalrun.tracking.folder import SweepFolder

SCRIPTS = ("page.js", "download.js", "charts.js", "text.js", "store.js", "sample.js", "samples.js")


def write_comparison(comparison: Comparison, folders: Sequence[SweepFolder], out: Path) -> None:
    """Write the page to `out`, whole or not at all; samples are streamed.

    `folders` are the sweeps that were compared, the first of which the others are held against. Raises
    UserError where a folder cannot be read or `out` cannot be written.
    """
    shown = view(comparison, folders)
    head, tail = _render(shown).split(SAMPLES_MARK)
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        with temporary.open("wb", buffering=1 << 20) as file:
            file.write(head.encode("utf-8", "replace"))
            total = sum(run.counts.samples for run, _ in shown.samples)
            writer = SampleWriter(file, shown.score, lower=shown.lower, total=total)
            for run, path in shown.samples:
                writer.add_run(run, path)
            writer.finish()
            file.write(tail.encode("utf-8", "replace"))
        temporary.chmod(page.REPORT_MODE)


def _render(shown: ComparisonView) -> str:
    from markupsafe import Markup

    return (
        page.environment()
        .get_template("comparison.html.j2")
        .render(report=shown, samples=Markup(SAMPLES_MARK), **page.frame(SCRIPTS, shown.charts))
    )

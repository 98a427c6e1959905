"""Writes the HTML report of a sweep: one file that needs no network, made from the sweep folder alone."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evalrun.atomic import replacing
from evalrun.errors import UserError
from evalrun.reports.bundle import read_bundle
from evalrun.reports.report import Report, build_report
from evalrun.reports.samples import SampleWriter
from evalrun.reports.source import Folder, Source
from evalrun.reports.standings import lower_is_better

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
SAMPLES_MARK = "<!--samples-->"
SCRIPTS = ("page.js", "tables.js", "charts.js", "text.js", "store.js", "sample.js", "samples.js")

SHAPES = (
    "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6Z", "M-5.3-5.3H5.3V5.3H-5.3Z", "M0-6.4L6.2 4.8H-6.2Z",
    "M0-7.2L6 0L0 7.2L-6 0Z", "M0 6.4L6.2-4.8H-6.2Z", "M-2-6.2H2V-2H6.2V2H2V6.2H-2V2H-6.2V-2H-2Z",
    "M6.4 0L-4.8 6.2V-6.2Z", "M-6.4 0L4.8 6.2V-6.2Z",
)  # fmt: skip
"""The shapes of the charts' points (charts/theme.py), as SVG paths for the names of runs."""

REPORT_MODE = 0o644
"""A report is made to be handed on; the sweep folder, which is not, is 0600."""


def write_report(folder: Folder, out: Path) -> None:
    """Write the report of a sweep folder to `out`, whole or not at all.

    Reads sweep.json, runs/*/run.json, samples.parquet and system.parquet; samples are streamed, so memory
    does not grow with them. Where the charts' JavaScript cannot be made the report is written without
    charts and says so. Raises UserError when the folder cannot be read or `out` cannot be written.
    """
    source = Source.of(folder)
    report = build_report(source)
    head, tail = render(report).split(SAMPLES_MARK)
    with replacing(out) as temporary:
        with temporary.open("wb", buffering=1 << 20) as file:
            file.write(head.encode("utf-8", "replace"))
            score = report.primary.score if report.primary else None
            writer = SampleWriter(file, score, lower=lower_is_better(report.runs))
            for run in report.runs:
                samples = source.samples(run.run)
                if samples is not None:
                    writer.add_run(run, samples)
            writer.finish()
            file.write(tail.encode("utf-8", "replace"))
        temporary.chmod(REPORT_MODE)


def render(report: Report) -> str:
    """The page without its samples, which belong where SAMPLES_MARK stands."""
    from markupsafe import Markup

    try:
        bundle, trouble = (read_bundle(), "") if report.charts else ("", "")
    except UserError as error:
        bundle, trouble = "", error.problems[0].what
    style, script = _asset("report.css"), _script()
    specs = _json({chart.key: chart.spec for chart in report.charts})
    table = report.metrics
    numeric = sorted(table.numeric)
    metrics = _json({"columns": table.columns, "rows": table.rows, "numeric": numeric})
    template = _environment().get_template("report.html.j2")
    return template.render(
        report=report,
        bundle=Markup(bundle),  # made from an installed package, see bundle.py
        bundle_trouble=trouble,
        style=Markup(style),  # a file of this package
        script=Markup(script),  # a file of this package
        specs=Markup(specs),  # JSON in which no < is left
        metrics=Markup(metrics),  # the same
        shapes=SHAPES,
        policy=policy([bundle, script], [style]),
        samples=Markup(SAMPLES_MARK),
    )


def prepare_templates() -> None:
    """Compile the templates into the cache folder, so that the next report need not."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


def _json(value: Any) -> str:
    """JSON that is safe inside <script>: no < is left in it."""
    return orjson.dumps(value).decode().replace("<", "\\u003c")


def policy(scripts: list[str], styles: list[str]) -> str:
    """The content-security policy: these very scripts and styles by their digests, and nothing from anywhere.

    Digests rather than a nonce: a nonce stands in the file for whoever injects something to copy.
    """
    allowed = " ".join(map(_digest, filter(None, scripts)))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {' '.join(map(_digest, styles))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return (HERE / "assets" / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    return "\n".join(_asset(name) for name in SCRIPTS)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined

    from evalrun.paths import cache_dir
    from evalrun.reports import details, numbers, view
    from evalrun.reports.visible import visible

    compiled = cache_dir() / "reports" / "templates"
    compiled.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=FileSystemBytecodeCache(str(compiled)),
        finalize=_finalize(visible),
    )
    environment.globals.update(numbers=numbers, details=details, words=view.words, zip=zip)
    return environment


def _finalize(visible: Any) -> Any:
    """Every text that a template shows has its control and direction marks made visible."""

    def finalize(value: Any) -> Any:
        return visible(value) if type(value) is str else value

    return finalize

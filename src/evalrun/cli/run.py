"""`evalrun run SUITE` and `evalrun SUITE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from evalrun.cli.options import json_option, make_overrides, print_json, store_option, suite_options

if TYPE_CHECKING:
    from evalrun.sweep.main import Outcome


@click.command(no_args_is_help=True)
@click.argument("suite", type=click.Path(path_type=Path))
@suite_options
@store_option
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Where the report goes. [default: reports/<sweep>.html]",
)  # fmt: skip
@click.option("--no-report", is_flag=True, help="Write no report.")
@click.option("--no-cache", is_flag=True, help="Neither read nor write the response cache.")
@click.option("--fresh", is_flag=True, help="Begin a new sweep even if an unfinished one could go on.")
@click.option(
    "--baseline", metavar="NAME", help="What gates compare with: a baseline or sweep. [default: main]"
)
@click.option(
    "--inconclusive", type=click.Choice(["warn", "fail"]),
    help="Whether a gate that the samples cannot decide fails. [default: as the suite says, else warn]",
)  # fmt: skip
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.xml", help="Gates as JUnit XML."
)
@click.option(
    "--summary", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.md", help="Markdown summary."
)
@click.option("--reuse", is_flag=True, help="Take over runs that were done before with the same digests.")
@click.option("--no-lock", is_flag=True, help="Run even if something is not as evalrun.lock says.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    suite: Path,
    store: Path | None,
    report: Path | None,
    no_report: bool,
    no_cache: bool,
    fresh: bool,
    baseline: str | None,
    inconclusive: Literal["warn", "fail"] | None,
    junit: Path | None,
    summary: Path | None,
    reuse: bool,
    no_lock: bool,
    quiet: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Run a suite: ask, measure, score, store, and write an HTML report.

    The same command again goes on where an unfinished sweep stopped.
    """
    from evalrun.atomic import place_for
    from evalrun.paths import default_store
    from evalrun.reports.progress import make_progress
    from evalrun.sweep.main import run_sweep
    from evalrun.sweep.options import SweepOptions

    options = SweepOptions(
        overrides=make_overrides(**overrides),
        store=store or default_store(),
        report=report,
        write_report=not no_report,
        use_cache=not no_cache,
        fresh=fresh,
        argv=tuple(sys.argv[1:]),
        baseline=baseline,
        inconclusive=inconclusive,
        reuse=reuse,
        use_lock=not no_lock,
    )
    for file in (junit, summary):
        if file is not None:
            place_for(file)
    outcome = run_sweep(suite, options, make_progress(quiet=quiet))
    _show(outcome, as_json=as_json)
    _publish(outcome, junit, summary)
    ctx.exit(int(outcome.exit_code))


def _show(outcome: Outcome, *, as_json: bool) -> None:
    """The results on stdout, faults and warnings on stderr."""
    if as_json:
        from evalrun.sweep.result import result_document

        print_json(result_document(outcome))
    else:
        from evalrun.reports.terminal import print_result

        print_result(outcome.manifest, outcome.runs, outcome.report, outcome.folder.path)
    for fault in outcome.faults:
        click.echo(f"error: {fault}", err=True)
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}", err=True)


def _publish(outcome: Outcome, junit: Path | None, summary: Path | None) -> None:
    """Alerts and gates, for the log and the files of CI."""
    from evalrun.reports.gates import alert_lines, publish

    strict = outcome.manifest["inconclusive"] == "fail"
    lines = publish(outcome.manifest, outcome.runs, junit_file=junit, summary_file=summary, strict=strict)
    for line in [*alert_lines(outcome.manifest), *lines]:
        click.echo(line, err=True)

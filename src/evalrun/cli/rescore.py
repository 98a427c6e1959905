"""`evalrun rescore SWEEP --scorers FILE`: other scores for the same answers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from evalrun.cli.options import json_option, print_json, store_option


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--scorers",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.yaml",
    help="A list of scorers, or a mapping with any of scorers, parse, derive, judges, gates, unparsed, "
    "fairness.",
)
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Where the report goes. [default: reports/<sweep>.html]",
)  # fmt: skip
@click.option("--no-report", is_flag=True, help="Write no report.")
@store_option
@json_option
@click.pass_context
def rescore(
    ctx: click.Context,
    /,
    sweep: str,
    file: Path,
    report: Path | None,
    no_report: bool,
    store: Path | None,
    as_json: bool,
) -> None:
    """Score a finished sweep again. The models that answered are not asked; judges are.

    The result is a sweep of its own that names the first as its parent; that one stays as it was.

    \b
    Example:
      evalrun rescore latest --scorers scorers.yaml
    """
    from dataclasses import replace

    from evalrun.paths import default_store
    from evalrun.reports.progress import make_progress
    from evalrun.sweep.rescore import rescore as score_again
    from evalrun.tracking.store import Store

    opened = Store(store or default_store())
    progress = make_progress(quiet=as_json)
    outcome = score_again(opened, opened.resolve(sweep), file, tuple(sys.argv[1:]), progress)
    if not no_report:
        from evalrun.reports.report import write_report

        out = report or Path("reports") / f"{outcome.folder.path.name.lower()}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        write_report(outcome.folder, out)
        outcome = replace(outcome, report=out)
    if as_json:
        from evalrun.sweep.result import result_document

        print_json({**result_document(outcome), "parent": outcome.manifest["parent"]})
    else:
        from evalrun.reports.terminal import print_result

        print_result(outcome.manifest, outcome.runs, outcome.report, outcome.folder.path)
    ctx.exit(int(outcome.exit_code))

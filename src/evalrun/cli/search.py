"""`evalrun search SUITE`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import ANY_PATH, FILE, json_option, print_json, sweep_options
from evalrun.cli.streams import shown

if TYPE_CHECKING:
    from evalrun.search.main import SearchOutcome
    from evalrun.sweep.options import SweepOptions


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@sweep_options(fresh="Begin anew even if an unfinished search could go on.")
@click.option("--fresh-split", is_flag=True, help="Hold out rows that no search has looked at yet.")
@click.option("--best-to", type=FILE, metavar="FILE.yaml", help="Write the winner there, as a suite.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    /,
    suite: Path,
    options: SweepOptions,
    fresh_split: bool,
    best_to: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find the best candidate of a suite, and its honest score.

    Candidates are asked the same rows in blocks; one that is shown to be worse is asked no more. Then the
    winner and the baseline are asked the rows that the search never saw: that difference is the result.

    \b
    Example:
      evalrun search suite.yaml --best-to best.yaml
    """
    from evalrun.atomic import place_for
    from evalrun.reports.progress import make_progress
    from evalrun.search.main import search as run_search
    from evalrun.search.main import write_best

    if best_to is not None:
        place_for(best_to)
    outcome = run_search(
        suite, replace(options, use_lock=False), make_progress(quiet=quiet), fresh_split=fresh_split
    )
    if best_to is not None and outcome.results is not None and outcome.results.winner:
        write_best(outcome, best_to)
    with shown():
        _show(outcome, as_json=as_json)
    for fault in outcome.last.faults:
        click.echo(f"error: {fault}", err=True)
    for warning in outcome.last.warnings:
        click.echo(f"warning: {warning}", err=True)
    ctx.exit(int(outcome.exit_code))


def _show(outcome: SearchOutcome, *, as_json: bool) -> None:
    """The result on stdout."""
    from evalrun.reports.search import search_sentences
    from evalrun.reports.source import Source

    source = Source.of(outcome.last.folder)
    if as_json:
        from dataclasses import asdict

        from evalrun.search_results import contract
        from evalrun.sweep.result import result_document

        found = outcome.results
        said = contract(found, source.results.standings) if found is not None else {}
        whole = {"search": asdict(found) if found is not None else None}
        print_json({**result_document(outcome.last), **said, **whole})
        return
    from evalrun.reports.terminal import print_result

    if outcome.results is not None:
        for sentence in search_sentences(source):
            click.echo(sentence)
        click.echo()
    print_result(outcome.last.folder, outcome.last.report, now=True)

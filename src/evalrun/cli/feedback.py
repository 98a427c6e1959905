"""`evalrun feedback`: what users said of answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import FILE, json_option, print_json, print_rows, store_option
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.traffic.feedback import Brought


@click.group()
def feedback() -> None:
    """What users said of answers, beside the scores of the same answers.

    \b
    Example:
      evalrun feedback import thumbs.jsonl --sweep latest
    """


@feedback.command("import", no_args_is_help=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--sweep", default="latest", show_default=True, metavar="SWEEP[/RUN]", help="What scored the traffic."
)
@click.option(
    "--id",
    "identity",
    default="",
    metavar="COLUMN",
    help="The request's id. [default: request_id, trace_id, …]",
)
@click.option(
    "--value", default="", metavar="COLUMN", help="What was said. [default: feedback, rating, value, …]"
)
@click.option("--to", type=FILE, metavar="FILE.jsonl", help="Write the worst rows there, as a dataset.")
@click.option(
    "--worst", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="How many."
)
@store_option
@json_option
def import_feedback(
    file: Path,
    sweep: str,
    identity: str,
    value: str,
    to: Path | None,
    worst: int,
    store: Store,
    as_json: bool,
) -> None:
    """Join feedback to the samples of a run by request id: who answers, and do the scorers agree with them?

    FILE is JSONL, CSV, or OpenTelemetry logs with gen_ai.evaluation.result events called user_feedback. Good
    and bad, thumbs, true and false, or numbers.

    \b
    Examples:
      evalrun feedback import thumbs.jsonl --sweep latest --to regression.jsonl
      evalrun feedback import ratings.csv --id trace --value stars --json
    """
    from evalrun.tracking.targets import find_run_target
    from evalrun.traffic.feedback import Wanted, bring

    done = bring(store, find_run_target(store, sweep), file, Wanted(identity, value, worst, to))
    if as_json:
        print_json(asdict(done))
        return
    _print(done)


def _print(done: Brought) -> None:
    from evalrun.cli.people import print_agreement

    click.echo(f"{done.joined:,} of {done.records:,} records joined to {done.sweep}/{done.run} ({done.kind})")
    left = (("of no sample", done.unmatched), ("without a value", done.without_value), ("torn", done.torn))
    for what, n in left:
        if n:
            listed = f": {', '.join(done.first_unmatched)}" if what == "of no sample" else ""
            click.echo(f"left out: {n:,} {what}{listed}", err=True)
    said = "share of good" if done.kind == "binary" else "mean rating"
    rows = [
        (
            each.group,
            each.samples,
            each.answered,
            f"{each.rate:.1%}",
            _interval(each.ci_low, each.ci_high),
            each.positive,
        )
        for each in (done.overall, *done.by_arm, *done.by_score)
    ]
    print_rows(["samples", "n", "answered", "response rate", "95 % interval", f"{said} (of those)"], rows)
    click.echo("Those who answer are no sample of those who ask: this is no rate of satisfaction.", err=True)
    print_agreement(done.agreement)
    for score in done.flagged:
        click.echo(f"caution: {score} hardly agrees with users (below 0.2)", err=True)
    for told in done.alerts:
        click.echo(f"alert: {told}")
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    if done.worst is not None:
        click.echo(f"wrote the {done.worst_rows:,} worst rows to {done.worst}")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.1%}, {high:.1%}]"

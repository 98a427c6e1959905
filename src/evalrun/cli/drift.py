"""`evalrun drift`: what changed between two sets of rows."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import FILE, json_option, print_json, store_option
from evalrun.errors import ExitCode
from evalrun.tracking.store import Store


@click.command(no_args_is_help=True)
@click.argument("live")
@click.option(
    "--against", required=True, metavar="WHAT", help="A promoted name, SWEEP[/RUN], or a file of rows."
)
@click.option("--project", metavar="NAME", help="The project of a promoted name.")
@click.option(
    "--text", default="", metavar="COLUMN", help="The text that is tested. [default: the inputs' and output]"
)
@click.option(
    "--by",
    default="",
    metavar="COLUMN",
    help="Segments for mix and quality. [default: the input that moved most]",
)
@click.option("--confidence", default="", metavar="COLUMN",
              help="How sure answers are: accuracy without labels is estimated from it.")  # fmt: skip
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, True, True),
    default=0.05,
    show_default=True,
    help="The level, over all tests.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--gate", type=click.Choice(["any", "inputs", "answers"]), is_flag=False, flag_value="any",
              help="Exit code 1 where it drifted: any (--gate alone), inputs, answers.")  # fmt: skip
@click.option("--report", type=FILE, metavar="FILE.html", help="Write the page there.")
@store_option
@json_option
def drift(
    live: str,
    against: str,
    project: str | None,
    text: str,
    by: str,
    confidence: str,
    alpha: float,
    seed: int,
    gate: str | None,
    report: Path | None,
    store: Store,
    as_json: bool,
) -> None:
    """Compare rows with those of a release: inputs that changed, answers that got worse, what could be seen.

    LIVE is SWEEP[/RUN], a promoted name, or a file of rows. All tests are corrected together (Benjamini and
    Hochberg): without drift one window in twenty is an alarm.

    \b
    Examples:
      evalrun drift latest --against production --gate answers
      evalrun drift live.parquet --against last-month.parquet --by topic --report drift.html
    """
    from evalrun.analysis.drift import Asked
    from evalrun.reports.drift import drift_lines, write_drift
    from evalrun.traffic.drift import compare, document

    found = compare(store, live, against, Asked(alpha, text, by, seed, confidence), project)
    if report is not None:
        write_drift(found, report)
    if as_json:
        print_json({**document(found), "report": None if report is None else str(report)})
    else:
        for line in drift_lines(found):
            click.echo(line)
        if report is not None:
            click.echo(f"\nReport: {report}", err=True)
    hit = {"any": found.drifted, "inputs": found.inputs_changed, "answers": found.answers_worse}
    if gate is not None and hit[gate]:
        raise SystemExit(ExitCode.GATE_FAILED)

"""`evalrun verify SWEEP`: ask some samples again, and see how far the answers agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import ExitCode

if TYPE_CHECKING:
    from evalrun.sweep.verify import RunAgreement


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--samples", type=click.IntRange(min=1), default=50, show_default=True, metavar="N",
    help="How many to ask again, spread over the runs.",
)  # fmt: skip
@click.option("--run", metavar="RUN", help="Only this run.")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), metavar="SHARE",
    help="Exit code 1 where fewer outputs are the very same. [default: scores decide alone]",
)  # fmt: skip
@store_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    sweep: str,
    samples: int,
    run: str | None,
    min_agreement: float | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Ask some samples of SWEEP again, with the messages, parameters and seeds that it holds.

    Exit code 0 when the scores agree, 1 when a scorer's mean differs by more than chance (or fewer outputs
    are the same than --min-agreement asks), 3 when a model cannot be asked or half of the samples fail.

    \b
    Example:
      evalrun verify latest --samples 20
    """
    from evalrun.sweep.verify import as_document, verify_runs

    opened = open_store(store)
    folder = opened.resolve(sweep)
    found = verify_runs(folder, samples=samples, run=run, work_dir=opened.root / "engines")
    document = as_document(folder, found)
    if as_json:
        print_json(document)
    else:
        _print(found)
    ctx.exit(int(_code(document, min_agreement)))


def _code(document: dict[str, Any], least: float | None) -> ExitCode:
    if document["failed"] * 2 >= document["asked"]:
        return ExitCode.INCOMPLETE
    too_few = least is not None and document["share"] < least
    return ExitCode.GATE_FAILED if document["differs"] or too_few else ExitCode.OK


def _print(found: list[RunAgreement]) -> None:
    from evalrun.cli.plain_table import cell, print_rows

    rows = []
    for each in found:
        for metric in each.metrics:
            interval = "" if metric.ci_low is None else f"[{metric.ci_low:+.3f}, {metric.ci_high:+.3f}]"
            change = "" if metric.difference is None else f"{metric.difference:+.3f}"
            verdict = "differs" if metric.differs else "agrees"
            rows.append(
                (each.run, metric.name, metric.n, metric.before, metric.after, change, interval, verdict)
            )
    click.echo("same output, run by run")
    head = ["run", "kind", "asked", "same output", "same answer", "failed"]
    print_rows(
        head,
        [
            (e.run, e.kind, e.asked, f"{e.same_output} ({e.share:.0%})", e.same_answer, e.failed)
            for e in found
        ],
    )
    click.echo("\nscores, now against then")
    print_rows(["run", "scorer", "n", "then", "now", "difference", "95 % interval", ""], rows)
    for each in found:
        for key, (before, after) in each.changed.items():
            click.echo(f"note: {each.run}: {key} was {cell(before)}, is {cell(after)}", err=True)
        for example in each.examples:
            what = f"{each.run} {example['sample_id']}"
            click.echo(f"  ~ {what}: {cell(example['before'])} -> {cell(example['after'])}")

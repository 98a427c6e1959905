"""`evalrun watch SUITE`: evaluate the checkpoints of a training as they come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import ANY_PATH, json_option, sweep_options
from evalrun.errors import ExitCode, UserError

if TYPE_CHECKING:
    from evalrun.sweep.options import SweepOptions


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@click.option("--every", metavar="SECONDS", type=float, help="Seconds between two looks. [default: 60]")
@click.option("--stop", metavar="RULE", help='When it ends. [default: "training finished or 3 h idle"]')
@click.option("--once", is_flag=True, help="One look: evaluate what is there and new.")
@sweep_options(fresh="Begin a new sweep even if one is kept open for this suite.")
@click.option("--reuse", is_flag=True, help="Take over runs that were done before with the same digests.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    suite: Path,
    every: float | None,
    stop: str | None,
    once: bool,
    options: SweepOptions,
    reuse: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Stay, and evaluate the checkpoints of a training as they become whole, each once, in one sweep.

    Its report is written anew after each. Killed or ended by Ctrl-C, the same command goes on with the sweep.

    \b
    Examples:
      evalrun watch suite.yaml
      evalrun watch suite.yaml --every 10 --stop "training finished or 30 min idle"
    """
    from evalrun.cli.run import show_outcome
    from evalrun.reports.progress import make_progress
    from evalrun.sweep.follow_training import watch_training

    given = {"every_s": every, "stop": stop}
    rule = {key: value for key, value in given.items() if value is not None}
    progress = make_progress(quiet=quiet)
    outcome = watch_training(suite, replace(options, reuse=reuse), progress, rule=rule, once=once)
    if outcome is None:
        raise UserError(
            "there was no whole checkpoint to evaluate",
            where=str(suite),
            remedy="See path, pattern and steps under checkpoints.",
            exit_code=ExitCode.INCOMPLETE,
        )
    show_outcome(outcome, as_json=as_json)
    ctx.exit(int(outcome.exit_code))

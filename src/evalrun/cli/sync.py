"""`evalrun sync`: finished sweeps into MLflow, W&B, or whatever takes OpenTelemetry."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.sinks.outbox import Sent


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--to", "targets", multiple=True, metavar="SINK=URL",
    help="mlflow=URL, otlp=URL, … [default: the sinks of the sweep's suite]",
)  # fmt: skip
@click.option("--sink", "only", multiple=True, metavar="NAME", help="Of the suite's sinks only this one.")
@click.option("--experiment", default="", metavar="NAME", help="MLflow's experiment; else the project.")
@click.option("--content", is_flag=True, help="Texts of prompts and answers too.")
@click.option(
    "--tries", type=click.IntRange(1, 20), default=3, show_default=True, envvar="EVALRUN_SYNC_TRIES",
    metavar="N",
    help="How often what waits for a server is tried, after pauses of 1, 4, 16, 60, 60, … s.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be sent.")
@store_option
@json_option
def sync(
    sweep: str,
    targets: tuple[str, ...],
    only: tuple[str, ...],
    experiment: str,
    content: bool,
    tries: int,
    dry_run: bool,
    store: Store,
    as_json: bool,
) -> None:
    """Send a finished sweep (or `all`) to other tools; what they have already is not sent again.

    Without --to it goes to the `sinks` of its suite, which the sweep's end began to do. What waits for a
    server is tried three times; a request that is refused is not.

    The exit code is 3 where something waits or was refused: the same command sends it later.

    \b
    Examples:
      evalrun sync latest
      evalrun sync latest --to mlflow=http://127.0.0.1:5000
      evalrun sync all --to otlp=http://127.0.0.1:4318 --json
    """
    from evalrun.sinks.main import from_targets, of_sweep
    from evalrun.sinks.main import sync as send

    sinks = from_targets(targets, content, experiment) if targets else None
    folders = store.folders() if sweep == "all" else [store.resolve(sweep)]
    finished = [folder for folder in folders if sweep != "all" or not folder.is_locked()]
    outcome = []
    for folder in finished:
        chosen = of_sweep(folder) if sinks is None else sinks
        if sweep != "all" and not (chosen and {*only} <= chosen.keys()):
            what = f"the sweep's suite names no sink '{next(iter(only))}'" if only else "nowhere to send it"
            raise UserError(what, remedy="Name one: --to mlflow=URL, or `sinks:` in the suite.")
        wanted = {name: sink for name, sink in chosen.items() if not only or name in only}
        outcome += send(folder, wanted, dry_run=dry_run, tries=tries)
        if any(sent.waiting for sent in outcome):
            tries = 1  # it was waited for once: not again for each sweep
    if as_json:
        print_json({"sinks": [asdict(sent) for sent in outcome]})
    else:
        for sent in outcome:
            click.echo(_line(sent))
    if not dry_run and any(sent.waiting or sent.parked for sent in outcome):
        raise SystemExit(ExitCode.INCOMPLETE)


def _line(sent: Sent) -> str:
    parts = [f"{sent.sent} sent", f"{sent.unchanged} there already"]
    parts += [f"{sent.waiting} waiting"] * bool(sent.waiting) + [f"{sent.parked} refused"] * bool(sent.parked)
    return f"{sent.sweep} {sent.sink}: {', '.join(parts)}" + (f" ({sent.words})" if sent.words else "")

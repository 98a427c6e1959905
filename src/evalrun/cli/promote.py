"""`evalrun promote`, `deployed` and `whatis`: which run stands where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option


@click.command(no_args_is_help=True)
@click.argument("run")
@click.option("--as", "name", required=True, metavar="NAME", help="The name, such as production.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the promotion. Required.")
@click.option("--override", is_flag=True, help="Promote in spite of failed gates; they are recorded.")
@store_option
@json_option
def promote(run: str, name: str, reason: str, override: bool, store: Path | None, as_json: bool) -> None:
    """Let a run stand for NAME in its project: SWEEP/RUN, or SWEEP where it has one run.

    Refused (exit code 1) while its sweep is not complete, when a gate of it failed, or when it was altered.

    \b
    Example:
      evalrun promote latest/smollm2-few_shot-tickets --as production --reason "F1 up by 4 points"
    """
    from evalrun.tracking.changes import Wish
    from evalrun.tracking.changes import promote as place
    from evalrun.tracking.targets import find_run_target

    opened = open_store(store)
    done = place(opened, find_run_target(opened, run), Wish(name, reason, override))
    if as_json:
        print_json(asdict(done))
        return
    click.echo(f"{done.name} of {done.project} is {done.sweep}/{done.run}")
    for each in done.overridden:
        click.echo(f"overridden: {each}", err=True)
    click.echo(f"Next: `evalrun deployed {done.sweep}/{done.run} --env …`, `evalrun whatis {name}`", err=True)


@click.command(no_args_is_help=True)
@click.argument("run")
@click.option("--env", "environment", required=True, metavar="NAME", help="The environment, such as prod.")
@click.option("--url", default="", metavar="URL", help="Where it answers; kept without secrets.")
@click.option("--reason", default="", metavar="TEXT", help="Anything to keep with it.")
@store_option
@json_option
def deployed(run: str, environment: str, url: str, reason: str, store: Path | None, as_json: bool) -> None:
    """Note that a run's model and prompt are deployed to an environment. Nothing is sent anywhere.

    \b
    Example:
      evalrun deployed latest --env prod --url https://triage.example.org/v1
    """
    from evalrun.tracking.changes import deployed as place
    from evalrun.tracking.targets import find_run_target

    opened = open_store(store)
    done = place(opened, find_run_target(opened, run), environment, url, reason)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{done.sweep}/{done.run} is deployed to {done.name}")


@click.command(no_args_is_help=True)
@click.argument("name")
@click.option("--project", metavar="NAME", help="In this project.")
@store_option
@json_option
def whatis(name: str, project: str | None, store: Path | None, as_json: bool) -> None:
    """Show which run stands for a name, or is deployed to an environment: its numbers, who, when, why.

    \b
    Example:
      evalrun whatis production --json
    """
    from evalrun.tracking.changes import placed
    from evalrun.tracking.changes import whatis as history

    opened = open_store(store)
    found = history(opened, name, project)
    now = found[0]
    deployments = [
        each
        for each in placed(opened, now.project)
        if each.kind == "deploy" and (each.sweep, each.run) == (now.sweep, now.run)
    ]
    if as_json:
        print_json(
            {
                **asdict(now),
                "deployments": [asdict(each) for each in deployments],
                "history": [asdict(each) for each in found[1:]],
            }
        )
        return
    from evalrun.cli.plain_table import cell, print_rows

    gone = "" if now.present else " (deleted since)"
    said = "promoted" if now.kind == "promote" else "deployed"
    click.echo(cell(f"{name} of {now.project} is {now.sweep}/{now.run}{gone}", 200))
    click.echo(cell(f"{said} by {now.actor} at {now.ts[:16]} UTC: {now.reason or now.url or '-'}", 400))
    for each in now.overridden:
        click.echo(cell(f"overridden: {each}", 400))
    for place in deployments if now.kind == "promote" else ():
        click.echo(cell(f"deployed to {place.name} at {place.ts[:16]} by {place.actor}: {place.url}", 400))
    click.echo()
    rows = [[each["name"], each["value"], _interval(each), each["n"], each["unit"]] for each in now.metrics]
    print_rows(["metric", "value", "95 % interval", "n", "unit"], rows)
    if found[1:]:
        click.echo("\nbefore:")
        before = [[e.ts[:16], e.actor, f"{e.sweep}/{e.run}", e.reason or e.url] for e in found[1:11]]
        print_rows(["when", "who", "run", "why"], before)


def _interval(metric: object) -> str:
    values = metric if isinstance(metric, dict) else {}
    low, high = values.get("ci_low"), values.get("ci_high")
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"

"""Sweeps to and from a team's server."""

from __future__ import annotations

import time

import click

from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import UserError
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

BEGIN_S = 10


def _running(store: Store, sweep: str) -> SweepFolder:
    """The sweep that is meant; where the latest does not run, one that begins within seconds, as beside
    `evalrun suite.yaml &`."""
    until = time.monotonic() + BEGIN_S
    while True:
        waits = sweep == "latest" and time.monotonic() < until
        try:
            folder = store.resolve(sweep)
        except UserError:
            if not waits:
                raise
        else:
            if folder.is_locked() or not waits:
                return folder
        time.sleep(0.2)


@click.command(no_args_is_help=True)
@click.argument("url")
@click.argument("sweep", default="latest")
@click.option("--live", is_flag=True, help="Of a running sweep: tell how far it is, and send it at its end.")
@store_option
@json_option
def push(url: str, sweep: str, live: bool, store: Store, as_json: bool) -> None:
    """Send a sweep to a server, with the token in EVALRUN_TOKEN. Again, it goes on where it stopped.

    \b
    Examples:
      EVALRUN_TOKEN=evr_… evalrun push https://evals.example.org latest
      EVALRUN_TOKEN=evr_… evalrun push https://evals.example.org latest --live
    """
    from evalrun.server.client import Remote, tell
    from evalrun.server.client import push as send

    remote = Remote(url)
    folder = _running(store, sweep) if live else store.resolve(sweep)
    if live:
        click.echo(f"{folder.path.name} is followed at {url.rstrip('/')}/s/{folder.ulid}", err=True)
        tell(folder, remote)
    state = send(folder, remote, lambda text: click.echo(text, err=True))
    if as_json:
        print_json({"sweep": folder.ulid, "state": state, "url": f"{url.rstrip('/')}/s/{folder.ulid}"})
        return
    said = {
        "new": "is there now",
        "extended": "is there now, with what was added",
        "present": "was there already",
    }
    click.echo(f"{folder.path.name} {said[state]}: {url.rstrip('/')}/s/{folder.ulid}")


@click.command(no_args_is_help=True)
@click.argument("url")
@click.argument("sweep")
@store_option
@json_option
def pull(url: str, sweep: str, store: Store, as_json: bool) -> None:
    """Fetch a sweep by its id from a server into the store, with the token in EVALRUN_TOKEN.

    \b
    Example:
      EVALRUN_TOKEN=evr_… evalrun pull https://evals.example.org 01K5…
    """
    from evalrun.server.client import Remote
    from evalrun.server.client import pull as fetch

    folder, state = fetch(store, Remote(url), sweep)
    if as_json:
        print_json({"sweep": folder.ulid, "state": state, "folder": str(folder.path)})
        return
    said = {"new": "fetched", "extended": "fetched what was added", "present": "was here already"}
    click.echo(f"{folder.path.name}: {said[state]}")

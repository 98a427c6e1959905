"""`evalrun site`: the store as static files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.options import json_option, print_json, store_option


@click.command(no_args_is_help=True)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--project", metavar="NAME", help="Only sweeps of this project.")
@store_option
@json_option
def site(out: Path, project: str | None, store: Path | None, as_json: bool) -> None:
    """Write the store as a site of static files into DIR: projects, sweeps, trends, reports, search.

    Nothing in it needs a network or a server: it can be opened from disk, kept as a CI artifact, or served by
    any host of static pages. The next time only what changed is written again.
    """
    from evalrun.cli.opened import open_store
    from evalrun.reports.site import write_site

    done = write_site(open_store(store), out, project=project)
    if as_json:
        print_json(asdict(done))
        return
    for problem in done.problems:
        click.echo(f"warning: left out: {problem}", err=True)
    click.echo(f"wrote {out / 'index.html'}: {done.sweeps} sweeps, {done.reports} reports written")

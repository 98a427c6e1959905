"""`evalrun checkout SWEEP DIR`: what a sweep was made from, to be run again."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import ExitCode


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@store_option
@json_option
@click.pass_context
def checkout(ctx: click.Context, /, sweep: str, folder: Path, store: Path | None, as_json: bool) -> None:
    """Write the suite, prompts and rows of SWEEP into DIR, a new folder, to be run again from there.

    Exit code 3 when something that was written reads otherwise than it did: each is named.

    \b
    Examples:
      evalrun checkout latest again/
      evalrun again/suite.yaml
    """
    from evalrun.sweep.checkout import checkout as check_out

    done = check_out(open_store(store).resolve(sweep), folder)
    differs = [name for name, same in done.same.items() if not same]
    if as_json:
        print_json(
            {
                "suite": done.suite,
                "files": done.files,
                "same": done.same,
                "differs": differs,
                "notes": done.notes,
            }
        )
    else:
        for note in done.notes:
            click.echo(f"note: {note}", err=True)
        for name in differs:
            click.echo(f"warning: {name} is not what it was: its digest differs", err=True)
        kept = sum(done.same.values())
        click.echo(
            f"wrote {len(done.files)} files; {kept} of {len(done.same)} digests are those of the sweep"
        )
        click.echo(f"run it again: evalrun {done.suite}")
    ctx.exit(int(ExitCode.INCOMPLETE if differs else ExitCode.OK))

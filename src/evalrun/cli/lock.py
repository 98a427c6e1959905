"""`evalrun lock SUITE`: pin what a suite is made of."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import json_option, print_json
from evalrun.errors import ExitCode


@click.command(no_args_is_help=True)
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Change nothing; exit code 2 when something differs.")
@json_option
@click.pass_context
def lock(ctx: click.Context, /, suite: Path, check: bool, as_json: bool) -> None:
    """Write the digests of a suite's rows, prompts, examples, weights and Hub commits into evalrun.lock.

    The file lies beside the suite, to be committed with it. From then on a run of the suite that would use
    anything else is an error that names what changed; run `evalrun lock` again to take a change over.
    """
    from evalrun.paths import default_store
    from evalrun.suite.load import load_suite
    from evalrun.sweep.lock import drift, lock_path, write_lock
    from evalrun.sweep.prepare import prepare

    prepared = prepare(load_suite(suite), default_store() / "engines")
    path = lock_path(prepared.loaded)
    found = drift(prepared)
    if not check:
        path, changed = write_lock(prepared)
        found = changed if found is not None else None
    differences = [each.what for each in found or []]
    if as_json:
        print_json({"lock": path, "pinned": found is not None or not check, "differences": differences})
    elif check and found is None:
        click.echo(f"{path} does not pin {suite.name}: run `evalrun lock {suite}`", err=True)
    else:
        for each in differences:
            click.echo(each)
        done = "agrees" if check and not differences else "differs" if check else "written"
        click.echo(f"{path}: {done}")
    ctx.exit(int(ExitCode.USAGE if check and (found is None or found) else ExitCode.OK))

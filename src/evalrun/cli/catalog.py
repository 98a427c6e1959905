"""`evalrun catalog`: where the index of a store's sweeps is kept."""

from __future__ import annotations

import os
from pathlib import Path

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option


@click.group(invoke_without_command=True)
@store_option
@json_option
@click.pass_context
def catalog(ctx: click.Context, /, store: Path | None, as_json: bool) -> None:
    """Show where the catalog is; `use URL` keeps it in PostgreSQL, `use sqlite` beside the sweeps.

    \b
    Examples:
      evalrun catalog
      evalrun catalog use postgresql://me@db.example.org/evals
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = store
        return
    from evalrun.tracking.tables import SCHEMA

    opened = open_store(store)
    rows = len(opened.list(None))
    document = {"catalog": opened.catalog_shown, "schema": SCHEMA, "sweeps": rows}
    if as_json:
        print_json(document)
        return
    click.echo(f"{document['catalog']}: {rows} sweeps, schema {document['schema']}")


@catalog.command(no_args_is_help=True)
@click.argument("url")
@store_option
@click.pass_context
def use(ctx: click.Context, /, url: str, store: Path | None) -> None:
    """Keep the catalog of the store in a PostgreSQL database, or in its SQLite file again (`sqlite`).

    URL is postgresql://USER@HOST/DATABASE[?schema=NAME] without a password: that goes into PGPASSWORD or
    ~/.pgpass. The catalog is made there from the sweep folders at once.

    \b
    Examples:
      evalrun catalog use postgresql://me@db.example.org/evals
      evalrun catalog use sqlite
    """
    from evalrun.tracking.database import VARIABLE, set_catalog, setting

    opened = open_store(store or ctx.obj)
    before = setting(opened.root)
    opened.create_root()
    set_catalog(opened.root, None if url == "sqlite" else url)
    try:
        done = opened.reindex()
    except BaseException:
        set_catalog(opened.root, before)  # one that cannot be used is not set
        raise
    for problem in done.problems:
        click.echo(f"warning: {problem}", err=True)
    if os.environ.get(VARIABLE):
        click.echo(f"warning: {VARIABLE} is set and goes before the store's setting", err=True)
    click.echo(f"{opened.catalog_shown}: {done.sweeps} sweeps")

"""`evalrun models list|pull|where`: the embedded engine's model catalogue."""

from __future__ import annotations

from dataclasses import asdict

import click

from evalrun.cli.options import json_option, print_json


@click.group()
def models() -> None:
    """List, pull and find models for the embedded engine (provider: llamacpp).

    \b
    Example:
      evalrun models list
    """


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models of the catalogue.

    \b
    Example:
      evalrun models list --json
    """
    from evalrun.providers import catalogue

    entries = catalogue.list_models()
    if as_json:
        print_json([{**asdict(entry), "path": str(entry.path) if entry.path else None} for entry in entries])
        return
    for entry in entries:
        state = f"installed, {entry.path}" if entry.path else "not pulled yet"
        click.echo(f"{entry.name}  {entry.size_bytes / 1e6:.0f} MB  {entry.license}  {state}")


@models.command(no_args_is_help=True)
@click.argument("name")
def pull(name: str) -> None:
    """Download a model and check its SHA-256.

    \b
    Example:
      evalrun models pull smollm2-135m-instruct
    """
    from evalrun.providers import catalogue
    from evalrun.providers.catalogue import download_progress

    with download_progress(name) as progress:
        path = catalogue.pull(name, progress)
    click.echo(path)


@models.command(no_args_is_help=True)
@click.argument("name")
def where(name: str) -> None:
    """Print the path of a model that was pulled.

    \b
    Example:
      evalrun models where smollm2-135m-instruct
    """
    from evalrun.errors import UserError
    from evalrun.providers import catalogue

    path = catalogue.where(name)
    if path is None:
        raise UserError(f"model '{name}' is not here", remedy=f"Run: evalrun models pull {name}")
    click.echo(path)

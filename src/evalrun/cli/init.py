"""`evalrun init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> None:
    """Write a commented suite, a prompt and a small dataset that run as they stand.

    \b
    Example:
      evalrun init my-suite
    """
    from evalrun.suite.scaffold import write_scaffold

    written = write_scaffold(folder)
    for path in written:
        click.echo(f"wrote {path}")
    suite = next(path for path in written if path.suffix == ".yaml")
    click.echo(f"Next: evalrun {suite}")

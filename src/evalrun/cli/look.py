"""`evalrun open`, and following a sweep while it runs."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import FILE, store_option
from evalrun.tracking.store import Store


@click.command("open")
@click.argument("sweep", default="latest")
@click.option("--print", "only_print", is_flag=True, help="Only print the path of the report.")
@click.option("--out", type=FILE, metavar="FILE.html", help="Where it goes if it is not there yet.")
@store_option
def open_report(sweep: str, only_print: bool, out: Path | None, store: Store) -> None:
    """Open the report of a sweep in the browser; it is written if it is not there.

    \b
    Examples:
      evalrun open
      evalrun open previous
      evalrun open latest --print
    """
    from evalrun.reports.report import report_path, write_report

    folder = store.resolve(sweep)
    path = out or report_path(folder)
    if not path.exists() or path.stat().st_mtime_ns < (folder.path / "sweep.json").stat().st_mtime_ns:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(folder, path)
    click.echo(path)
    if only_print:
        return
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        click.echo("no browser could be opened: open the file above", err=True)

"""`evalrun list`, `show`, `report` and `reindex`: what the store holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.options import json_option, print_json, store_option


def _store(store: Path | None):  # type: ignore[no-untyped-def]
    from evalrun.paths import default_store
    from evalrun.tracking.store import Store

    return Store(store or default_store())


@click.command("list")
@click.option("--project", metavar="NAME", help="Only sweeps of this project.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many."
)
@click.option("--archived", is_flag=True, help="Archived sweeps too.")
@store_option
@json_option
def list_sweeps(project: str | None, limit: int, archived: bool, store: Path | None, as_json: bool) -> None:
    """List the sweeps in the store, the newest first."""
    rows = _store(store).list(limit=limit, project=project, archived=archived)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    from evalrun.reports.terminal import print_sweeps

    print_sweeps(rows)


@click.command(no_args_is_help=True)
@click.argument("sweep")
@store_option
@json_option
def show(sweep: str, store: Path | None, as_json: bool) -> None:
    """Show the results of a sweep: any unique beginning of its id, its name, or `latest`."""
    folder = _store(store).resolve(sweep)
    manifest, runs = folder.read_manifest(), folder.runs()
    if as_json:
        print_json({**manifest, "runs": runs})
        return
    from evalrun.reports.terminal import print_result

    print_result(manifest, runs, None, folder.path)


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html", help="Where it goes."
)
@store_option
def report(sweep: str, out: Path | None, store: Path | None) -> None:
    """Write the HTML report of a sweep again, from its folder alone."""
    from evalrun.reports.html import write_report

    folder = _store(store).resolve(sweep)
    target = out or Path("reports") / f"{folder.path.name.lower()}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_report(folder, target)
    click.echo(f"wrote {target}")


@click.command()
@store_option
@json_option
def reindex(store: Path | None, as_json: bool) -> None:
    """Rebuild the catalog from the sweep folders, which are the truth."""
    done = _store(store).reindex()
    if as_json:
        print_json({"sweeps": done.sweeps, "problems": [str(problem) for problem in done.problems]})
        return
    for problem in done.problems:
        click.echo(f"warning: {problem}", err=True)
    click.echo(f"indexed {done.sweeps} sweeps")

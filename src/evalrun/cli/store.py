"""`evalrun list`, `show`, `report`, `site`, `reindex` and `catalog`: what the store holds, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import (
    FILE,
    FOLDER,
    csv_option,
    json_option,
    limit_option,
    print_csv,
    print_json,
    store_option,
)
from evalrun.errors import UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.tracking.changes import Placed
    from evalrun.tracking.folder import SweepFolder
    from evalrun.tracking.running import RunningRun


@click.command("list")
@click.option("--project", metavar="NAME", help="Only sweeps of this project.")
@limit_option(20)
@click.option("--archived", is_flag=True, help="Archived sweeps too.")
@store_option
@json_option
@csv_option
def list_sweeps(
    project: str | None, limit: int, archived: bool, store: Store, as_json: bool, as_csv: bool
) -> None:
    """List the sweeps in the store, the newest first.

    \b
    Example:
      evalrun list --project nightly --limit 5
    """
    from evalrun.reports.best import best_score
    from evalrun.tracking.naming import read_numbers

    rows = store.list(limit=limit, project=project, archived=archived)
    standing = _standing(store) if rows else {}
    known = read_numbers(store, store.ulids()) if rows else {}
    best = {row.sweep: score for row in rows if (score := best_score(row.folder)) is not None}
    if as_json or as_csv:
        documents = [
            {
                **asdict(row),
                "stands_for": standing.get(row.sweep, []),
                "number": known.get(row.sweep),
                "best": asdict(best[row.sweep]) if row.sweep in best else None,
            }
            for row in rows
        ]
        (print_json if as_json else print_csv)(documents)
        return
    from evalrun.reports.sweep_list import print_sweeps

    print_sweeps(rows, standing, known, best)


def _standing(store: Store) -> dict[str, list[str]]:
    """What sweeps that were just listed stand for now: names of promotions, environments, baselines; by the
    sweep's id."""
    from evalrun.tracking.changes import current, list_baselines, placed

    found: dict[str, list[str]] = {}
    for each in current(placed(store, in_step=True)).values():
        found.setdefault(each.sweep, []).append(each.name)
    for baseline in list_baselines(store):
        found.setdefault(baseline.sweep, []).append(f"baseline {baseline.name}")
    return found


@click.command(no_args_is_help=True)
@click.argument("sweep", default="latest")
@click.option("--live", is_flag=True, help="Follow the sweep while it runs, then show its results.")
@store_option
@json_option
@csv_option
def show(sweep: str, live: bool, store: Store, as_json: bool, as_csv: bool) -> None:
    """Show the results of a sweep, and what was said of it: by a beginning of its id, its name, or `latest`.

    With --csv, a line for each metric of each run.

    \b
    Examples:
      evalrun show latest
      evalrun show 01K5 --json
      evalrun show --live
    """
    from evalrun.tracking.changes import list_baselines, said

    folder = store.resolve(sweep)
    if live:
        from evalrun.reports.progress import make_progress
        from evalrun.sweep.follow import follow

        follow(folder, make_progress())
    manifest, runs, told = folder.read_manifest(), folder.runs(), said(folder)
    if as_csv:
        print_csv([row for run in runs for row in _metric_rows(run)])
        return
    places, now = _places(store, folder)
    baselines = [baseline.name for baseline in list_baselines(store) if baseline.sweep == folder.ulid]
    if as_json:
        from evalrun.analysis.conclude import STANDINGS, conclude_sweep

        if STANDINGS not in manifest:  # written by an earlier version
            manifest |= conclude_sweep(folder, manifest["gates"])
        people = {**asdict(told), "placed": [asdict(place) for place in places], "baselines": baselines}
        so_far = [asdict(run) for run in _unfinished(folder)]
        print_json({**manifest, "status": folder.status(), "runs": runs, "running": so_far, "said": people})
        return
    from evalrun.reports.terminal import print_result, said_lines, standing_lines

    print_result(folder, name=told.name or "")
    for fault in manifest.get("faults") or ():
        click.echo(f"error: {fault}")
    lines = [*said_lines(told, manifest["name"], standing_lines(places, now, baselines))]
    for line in ["", *lines] if lines else ():
        click.echo(line)


_METRIC = ("name", "slice", "value", "n", "se", "ci_low", "ci_high", "unit", "direction")


def _metric_rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a run as flat rows."""
    known = {name: run[name] for name in ("run", "model", "prompt", "dataset", "params")}
    rows = []
    for metric in run["metrics"]:
        of = ", ".join(f"{column}={value}" for column, value in (metric.get("slice") or {}).items())
        rows.append({**known, **{name: metric.get(name) for name in _METRIC}, "slice": of})
    return rows


def _unfinished(folder: SweepFolder) -> list[RunningRun]:
    """The runs that have answers and no results yet; of a complete sweep nothing is imported for it."""
    if folder.unfinished_digest() is None:
        return []
    from evalrun.tracking.running import running_runs

    return running_runs(folder)


def _places(store: Store, folder: SweepFolder) -> tuple[list[Placed], dict[tuple[str, str, str], Placed]]:
    """Where the sweep's runs were put, and what stands everywhere now. Most sweeps stand nowhere, and only
    for the others is the catalog asked."""
    from evalrun.tracking.changes import current, kept_of, placed

    if not kept_of(folder):
        return [], {}
    try:
        everywhere = placed(store)
    except UserError as error:  # the results lie in the folder, and are shown all the same
        click.echo(f"warning: {error}", err=True)
        return [], {}
    return [each for each in everywhere if each.sweep == folder.ulid], current(everywhere)


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--out", type=FILE, metavar="FILE.html", help="Where it goes.")
@store_option
def report(sweep: str, out: Path | None, store: Store) -> None:
    """Write the HTML report of a sweep again, from its folder alone.

    \b
    Example:
      evalrun report latest --out reports/latest.html
    """
    from evalrun.reports.report import report_path, write_report

    folder = store.resolve(sweep)
    target = out or report_path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_report(folder, target)
    click.echo(f"wrote {target}")


@click.command()
@store_option
@json_option
def reindex(store: Store, as_json: bool) -> None:
    """Rebuild the catalog from the sweep folders, which are the truth.

    \b
    Example:
      evalrun reindex --store /data/evals
    """
    done = store.reindex()
    if as_json:
        print_json({"sweeps": done.sweeps, "problems": [str(problem) for problem in done.problems]})
        return
    for problem in done.problems:
        click.echo(f"warning: {problem}", err=True)
    click.echo(f"indexed {done.sweeps} sweeps")


@click.command(no_args_is_help=True)
@click.argument("out", type=FOLDER, metavar="DIR")
@click.option("--project", metavar="NAME", help="Only sweeps of this project.")
@store_option
@json_option
def site(out: Path, project: str | None, store: Store, as_json: bool) -> None:
    """Write the store as a site of static files into DIR: projects, sweeps, trends, reports, search.

    Nothing in it needs a network or a server: it can be opened from disk, kept as a CI artifact, or served by
    any host of static pages. The next time only what changed is written again.
    """
    from evalrun.reports.site import write_site

    done = write_site(store, out, project=project)
    if as_json:
        print_json(asdict(done))
        return
    for problem in done.problems:
        click.echo(f"warning: left out: {problem}", err=True)
    click.echo(f"wrote {out / 'index.html'}: {done.sweeps} sweeps, {done.reports} reports written")


@click.group(invoke_without_command=True)
@store_option
@json_option
@click.pass_context
def store(ctx: click.Context, /, store: Store, as_json: bool) -> None:
    """Show where the store is and who may use it; `create` makes one, for yourself or for a group.

    \b
    Examples:
      evalrun store
      evalrun store create --mode group --group nlp --store /data/evals
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = store
        return
    document = {"store": store.root, "mode": store.mode, "read_only": store.is_read_only}
    if as_json:
        print_json(document)
        return
    click.echo(f"{store.root}: {store.mode}{', may only be read' if store.is_read_only else ''}")


@store.command()
@click.option(
    "--mode", type=click.Choice(["private", "group"]), default="private", show_default=True,
    help="Who may use it.",
)  # fmt: skip
@click.option("--group", metavar="NAME", help="The group. [default: your own]")
@store_option
def create(mode: str, group: str | None, store: Store) -> None:
    """Make a store. Its mode is fixed from then on, and every file in it has it, whatever the umask.

    \b
    Example:
      evalrun store create --mode group --group nlp --store /data/evals
    """
    store.create(mode, group)
    click.echo(f"{store.root}: {store.mode}")


@click.group(invoke_without_command=True)
@store_option
@json_option
@click.pass_context
def catalog(ctx: click.Context, /, store: Store, as_json: bool) -> None:
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

    rows = len(store.list(None))
    document = {"catalog": store.catalog_shown, "schema": SCHEMA, "sweeps": rows}
    if as_json:
        print_json(document)
        return
    click.echo(f"{document['catalog']}: {rows} sweeps, schema {document['schema']}")


@catalog.command(no_args_is_help=True)
@click.argument("url")
@store_option
def use(url: str, store: Store) -> None:
    """Keep the catalog of the store in a PostgreSQL database, or in its SQLite file again (`sqlite`).

    URL is postgresql://USER@HOST/DATABASE[?schema=NAME] without a password: that goes into PGPASSWORD or
    ~/.pgpass. The catalog is made there from the sweep folders at once.

    \b
    Examples:
      evalrun catalog use postgresql://me@db.example.org/evals
      evalrun catalog use sqlite
    """
    from evalrun.tracking.database import set_catalog, setting
    from evalrun.tracking.glance import VARIABLE

    before = setting(store.root)
    store.create_root()
    set_catalog(store.root, None if url == "sqlite" else url)
    try:
        done = store.reindex()
    except BaseException:
        set_catalog(store.root, before)  # one that cannot be used is not set
        raise
    for problem in done.problems:
        click.echo(f"warning: {problem}", err=True)
    if os.environ.get(VARIABLE):
        click.echo(f"warning: {VARIABLE} is set and goes before the store's setting", err=True)
    click.echo(f"{store.catalog_shown}: {done.sweeps} sweeps")

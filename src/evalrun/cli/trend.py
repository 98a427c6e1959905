"""`evalrun trend`: a metric of a project over time."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option


@click.command()
@click.argument("project", required=False)
@click.option("--metric", metavar="NAME", help="As in gates: exact_match[dialect=aave]. [default: the first]")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="The last N sweeps.",
)
@click.option("--points", is_flag=True, help="List the points of every line.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Write a page with the chart.",
)  # fmt: skip
@store_option
@json_option
def trend(
    project: str | None,
    metric: str | None,
    limit: int,
    points: bool,
    page: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Show a metric over the complete sweeps of a project, with intervals, promotions and deployments.

    Where the data changed the line is broken: points on both sides are not compared. PROJECT may be left out
    where the store has one.

    \b
    Examples:
      evalrun trend nightly
      evalrun trend nightly --metric performance.e2e_s.p95 --html trend.html
    """
    from evalrun.reports.trend import trend_lines, trend_of

    opened = open_store(store)
    found = trend_of(opened, project or _only_project(opened), metric, limit)
    if page is not None:
        from evalrun.reports.trend import write_trend

        write_trend(found, page)
        click.echo(f"wrote {page}", err=True)
    if as_json:
        print_json(found.document())
        return
    for line in trend_lines(found, points=points):
        click.echo(line)


def _only_project(store: object) -> str:
    from evalrun.errors import UserError
    from evalrun.tracking.store import Store
    from evalrun.tracking.trend import projects

    known = projects(store) if isinstance(store, Store) else []
    if len(known) == 1:
        return known[0]
    listed = ", ".join(known[:20]) or "none yet"
    raise UserError("which project?", remedy=f"Name one: evalrun trend PROJECT. There are: {listed}.")

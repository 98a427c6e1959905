"""`evalrun find`, `samples`, `sql` and `trend`: what the store holds, by what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import (
    FILE,
    csv_option,
    json_option,
    limit_option,
    print_csv,
    print_json,
    print_rows,
    store_option,
)
from evalrun.errors import UserError
from evalrun.reports.numbers import plural
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.tracking.folder import SweepFolder

_SORT = click.option(
    "--sort", multiple=True, metavar="NAME",
    help="Order by a name of the query language; -NAME downwards. May be given again.",
)  # fmt: skip


@click.command()
@click.argument("query", default="")
@_SORT
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Show this metric too.")
@limit_option(50)
@click.option("--archived", is_flag=True, help="Archived sweeps too.")
@store_option
@json_option
@csv_option
def find(
    query: str,
    sort: tuple[str, ...],
    metrics: tuple[str, ...],
    limit: int,
    archived: bool,
    store: Store,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Find runs, as in: evalrun find 'metric.exact_match > 0.8 and tag.team == "nlp"' --sort -cost

    Names: metric.<name>, param.<name>, tag.<name>, model, prompt, dataset, project, name, status, started_at,
    samples, failed, cost, wall_s and more; metric("exact_match", dialect="aave").ci_low for a slice and part.
    Joined by and, or, not, brackets; compared by == != < <= > >= and in.
    """
    from evalrun.tracking.finding import Search

    search = Search.of(query, sort=sort, metrics=metrics, limit=limit, archived=archived)
    found = store.find(search)
    if as_json:
        print_json({"total": found.total, "runs": [asdict(row) for row in found.rows]})
        return
    if as_csv:
        print_csv([asdict(row) for row in found.rows])
        return
    from evalrun.tracking.naming import read_numbers

    known = read_numbers(store, store.ulids()) if found.rows else {}
    shown = [*found.rows[0].metrics] if found.rows else []
    rows = []
    for row in found.rows:
        values = [_value(row.metrics[name]) for name in shown]
        about = [row.name, row.started_at[:16], row.status, row.samples, row.cost_usd, row.sweep]
        rows.append([row.run, known.get(row.sweep), *values, *about])
    print_rows(["run", "#", *shown, "name", "started", "status", "samples", "cost", "sweep"], rows)
    click.echo(
        f"{plural(found.total, 'run')} found" + _shown(found.total, len(rows)),
        err=True,
    )


def _value(metric: Mapping[str, Any] | None) -> Any:
    """A metric's value for the table; of one that lost too many rows, that it did."""
    if metric is None or not metric.get("incomplete"):
        return (metric or {}).get("value")
    return f"{metric['value']:.4g} incomplete" if metric["value"] is not None else None


@click.command(no_args_is_help=True)
@click.argument("run")
@click.argument("query", default="")
@click.option("--sweep", default="latest", show_default=True, metavar="SWEEP", help="Of this sweep.")
@_SORT
@limit_option(20)
@store_option
@json_option
@csv_option
def samples(
    run: str,
    query: str,
    sweep: str,
    sort: tuple[str, ...],
    limit: int,
    store: Store,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Find samples of a run, as in: evalrun samples RUN 'score.exact_match == 0 and len(output) > 200'

    Names are the columns of samples.parquet: score.<name>, vars.<column>, sensitive.<column>, status, output,
    answer, target, completion_tokens, e2e_s and more. RUN is a run's id, what it is called (`rules`,
    `rules/tickets`), or SWEEP/RUN.
    """
    from evalrun.tracking.running import samples_file
    from evalrun.tracking.samples import find_samples

    folder, run_id = _run_of(store, run, sweep)
    with samples_file(folder, run_id) as path:
        found = find_samples(path, query, sort=sort, limit=limit)
    if as_json:
        print_json({"sweep": folder.ulid, "run": run_id, "total": found.total, "samples": list(found.rows)})
        return
    if as_csv:
        print_csv(found.rows)
        return
    scores = [each for each in (found.rows[0] if found.rows else ()) if each.startswith("score.")]
    header = ["sample_id", "status", *scores, "target", "answer", "output", "input"]
    header += ["completion_tokens", "e2e_s"]
    rows = [[row.get(name) if name != "input" else _input(row) for name in header] for row in found.rows]
    print_rows(header, rows, widest=40)
    click.echo(
        f"{plural(found.total, 'sample')} found" + _shown(found.total, len(found.rows)),
        err=True,
    )


def _run_of(store: Store, run: str, sweep: str) -> tuple[SweepFolder, str]:
    """What RUN means beside `--sweep`: a run of that sweep before anything else."""
    from evalrun.tracking.samples import find_run
    from evalrun.tracking.targets import find_run_target

    folder = store.resolve(sweep)
    try:
        return folder, find_run(folder, run)
    except UserError as error:
        try:
            target = find_run_target(store, run, sweep)
        except UserError as other:
            raise (other if "/" in run else error) from None
        return target.folder, target.run


@click.command(no_args_is_help=True)
@click.argument("question")
@click.option("--sweep", "sweeps", multiple=True, metavar="SWEEP", help="Samples of these sweeps only.")
@store_option
@json_option
@csv_option
def sql(question: str, sweeps: tuple[str, ...], store: Store, as_json: bool, as_csv: bool) -> None:
    """Ask one SELECT over `runs`, `metrics` and `samples` (DuckDB). Nothing else is read, nothing written.

    \b
    Examples:
      evalrun sql "select model, avg(value) from runs join metrics
                   using (sweep, run) where metrics.name = 'exact_match' group by 1"
      evalrun sql 'select status, count(*) from samples group by 1' --sweep latest
    """
    from evalrun.tracking.sql import ask

    result = ask(store, question, [store.resolve(sweep) for sweep in sweeps] if sweeps else None)
    if as_csv:
        print_csv([dict(zip(result.columns, map(_plain, row), strict=False)) for row in result.rows])
        return
    if as_json:
        print_json(
            {"columns": result.columns, "rows": [[_plain(value) for value in row] for row in result.rows]}
        )
        return
    print_rows(result.columns, result.rows)


def _input(row: Mapping[str, Any]) -> str | None:
    """What was asked about: the longest text among the row's own columns."""
    texts = [value for name, value in row.items() if name.startswith("vars.") and isinstance(value, str)]
    return max(texts, key=len, default=None)


def _shown(total: int, shown: int) -> str:
    return f", {shown:,} shown (--limit)" if shown < total else ""


def _plain(value: Any) -> Any:
    """DuckDB's dates, decimals and the like as JSON."""
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


@click.command()
@click.argument("project", required=False)
@click.option("--metric", metavar="NAME", help="As in gates: exact_match[dialect=aave]. [default: the first]")
@click.option("--training", metavar="NAME", help="Over the steps of this training instead.")
@limit_option(200, "The last N sweeps.")
@click.option("--points", is_flag=True, help="List the points of every line.")
@click.option("--html", "page", type=FILE, metavar="FILE.html", help="Write a page with the chart.")
@store_option
@json_option
@csv_option
def trend(
    project: str | None,
    metric: str | None,
    training: str | None,
    limit: int,
    points: bool,
    page: Path | None,
    store: Store,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show a metric over the complete sweeps of a project, with intervals, promotions and deployments.

    Where the data changed the line is broken: points on both sides are not compared. PROJECT may be left out
    where the store has one.

    \b
    Examples:
      evalrun trend nightly
      evalrun trend nightly --metric performance.e2e_s.p95 --html trend.html
      evalrun trend --training triage-lora --metric exact_match
    """
    if training is not None:
        _training_trend(store, training, metric, page, as_json, as_csv)
        return
    from evalrun.reports.trend import trend_lines, trend_of

    found = trend_of(store, project or _only_project(store), metric, limit)
    if page is not None:
        from evalrun.reports.trend import write_trend

        write_trend(found, page)
        click.echo(f"wrote {page}", err=True)
    if as_json:
        print_json(found.document())
        return
    if as_csv:
        print_csv(
            [
                {"line": line.label, "model": line.model, "prompt": line.prompt, "dataset": line.dataset}
                | asdict(point)
                for line in found.lines
                for point in line.points
            ]
        )
        return
    for text in trend_lines(found, points=points):
        click.echo(_wrapped(text))


def _training_trend(
    store: Store, name: str, metric: str | None, page: Path | None, as_json: bool, as_csv: bool
) -> None:
    from evalrun.reports.training import TrainingView, quality_lines, write_page
    from evalrun.tracking.trainings import resolve_training

    view = TrainingView.of(store, resolve_training(store, name), metric)
    if not view.quality:
        remedy = f"Evaluate them: models with `checkpoints: {{path: …, training: {view.name}}}` in a suite."
        raise UserError(f"no checkpoint of '{view.name}' was evaluated", where="--training", remedy=remedy)
    if page is not None:
        write_page([view], page)
        click.echo(f"wrote {page}", err=True)
    if as_json:
        print_json([asdict(line) for line in view.quality])
    elif as_csv:
        about = ("metric", "prompt", "dataset", "unit")
        print_csv(
            [
                {**{key: getattr(line, key) for key in about}, **asdict(value)}
                for line in view.quality
                for value in line.values
            ]
        )
    else:
        for text in quality_lines(view):
            click.echo(_wrapped(text))


def _wrapped(text: str) -> str:
    """A sentence over as many lines as the terminal needs, words whole."""
    import shutil
    from textwrap import fill

    width = shutil.get_terminal_size((0, 0)).columns
    whole = not width or len(text) <= width or text.startswith(" ")
    return text if whole else fill(text, width, break_long_words=False, break_on_hyphens=False)


def _only_project(store: Store) -> str:
    from evalrun.tracking.trend import projects

    known = projects(store)
    if len(known) == 1:
        return known[0]
    listed = ", ".join(known[:20]) or "none yet"
    raise UserError("which project?", remedy=f"Name one: evalrun trend PROJECT. There are: {listed}.")

"""`evalrun cache stats`, `explain` and `clear`: the answers that were already paid for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import (
    json_option,
    make_overrides,
    print_json,
    store_option,
    suite_options,
)
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.runner.cache_look import CacheStats
    from evalrun.sweep.explain import Explained


@click.group(no_args_is_help=True)
def cache() -> None:
    """Look into the response cache of a store, or clear it.

    \b
    Example:
      evalrun cache stats
    """


def _file(store: Store) -> Path:
    return store.root / "cache" / "responses.db"


@cache.command()
@store_option
@json_option
def stats(store: Store, as_json: bool) -> None:
    """Show how many answers are kept, of which models, since when.

    \b
    Example:
      evalrun cache stats --json
    """
    from evalrun.runner.cache_look import cache_stats

    found = cache_stats(_file(store))
    if as_json:
        runs = [{**asdict(run), "oldest": _iso(run.oldest), "newest": _iso(run.newest)} for run in found.runs]
        print_json({**asdict(found), "runs": runs})
        return
    _print_stats(found)


def _print_stats(found: CacheStats) -> None:
    click.echo(f"{found.path}: {found.entries:,} answers, {found.bytes / 1e6:,.1f} MB")
    for run in found.runs:
        name = run.model or run.provider or "kept by an older evalrun"
        params = ", ".join(f"{key}={value}" for key, value in run.params.items())
        click.echo(
            f"  {run.entries:>9,}  {name}  {run.endpoint}  {params}  "
            f"{_iso(run.oldest)[:16]} to {_iso(run.newest)[:16]}"
        )


@cache.command(no_args_is_help=True)
@click.argument("sweep_or_suite", metavar="SWEEP|SUITE.yaml")
@click.argument("sample")
@click.option("--run", metavar="RUN", help="Only this run, or those that fit.")
@suite_options
@store_option
@json_option
def explain(
    sweep_or_suite: str, sample: str, run: str | None, store: Store, as_json: bool, **overrides: Any
) -> None:
    """Say for one sample whether its answer is kept, and which part of the key differs from the nearest.

    \b
    Examples:
      evalrun cache explain latest T-17
      evalrun cache explain suite.yaml T-17 --json
    """
    from evalrun.sweep.explain import explain_suite, explain_sweep

    if sweep_or_suite.endswith((".yaml", ".yml")):
        found = explain_suite(Path(sweep_or_suite), make_overrides(**overrides), _file(store), sample, run)
    else:
        found = explain_sweep(store.resolve(sweep_or_suite), _file(store), sample, run)
    if as_json:
        print_json([_document(each) for each in found])
        return
    for each in found:
        _print_explained(each)


def _document(each: Explained) -> dict[str, Any]:
    why = each.explanation
    nearest = None
    if why.nearest_at is not None:
        nearest = {
            "sample_id": why.nearest_sample,
            "stored_at": _iso(why.nearest_at),
            "differs": [asdict(part) for part in why.differs],
        }
    return {
        "run": each.run,
        "sample_id": each.sample_id,
        "repeat": each.repeat,
        "key": why.key,
        "cached": why.stored_at is not None,
        "stored_at": _iso(why.stored_at) if why.stored_at is not None else None,
        "nearest": nearest,
    }


def _print_explained(each: Explained) -> None:
    why = each.explanation
    state = f"kept since {_iso(why.stored_at)[:19]}" if why.stored_at is not None else "not in the cache"
    click.echo(f"{each.run}, sample {each.sample_id}, repeat {each.repeat}: {state}")
    if why.nearest_at is None:
        click.echo("  no other answer to this sample, or to this text, is kept")
        return
    click.echo(f"  the nearest other entry ({_iso(why.nearest_at)[:19]}) differs in:")
    for part in why.differs:
        click.echo(f"    {part.part}: {_shown(part.here)} here, {_shown(part.there)} there")


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@cache.command()
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only answers older than so."
)
@click.option("--model", metavar="NAME", help="Only answers of this model, as its provider names it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@json_option
def clear(older_than: float | None, model: str | None, yes: bool, store: Store, as_json: bool) -> None:
    """Delete kept answers. They are asked, and paid for, anew when a suite needs them again.

    \b
    Example:
      evalrun cache clear --older-than 90
    """
    from evalrun.runner.cache_look import clear as delete

    path = _file(store)
    if not yes:
        click.confirm(f"Delete answers from {path}?", abort=True, err=True)
    count = delete(path, older_than_s=None if older_than is None else older_than * 86400, model=model)
    if as_json:
        print_json({"deleted": count})
        return
    click.echo(f"deleted {count:,} answers")

"""Options that several commands share, and how they become one object."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from evalrun.errors import Problem, UserError

Command = TypeVar("Command", bound=Callable[..., Any])

_SUITE_OPTIONS = [
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Use only N samples a dataset."),
    click.option("--models", metavar="ID,…", help="Only these models."),
    click.option("--prompts", metavar="ID,…", help="Only these prompts."),
    click.option("--datasets", metavar="ID,…", help="Only these datasets."),
    click.option("--data", multiple=True, metavar="ID=PATH", help="Read a dataset from a local file."),
    click.option(
        "--set", "sets", multiple=True, metavar="PATH=VALUE",
        help="Override a value of the suite, e.g. models.0.params.temperature=0.7",
    ),
]  # fmt: skip


def suite_options(command: Command) -> Command:
    """The options that change what a suite says."""
    for option in reversed(_SUITE_OPTIONS):
        command = option(command)
    return command


def store_option(command: Command) -> Command:
    """Where sweeps are kept, and which catalog indexes them."""
    command = click.option(
        "--catalog",
        metavar="URL",
        expose_value=False,
        callback=_use_catalog,
        help="PostgreSQL catalog of the store. [default: $EVALRUN_CATALOG, else the store's own]",
    )(command)
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where sweeps are kept. [default: $EVALRUN_STORE, else .evalrun]",
    )(command)


def _use_catalog(ctx: click.Context, _: click.Parameter, url: str | None) -> None:
    """For as long as the command runs, as if the variable were set: every store that it opens has it."""
    if url is None:
        return
    before = os.environ.get("EVALRUN_CATALOG")
    os.environ["EVALRUN_CATALOG"] = url

    def restore() -> None:
        os.environ.pop("EVALRUN_CATALOG", None)
        if before is not None:
            os.environ["EVALRUN_CATALOG"] = before

    ctx.call_on_close(restore)


def json_option(command: Command) -> Command:
    """Machine-readable output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def make_overrides(
    limit: int | None,
    models: str | None,
    prompts: str | None,
    datasets: str | None,
    data: tuple[str, ...],
    sets: tuple[str, ...],
) -> Any:
    """The command line's overrides as the suite room's `Overrides`."""
    from evalrun.suite.overrides import Overrides

    pairs: dict[str, Path] = {}
    wrong = []
    for each in data:
        name, separator, path = each.partition("=")
        if not separator or not name or not path:
            wrong.append(Problem(f"'{each}' is not of the form ID=PATH", "--data"))
        pairs[name] = Path(path)
    if wrong:
        raise UserError(wrong)
    return Overrides(
        limit=limit,
        models=_ids(models),
        prompts=_ids(prompts),
        datasets=_ids(datasets),
        data=pairs,
        sets=sets,
    )


def _ids(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    import orjson

    # Paths become text; everything else in a document is JSON already.
    click.echo(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode())

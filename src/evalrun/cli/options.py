"""What commands share: options and how they become one object, the store, tables and JSON."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from evalrun.errors import Problem, UserError
from evalrun.paths import default_store
from evalrun.tracking.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path)

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


SUITE_OPTIONS = ("limit", "models", "prompts", "datasets", "data", "sets")
"""Their names: those of the arguments of `make_overrides`."""


def suite_options(command: Command) -> Command:
    """The options that change what a suite says."""
    for option in reversed(_SUITE_OPTIONS):
        command = option(command)
    return command


def sweep_options(fresh: str) -> Callable[[Command], Command]:
    """What every command takes that runs a sweep; it gets them as `options`, a `SweepOptions`.

    `fresh` is what `--fresh` says of itself.
    """
    options = [
        suite_options,
        store_option,
        click.option(
            "--report", type=FILE, metavar="FILE.html",
            help="Where the report goes. [default: reports/<sweep>.html]",
        ),
        click.option("--no-report", is_flag=True, help="Write no report."),
        click.option("--no-cache", is_flag=True, help="Neither read nor write the response cache."),
        click.option("--fresh", is_flag=True, help=fresh),
    ]  # fmt: skip

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_options(
            *arguments: Any, store: Store, report: Path | None, no_report: bool, no_cache: bool, fresh: bool,
            **rest: Any,
        ) -> Any:  # fmt: skip
            from evalrun.sweep.options import SweepOptions

            overrides = make_overrides(**{name: rest.pop(name) for name in SUITE_OPTIONS})
            made = SweepOptions(
                overrides=overrides, store=store.root, report=report, write_report=not no_report,
                use_cache=not no_cache, fresh=fresh, argv=tuple(sys.argv[1:]),
            )  # fmt: skip
            return command(*arguments, options=made, **rest)

        wrapped = cast("Command", with_options)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


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
        type=FOLDER,
        metavar="DIR",
        callback=_open_store,
        help="Where sweeps are kept. [default: $EVALRUN_STORE, else .evalrun]",
    )(command)


def _open_store(ctx: click.Context, _: click.Parameter, path: Path | None) -> Store:
    """The store that `--store` names, else that of the group, else `$EVALRUN_STORE`, else `.evalrun`."""
    if path is None and isinstance(ctx.obj, Store):
        return ctx.obj
    return Store(path or default_store())


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


def limit_option(default: int, what: str = "How many.") -> Callable[[Command], Command]:
    """How many things are shown."""
    kind = click.IntRange(min=1)
    return click.option("--limit", type=kind, default=default, show_default=True, metavar="N", help=what)


def inconclusive_option(command: Command) -> Command:
    """What becomes of a gate that the samples cannot decide."""
    return click.option(
        "--inconclusive",
        type=click.Choice(["warn", "fail"]),
        help="Whether a gate that the samples cannot decide fails. [default: as the suite says, else warn]",
    )(command)


def json_option(command: Command) -> Command:
    """Machine-readable output."""
    help_ = "Print one JSON document on stdout."
    return click.option("--json", "as_json", is_flag=True, callback=_one_form, help=help_)(command)


def csv_option(command: Command) -> Command:
    """Rows for a spreadsheet."""
    help_ = "Print the rows as CSV on stdout, every column in full."
    return click.option("--csv", "as_csv", is_flag=True, callback=_one_form, help=help_)(command)


def _one_form(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    """Called for either option; which one comes first depends on the command line."""
    if value and (ctx.params.get("as_json") or ctx.params.get("as_csv")):
        raise click.UsageError("--json and --csv exclude one another.")
    return value


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


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV on stdout: the columns of all rows in the order of the first ones; mappings as columns of
    their own (`best.value`), lists as JSON, nothing for null. A text that a spreadsheet would compute has an
    apostrophe before it."""
    import csv
    import io

    flat = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    if not columns:
        return
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    click.echo(out.getvalue(), nl=False)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    import orjson

    for name, value in row.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | Mapping):
            yield f"{prefix}{name}", orjson.dumps(value, default=str).decode() if value else ""
        elif isinstance(value, bool):
            yield f"{prefix}{name}", "true" if value else "false"
        else:
            yield f"{prefix}{name}", "" if value is None else _harmless(value)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, as text: models write what they like."""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def print_rows(header: Sequence[str], rows: Sequence[Sequence[Any]], widest: int = 60) -> None:
    """Print a table; cells longer than `widest` characters are cut, numbers stand to the right. In a
    terminal, and where COLUMNS is set, it fits the width."""
    import shutil

    if width := shutil.get_terminal_size((0, 0)).columns:
        _print_fitted(header, rows, width)
        return
    texts = [[cell(value, widest) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    numeric = [
        bool(rows) and all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(header)
    for line in [list(header), *texts]:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def _print_fitted(header: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> None:
    from evalrun.reports.fit import Column, fit, lines

    columns: list[Column] = []
    for at, title in enumerate(header):
        values = [row[at] for row in rows]
        right = bool(rows) and all(value is None or isinstance(value, int | float) for value in values)
        columns.append((title, "right" if right else "left", [cell(value, width) for value in values]))
    fitted = fit(columns, width)
    for line in lines(fitted):
        click.echo(line)
    if left := header[len(fitted) :]:
        click.echo(f"not shown for want of room: {', '.join(left)}", err=True)


def cell(value: Any, widest: int = 60) -> str:
    """A value as one printable line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    if len(text) > 4 * widest:
        text = text[: 4 * widest]
    text = " ".join(text.split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= widest else text[: widest - 1] + "…"

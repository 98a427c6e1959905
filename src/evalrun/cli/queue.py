"""Queues of samples to label, on the store that a server serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import FILE, json_option, print_json, print_rows, store_option
from evalrun.cli.serve import needs_extra
from evalrun.errors import UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.server.app import Server


@click.group()
def queue() -> None:
    """Queues of samples that people label on the server: make, follow, end, export.

    \b
    Examples:
      evalrun queue create latest --title "right?" --kind pass_fail --n 100 --overlap 2 --blind
      evalrun queue export "right?" --out labels.jsonl
    """


@contextlib.contextmanager
def _server(store: Store) -> Iterator[Server]:
    """What routes work on, without its listening. What it refuses is told as a fault of the user's."""
    needs_extra()
    from evalrun.server.app import Server
    from evalrun.server.asked import Refused
    from evalrun.server.config import Config
    from evalrun.server.database import Away, Database

    server = Server(store, Config(), Database(store))
    try:
        yield server
    except (Refused, Away) as error:
        raise UserError(str(error)) from error
    finally:
        server.database.close()


def _rows(server: Server) -> list[Any]:
    import sqlalchemy as sa

    from evalrun.server.database import Queue

    return server.database.all(sa.select(Queue).order_by(Queue.created.desc()))


def _one(server: Server, name: str) -> Any:
    """The queue of an id, the beginning of one, or a title."""
    rows = _rows(server)
    found = [row for row in rows if row.title == name] or [
        row for row in rows if row.id.startswith(name.upper())
    ]
    if len(found) != 1:
        what = f"there is no queue '{name[:80]}'" if not found else f"'{name[:80]}' is {len(found)} queues"
        raise UserError(what, remedy="`evalrun queue list` shows them with their ids.")
    return found[0]


@queue.command("create")
@click.argument("sweep", default="latest")
@click.option("--title", required=True, help="What it is called.")
@click.option("--run", default="", metavar="RUN", help="Of this run. [default: the only one]")
@click.option("--other", default="", metavar="RUN", help="Which of two: the other run.")
@click.option("--where", default="", metavar="QUERY", help="Only samples that this finds.")
@click.option("--pick", default="sample", show_default=True, metavar="HOW",
              help="sample (a draw, stratified by score and group), worst, or query.")  # fmt: skip
@click.option("--n", default=100, show_default=True, metavar="N", help="How many samples.")
@click.option(
    "--schema", type=FILE, metavar="FILE.yaml", help="kind, question, choices, min, max, show_target."
)
@click.option("--kind", metavar="KIND", help="Instead: pass_fail, choice, scale, text or pair.")
@click.option("--question", default="", help="What is asked.")
@click.option("--choices", default="", metavar="A,B,…", help="What may be answered, of a choice.")
@click.option("--overlap", default=1, show_default=True, metavar="K", help="How many people answer an item.")
@click.option("--blind", is_flag=True, help="Who answers sees nothing of the sweep meanwhile.")
@click.option("--seed", default="", help="Of the draw and the orders. [default: random]")
@click.option(
    "--show", default="", metavar="COLUMN,…", help="The columns shown. [default: those that tell nothing]"
)
@store_option
@json_option
def queue_create(
    sweep: str, schema: Path | None, kind: str | None, store: Store, as_json: bool, **wish: Any
) -> None:
    """Make a queue of samples of a sweep.

    \b
    Examples:
      evalrun queue create latest --title "right?" --kind pass_fail --n 100 --overlap 2 --blind
      evalrun queue create latest --title tone --pick worst --n 50 --schema tone.yaml
    """
    from evalrun.tracking.events import user_name

    if (schema is None) == (kind is None):
        raise click.UsageError("Say --kind or --schema.")
    asks: Any = {"kind": kind, "question": wish.pop("question"), "choices": wish.pop("choices")}
    if schema is not None:
        import yaml

        try:
            asks = yaml.safe_load(schema.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"cannot be read: {error}", where=str(schema)) from error
    folder = store.resolve(sweep)
    with _server(store) as server:
        from evalrun.server.config import address_of
        from evalrun.server.queues import make

        made = make(server, folder, folder.manifest().project, {**wish, "schema": asks}, user_name())
    url = f"{address_of(store.root)}/q/{made['queue']}"
    if as_json:
        print_json({**made, "url": url})
    else:
        click.echo(f"{made['queue']}: {made['items']} items, at {url}")


@queue.command("list")
@store_option
@json_option
def queue_list(store: Store, as_json: bool) -> None:
    """List queues, the newest first.

    \b
    Example:
      evalrun queue list --json
    """
    with _server(store) as server:
        from evalrun.server.results import status_of

        found = [status_of(server, row) for row in _rows(server)]
    if as_json:
        print_json({"queues": found})
        return
    rows = [
        [
            q["title"],
            f"{q['done']}/{q['items']}",
            q["schema"]["kind"],
            "closed" if q["closed"] else "",
            q["queue"],
        ]
        for q in found
    ]
    print_rows(["title", "done", "kind", "", "id"], rows)


@queue.command("status")
@click.argument("name", metavar="QUEUE")
@store_option
@json_option
def queue_status(name: str, store: Store, as_json: bool) -> None:
    """Show how far a queue is, and how far people agree. QUEUE is an id, its beginning, or a title.

    \b
    Example:
      evalrun queue status "right?"
    """
    with _server(store) as server:
        from evalrun.server.results import results_of

        row = _one(server, name)
        known = server.index.get(row.sweep)
        found = results_of(server, row, store.resolve(row.sweep) if known is not None else None)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['title']}: {found['done']} of {found['items']} items have {found['overlap']} answers"
               f"{' (closed)' if found['closed'] else ''}")  # fmt: skip
    agreed = found["agreement"]
    for label, key in (("Krippendorff's alpha", "alpha"), ("Cohen's kappa", "kappa")):
        figure = agreed.get(key)
        if figure and figure.get("value") is not None:
            low, high = figure.get("ci_low"), figure.get("ci_high")
            interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
            click.echo(f"{label} {figure['value']:.3f}{interval}, of {agreed['items']} items")


@queue.command("close")
@click.argument("name", metavar="QUEUE")
@store_option
@json_option
def queue_close(name: str, store: Store, as_json: bool) -> None:
    """End a queue: what stands for each item becomes labels of the sweep.

    \b
    Example:
      evalrun queue close "right?"
    """
    from evalrun.tracking.events import user_name

    with _server(store) as server:
        from evalrun.server.results import close_it

        row = _one(server, name)
        done = close_it(server, row, store.resolve(row.sweep), user_name())
    if as_json:
        print_json(done)
    else:
        click.echo(f"{row.title} is closed; {done['gold']} items have a label")


@queue.command("export")
@click.argument("name", metavar="QUEUE")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE.jsonl", help="Where to.")
@store_option
@json_option
def queue_export(name: str, out: Path, store: Store, as_json: bool) -> None:
    """Write a queue's items, answers and what stands for each, a line an item.

    \b
    Example:
      evalrun queue export "right?" --out labels.jsonl
    """
    import orjson

    from evalrun.atomic import place_for, replacing

    with _server(store) as server:
        from evalrun.server.results import results_of

        row = _one(server, name)
        known = server.index.get(row.sweep)
        found = results_of(server, row, store.resolve(row.sweep) if known is not None else None)
    lines = [{"run": found["run"], **each} for each in found["results"]]
    place_for(out)
    with replacing(out) as path:
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    if as_json:
        print_json({"queue": row.id, "items": len(lines), "files": [str(out)]})
    else:
        click.echo(f"{len(lines)} items: {out}")

"""`evalrun traffic`: datasets of production records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import FILE, json_option, print_json, print_rows, store_option
from evalrun.errors import UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.traffic.main import Taken


SOURCES = ("auto", "otlp", "openinference", "langfuse", "openai_logs", "jsonl", "parquet")


@click.group()
def traffic() -> None:
    """Make datasets of production records: traces, logs, exports.

    \b
    Example:
      evalrun traffic import traces.jsonl --n 500 --to rows.parquet --redact none
    """


@traffic.command("import", no_args_is_help=True)
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--to", "out", type=FILE, required=True, metavar="FILE.parquet", help="Where the rows go.")
@click.option("--source", type=click.Choice(SOURCES), default="auto", show_default=True,
              help="What wrote the records; auto goes by content.")  # fmt: skip
@click.option("--where", default="", metavar="EXPR", help="Keep these: 'service == \"triage\"'.")
@click.option("--since", default="", metavar="WHEN", help="Not before: 24h ago, 7d, or an ISO 8601 time.")
@click.option("--until", default="", metavar="WHEN", help="Before this.")
@click.option("--late", default="", metavar="SPAN", help="A window is open so long after its end: 10m.")
@click.option("--unit", default="last_generation", show_default=True, metavar="UNIT",
              help="A row: each_generation, the last_generation of a trace, root, named:NAME.")  # fmt: skip
@click.option("--n", type=click.IntRange(min=1), metavar="N", help="Take so many, by hash.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), metavar="P", help="Take this share.")
@click.option("--strata", default="", metavar="NAME,…", help="Take alike of each value of these columns.")
@click.option("--always", default="", metavar="EXPR", help="Take these in any case, with weight 1.")
@click.option("--seed", default="0", metavar="TEXT", help="Another seed takes others.")
@click.option("--kept", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE",
              help="The share of traces that was recorded, where the records do not say it.")  # fmt: skip
@click.option(
    "--map", "mapped", multiple=True, metavar="NAME=FIELD", help="Where plain rows have it: output=reply."
)
@click.option("--columns", default="", metavar="NAME,…", help="Attributes to keep as columns.")
@click.option("--redact", default="standard", show_default=True, metavar="HOW",
              help="Before anything is written: standard, package.module:function, or none.")  # fmt: skip
@store_option
@json_option
def import_traffic(
    files: tuple[str, ...],
    out: Path,
    source: str,
    where: str,
    since: str,
    until: str,
    late: str,
    unit: str,
    n: int | None,
    rate: float | None,
    strata: str,
    always: str,
    seed: str,
    kept: float | None,
    mapped: tuple[str, ...],
    columns: str,
    redact: str,
    store: Store,
    as_json: bool,
) -> None:
    """Read, filter, sample and redact production records into a Parquet file that a suite scores.

    What is torn, doubled, cut or without content is counted and named, and never scored as empty.

    \b
    Examples:
      evalrun traffic import 'otel/*.jsonl.zst' --n 500 --strata arm --to live.parquet
      evalrun traffic import export.json --source langfuse --rate 0.1 --to live.parquet
    """
    from evalrun.traffic.main import Wanted, take

    if n is not None and rate is not None:
        raise UserError("exclude one another", where="--n and --rate")
    if out.suffix != ".parquet":
        raise UserError(
            f"'{out}' does not end in .parquet", where="--to", remedy="Rows are written as Parquet."
        )
    pairs = {}
    for each in mapped:
        name, equals, field = each.partition("=")
        if not equals or not name or not field:
            raise UserError(f"'{each}' is not of the form NAME=FIELD", where="--map")
        pairs[name] = field
    wanted = Wanted(
        path=files, source=source, where=where, since=since, until=until, late=late, unit=unit, n=n,
        rate=rate,
        strata=_names(strata), always=always, seed=seed, kept=kept, map=pairs, columns=_names(columns),
        redact=redact, store=store.root,
    )  # fmt: skip
    taken = take(wanted, out)
    if as_json:
        print_json(asdict(taken))
        return
    print_taken(taken)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def print_taken(taken: Taken) -> None:
    """What was read, what was wrong with it, and what was taken."""
    read = taken.read
    click.echo(
        f"{read['records']:,} records, {read['calls']:,} calls, {read['matching']:,} matching: "
        f"{taken.rows:,} rows in {taken.path}, worth {taken.effective:,.0f} of equal weight"
    )
    if taken.strata and (len(taken.strata) > 1 or taken.strata[0].name):
        print_rows(["stratum", "matching", "taken"], [(s.name, s.of, s.n) for s in taken.strata])
    for sentence in taken.sentences():
        click.echo(sentence, err=True)
    click.echo(
        f"Next: {{id: live, path: {taken.path}, key: request_id, weight: weight, strata: stratum}} "
        "in a suite's datasets, "
        "and {id: live, provider: recorded, column: output} in its models",
        err=True,
    )

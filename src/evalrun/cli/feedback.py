"""`evalrun label` and `evalrun dataset`: what people think of answers, and what is made of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


@click.command(no_args_is_help=True)
@click.argument("sweep", metavar="SWEEP[/RUN]")
@click.option(
    "--from", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="JSONL or CSV with a column of sample ids.",
)  # fmt: skip
@click.option("--column", default="rating", show_default=True, metavar="NAME", help="The label or rating.")
@click.option("--id", "key", default="sample_id", show_default=True, metavar="NAME", help="The sample's id.")
@store_option
@json_option
def label(sweep: str, file: Path | None, column: str, key: str, store: Path | None, as_json: bool) -> None:
    """Keep people's labels or ratings with a sweep, and show how they agree with its scores.

    Without --from, show those it has. Ratings (1 to 5, yes/no, good/bad) are of one run's answers: name the
    run, or give the file a column `run`. Other words are taken as the right answers of the rows.

    \b
    Example:
      evalrun label latest --from feedback.csv --column rating
    """
    from evalrun.tracking.changes import said
    from evalrun.tracking.targets import find_target

    opened = open_store(store)
    target = find_target(opened, sweep)
    if file is None:
        _show_labels(asdict(each) for each in said(target.folder).labels) if not as_json else print_json(
            {"sweep": target.folder.ulid, "labels": [asdict(each) for each in said(target.folder).labels]}
        )
        return
    from evalrun.analysis.feedback import label as keep
    from evalrun.tracking.people import LabelColumns

    done = keep(opened, target, file, LabelColumns(column, key))
    if as_json:
        print_json({"sweep": target.folder.ulid, **asdict(done)})
        return
    click.echo(f"{done.n:,} labels of '{done.column}' ({done.kind}) kept with {target.folder.path.name}")
    if done.unknown:
        listed = ", ".join(done.unknown[:5])
        click.echo(f"{len(done.unknown):,} are of samples that it does not have: {listed}", err=True)
    print_agreement(done.agreement)
    if done.kind != "class":
        click.echo(
            f"Next: `evalrun dataset from-feedback {sweep} --out worst.jsonl` writes the worst rows.",
            err=True,
        )


def _show_labels(sets: Any) -> None:
    from evalrun.cli.plain_table import print_rows

    found = list(sets)
    names = ("column", "kind", "n", "target", "actor")
    rows = [[each["ts"][:16], *(each[name] for name in names)] for each in found]
    print_rows(["when", "column", "kind", "n", "run", "who"], rows)
    for each in found:
        print_agreement(each["agreement"])


def print_agreement(agreement: Sequence[Mapping[str, Any]]) -> None:
    """How labels agree with scores, one line a run and score."""
    from evalrun.cli.plain_table import print_rows

    if not agreement:
        return
    rows = []
    for each in agreement:
        low, high = each["ci_low"], each["ci_high"]
        interval = "" if low is None else f"[{low:.2f}, {high:.2f}]"
        names = ("run", "score", "measure", "value")
        rows.append([*(each[name] for name in names), interval, each["share"], each["n"], each["note"]])
    print_rows(["run", "score", "agreement", "value", "95 % interval", "same", "n", ""], rows, widest=40)


@click.group()
def dataset() -> None:
    """Make datasets from what the store holds.

    \b
    Example:
      evalrun dataset from-feedback latest --worst 50 --out worst.jsonl
    """


@dataset.command("from-feedback", no_args_is_help=True)
@click.argument("sweep", metavar="SWEEP[/RUN]")
@click.option(
    "--worst", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="How many rows."
)
@click.option("--column", metavar="NAME", help="Which labels. [default: the last that were given]")
@click.option("--score", metavar="NAME", help="Go by this score instead of labels.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE.jsonl",
    help="Where the rows go.",
)  # fmt: skip
@store_option
@json_option
def from_feedback(
    sweep: str,
    worst: int,
    column: str | None,
    score: str | None,
    out: Path,
    store: Path | None,
    as_json: bool,
) -> None:
    """Write the rows whose answers were rated worst (lowest) as a dataset, the worst first.

    \b
    Example:
      evalrun dataset from-feedback latest --worst 50 --out data/worst.jsonl
    """
    from evalrun.analysis.feedback import Worst, worst_rows
    from evalrun.tracking.targets import find_target

    opened = open_store(store)
    target = find_target(opened, sweep)
    done = worst_rows(opened, target, Worst(worst, column, score), out)
    if as_json:
        print_json({"sweep": target.folder.ulid, **asdict(done)})
        return
    click.echo(f"wrote {done.rows:,} of {done.rated:,} rows to {done.path}, the lowest '{done.by}' first")
    click.echo(
        f"Next: {{id: worst, path: {done.path}, key: sample_id, target: target}} in a suite's datasets",
        err=True,
    )

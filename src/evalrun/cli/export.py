"""`evalrun export`: a sweep in the formats of others."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import ANY_PATH, json_option, print_json, store_option
from evalrun.tracking.store import Store

KINDS = ("csv", "json", "parquet", "latex", "markdown", "eee", "hf", "inspect", "openlineage", "croissant")


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--as", "kind", type=click.Choice(KINDS), required=True, help="Which format.")
@click.option("--out", type=ANY_PATH, metavar="PATH", help="File, or folder. [default: standard output]")
@click.option("--samples", is_flag=True, help="The samples, not only figures (csv, eee).")
@click.option("--scale", type=float, metavar="N", help="What 1.0 is on the benchmark's scale (hf).")
@click.option("--organization", default="", metavar="NAME", help="Who evaluated (eee).")
@store_option
@json_option
def export(
    sweep: str,
    kind: str,
    out: Path | None,
    samples: bool,
    scale: float | None,
    organization: str,
    store: Store,
    as_json: bool,
) -> None:
    """Write a sweep as a table, or in a format that others read.

    \b
    csv, markdown, latex  the leaderboard with intervals (csv --samples: samples)
    json                  figures by run and metric, as dvc reads them
    parquet               samples of all runs in one file
    eee                   Every Eval Ever: a folder of JSON, --samples with samples
    hf                    .eval_results/*.yaml of a model's repository on the Hub
    inspect               logs that `inspect view` shows (extra: inspect)
    openlineage           run events, one a line
    croissant             the dataset's file, described

    \b
    Examples:
      evalrun export latest --as latex --out table.tex
      evalrun export latest --as csv --samples --out samples.csv
    """
    from evalrun.exports.main import export as write

    done = write(store.resolve(sweep), kind, out, samples=samples, scale=scale, organization=organization)
    if as_json:
        document = {"files": [str(file) for file in done.files], "left_out": done.left_out}
        print_json({**document, "text": done.text} if done.text else document)
        return
    click.echo(done.text, nl=False)
    for file in done.files:
        click.echo(f"{file}", err=bool(done.text))
    for each in done.left_out:
        click.echo(f"left out: {each['what']}: {each['why']}", err=True)

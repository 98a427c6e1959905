"""`evalrun docs`: the references that are made from the code."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("what", type=click.Choice(["suite", "metrics", "scorers"]))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)
def docs(what: str, out: Path | None) -> None:
    """Print the suite reference, the metric definitions or the scorer reference as Markdown.

    \b
    Example:
      evalrun docs metrics --out metrics.md
    """
    if what == "suite":
        from evalrun.suite.reference import suite_reference

        text = suite_reference()
    elif what == "scorers":
        from evalrun.scoring.reference import scorer_reference

        text = scorer_reference()
    else:
        from evalrun.analysis.definitions import metric_reference

        text = metric_reference()
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")

"""`evalrun card`: what a sweep is evidence for, as a document."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import FILE, json_option, print_json, store_option
from evalrun.tracking.store import Store

KINDS = ("hf", "annex-iv", "nist", "iso42001", "ll144", "cyclonedx", "record")
FORMATS = {".md": "md", ".json": "json", ".html": "html", ".htm": "html"}


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--as", "kind", type=click.Choice(KINDS), required=True, help="Which document.")
@click.option(
    "--run", default="", metavar="RUN", help="The run it speaks of. [default: the one that stands best]"
)
@click.option("--answers", type=FILE, metavar="card.yaml", help="What no measurement knows.")
@click.option(
    "--out", type=FILE, metavar="FILE", help="FILE.md, FILE.json or FILE.html. [default: Markdown on stdout]"
)
@click.option("--questions", is_flag=True, help="Print a card.yaml with the questions that are open.")
@store_option
@json_option
def card(
    sweep: str,
    kind: str,
    run: str,
    answers: Path | None,
    out: Path | None,
    questions: bool,
    store: Store,
    as_json: bool,
) -> None:
    """Write what a finished sweep says, line by line with n, interval and where it can be checked.

    What no measurement knows is taken from --answers, or stands as "to be completed by the provider".

    \b
    Examples:
      evalrun card latest --as annex-iv --questions > card.yaml
      evalrun card latest --as annex-iv --answers card.yaml --out annex-iv.html
      evalrun card latest --as hf --out README.md
      evalrun card latest --as cyclonedx --out model.cdx.json
    """
    from evalrun.atomic import place_for, write_private
    from evalrun.evidence import render
    from evalrun.evidence.card import make, template
    from evalrun.tracking.plain import document_bytes

    if out is not None and out.suffix.lower() not in FORMATS:
        raise click.UsageError("--out ends in .md, .json or .html.")
    folder = store.resolve(sweep)
    document = make(folder, kind, answers, run)
    if questions:
        click.echo(template(document), nl=False)
        return
    if out is not None:
        form = FORMATS[out.suffix.lower()]
        place = place_for(out)
        if form == "json":
            write_private(place, document_bytes(render.as_document(document)))
        else:
            writer = render.markdown if form == "md" else render.html
            write_private(place, writer(document, folder.path, out).encode())
    if as_json:
        print_json(render.as_document(document))
    elif out is None:
        click.echo(render.markdown(document, folder.path, None), nl=False)
    if out is not None:
        left = document.count("to be completed")
        click.echo(f"{out}: {document.count('measured')} lines measured, {left} to be completed", err=True)

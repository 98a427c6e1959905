"""`evalrun compare`: sweeps and runs against one another."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.options import csv_option, json_option, print_csv, print_json, store_option
from evalrun.tracking.store import Store


@click.command(no_args_is_help=True)
@click.argument("sweeps", nargs=-1, required=True, metavar="A [B C …]")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A score, a rate, e2e_s, ttft_s, completion_tokens, cost_usd. [default: every score]",
)
@click.option(
    "--margin",
    type=float,
    metavar="X",
    help="Differences smaller than this, in the metric's unit, do not matter.",
)
@click.option("--common", is_flag=True, help="Where datasets differ, compare the samples that both have.")
@click.option(
    "--correction",
    type=click.Choice(["holm", "bh", "none"]),
    default="holm",
    show_default=True,
    help="How p values are corrected over all comparisons made.",
)
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Write one HTML file, with what changed in between and the samples side by side.",
)
@store_option
@json_option
@csv_option
def compare(
    sweeps: tuple[str, ...],
    metrics: tuple[str, ...],
    margin: float | None,
    common: bool,
    correction: str,
    markdown: bool,
    page: Path | None,
    store: Store,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare sweeps or runs, sample by sample: B, C, … each against A.

    A and B are sweeps (`latest`, `previous`, a number, a name, the beginning of an id, a folder) or runs:
    SWEEP/RUN, or RUN of the latest sweep. One sweep alone is compared within itself: which run is best, what
    each axis does, how much prompts matter.

    \b
    Examples:
      evalrun compare previous latest
      evalrun compare rules direct
      evalrun compare latest --metric exact_match --json
    """
    if markdown and as_json:
        raise click.UsageError("--json and --markdown exclude one another.")
    from evalrun.analysis.compare import CompareOptions
    from evalrun.analysis.compare import compare as compared
    from evalrun.analysis.pairing import choose

    options = CompareOptions(metrics, margin, common, correction)  # type: ignore[arg-type]
    chosen = [choose(store, sweep) for sweep in sweeps]
    comparison = compared(chosen, options)
    if page is not None:
        from evalrun.analysis.beside import compare_beside
        from evalrun.reports.comparison import write_comparison

        scores = list(dict.fromkeys(each.metric for each in comparison.compared))
        beside = compare_beside(chosen, options, scores)
        write_comparison(comparison, [each.folder for each in chosen], page, beside)
        click.echo(f"wrote {page}", err=True)
    if as_json:
        print_json(comparison.document())
        return
    if as_csv:
        print_csv(comparison.rows())
        return
    from evalrun.reports.compared import comparison_markdown, print_comparison

    if markdown:
        click.echo(comparison_markdown(comparison), nl=False)
    else:
        from evalrun.reports.comparison_words import lead_of

        print_comparison(comparison, *lead_of(comparison, [each.folder for each in chosen]))

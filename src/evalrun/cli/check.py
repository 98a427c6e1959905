"""`evalrun validate`, `plan` and `schema`: nothing is sent to any model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from evalrun.cli.options import json_option, make_overrides, print_json, suite_options
from evalrun.reports.numbers import plural


def _prepare(suite: Path, overrides: dict[str, Any]) -> Any:
    from evalrun.suite.load import load_suite
    from evalrun.sweep.prepare import prepare

    with tempfile.TemporaryDirectory(prefix="evalrun-") as folder:
        return prepare(load_suite(suite, make_overrides(**overrides)), Path(folder))


@click.command(no_args_is_help=True)
@click.argument("suite", type=click.Path(path_type=Path))
@suite_options
@json_option
def validate(suite: Path, as_json: bool, **overrides: Any) -> None:
    """Check a suite, its data, prompts, models and scorers, without sending anything.

    \b
    Example:
      evalrun validate suite.yaml
    """
    prepared = _prepare(suite, overrides)
    samples = {name: len(dataset) for name, dataset in prepared.datasets.items()}
    warnings = [text for dataset in prepared.datasets.values() for text in dataset.warnings]
    if as_json:
        print_json({"valid": True, "runs": len(prepared.specs), "samples": samples, "warnings": warnings})
        return
    for text in warnings:
        click.echo(f"warning: {text}", err=True)
    rows = ", ".join(f"{name} {plural(n, 'sample')}" for name, n in samples.items())
    click.echo(f"{suite} is valid: {plural(len(prepared.specs), 'run')}; {rows}.")


@click.command(no_args_is_help=True)
@click.argument("suite", type=click.Path(path_type=Path))
@suite_options
@json_option
def plan(suite: Path, as_json: bool, **overrides: Any) -> None:
    """Show what a suite would run: the matrix, samples, requests, estimated tokens and cost.

    \b
    Example:
      evalrun plan suite.yaml --limit 50 --json
    """
    from evalrun.sweep.estimate import estimate

    estimated = estimate(_prepare(suite, overrides))
    if as_json:
        print_json(estimated.document())
        return
    from evalrun.reports.terminal import print_plan

    print_plan(estimated.document())


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)
def schema(out: Path | None) -> None:
    """Print the JSON Schema of the suite language, for editors that complete and check YAML.

    \b
    Example:
      evalrun schema --out suite.schema.json
    """
    import orjson

    from evalrun.suite.reference import suite_json_schema

    text = orjson.dumps(suite_json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")

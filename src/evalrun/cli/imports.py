"""`evalrun import`: suites and results of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalrun.cli.options import ANY_PATH, FILE, json_option, print_json, store_option
from evalrun.errors import UserError
from evalrun.tracking.store import Store

KINDS = ("promptfoo", "promptfoo-results", "lm-eval", "inspect", "openai-evals")


@click.command("import", no_args_is_help=True)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("path", type=ANY_PATH)
@click.option("--to", type=FILE, metavar="SUITE.yaml", help="Where a suite goes. [default: beside PATH]")
@click.option("--name", metavar="NAME", help="Name of the sweep. [default: as the source has it]")
@store_option
@json_option
def import_(kind: str, path: Path, to: Path | None, name: str | None, store: Store, as_json: bool) -> None:
    """Take over a configuration of promptfoo or openai/evals as a suite, or results of tools as a sweep.

    Sweeps that are imported can be shown, compared and gated like any other; their scores are the source's.
    What cannot be taken over is listed.

    \b
    Examples:
      evalrun import promptfoo promptfooconfig.yaml --to suite.yaml
      evalrun import lm-eval results/ --json
      evalrun import inspect logs/2026-11-29_task.eval
    """
    if not path.exists():
        raise UserError(f"there is no '{path}'")
    document = _suite(kind, path, to) if _is_suite(kind, path) else _sweep(kind, path, store, name)
    if as_json:
        print_json(document)
        return
    for key in ("suite", "sweep"):
        if document.get(key):
            click.echo(f"{key}: {document[key]}")
    click.echo(f"taken over: {document['taken_over']}")
    for each in document["left_out"]:
        click.echo(f"not taken over: {each['what']}: {each['why']}", err=True)


def _is_suite(kind: str, path: Path) -> bool:
    return kind == "promptfoo" or (kind == "openai-evals" and path.suffix in (".yaml", ".yml"))


def _suite(kind: str, path: Path, to: Path | None) -> dict[str, Any]:
    if kind == "promptfoo":
        from evalrun.tasks.promptfoo.main import convert, written
    else:
        from evalrun.tasks.openai_evals import convert, written
    target = to or path.with_name(f"{path.stem}.suite.yaml")
    converted = convert(path)
    files = written(converted, target)
    return {
        "suite": str(target),
        "files": [str(file) for file in files],
        "taken_over": converted.taken_over,
        "left_out": converted.left_out,
        "source_sha256": converted.digest,
    }


def _sweep(kind: str, path: Path, store: Store, name: str | None) -> dict[str, Any]:
    from evalrun.sweep.imported import write_sweep
    from evalrun.tasks.logs.main import read_results

    results = read_results(kind, path)
    folder = write_sweep(store, results, name)
    return {
        "sweep": folder.ulid,
        "folder": str(folder.path),
        "taken_over": sum(len(run.samples) for run in results.runs),
        "left_out": results.left_out,
        "source_sha256": results.digests,
    }

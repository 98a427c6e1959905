"""`evalrun tasks list` and `evalrun tasks show`."""

from __future__ import annotations

from typing import Any

import click

from evalrun.cli.options import csv_option, json_option, print_csv, print_json, print_rows

MOST = 200
"""So many names are listed where the output is no JSON."""


@click.group(no_args_is_help=True)
def tasks() -> None:
    """Published tasks that a suite's `tasks:` may name: those of lm-evaluation-harness.

    \b
    Example:
      evalrun tasks show gsm8k
    """


@tasks.command("list")
@click.argument("pattern", required=False, default="*")
@click.option("--kind", type=click.Choice(["task", "group", "tag"]), help="Only these.")
@json_option
@csv_option
def list_tasks(pattern: str, kind: str | None, as_json: bool, as_csv: bool) -> None:
    """List tasks, groups and tags whose name matches PATTERN, or has it within.

    The list is made once for each version of lm_eval, which takes some seconds, and kept.

    \b
    Examples:
      evalrun tasks list mmlu --kind group
      evalrun tasks list 'arc_*' --json
    """
    from evalrun.tasks.lmeval import LmEval, known_names

    lm_eval = LmEval()
    try:
        found = [
            each.document()
            for each in known_names(lm_eval).matching(pattern)
            if kind is None or each.kind == kind
        ]
    finally:
        lm_eval.close()
    if as_json or as_csv:
        (print_json if as_json else print_csv)(found)
        return
    if not found:
        click.echo(f"no task matches '{pattern}'", err=True)
        return
    rows = [[each["name"], each["kind"], each["output_type"], each["dataset"]] for each in found[:MOST]]
    print_rows(["name", "kind", "output type", "dataset"], rows)
    if len(found) > MOST:
        click.echo(f"and {len(found) - MOST:,} more: name a pattern", err=True)


@tasks.command("show")
@click.argument("name")
@click.option("--data", metavar="FOLDER", help="Folder with copies of data. [default: $EVALRUN_TASK_DATA]")
@json_option
def show_task(name: str, data: str | None, as_json: bool) -> None:
    """Show a task: its YAML after includes, data set, metrics, and the first prompt if its data is at hand.

    \b Example: evalrun tasks show gsm8k --data /data/tasks
    """
    from evalrun.tasks.show import shown

    document = shown(name, data)
    if as_json:
        print_json(document)
        return
    _print(document)


def _print(document: dict[str, Any]) -> None:
    for key in ("name", "kind", "output_type", "dataset", "path", "num_fewshot"):
        if document.get(key) is not None:
            click.echo(f"{key}: {document[key]}")
    if document.get("metrics"):
        click.echo(f"metrics: {', '.join(document['metrics'])}")
    if document.get("members"):
        members = document["members"]
        more = f" and {len(members) - 20} more" if len(members) > 20 else ""
        click.echo(f"members: {', '.join(members[:20])}{more}")
    if document.get("licence"):
        click.echo(f"licence: {document['licence']}")
    if document.get("yaml"):
        click.echo(f"\n{document['yaml'].rstrip()}")
    if document.get("first_prompt") is not None:
        click.echo(f"\nThe first prompt:\n{document['first_prompt']}")
    elif document.get("why_no_prompt"):
        click.echo(f"\nNo prompt can be shown: {document['why_no_prompt']}", err=True)

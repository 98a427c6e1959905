"""`evalrun diff A B`: what changed between two sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from evalrun.tracking.diff import Change, DataDiff, PromptDiff

_MOST = 40


@click.command(no_args_is_help=True)
@click.argument("a")
@click.argument("b", default="latest")
@store_option
@json_option
def diff(a: str, b: str, store: Path | None, as_json: bool) -> None:
    """Show what changed from sweep A to sweep B: suite, models, prompts, data, packages, machine, code.

    \b
    Example:
      evalrun diff main latest
    """
    from evalrun.tracking.diff import diff_sweeps

    opened = open_store(store)
    found = diff_sweeps(opened.resolve(a), opened.resolve(b))
    if as_json:
        print_json({**asdict(found), "same": found.same})
        return
    if found.same:
        click.echo("nothing differs")
        return
    _print_changes("suite", found.suite)
    _print_changes("models", found.models)
    for prompt in found.prompts:
        _print_prompt(prompt)
    for data in found.data:
        _print_data(data)
    _print_changes("packages", found.packages)
    _print_changes("machine", found.machine)
    _print_changes("code", found.code)


def _print_changes(title: str, changes: Sequence[Change]) -> None:
    from evalrun.cli.plain_table import print_rows

    if not changes:
        return
    click.echo(f"\n{title}")
    print_rows(["", "before", "after"], [(each.name, each.before, each.after) for each in changes[:_MOST]])
    if len(changes) > _MOST:
        click.echo(f"and {len(changes) - _MOST} more (--json)")


def _print_prompt(prompt: PromptDiff) -> None:
    """Removed words as [-…-], added ones as {+…+}, as git writes them."""
    marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    click.echo(f"\nprompt {_visible(prompt.prompt)}, {_visible(prompt.text)}")
    text = "".join(f"{marks[each.kind][0]}{each.text}{marks[each.kind][1]}" for each in prompt.pieces)
    click.echo("\n".join(f"  {_visible(line)}" for line in text.splitlines()))


def _print_data(data: DataDiff) -> None:
    from evalrun.cli.plain_table import cell

    if data.same:
        return
    click.echo(f"\ndataset {_visible(data.dataset)}: {data.added} added, {data.removed} removed, ", nl=False)
    click.echo(f"{data.changed} changed{'; ' + data.note if data.note else ''}")
    for sign, ids, count in (("+", data.added_ids, data.added), ("-", data.removed_ids, data.removed)):
        for each in ids:
            click.echo(f"  {sign} {_visible(each)}")
        if count > len(ids):
            click.echo(f"  {sign} and {count - len(ids):,} more")
    for change in data.changes:
        for column, (before, after) in change.columns.items():
            name = f"{_visible(change.sample_id)} {_visible(column)}"
            click.echo(f"  ~ {name}: {cell(before)} -> {cell(after)}")
    if data.changed > len(data.changes):
        click.echo(f"  ~ and {data.changed - len(data.changes):,} more")


def _visible(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)

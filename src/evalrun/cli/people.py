"""`evalrun tag`, `annotate`, `rename`, `archive` and `delete`: what people say of sweeps and do to them."""

from __future__ import annotations

from pathlib import Path

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.argument("tags", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--remove", multiple=True, metavar="NAME", help="Remove this tag.")
@store_option
@json_option
def tag(
    sweep: str, tags: tuple[str, ...], remove: tuple[str, ...], store: Path | None, as_json: bool
) -> None:
    """Set or remove tags of a sweep; without any, show them.

    \b
    Examples:
      evalrun tag latest release=v1 team=nlp
      evalrun tag latest --remove draft
    """
    from evalrun.tracking import changes
    from evalrun.tracking.people import read_tags

    opened = open_store(store)
    folder = opened.resolve(sweep)
    given = read_tags(tags)
    now = changes.tag(opened, folder, given, remove) if given or remove else changes.said(folder).tags
    if as_json:
        print_json({"sweep": folder.ulid, "tags": dict(now)})
        return
    from evalrun.cli.plain_table import print_rows

    print_rows(["tag", "value"], sorted(now.items()))


@click.command(no_args_is_help=True)
@click.argument("target", metavar="SWEEP[/RUN[/SAMPLE]]")
@click.argument("text", required=False)
@store_option
@json_option
def annotate(target: str, text: str | None, store: Path | None, as_json: bool) -> None:
    """Add a note to a sweep, a run or a sample; without a text, show the notes there are.

    \b
    Examples:
      evalrun annotate latest "few-shot examples cleaned up"
      evalrun annotate latest/smollm2-direct-tickets/T-17 "the target is wrong"
    """
    from dataclasses import asdict

    from evalrun.tracking import changes
    from evalrun.tracking.targets import find_target

    opened = open_store(store)
    found = find_target(opened, target)
    if text is not None:
        changes.note(opened, found.folder, text, found.name)
    notes = [
        each
        for each in changes.said(found.folder).notes
        if found.name in ("", each.target) or each.target.startswith(f"{found.name}/")
    ]
    if as_json:
        print_json({"sweep": found.folder.ulid, "notes": [asdict(each) for each in notes]})
        return
    from evalrun.cli.plain_table import print_rows

    rows = [(each.ts[:16], each.actor, each.target, each.text) for each in notes]
    print_rows(["when", "who", "on", "note"], rows, widest=100)


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.argument("name")
@store_option
def rename(sweep: str, name: str, store: Path | None) -> None:
    """Give a sweep another name. Its folder and manifest stay as they are; lists show the new one.

    \b
    Example:
      evalrun rename latest "before the new examples"
    """
    from evalrun.tracking import changes

    opened = open_store(store)
    folder = opened.resolve(sweep)
    changes.rename(opened, folder, name)
    click.echo(f"{folder.ulid} is called '{name.strip()}' now")


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--undo", is_flag=True, help="Put it back.")
@store_option
def archive(sweep: str, undo: bool, store: Path | None) -> None:
    """Take a sweep out of `list` and `find`; it stays on disk, and `--archived` shows it.

    \b
    Examples:
      evalrun archive 01K5
      evalrun archive 01K5 --undo
    """
    from evalrun.tracking import changes

    opened = open_store(store)
    folder = opened.resolve(sweep)
    changes.archive(opened, folder, not undo)
    click.echo(f"{folder.path.name} is {'back in the lists' if undo else 'archived'}")


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the tombstone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def delete(sweep: str, reason: str, yes: bool, store: Path | None) -> None:
    """Delete a sweep's folder for good. Its name, digests, who deleted it and why stay in the audit trail.

    \b
    Example:
      evalrun delete 01K5 --reason "wrong data"
    """
    from evalrun.tracking import changes

    opened = open_store(store)
    folder = opened.resolve(sweep)
    if not yes:
        click.confirm(f"Delete {folder.path.name} with all its samples?", abort=True, err=True)
    changes.delete(opened, folder, reason)
    click.echo(f"deleted {folder.path.name}")

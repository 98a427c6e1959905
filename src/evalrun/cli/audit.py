"""`evalrun audit`: what was done, and whether anything was altered since."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.opened import open_store
from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import ExitCode


class _Audit(click.Group):
    """What is neither `verify` nor `anchor` is the sweep whose events are shown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help", "-h"):
            args = ["log", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Audit)
def audit() -> None:
    """Show what was done to sweeps, by whom and when; verify that nothing was altered.

    `evalrun audit [SWEEP]` shows the events of one sweep, or of the whole store.

    \b
    Examples:
      evalrun audit latest
      evalrun audit verify
    """


@audit.command("log")
@click.argument("sweep", required=False)
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="The last N."
)
@store_option
@json_option
def log(sweep: str | None, limit: int, store: Path | None, as_json: bool) -> None:
    """Show the events of a sweep, or of the store, oldest first.

    \b
    Example:
      evalrun audit log latest --limit 10
    """
    from evalrun.tracking.audit import log as read_log

    opened = open_store(store)
    events = list(read_log(opened, opened.resolve(sweep) if sweep else None))[-limit:]
    if as_json:
        print_json(events)
        return
    from evalrun.canonical import canonical_json
    from evalrun.cli.plain_table import print_rows

    names = ("actor", "action", "sweep", "target")
    rows = [
        [each["ts"][:19], *(each[name] for name in names), canonical_json(each["detail"]).decode()]
        for each in events
    ]
    print_rows(["when", "who", "action", "sweep", "target", "detail"], rows)


@audit.command()
@click.argument("sweep", required=False)
@click.option(
    "--anchor", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Compare with heads kept elsewhere, which shows what was cut off.",
)  # fmt: skip
@store_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context, sweep: str | None, anchor: Path | None, store: Path | None, as_json: bool
) -> None:
    """Verify a sweep, or the whole store. Exit code 1 when anything was altered, removed or added.

    \b
    Examples:
      evalrun audit verify
      evalrun audit verify --anchor anchor.json
    """
    from evalrun.tracking.audit import verify as verify_store

    opened = open_store(store)
    result = verify_store(opened, [opened.resolve(sweep)] if sweep else None, anchor)
    if as_json:
        print_json({"intact": not result.broken, **asdict(result)})
    else:
        for each in result.broken:
            click.echo(f"broken: {each.where}: {each.what}")
        for each in result.mended:
            click.echo(f"mended: {each.where}: {each.what}")
        state = "intact" if not result.broken else f"{len(result.broken)} broken"
        click.echo(
            f"{result.sweeps:,} sweeps, {result.events:,} events, {result.files:,} files: {state}", err=True
        )
    ctx.exit(int(ExitCode.GATE_FAILED if result.broken else ExitCode.OK))


@audit.command()
@store_option
def anchor(store: Path | None) -> None:
    """Print the heads of all trails, as JSON. Keep them where the store's writers cannot write.

    \b
    Example:
      evalrun audit anchor > anchor.json
    """
    from evalrun.tracking.audit import make_anchor

    print_json(make_anchor(open_store(store)))

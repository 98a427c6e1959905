"""`evalrun audit`, `verify`, `checkout` and `diff`: whether a sweep is what it was, and can be had again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import (
    FILE,
    FOLDER,
    cell,
    csv_option,
    json_option,
    limit_option,
    print_csv,
    print_json,
    print_rows,
    store_option,
)
from evalrun.errors import ExitCode
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.evidence.signing import Signature
    from evalrun.sweep.verify import RunAgreement
    from evalrun.tracking.diff import Change, DataDiff, PromptDiff


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
@limit_option(50, "The last N.")
@store_option
@json_option
@csv_option
def log(sweep: str | None, limit: int, store: Store, as_json: bool, as_csv: bool) -> None:
    """Show the events of a sweep, or of the store, oldest first.

    \b
    Example:
      evalrun audit log latest --limit 10
    """
    from evalrun.tracking.audit import log as read_log

    events = list(read_log(store, store.resolve(sweep) if sweep else None))[-limit:]
    if as_json:
        print_json(events)
        return
    if as_csv:
        print_csv(events)
        return
    from evalrun.canonical import canonical_json

    names = ("actor", "action", "sweep", "target")
    rows = [
        [event["ts"][:19], *(event[name] for name in names), canonical_json(event["detail"]).decode()]
        for event in events
    ]
    print_rows(["when", "who", "action", "sweep", "target", "detail"], rows)


@audit.command("verify")
@click.argument("sweep", required=False)
@click.option(
    "--anchor", type=FILE, metavar="FILE",
    help="Compare with heads kept elsewhere, which shows what was cut off.",
)  # fmt: skip
@click.option(
    "--signers", type=FILE, metavar="FILE",
    help="Verify signatures too: OpenSSH's list of allowed signers.",
)  # fmt: skip
@click.option(
    "--revoked", type=FILE, metavar="FILE", help="Keys that are not valid any more (a list, or a KRL)."
)
@store_option
@json_option
@click.pass_context
def verify_trail(
    ctx: click.Context,
    /,
    sweep: str | None,
    anchor: Path | None,
    signers: Path | None,
    revoked: Path | None,
    store: Store,
    as_json: bool,
) -> None:
    """Verify a sweep, or the whole store. Exit code 1 when anything was altered, removed or added.

    With --signers also when a signature does not hold, or the SWEEP that is named has none.

    \b
    Examples:
      evalrun audit verify
      evalrun audit verify --anchor anchor.json
      evalrun audit verify latest --signers allowed_signers
    """
    from evalrun.tracking.audit import verify as verify_store

    if revoked is not None and signers is None:
        raise click.UsageError("--revoked says which of the --signers are not valid any more: give both.")
    folders = [store.resolve(sweep)] if sweep else None
    result = verify_store(store, folders, anchor)
    signatures = _signatures(folders or store.folders(), signers, revoked)
    if as_json:
        shown = {"signatures": [asdict(each) for each in signatures]} if signers else {}
        print_json({"intact": not result.broken, **asdict(result), **shown})
    else:
        for each in result.broken:
            click.echo(f"broken: {each.where}: {each.what}")
        for each in result.erased:
            click.echo(f"erased: {each.where}: {each.what}")
        for each in result.mended:
            click.echo(f"mended: {each.where}: {each.what}")
        for signature in signatures:
            click.echo(_signature_line(signature))
        state = "intact" if not result.broken else f"{len(result.broken)} broken"
        click.echo(
            f"{result.sweeps:,} sweeps, {result.events:,} events, {result.files:,} files: {state}", err=True
        )
    unsigned_is_bad = sweep is not None
    bad = [s for s in signatures if not s.holds and (s.status != "not signed" or unsigned_is_bad)]
    ctx.exit(int(ExitCode.GATE_FAILED if result.broken or bad else ExitCode.OK))


def _signatures(
    folders: Sequence[SweepFolder], signers: Path | None, revoked: Path | None
) -> list[Signature]:
    if signers is None:
        return []
    from evalrun.evidence.signing import verify_signatures

    return [each for folder in folders for each in verify_signatures(folder, signers, revoked)]


def _signature_line(signature: Signature) -> str:
    from evalrun.reports.visible import visible

    said = f"says it is {signature.claimed}" if signature.claimed not in ("", signature.signer) else ""
    parts = [signature.signer, said, signature.role, signature.signed_at[:19], signature.why]
    where = "/".join(filter(None, (signature.sweep, signature.file)))
    return visible(f"{signature.status}: {where}" + "".join(f", {part}" for part in parts if part))


@audit.command()
@store_option
def anchor(store: Store) -> None:
    """Print the heads of all trails, as JSON. Keep them where the store's writers cannot write.

    \b
    Example:
      evalrun audit anchor > anchor.json
    """
    from evalrun.tracking.audit import make_anchor

    print_json(make_anchor(store))


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--samples", type=click.IntRange(min=1), default=50, show_default=True, metavar="N",
    help="How many to ask again, spread over the runs.",
)  # fmt: skip
@click.option("--run", metavar="RUN", help="Only this run.")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), metavar="SHARE",
    help="Exit code 1 where fewer outputs are the very same. [default: scores decide alone]",
)  # fmt: skip
@store_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    sweep: str,
    samples: int,
    run: str | None,
    min_agreement: float | None,
    store: Store,
    as_json: bool,
) -> None:
    """Ask some samples of SWEEP again, with the messages, parameters and seeds that it holds.

    Exit code 0 when the scores agree, 1 when a scorer's mean differs by more than chance (or fewer outputs
    are the same than --min-agreement asks), 3 when a model cannot be asked or half of the samples fail.

    \b
    Example:
      evalrun verify latest --samples 20
    """
    from evalrun.sweep.verify import as_document, verify_runs

    folder = store.resolve(sweep)
    found = verify_runs(folder, samples=samples, run=run, work_dir=store.root / "engines")
    document = as_document(folder, found)
    if as_json:
        print_json(document)
    else:
        _print(found)
    ctx.exit(int(_code(document, min_agreement)))


def _code(document: dict[str, Any], least: float | None) -> ExitCode:
    if document["failed"] * 2 >= document["asked"]:
        return ExitCode.INCOMPLETE
    too_few = least is not None and document["share"] < least
    return ExitCode.GATE_FAILED if document["differs"] or too_few else ExitCode.OK


def _print(found: list[RunAgreement]) -> None:
    rows = []
    for each in found:
        for metric in each.metrics:
            interval = "" if metric.ci_low is None else f"[{metric.ci_low:+.3f}, {metric.ci_high:+.3f}]"
            change = "" if metric.difference is None else f"{metric.difference:+.3f}"
            verdict = "differs" if metric.differs else "agrees"
            rows.append(
                (each.run, metric.name, metric.n, metric.before, metric.after, change, interval, verdict)
            )
    click.echo("same output, run by run")
    head = ["run", "kind", "asked", "same output", "same answer", "failed"]
    print_rows(
        head,
        [
            (e.run, e.kind, e.asked, f"{e.same_output} ({e.share:.0%})", e.same_answer, e.failed)
            for e in found
        ],
    )
    click.echo("\nscores, now against then")
    print_rows(["run", "scorer", "n", "then", "now", "difference", "95 % interval", ""], rows)
    for each in found:
        for key, (before, after) in each.changed.items():
            click.echo(f"note: {each.run}: {key} was {cell(before)}, is {cell(after)}", err=True)
        for example in each.examples:
            what = f"{each.run} {example['sample_id']}"
            click.echo(f"  ~ {what}: {cell(example['before'])} -> {cell(example['after'])}")


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.argument("folder", type=FOLDER, metavar="DIR")
@store_option
@json_option
@click.pass_context
def checkout(ctx: click.Context, /, sweep: str, folder: Path, store: Store, as_json: bool) -> None:
    """Write the suite, prompts and rows of SWEEP into DIR, a new folder, to be run again from there.

    Exit code 3 when something that was written reads otherwise than it did: each is named.

    \b
    Examples:
      evalrun checkout latest again/
      evalrun again/suite.yaml
    """
    from evalrun.sweep.checkout import checkout as check_out

    done = check_out(store.resolve(sweep), folder)
    differs = [name for name, same in done.same.items() if not same]
    if as_json:
        shown = {name: getattr(done, name) for name in ("suite", "files", "same")}
        print_json({**shown, "differs": differs, "notes": done.notes})
    else:
        for note in done.notes:
            click.echo(f"note: {note}", err=True)
        for name in differs:
            click.echo(f"warning: {name} is not what it was: its digest differs", err=True)
        kept = sum(done.same.values())
        click.echo(
            f"wrote {len(done.files)} files; {kept} of {len(done.same)} digests are those of the sweep"
        )
        click.echo(f"run it again: evalrun {done.suite}")
    ctx.exit(int(ExitCode.INCOMPLETE if differs else ExitCode.OK))


_MOST = 40


@click.command(no_args_is_help=True)
@click.argument("a")
@click.argument("b", default="latest")
@store_option
@json_option
@csv_option
def diff(a: str, b: str, store: Store, as_json: bool, as_csv: bool) -> None:
    """Show what changed from sweep A to sweep B: suite, models, prompts, data, packages, machine, code.

    \b
    Example:
      evalrun diff main latest
    """
    from evalrun.tracking.diff import diff_sweeps

    found = diff_sweeps(store.resolve(a), store.resolve(b))
    if as_json:
        print_json({**asdict(found), "same": found.same})
        return
    if as_csv:
        print_csv(found.rows())
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
    if not changes:
        return
    click.echo(f"\n{title}")
    print_rows(
        ["", "before", "after"], [(change.name, change.before, change.after) for change in changes[:_MOST]]
    )
    if len(changes) > _MOST:
        click.echo(f"and {len(changes) - _MOST} more (--json)")


def _print_prompt(prompt: PromptDiff) -> None:
    """Removed words as [-…-], added ones as {+…+}, as git writes them."""
    marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    click.echo(f"\nprompt {_visible(prompt.prompt)}, {_visible(prompt.text)}")
    text = "".join(f"{marks[piece.kind][0]}{piece.text}{marks[piece.kind][1]}" for piece in prompt.pieces)
    click.echo("\n".join(f"  {_visible(line)}" for line in text.splitlines()))


def _print_data(data: DataDiff) -> None:
    if data.same:
        return
    click.echo(f"\ndataset {_visible(data.dataset)}: {data.added} added, {data.removed} removed, ", nl=False)
    click.echo(f"{data.changed} changed{'; ' + data.note if data.note else ''}")
    for sign, ids, count in (("+", data.added_ids, data.added), ("-", data.removed_ids, data.removed)):
        for id_ in ids:
            click.echo(f"  {sign} {_visible(id_)}")
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

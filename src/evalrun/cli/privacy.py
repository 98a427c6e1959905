"""`evalrun privacy`: what personal data lies where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import ExitCode
from evalrun.tracking.store import Store


@click.group(no_args_is_help=True)
def privacy() -> None:
    """Find personal data in a store, and give people what is theirs.

    \b
    Examples:
      evalrun privacy scan all
      evalrun privacy scan latest --json
    """


@privacy.command(no_args_is_help=True)
@click.argument("target")
@click.option(
    "--entities", metavar="NAMES", default="", help="Look for these only, such as email,phone,iban."
)
@click.option("--strict", is_flag=True, help="The recognisers of redact: strict.")
@click.option(
    "--fail", is_flag=True, help="Exit with 1 where anything is found, or a file could not be read."
)
@store_option
@json_option
def scan(target: str, entities: str, strict: bool, fail: bool, store: Store, as_json: bool) -> None:
    """Say what personal data is in a sweep, in the whole store (`all`), or in a file or folder.

    Counts by file, column and kind; no value is printed. Names are found by no pattern.

    \b
    Examples:
      evalrun privacy scan latest
      evalrun privacy scan all --json
      evalrun privacy scan reports/triage.html --fail
    """
    from evalrun.privacy.build import build_redactor
    from evalrun.privacy.scan import scan as look_through

    chosen = [name.strip() for name in entities.split(",") if name.strip()]
    redactor = build_redactor(
        {"redact": "strict" if strict else "standard", "entities": chosen}, None, Path()
    )
    scanned = look_through(_paths(target, store), redactor)
    if as_json:
        print_json({"target": target, "total": scanned.total, **asdict(scanned)})
    else:
        for finding in scanned.findings:
            click.echo(f"{finding.file}  {finding.column}  {finding.entity}: {finding.count:,}")
        for file, why in scanned.unread:
            click.echo(f"{file}: could not be read ({why})")
        click.echo(f"{scanned.total:,} findings in {scanned.files:,} files, {scanned.texts:,} texts")
    if fail and (scanned.total or scanned.unread):
        raise SystemExit(ExitCode.GATE_FAILED)


def _paths(target: str, store: Store) -> list[Path]:
    if target == "all":
        return [store.root]
    path = Path(target)
    return [path] if path.exists() else [store.resolve(target).path]


@privacy.command(no_args_is_help=True)
@click.option("--subject", required=True, metavar="KEY", help="Whose rows, by the suite's privacy.subject.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: standard output.")
@click.argument("target", default="all")
@store_option
def export(target: str, subject: str, out: Path | None, store: Store) -> None:
    """Write all that sweeps hold of somebody, as JSON lines, for who asks for it.

    \b
    Examples:
      evalrun privacy export --subject K-102 --out k-102.jsonl
    """
    import orjson

    from evalrun.atomic import write_private
    from evalrun.privacy.subjects import rows_of

    folders = store.folders() if target == "all" else [store.resolve(target)]
    rows = list(rows_of(store, [each for each in folders if each.has_manifest()], subject))
    lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE, default=str) for row in rows)
    if out is None:
        click.echo(lines.decode(), nl=False)
    else:
        write_private(out, lines)
    click.echo(f"{len(rows):,} rows", err=True)


@privacy.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stays in the trail.")
@store_option
def hold(sweep: str, reason: str, store: Store) -> None:
    """Put a legal hold on a sweep: `erase` and `retain` leave it alone.

    \b
    Examples:
      evalrun privacy hold latest --reason "case 4711"
    """
    from evalrun.privacy.subjects import hold as put_on_hold

    folder = store.resolve(sweep)
    put_on_hold(store, folder, reason)
    click.echo(f"{folder.path.name} is on hold")


@privacy.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--reason", default="", metavar="TEXT", help="Why; it stays in the trail.")
@store_option
def release(sweep: str, reason: str, store: Store) -> None:
    """End the hold on a sweep.

    \b
    Examples:
      evalrun privacy release latest --reason "case closed"
    """
    from evalrun.privacy.subjects import release as end_hold

    folder = store.resolve(sweep)
    end_hold(store, folder, reason)
    click.echo(f"{folder.path.name} is on hold no more")

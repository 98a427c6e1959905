"""`evalrun erase` and `evalrun retain`: taking rows out of finished sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import json_option, print_json, store_option
from evalrun.errors import UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.privacy.plan import Plan

_yes = click.option("--yes", is_flag=True, help="Do it. Without it is said what would be done.")


@click.command(no_args_is_help=True)
@click.argument("target", default="all")
@click.option("--subject", metavar="KEY", help="All rows of somebody, by the suite's privacy.subject.")
@click.option("--where", metavar="QUERY", help="Rows for which a query holds, as in `evalrun samples`.")
@click.option("--samples", metavar="FILE", type=click.Path(path_type=Path), help="Rows by id, one a line.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it stays in the trail. Name nobody in it.")
@click.option("--keep-numbers", is_flag=True, help="Scores and times stay; texts, columns and ids go.")
@click.option(
    "--pages",
    multiple=True,
    type=click.Path(path_type=Path),
    help="More files or folders with reports and exports. Default: reports/ here and beside the store.",
)
@click.option("--resume", is_flag=True, help="Go on with an erasure that was ended half way.")
@_yes
@store_option
@json_option
def erase(
    target: str,
    subject: str | None,
    where: str | None,
    samples: Path | None,
    reason: str,
    keep_numbers: bool,
    pages: tuple[Path, ...],
    resume: bool,
    yes: bool,
    store: Store,
    as_json: bool,
) -> None:
    """Erase rows from a sweep or from all, so that the audit trail still verifies.

    Says first what would go; nothing is changed without --yes. Answers go from the samples, what judges said,
    kept rows, labels, the cache and reports, freed database pages too; metrics stay as history. The
    certificate names what cannot be reached from here.

    \b
    Examples:
      evalrun erase --subject K-102 --reason "asked for by the person"
      evalrun erase --subject K-102 --reason "asked for by the person" --yes
      evalrun erase latest --where 'vars.customer == "K-102"' --reason "withdrawn" --yes
      evalrun erase --samples ids.txt --reason "withdrawn" --keep-numbers --yes
      evalrun erase --resume
    """
    from evalrun.privacy.erase import carry_out
    from evalrun.privacy.plan import read_plan, unfinished

    if resume:
        plans = [read_plan(path) for path in unfinished(store)]
        certificates = [carry_out(store, plan) for plan in plans]
        if as_json:
            print_json({"resumed": certificates})
        else:
            for certificate in certificates:
                _show(certificate)
            if not certificates:
                click.echo("nothing was ended half way")
        return
    plan = _find(target, subject, where, samples, reason, keep_numbers, pages, store)
    _conclude(plan, store, yes=yes, as_json=as_json)


def _find(
    target: str,
    subject: str | None,
    where: str | None,
    samples: Path | None,
    reason: str,
    keep_numbers: bool,
    pages: tuple[Path, ...],
    store: Store,
) -> Plan:
    from evalrun.privacy.find import find, read_ids
    from evalrun.privacy.plan import Rule

    if sum(each is not None for each in (subject, where, samples)) != 1:
        raise UserError("say which rows: exactly one of --subject, --where and --samples")
    if not reason.strip():
        raise UserError("say why: --reason TEXT", remedy="It stays in the trail; name nobody in it.")
    if subject is not None:
        if subject.strip() and subject in reason:
            raise UserError("the reason names the subject, and would stay in the trail", where="--reason")
        rule = Rule("subject", subject)
    elif where is not None:
        rule = Rule("where", where)
    else:
        assert samples is not None
        rule = Rule("samples", ids=read_ids(samples))
    folders = store.folders() if target == "all" else [store.resolve(target)]
    plan = find(
        store, [each for each in folders if each.has_manifest()], rule, reason, keep_numbers=keep_numbers
    )
    _add_pages(plan, pages, store)
    return plan


def _add_pages(plan: Plan, pages: tuple[Path, ...], store: Store) -> None:
    from evalrun.privacy.elsewhere import pages_in

    for page in pages:
        if not page.exists():
            raise UserError("there is no such file or folder", where=f"--pages {page}")
    touched = [folder for folder in store.folders() if folder.ulid in plan.rows]
    places = [Path("reports"), store.root.parent / "reports", *pages]
    found = pages_in([place for place in places if place.exists()], touched)
    plan.pages = list(dict.fromkeys(str(path.resolve()) for path in found))


def _conclude(plan: Plan, store: Store, *, yes: bool, as_json: bool) -> None:
    from evalrun.privacy.erase import carry_out
    from evalrun.privacy.plan import write_plan

    if not yes or not plan.count:
        document: dict[str, Any] = {
            "dry_run": True,
            "rows": plan.count,
            "sweeps": [
                {"sweep": ulid, "runs": {run: len(places) for run, places in runs.items()}}
                for ulid, runs in plan.rows.items()
            ],
            "pages": plan.pages,
        }
        if as_json:
            print_json(document)
            return
        for ulid, runs in plan.rows.items():
            for run, places in runs.items():
                click.echo(f"{ulid} {run}: {len(places):,} rows")
        if plan.journal_lines:
            click.echo(f"runs that are not finished: {plan.journal_lines:,} rows")
        for page in plan.pages:
            click.echo(f"made anew: {page}")
        click.echo(f"{plan.count:,} rows would be erased." + (" Add --yes to do it." if plan.count else ""))
        return
    write_plan(store, plan)
    certificate = carry_out(store, plan)
    if as_json:
        print_json(certificate)
    else:
        _show(certificate)


def _show(certificate: dict[str, Any]) -> None:
    kept = " (their numbers stay)" if certificate["numbers_kept"] else ""
    click.echo(f"{certificate['rows']:,} rows erased{kept}, erasure {certificate['erasure']}")
    for sweep in certificate["sweeps"]:
        click.echo(f"  {sweep['sweep']}: {sweep['rows']:,} rows, {len(sweep['files'])} files rewritten")
    click.echo(
        f"  cache: {certificate['cache_entries']:,} answers; pages made anew: {len(certificate['pages'])}"
    )
    click.echo("What was not reached:")
    for left in certificate["unreached"]:
        click.echo(f"  {left['what']}: {left['do']}")


@click.command()
@click.argument("target", default="all")
@_yes
@store_option
@json_option
def retain(target: str, yes: bool, store: Store, as_json: bool) -> None:
    """Erase texts and delete sweeps that are older than their suites' `retention` says.

    Says first what is due; nothing is changed without --yes, and nothing runs by itself. What is on hold
    stays.

    \b
    Examples:
      evalrun retain
      evalrun retain --yes
    """
    from dataclasses import asdict

    from evalrun.privacy.erase import carry_out
    from evalrun.privacy.plan import write_plan
    from evalrun.privacy.subjects import due, plan_texts
    from evalrun.tracking.changes import delete

    folders = [
        folder
        for folder in (store.folders() if target == "all" else [store.resolve(target)])
        if folder.has_manifest() and not folder.is_locked()
    ]
    dues = due(folders)
    certificate = None
    plan = plan_texts(store, folders, dues)
    if yes:
        if plan.count:
            _add_pages(plan, (), store)
            write_plan(store, plan)
            certificate = carry_out(store, plan)
        for each in dues:
            if each.action == "delete":
                delete(store, store.resolve(each.sweep), f"retention: {each.why}")
    if as_json:
        print_json({"dry_run": not yes, "due": [asdict(each) for each in dues], "certificate": certificate})
        return
    for each in dues:
        click.echo(f"{each.sweep} {each.action}: {each.why}")
    count = sum(each.action != "nothing" for each in dues)
    click.echo(
        f"{count} of {len(dues)} sweeps with a retention are due."
        + ("" if yes or not count else " Add --yes.")
    )
    if certificate is not None:
        _show(certificate)

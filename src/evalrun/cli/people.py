"""What people say of sweeps and do to them: tags, notes, names, labels, promotions, archive and delete."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import FILE, cell, json_option, print_json, print_rows, store_option
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.argument("tags", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--remove", multiple=True, metavar="NAME", help="Remove this tag.")
@store_option
@json_option
def tag(sweep: str, tags: tuple[str, ...], remove: tuple[str, ...], store: Store, as_json: bool) -> None:
    """Set or remove tags of a sweep; without any, show them.

    \b
    Examples:
      evalrun tag latest release=v1 team=nlp
      evalrun tag latest --remove draft
    """
    from evalrun.tracking import changes
    from evalrun.tracking.people import read_tags

    folder = store.resolve(sweep)
    given = read_tags(tags)
    now = changes.tag(store, folder, given, remove) if given or remove else changes.said(folder).tags
    if as_json:
        print_json({"sweep": folder.ulid, "tags": dict(now)})
        return
    print_rows(["tag", "value"], sorted(now.items()))


@click.command(no_args_is_help=True)
@click.argument("target", metavar="SWEEP[/RUN[/SAMPLE]]")
@click.argument("text", required=False)
@store_option
@json_option
def annotate(target: str, text: str | None, store: Store, as_json: bool) -> None:
    """Add a note to a sweep, a run or a sample; without a text, show the notes there are.

    \b
    Examples:
      evalrun annotate latest "few-shot examples cleaned up"
      evalrun annotate latest/smollm2-direct-tickets/T-17 "the target is wrong"
    """
    from dataclasses import asdict

    from evalrun.tracking import changes
    from evalrun.tracking.targets import find_target

    found = find_target(store, target)
    if text is not None:
        changes.note(store, found.folder, text, found.name)
    notes = [
        note
        for note in changes.said(found.folder).notes
        if found.name in ("", note.target) or note.target.startswith(f"{found.name}/")
    ]
    if as_json:
        print_json({"sweep": found.folder.ulid, "notes": [asdict(note) for note in notes]})
        return
    rows = [(note.ts[:16], note.actor, note.target, note.text) for note in notes]
    print_rows(["when", "who", "on", "note"], rows, widest=100)


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.argument("name")
@store_option
def rename(sweep: str, name: str, store: Store) -> None:
    """Give a sweep another name. Its folder and manifest stay as they are; lists show the new one.

    \b
    Example:
      evalrun rename latest "before the new examples"
    """
    from evalrun.tracking import changes

    folder = store.resolve(sweep)
    changes.rename(store, folder, name)
    click.echo(f"{folder.ulid} is called '{name.strip()}' now")


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--undo", is_flag=True, help="Put it back.")
@store_option
def archive(sweep: str, undo: bool, store: Store) -> None:
    """Take a sweep out of `list` and `find`; it stays on disk, and `--archived` shows it.

    \b
    Examples:
      evalrun archive 01K5
      evalrun archive 01K5 --undo
    """
    from evalrun.tracking import changes

    folder = store.resolve(sweep)
    changes.archive(store, folder, not undo)
    click.echo(f"{folder.path.name} is {'back in the lists' if undo else 'archived'}")


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the tombstone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def delete(sweep: str, reason: str, yes: bool, store: Store) -> None:
    """Delete a sweep's folder for good. Its name, digests, who deleted it and why stay in the audit trail.

    \b
    Example:
      evalrun delete 01K5 --reason "wrong data"
    """
    from evalrun.tracking import changes

    folder = store.resolve(sweep)
    if not yes:
        click.confirm(f"Delete {folder.path.name} with all its samples?", abort=True, err=True)
    changes.delete(store, folder, reason)
    click.echo(f"deleted {folder.path.name}")


@click.command(no_args_is_help=True)
@click.argument("run")
@click.option("--as", "name", required=True, metavar="NAME", help="The name, such as production.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the promotion. Required.")
@click.option("--override", is_flag=True, help="Promote in spite of failed gates; they are recorded.")
@store_option
@json_option
def promote(run: str, name: str, reason: str, override: bool, store: Store, as_json: bool) -> None:
    """Let a run stand for NAME in its project: SWEEP/RUN, or SWEEP where it has one run.

    Refused (exit code 1) while its sweep is not complete, when a gate of it failed, or when it was altered.

    \b
    Example:
      evalrun promote latest/smollm2-few_shot-tickets --as production --reason "F1 up by 4 points"
    """
    from evalrun.tracking.changes import Wish
    from evalrun.tracking.changes import promote as place
    from evalrun.tracking.targets import find_run_target

    target = find_run_target(store, run)
    done = place(store, target, Wish(name, reason, override))
    if (target.folder.read_manifest()["suite"].get("resolved") or {}).get("sinks"):
        from evalrun.sinks.main import after_sweep

        if said := after_sweep(target.folder):
            click.echo(f"warning: {said}", err=True)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(f"{done.name} of {done.project} is {done.sweep}/{done.run}")
    for each in done.overridden:
        click.echo(f"overridden: {each}", err=True)
    click.echo(f"Next: `evalrun deployed {done.sweep}/{done.run} --env …`, `evalrun whatis {name}`", err=True)


@click.command(no_args_is_help=True)
@click.argument("run")
@click.option("--env", "environment", required=True, metavar="NAME", help="The environment, such as prod.")
@click.option("--url", default="", metavar="URL", help="Where it answers; kept without secrets.")
@click.option("--reason", default="", metavar="TEXT", help="Anything to keep with it.")
@store_option
@json_option
def deployed(run: str, environment: str, url: str, reason: str, store: Store, as_json: bool) -> None:
    """Note that a run's model and prompt are deployed to an environment. Nothing is sent anywhere.

    \b
    Example:
      evalrun deployed latest --env prod --url https://triage.example.org/v1
    """
    from evalrun.tracking.changes import deployed as place
    from evalrun.tracking.targets import find_run_target

    done = place(store, find_run_target(store, run), environment, url, reason)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{done.sweep}/{done.run} is deployed to {done.name}")


@click.command(no_args_is_help=True)
@click.argument("name")
@click.option("--project", metavar="NAME", help="In this project.")
@store_option
@json_option
def whatis(name: str, project: str | None, store: Store, as_json: bool) -> None:
    """Show which run stands for a name, or is deployed to an environment: its numbers, who, when, why.

    \b
    Example:
      evalrun whatis production --json
    """
    from evalrun.tracking.changes import placed
    from evalrun.tracking.changes import whatis as history

    found = history(store, name, project)
    now = found[0]
    deployments = [
        each
        for each in placed(store, now.project)
        if each.kind == "deploy" and (each.sweep, each.run) == (now.sweep, now.run)
    ]
    from evalrun.production.whatis import beside

    seen = beside(store, now, deployments)
    if as_json:
        print_json(
            {
                **asdict(now),
                **asdict(seen),
                "deployments": [asdict(deployment) for deployment in deployments],
                "history": [asdict(each) for each in found[1:]],
            }
        )
        return
    gone = "" if now.present else " (deleted since)"
    said = "promoted" if now.kind == "promote" else "deployed"
    click.echo(cell(f"{name} of {now.project} is {now.sweep}/{now.run}{gone}", 200))
    click.echo(cell(f"{said} by {now.actor} at {now.ts[:16]} UTC: {now.reason or now.url or '-'}", 400))
    for each in now.overridden:
        click.echo(cell(f"overridden: {each}", 400))
    for place in deployments if now.kind == "promote" else ():
        click.echo(cell(f"deployed to {place.name} at {place.ts[:16]} by {place.actor}: {place.url}", 400))
    for said in seen.origin.sentences():
        click.echo(cell(said, 400))
    click.echo()
    if seen.elsewhere:
        sources = list(dict.fromkeys(side.source for side in seen.sides))
        print_rows(["metric", *sources], [[name, *cells] for name, cells in seen.table(sources)])
    else:
        rows = [
            [metric["name"], metric["value"], _interval(metric), metric["n"], metric["unit"]]
            for metric in now.metrics
        ]
        print_rows(["metric", "value", "95 % interval", "n", "unit"], rows)
    for sentence in seen.drift:
        click.echo(cell(f"drift: {sentence}", 400))
    for alert in seen.alerts:
        click.echo(cell(f"alert ({alert.state}): {alert.name} of {alert.run}: {alert.why}", 400))
    if found[1:]:
        click.echo("\nbefore:")
        before = [[e.ts[:16], e.actor, f"{e.sweep}/{e.run}", e.reason or e.url] for e in found[1:11]]
        print_rows(["when", "who", "run", "why"], before)


def _interval(metric: object) -> str:
    values = metric if isinstance(metric, dict) else {}
    low, high = values.get("ci_low"), values.get("ci_high")
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


@click.command(no_args_is_help=True)
@click.argument("run", metavar="SWEEP/RUN")
@click.argument("figures", nargs=-1, required=True, metavar="NAME=NUMBER…")
@store_option
def log(run: str, figures: tuple[str, ...], store: Store) -> None:
    """Keep figures of your own with a run: numbers that `find`, `sql` and `--sort` take as its metrics.

    \b
    Example:
      evalrun log latest/smollm2-direct-tickets energy_kwh=1.5 human.helpful=4.2
    """
    from evalrun.tracking.changes import log as keep
    from evalrun.tracking.people import read_figures
    from evalrun.tracking.targets import find_run_target

    target = find_run_target(store, run)
    keep(store, target, read_figures(figures))
    click.echo(f"{target.folder.path.name}/{target.run}: {', '.join(figures)}")


@click.command(no_args_is_help=True)
@click.argument("sweep", metavar="SWEEP[/RUN]")
@click.option("--from", "file", type=FILE, metavar="FILE", help="JSONL or CSV with a column of sample ids.")
@click.option("--column", default="rating", show_default=True, metavar="NAME", help="The label or rating.")
@click.option("--id", "key", default="sample_id", show_default=True, metavar="NAME", help="The sample's id.")
@store_option
@json_option
def label(sweep: str, file: Path | None, column: str, key: str, store: Store, as_json: bool) -> None:
    """Keep people's labels or ratings with a sweep, and show how they agree with its scores.

    Without --from, show those it has. Ratings (1 to 5, yes/no, good/bad) are of one run's answers: name the
    run, or give the file a column `run`. Other words are taken as the right answers of the rows.

    \b
    Example:
      evalrun label latest --from feedback.csv --column rating
    """
    from evalrun.tracking.changes import said
    from evalrun.tracking.targets import find_target

    target = find_target(store, sweep)
    if file is None:
        _show_labels(asdict(each) for each in said(target.folder).labels) if not as_json else print_json(
            {"sweep": target.folder.ulid, "labels": [asdict(each) for each in said(target.folder).labels]}
        )
        return
    from evalrun.analysis.feedback import label as keep
    from evalrun.tracking.people import LabelColumns

    done = keep(store, target, file, LabelColumns(column, key))
    if as_json:
        print_json({"sweep": target.folder.ulid, **asdict(done)})
        return
    click.echo(f"{done.n:,} labels of '{done.column}' ({done.kind}) kept with {target.folder.path.name}")
    if done.unknown:
        listed = ", ".join(done.unknown[:5])
        click.echo(f"{len(done.unknown):,} are of samples that it does not have: {listed}", err=True)
    print_agreement(done.agreement)
    if done.kind != "class":
        click.echo(
            f"Next: `evalrun dataset from-feedback {sweep} --out worst.jsonl` writes the worst rows.",
            err=True,
        )


def _show_labels(sets: Any) -> None:
    found = list(sets)
    names = ("column", "kind", "n", "target", "actor")
    rows = [[each["ts"][:16], *(each[name] for name in names)] for each in found]
    print_rows(["when", "column", "kind", "n", "run", "who"], rows)
    for each in found:
        print_agreement(each["agreement"])


def print_agreement(agreement: Sequence[Mapping[str, Any]]) -> None:
    """How labels agree with scores, one line a run and score."""
    if not agreement:
        return
    rows = []
    for each in agreement:
        low, high = each["ci_low"], each["ci_high"]
        interval = "" if low is None else f"[{low:.2f}, {high:.2f}]"
        names = ("run", "score", "measure", "value")
        rows.append([*(each[name] for name in names), interval, each["share"], each["n"], each["note"]])
    print_rows(["run", "score", "agreement", "value", "95 % interval", "same", "n", ""], rows, widest=40)


@click.group()
def dataset() -> None:
    """Make datasets from what the store holds.

    \b
    Example:
      evalrun dataset from-feedback latest --worst 50 --out worst.jsonl
    """


@dataset.command("from-feedback", no_args_is_help=True)
@click.argument("sweep", metavar="SWEEP[/RUN]")
@click.option(
    "--worst", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="How many rows."
)
@click.option("--column", metavar="NAME", help="Which labels. [default: the last that were given]")
@click.option("--score", metavar="NAME", help="Go by this score instead of labels.")
@click.option("--out", type=FILE, required=True, metavar="FILE.jsonl", help="Where the rows go.")
@store_option
@json_option
def from_feedback(
    sweep: str,
    worst: int,
    column: str | None,
    score: str | None,
    out: Path,
    store: Store,
    as_json: bool,
) -> None:
    """Write the rows whose answers were rated worst (lowest) as a dataset, the worst first.

    \b
    Example:
      evalrun dataset from-feedback latest --worst 50 --out data/worst.jsonl
    """
    from evalrun.analysis.feedback import Worst, worst_rows
    from evalrun.tracking.targets import find_target

    target = find_target(store, sweep)
    done = worst_rows(store, target, Worst(worst, column, score), out)
    if as_json:
        print_json({"sweep": target.folder.ulid, **asdict(done)})
        return
    click.echo(f"wrote {done.rows:,} of {done.rated:,} rows to {done.path}, the lowest '{done.by}' first")
    click.echo(
        f"Next: {{id: worst, path: {done.path}, key: sample_id, target: target}} in a suite's datasets",
        err=True,
    )

"""`evalrun training`: training runs, read from what other programs wrote or tracked by evalrun.track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import (
    FILE,
    csv_option,
    json_option,
    limit_option,
    print_csv,
    print_json,
    print_rows,
    store_option,
)
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.tracking.trainings import TrainingFolder
    from evalrun.training.alerts import TrainingAlert


@click.group()
def training() -> None:
    """Keep training runs: import what trainers and trackers wrote, look at them, compare them.

    \b
    Examples:
      evalrun training import out/ --name triage-lora
      evalrun training show triage-lora --html training.html
      evalrun training gate triage-lora --when diverged
    """


@training.command("import", no_args_is_help=True)
@click.argument("source", metavar="PATH|ADDRESS")
@click.option("--name", default="", metavar="NAME", help="What to call it. [default: the folder's name]")
@click.option("--project", default="", metavar="NAME", help="Its project. [default: its name]")
@click.option(
    "--framework", default="auto", show_default=True, metavar="NAME",
    help="huggingface, tensorboard, lightning, table, trackio, mlflow or wandb.",
)  # fmt: skip
@click.option(
    "--map",
    "mapped",
    default="",
    metavar="NEW=COLUMN,…",
    help="Columns of a table: step=iteration,loss=train/loss",
)
@click.option("--run", default="", metavar="RUN", help="Which run, of a tracker that has several.")
@click.option(
    "--data", multiple=True, type=FILE, metavar="FILE", help="Data it was trained on, to keep its digest."
)
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Tag it.")
@click.option("--digests/--no-digests", default=True, help="Whether checkpoints are read for their digests.")
@store_option
@json_option
def import_(
    source: str, name: str, project: str, framework: str, mapped: str, run: str, data: tuple[Path, ...],
    tags: tuple[str, ...], digests: bool, store: Store, as_json: bool,
) -> None:  # fmt: skip
    """Read a training from the folder or file that a trainer wrote, or from a tracker. Nothing is unpickled.

    Known are trainer_state.json of the Hugging Face Trainer (Axolotl, TRL, LLaMA-Factory), TensorBoard's
    event files, Lightning's metrics.csv with hparams.yaml, any CSV or JSONL, trackio's database, MLflow (the
    address of a run) and W&B (wandb:ENTITY/PROJECT/RUN).

    \b
    Examples:
      evalrun training import out/
      evalrun training import log.csv --map step=iteration,loss=train_loss
      evalrun training import http://127.0.0.1:5000 --run 0123456789abcdef0123456789abcdef
    """
    from evalrun.tracking.people import read_tags
    from evalrun.training.importing import ImportOptions, import_training

    for path in data:
        if not path.is_file():
            raise UserError("there is no such file", where=str(path), remedy="Name the data by --data FILE.")
    options = ImportOptions(
        source, framework, name, project, run, _mapped(mapped), data, read_tags(tags), digests
    )
    done = import_training(store, options)
    manifest = done.manifest
    if as_json:
        from evalrun.reports.training import TrainingView

        print_json(
            {
                **TrainingView.of(store, done.folder).document(),
                "again": done.again,
            }
        )
        return
    if done.again:
        click.echo(f"these files are in the store already: {manifest.name} ({done.folder.ulid})")
        return
    points = sum(each.points for each in {each.name: each for each in manifest.last}.values())
    click.echo(
        f"{manifest.name} ({done.folder.ulid}): {manifest.framework}, {manifest.steps:,} steps, "
        f"{len(manifest.last)} metrics, {points:,} points, {len(done.checkpoints)} checkpoints"
    )
    for note in manifest.notes:
        click.echo(f"note: {note}")
    for alert in done.alerts:
        click.echo(f"alert: {alert}")


def _mapped(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        new, equals, old = part.partition("=")
        if not equals or not new.strip() or not old.strip():
            raise UserError(
                f"'{part[:80]}' is not of the form NEW=COLUMN",
                where="--map",
                remedy="As in: --map step=iteration,loss=train/loss",
            )
        pairs[new.strip()] = old.strip()
    return pairs


def _summary(folder: TrainingFolder) -> dict[str, Any]:
    from evalrun.tracking.people import fold
    from evalrun.tracking.trainings import JOURNAL, name_of
    from evalrun.training.journal import last_line

    manifest = folder.training()
    last = last_line(folder.path / JOURNAL)  # of one that runs, or was killed
    said = fold(manifest.tags, folder.events())
    same = ("project", "framework", "started_at", "finished_at", "planned_steps")
    return {
        "training": folder.ulid,
        "name": name_of(folder),
        **{key: getattr(manifest, key) for key in same},
        "steps": max(manifest.steps, last[0] if last is not None else 0),
        "status": folder.status(),
        "folder": str(folder.path),
        "tags": dict(said.tags),
        "archived": said.archived,
        "last": {each.name: each.value for each in manifest.last},
    }


@training.command("list")
@limit_option(20)
@click.option("--archived", is_flag=True, help="Archived trainings too.")
@store_option
@json_option
@csv_option
def list_(limit: int, archived: bool, store: Store, as_json: bool, as_csv: bool) -> None:
    """List the trainings in the store, the newest first.

    \b
    Example:
      evalrun training list --limit 5
    """
    from evalrun.tracking.trainings import training_folders

    found = []
    for folder in training_folders(store):
        try:
            summary = _summary(folder)
        except UserError as error:
            click.echo(f"warning: {error}", err=True)
            continue
        if archived or not summary["archived"]:
            found.append(summary)
        if len(found) == limit:
            break
    if as_json or as_csv:
        (print_json if as_json else print_csv)(found)
        return
    rows = []
    for each in found:
        last = each["last"]
        started = (each["started_at"] or "")[:16]
        about = [
            each["name"],
            each["framework"],
            each["status"],
            each["steps"],
            last.get("loss"),
            last.get("eval_loss"),
        ]
        rows.append([*about, started, each["training"]])
    print_rows(["name", "framework", "status", "steps", "loss", "eval loss", "started", "training"], rows)


@training.command(no_args_is_help=True)
@click.argument("name")
@click.option("--metric", metavar="NAME", help="The metric of quality to show by step.")
@click.option("--html", "page", type=FILE, metavar="FILE.html", help="Write a page with the curves.")
@click.option("--live", is_flag=True, help="Write the page again while the training runs.")
@store_option
@json_option
def show(name: str, metric: str | None, page: Path | None, live: bool, store: Store, as_json: bool) -> None:
    """Show a training: its last values, checkpoints with their scores, hyperparameters, alerts and notes.

    NAME is its name, a beginning of its id, or `latest`.

    \b
    Examples:
      evalrun training show triage-lora
      evalrun training show latest --html training.html --live
    """
    from evalrun.reports.training import TrainingView, follow_page, training_lines, write_page
    from evalrun.tracking.trainings import resolve_training

    folder = resolve_training(store, name)
    if page is not None:
        if live:
            follow_page(store, [folder], metric, page)
        else:
            write_page([TrainingView.of(store, folder, metric)], page)
        click.echo(f"wrote {page}", err=True)
        if not as_json:
            return
    elif live:
        raise UserError(
            "--live writes a page again and again", where="--live", remedy="Name it: --html FILE.html."
        )
    view = TrainingView.of(store, folder, metric)
    if as_json:
        print_json(view.document())
        return
    for line in training_lines(view):
        click.echo(line)


@training.command(no_args_is_help=True)
@click.argument("name")
@click.option(
    "--by", "metric", metavar="METRIC", help="The metric. [default: the one that the sweep decides by]"
)
@store_option
@json_option
def best(name: str, metric: str | None, store: Store, as_json: bool) -> None:
    """Say which step of a training to take: the earliest that is not shown to be worse than the one that
    looks best.

    Its checkpoints must have been evaluated in one sweep (`checkpoints:` in a suite, or `evalrun watch`).

    \b
    Example:
      evalrun training best triage-lora --by exact_match
    """
    from evalrun.reports.training import TrainingView, quality_lines
    from evalrun.tracking.trainings import name_of, resolve_training

    view = TrainingView.of(store, resolve_training(store, name), metric)
    lines = [line for line in view.quality if line.best is not None]
    if not lines:
        raise UserError(
            f"no sweep compared steps of '{name_of(view.folder)}'",
            where=str(store.root),
            remedy="Evaluate its checkpoints: models with `checkpoints: {path: …, training: "
            f"{name_of(view.folder)}}}` in a suite, or evalrun watch.",
        )
    if as_json:
        rows = {row.step: row.path for row in view.checkpoints}
        print_json([{**asdict(line), "path": rows.get(line.best or 0)} for line in lines])
        return
    for text in quality_lines(view):
        click.echo(text)


@training.command(no_args_is_help=True)
@click.argument("names", nargs=-1, required=True, metavar="NAME NAME…")
@click.option("--metric", metavar="NAME", help="The metric of quality to show by step.")
@click.option(
    "--html", "page", type=FILE, metavar="FILE.html", help="Write a page with the curves laid over."
)
@store_option
@json_option
def compare(
    names: tuple[str, ...], metric: str | None, page: Path | None, store: Store, as_json: bool
) -> None:
    """Compare trainings: what differs in their hyperparameters and models, and where they ended.

    \b
    Example:
      evalrun training compare lora-r8 lora-r16 --html compared.html
    """
    from evalrun.reports.training import TrainingView, compared_lines, differences, write_page
    from evalrun.tracking.trainings import resolve_training

    if len(names) < 2:
        raise UserError(
            "two trainings or more are compared", remedy="Name another: evalrun training compare A B"
        )
    views = [TrainingView.of(store, resolve_training(store, name), metric) for name in names]
    if page is not None:
        write_page(views, page)
        click.echo(f"wrote {page}", err=True)
    if as_json:
        changed = [{"name": row[0], "values": list(row[1:])} for row in differences(views)]
        print_json({"trainings": [view.document() for view in views], "differences": changed})
        return
    if page is None:
        for line in compared_lines(views):
            click.echo(line)


@training.command(no_args_is_help=True)
@click.argument("name")
@click.option(
    "--when",
    multiple=True,
    metavar="ALERT",
    help="Only this one, as: diverged; eval_loss rising 3. May be given again.",
)
@store_option
@json_option
def gate(name: str, when: tuple[str, ...], store: Store, as_json: bool) -> None:
    """Fail (exit code 1) where a training raised an alert: diverged, spike, grad_norm, eval_loss rising,
    stalled, lr_zero, throughput fell.

    \b
    Example:
      evalrun training gate triage-lora --when diverged --when 'eval_loss rising 3'
    """
    from evalrun.tracking.trainings import resolve_training
    from evalrun.training.alerts import alerts_of, read_rules
    from evalrun.training.ending import series_of

    rules = read_rules(when)
    folder = resolve_training(store, name)
    alerts = alerts_of(series_of(folder), folder.training().planned_steps, rules)
    if as_json:
        code = int(ExitCode.GATE_FAILED if alerts else ExitCode.OK)
        print_json({"training": folder.ulid, "alerts": [asdict(each) for each in alerts], "exit_code": code})
    else:
        _print_alerts(alerts, rules)
    click.get_current_context().exit(int(ExitCode.GATE_FAILED) if alerts else 0)


def _print_alerts(alerts: list[TrainingAlert], rules: Mapping[Any, int]) -> None:
    for alert in alerts:
        click.echo(f"fail  {alert}")
    if not alerts:
        click.echo(f"pass  none of: {', '.join(rules)}")


@training.command(no_args_is_help=True)
@click.argument("name")
@click.argument("tags", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--remove", multiple=True, metavar="NAME", help="Remove this tag.")
@store_option
def tag(name: str, tags: tuple[str, ...], remove: tuple[str, ...], store: Store) -> None:
    """Set or remove tags of a training; without any, show them.

    \b
    Example:
      evalrun training tag triage-lora team=nlp
    """
    from evalrun.tracking import changes
    from evalrun.tracking.people import read_tags
    from evalrun.tracking.trainings import resolve_training

    folder, given = resolve_training(store, name), read_tags(tags)
    now = changes.tag(store, folder, given, remove) if given or remove else changes.said(folder).tags
    print_rows(["tag", "value"], sorted(now.items()))


@training.command(no_args_is_help=True)
@click.argument("name")
@click.argument("text")
@store_option
def note(name: str, text: str, store: Store) -> None:
    """Add a note to a training.

    \b
    Example:
      evalrun training note triage-lora "learning rate halved at step 500"
    """
    from evalrun.tracking import changes
    from evalrun.tracking.trainings import resolve_training

    changes.note(store, resolve_training(store, name), text)


@training.command(no_args_is_help=True)
@click.argument("name")
@click.argument("new")
@store_option
def rename(name: str, new: str, store: Store) -> None:
    """Give a training another name.

    \b
    Example:
      evalrun training rename triage-lora triage-lora-r8
    """
    from evalrun.tracking import changes
    from evalrun.tracking.trainings import resolve_training

    folder = resolve_training(store, name)
    changes.rename(store, folder, new)
    click.echo(f"{folder.ulid} is called '{new.strip()}' now")


@training.command(no_args_is_help=True)
@click.argument("name")
@click.option("--undo", is_flag=True, help="Put it back.")
@store_option
def archive(name: str, undo: bool, store: Store) -> None:
    """Take a training out of the list, or put it back.

    \b
    Example:
      evalrun training archive triage-lora
    """
    from evalrun.tracking import changes
    from evalrun.tracking.trainings import resolve_training

    folder = resolve_training(store, name)
    changes.archive(store, folder, not undo)
    click.echo(f"{folder.path.name} is {'back in the list' if undo else 'archived'}")


@training.command(no_args_is_help=True)
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the tombstone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def delete(name: str, reason: str, yes: bool, store: Store) -> None:
    """Delete a training's folder for good; its checkpoints stay where they are.

    \b
    Example:
      evalrun training delete triage-lora --reason "diverged"
    """
    from evalrun.tracking.trainings import delete_training, resolve_training

    folder = resolve_training(store, name)
    if not yes:
        click.confirm(f"Delete {folder.path.name}?", abort=True, err=True)
    delete_training(store, folder, reason)
    click.echo(f"deleted {folder.path.name}")

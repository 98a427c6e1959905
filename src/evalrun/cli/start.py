"""Before the first run: `evalrun init`, `models`, `calibrate`, `schema`, `docs` and `completion`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.options import ANY_PATH, FOLDER, csv_option, json_option, print_csv, print_json
from evalrun.errors import UserError
from evalrun.registry import import_attribute
from evalrun.reports.visible import visible


@click.command()
@click.argument("folder", type=FOLDER, default=".")
@click.option(
    "--data", type=ANY_PATH, metavar="FILE",
    help="Make the suite for this file: CSV, TSV, Excel, JSONL, JSON or Parquet.",
)  # fmt: skip
@click.option("--target", metavar="COLUMN", help="With --data: the column that holds the right answer.")
@click.option(
    "--model", metavar="NAME",
    help="With --data: PROVIDER:MODEL, MODEL@URL, weights.gguf or gpt-…. [default: the embedded one]",
)  # fmt: skip
def init(folder: Path, data: Path | None, target: str | None, model: str | None) -> None:
    """Write a commented suite that runs as it stands: with a small dataset, or for a file of your own.

    With --data the separator and encoding of the file are found out; how answers are read and scored is
    guessed from the target's column, and explained in the suite.

    \b
    Examples:
      evalrun init my-suite
      evalrun init my-suite --data tickets.csv --target category
      evalrun init --data exam.xlsx --target answer --model my-model@http://127.0.0.1:8000/v1
    """
    if data is None:
        if target is not None or model is not None:
            raise click.UsageError("--target and --model belong to --data FILE.")
        from evalrun.suite.scaffold import write_scaffold

        written = write_scaffold(folder)
    else:
        from evalrun.sweep.draft import write_draft

        draft = write_draft(folder, data, target, model)
        for line in draft.said:
            click.echo(visible(line))
        written = [*draft.written]
    for path in written:
        click.echo(f"wrote {path}")
    suite = next(path for path in written if path.suffix == ".yaml")
    click.echo(f"Next: evalrun {suite}")


@click.group()
def models() -> None:
    """List, pull and find models for the embedded engine (provider: llamacpp).

    \b
    Example:
      evalrun models list
    """


@models.command("list")
@json_option
@csv_option
def list_models(as_json: bool, as_csv: bool) -> None:
    """List the models of the catalogue.

    \b
    Example:
      evalrun models list --json
    """
    from evalrun.providers import catalogue

    entries = catalogue.list_models()
    rows = [{**asdict(entry), "path": str(entry.path) if entry.path else None} for entry in entries]
    if as_json or as_csv:
        (print_json if as_json else print_csv)(rows)
        return
    for entry in entries:
        state = f"installed, {entry.path}" if entry.path else "not pulled yet"
        click.echo(f"{entry.name}  {entry.size_bytes / 1e6:.0f} MB  {entry.license}  {state}")


@models.command(no_args_is_help=True)
@click.argument("name")
def pull(name: str) -> None:
    """Download a model and check its SHA-256.

    \b
    Example:
      evalrun models pull smollm2-135m-instruct
    """
    from evalrun.providers import catalogue
    from evalrun.providers.catalogue import download_progress

    with download_progress(name) as progress:
        path = catalogue.pull(name, progress)
    click.echo(path)


@models.command(no_args_is_help=True)
@click.argument("name")
def where(name: str) -> None:
    """Print the path of a model that was pulled.

    \b
    Example:
      evalrun models where smollm2-135m-instruct
    """
    from evalrun.errors import UserError
    from evalrun.providers import catalogue

    path = catalogue.where(name)
    if path is None:
        raise UserError(f"model '{name}' is not here", remedy=f"Run: evalrun models pull {name}")
    click.echo(path)


BUSY = 0.7
"""Below this share of a core, something else held evalrun back."""


@click.command()
@click.option(
    "--requests", type=click.IntRange(min=400), default=4000, show_default=True, metavar="N",
    help="How many answers are asked for; the more, the steadier the figures.",
)  # fmt: skip
@json_option
def calibrate(requests: int, as_json: bool) -> None:
    """Measure evalrun's own cost on this machine, against a built-in server that costs nothing.

    The figures are kept for this machine. Each sweep records them, and says so beside its latencies where
    its rate came near what evalrun can reach. Takes about ten seconds; run it while the machine is quiet.

    \b
    Example:
      evalrun calibrate
    """
    from evalrun.runner.calibration import save
    from evalrun.sweep.calibrate import measure

    found = measure(requests)
    path = save(found)
    _warn_if_busy(found.core_share)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(
        f"CPU per answer            {found.us_per_request:8.0f} µs\n"
        f"CPU per streamed answer   {found.us_per_streamed_request:8.0f} µs, and"
        f" {found.us_per_chunk:.0f} µs for each chunk\n"
        f"highest rate              {found.requests_per_s:8.0f} answers/s\n"
        f"highest rate, streamed    {found.streamed_per_s:8.0f} answers/s of"
        f" {found.chunks_per_streamed} chunks"
    )
    click.echo(f"kept in {path}", err=True)


def _warn_if_busy(core_share: float) -> None:
    if core_share < BUSY:
        click.echo(
            f"warning: evalrun had {core_share:.0%} of a core: the machine was busy, and the rates are lower"
            " than what it reaches. Run this again while it is quiet.",
            err=True,
        )


PAGES: Mapping[str, tuple[str, str]] = {
    "schema": ("suite.schema.json", "evalrun.suite.reference:schema_text"),
    "schema-sweep": ("sweep.schema.json", "evalrun.evidence.schemas:sweep_text"),
    "schema-run": ("run.schema.json", "evalrun.evidence.schemas:run_text"),
    "schema-sample": ("sample.schema.json", "evalrun.evidence.schemas:sample_text"),
    "suite": ("suite-reference.md", "evalrun.suite.reference:suite_reference"),
    "metrics": ("metrics.md", "evalrun.analysis.definitions:metric_reference"),
    "scorers": ("scorers.md", "evalrun.scoring.reference:scorer_reference"),
}
"""What can be made: its file among all, and the function that gives its text."""


@click.command()
@click.argument("what", type=click.Choice(list(PAGES)), required=False)
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", help="Write it there; all: a folder.")
@click.option("--check", is_flag=True, help="Write nothing; fail where a file differs.")
def docs(what: str | None, out: Path | None, check: bool) -> None:
    """Make the references from the code: all of them into a folder, or one of them.

    \b
    Example:
      evalrun docs --out docs
      evalrun docs --out docs --check
      evalrun docs metrics --out metrics.md
    """
    if out is None and what is None:
        raise UserError("all the references are several files", remedy="Name a folder: --out docs.")
    if out is None:
        click.echo(_text(str(what)), nl=False)
        return
    texts = {out: _text(what)} if what else {out / file: _text(each) for each, (file, _) in PAGES.items()}
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text("utf-8") != text]
    if check and stale:
        again = f"Make them again: evalrun docs{f' {what}' if what else ''} --out {out}"
        raise UserError(f"not as the code has it: {', '.join(map(str, stale))}", remedy=again)
    for path in () if check else stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], encoding="utf-8")


def _text(page: str) -> str:
    text: str = import_attribute(PAGES[page][1])()
    return text


@click.command("help")
@click.argument("words", nargs=-1, metavar="[all | COMMAND]")
@click.pass_context
def show_help(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the daily commands, all of them, or the help of one.

    \b
    Examples:
      evalrun help all
      evalrun help compare
    """
    from evalrun.cli.main import EVERYTHING, cli

    parent = ctx.find_root()
    if not words or words == ("all",):
        parent.obj = EVERYTHING if words else None
        click.echo(cli.get_help(parent))
        return
    command: click.Command = cli
    for word in words:
        _, found, _ = (
            command.resolve_command(parent, [word]) if isinstance(command, click.Group) else ("", None, [])
        )
        if found is None:
            raise UserError(
                f"no command '{' '.join(words)}'", remedy="`evalrun help all` lists the commands."
            )
        parent = click.Context(found, info_name=word, parent=parent)
        command = found
    click.echo(command.get_help(parent))


VARIABLE = "_EVALRUN_COMPLETE"


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what lets a shell complete commands, options and suites. For this shell only: eval "$(…)".

    \b
    To keep it:
      evalrun completion bash > ~/.local/share/bash-completion/completions/evalrun
      evalrun completion zsh > ~/.zfunc/_evalrun       (~/.zfunc in $fpath, before compinit)
      evalrun completion fish > ~/.config/fish/completions/evalrun.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise UserError(f"nothing is known of the shell '{shell}'")
    # The shell's own version is not asked for here: the script may be made for another machine.
    made = found(ctx.find_root().command, {}, "evalrun", VARIABLE)
    click.echo(made.source_template % made.source_vars())

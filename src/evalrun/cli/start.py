"""Before the first run: `evalrun init`, `models`, `calibrate`, `schema`, `docs` and `completion`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evalrun.cli.options import FILE, FOLDER, json_option, print_json
from evalrun.errors import UserError


@click.command()
@click.argument("folder", type=FOLDER, default=".")
def init(folder: Path) -> None:
    """Write a commented suite, a prompt and a small dataset that run as they stand.

    \b
    Example:
      evalrun init my-suite
    """
    from evalrun.suite.scaffold import write_scaffold

    written = write_scaffold(folder)
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
def list_models(as_json: bool) -> None:
    """List the models of the catalogue.

    \b
    Example:
      evalrun models list --json
    """
    from evalrun.providers import catalogue

    entries = catalogue.list_models()
    if as_json:
        print_json([{**asdict(entry), "path": str(entry.path) if entry.path else None} for entry in entries])
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


@click.command()
@click.argument("what", type=click.Choice(["suite", "metrics", "scorers"]))
@click.option("--out", type=FILE, metavar="FILE", help="Write it there.")
def docs(what: str, out: Path | None) -> None:
    """Print the suite reference, the metric definitions or the scorer reference as Markdown.

    \b
    Example:
      evalrun docs metrics --out metrics.md
    """
    if what == "suite":
        from evalrun.suite.reference import suite_reference

        text = suite_reference()
    elif what == "scorers":
        from evalrun.scoring.reference import scorer_reference

        text = scorer_reference()
    else:
        from evalrun.analysis.definitions import metric_reference

        text = metric_reference()
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


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

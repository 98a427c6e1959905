"""The command line. Parses, calls, prints; a file holds a group of commands, imported when one is used."""

from __future__ import annotations

import gc
import importlib
import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from evalrun._version import __version__
from evalrun.atomic import NO_ROOM
from evalrun.cli.memory import memory_fault
from evalrun.cli.streams import give_up_output, spare_streams
from evalrun.errors import ExitCode, UserError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "run": ("run", "Run", "Run a suite (the default: `evalrun SUITE.yaml`)."),
    "load": ("load", "Run", "Put a suite under load: speed, goodput and scores by level."),
    "watch": ("watch", "Run", "Evaluate the checkpoints of a training as they come."),
    "probe": ("probe", "Run", "Ask a deployment again and again: uptime, times, quality."),
    "validate": ("run", "Run", "Check a suite without sending anything."),
    "plan": ("run", "Run", "Show the matrix, requests, tokens and cost of a suite."),
    "search": ("search", "Run", "Find the best prompt, model or parameters with fewer calls."),
    "rescore": ("run", "Run", "Score a finished sweep again, asking no model."),
    "init": ("start", "Start", "Write a suite that runs: a demo, or for a file of your own."),
    "models": ("start", "Start", "List, pull and find models for the embedded engine."),
    "calibrate": ("start", "Start", "Measure evalrun's own cost on this machine."),
    "import": ("imports:import_", "Start", "Take over suites and results of other tools."),
    "tasks": ("tasks", "Start", "List published tasks, and show one."),
    "schema": ("run", "Start", "Print the JSON Schema of the suite language."),
    "docs": ("start", "Start", "Make the references of suite, metrics and scorers."),
    "help": ("start:show_help", "Start", "Show the daily commands; `help all` all of them."),
    "completion": ("start", "Start", "Complete commands in bash, zsh or fish."),
    "explain": ("explain", "Look", "Say which part of a prompt made an answer."),
    "list": ("store:list_sweeps", "Look", "List the sweeps in the store."),
    "show": ("store", "Look", "Show the results of a sweep."),
    "open": ("look:open_report", "Look", "Open the report of a sweep in the browser."),
    "find": ("find", "Look", "Find runs by metrics, parameters, tags."),
    "samples": ("find", "Look", "Find samples of a run by scores, answers, times."),
    "sql": ("find", "Look", "Ask in SQL over runs, metrics and samples, read-only."),
    "compare": ("compare", "Look", "Compare sweeps or runs, sample by sample."),
    "report": ("store", "Look", "Write the HTML report of a sweep again."),
    "site": ("store", "Look", "Write the whole store as static HTML pages."),
    "diff": ("audit", "Look", "Show what changed from one sweep to another."),
    "trend": ("find", "Look", "Show a metric of a project over time."),
    "training": ("training", "Look", "Import, show and compare training runs."),
    "drift": ("drift", "Look", "Compare live rows with a release: inputs, answers, scores."),
    "traffic": ("traffic", "Start", "Make datasets of production traces and logs."),
    "serve": ("serve", "Share", "Serve the store to a team: look, follow, label, decide."),
    "push": ("push", "Share", "Send a sweep to a server."),
    "pull": ("push", "Share", "Fetch a sweep from a server."),
    "queue": ("queue", "Share", "Queues of samples that people label."),
    "user": ("serve", "Share", "People of the server: links, roles."),
    "token": ("serve", "Share", "Tokens for machines."),
    "verify": ("audit", "Decide", "Ask some samples of a sweep again and compare."),
    "lock": ("run", "Keep", "Pin the data, prompts and weights of a suite."),
    "checkout": ("audit", "Keep", "Write what a sweep was made from into a folder."),
    "gate": ("gates", "Decide", "Check a stored sweep against gates."),
    "baseline": ("gates", "Decide", "Name sweeps that others are compared with."),
    "experiment": ("experiment", "Decide", "Experiments on users: assignment, verdicts, interactions."),
    "promote": ("people", "Decide", "Let a run stand for a name such as production."),
    "deployed": ("people", "Decide", "Note where a run's model and prompt are deployed."),
    "whatis": ("people", "Decide", "Show which run stands for a name, and its numbers."),
    "tag": ("people", "Keep", "Set or remove tags of a sweep."),
    "annotate": ("people", "Keep", "Add a note to a sweep, run or sample."),
    "note": ("people:annotate", "Keep", "The same as annotate."),
    "log": ("people", "Keep", "Keep figures of your own with a run."),
    "rename": ("people", "Keep", "Give a sweep another name."),
    "feedback": ("feedback", "Keep", "Join what users said to the samples of a run."),
    "label": ("people", "Keep", "Keep people's labels and ratings of samples."),
    "dataset": ("people", "Keep", "Make the worst rows a dataset."),
    "archive": ("people", "Keep", "Take a sweep out of the lists."),
    "delete": ("people", "Keep", "Delete a sweep, leaving a tombstone."),
    "audit": ("audit", "Keep", "Show what was done; verify that nothing was altered."),
    "card": ("card", "Decide", "Write a model card, or evidence for a regulation or standard."),
    "attest": ("attest", "Decide", "Attest a sweep's gates for other tools; verify that."),
    "sign": ("sign", "Keep", "Sign a finished sweep by an SSH key."),
    "comment": ("comment", "Decide", "Tell a pull or merge request what a sweep came to."),
    "export": ("export", "Keep", "Write a sweep as CSV, LaTeX, Parquet, or in a standard."),
    "sync": ("sync", "Keep", "Send a sweep to MLflow or OpenTelemetry."),
    "privacy": ("privacy", "Keep", "Find personal data; give people what is theirs."),
    "erase": ("erase", "Keep", "Erase rows of sweeps so that the trail still verifies."),
    "retain": ("erase:retain", "Keep", "Erase and delete what is kept longer than suites say."),
    "cache": ("cache", "Keep", "Look into the cache of answers, or clear it."),
    "catalog": ("store", "Keep", "Show or set where the catalog is kept."),
    "store": ("store", "Keep", "Show the store, or make one for a group."),
    "reindex": ("store", "Keep", "Rebuild the catalog from the sweep folders."),
}
"""Command name to (file, and name in it where that is another one; section of the help; one line)."""

DAILY = (
    "init", "validate", "plan", "run", "list", "show", "open", "compare", "samples", "find", "gate",
    "baseline", "models", "help",
)  # fmt: skip
"""The commands of the first screen; `evalrun help all` has the others too."""

SECTIONS = ("Start", "Run", "Look", "Share", "Decide", "Keep")
"""The sections of the help, in their order."""


class Main(click.Group):
    """Finds commands by the table above; a first word that is no command is a suite to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"evalrun.cli.{module}"), attribute or cmd_name
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        first = args[0]
        if first in COMMANDS:
            return super().resolve_command(ctx, args)
        if first.endswith((".yaml", ".yml")) or "/" in first:
            return "run", self.get_command(ctx, "run"), args
        if ctx.resilient_parsing:  # a shell asks what could stand here
            return None, None, args
        from evalrun.registry import nearest

        near = nearest(first, COMMANDS)
        remedy = f"Did you mean '{near}'?" if near else "`evalrun --help` lists the commands."
        raise UserError(
            f"no command '{first}', and no suite file (a suite's name ends in .yaml)", remedy=remedy
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by the table alone (none is imported), options, and suites of this folder."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        found = [
            CompletionItem(name, help=line)
            for name, (_, _, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        found += [CompletionItem(name) for name in _suites() if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if ctx.obj == EVERYTHING:
            click.Command.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if ctx.obj != EVERYTHING:
            with formatter.section("Daily commands"):
                formatter.write_dl([(name, COMMANDS[name][2]) for name in DAILY])
            return
        for section in SECTIONS:
            with formatter.section(section):
                formatter.write_dl([(name, c[2]) for name, c in COMMANDS.items() if c[1] == section])


def _suites() -> list[str]:
    """The YAML files of this folder."""
    import os

    return sorted(each.name for each in os.scandir() if each.name.endswith((".yaml", ".yml")))


EVERYTHING = "everything"
"""The context's object while the help of all commands is made."""

EPILOG = f"""\b
`evalrun SUITE.yaml` runs a suite. `evalrun COMMAND --help` says more of one,
`evalrun help all` lists all {len(COMMANDS)}, `evalrun --version` the version.
"""


@click.command(cls=Main, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
def cli() -> None:
    """Evaluate language models and prompts: quality, fairness, speed and cost of the same answers."""


_PATH_CHARACTERS = 300

_RARELY = 20_000, 20, 100
"""Of the garbage collector."""


def main() -> None:
    """The `evalrun` program. Ends with the exit codes of the documentation."""
    # Imports make a hundred thousand objects and no garbage: looking through them takes a twentieth of a run.
    gc.set_threshold(*_RARELY)
    spare_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show must not end the program
            stream.reconfigure(errors="replace")
    try:
        code = cli.main(prog_name="evalrun", standalone_mode=False)
    except UserError as error:
        print_error(error)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) went away: not an error of ours.
        sys.stderr.close()
        code = ExitCode.OK
    except Exception as error:
        fault = _fault_of(error)
        if fault is None:
            raise
        error.__traceback__ = None  # what it holds may be what there is no memory for
        try:
            print_error(fault)
        except MemoryError:
            sys.stderr.write("error: there is too little memory\n")
        code = ExitCode.INCOMPLETE
    # What is left is not looked through once more on the way out: it takes a tenth of a second. DuckDB
    # would then take what it finds for leaks, and say so at length.
    if "duckdb" not in sys.modules:
        gc.freeze()
    sys.exit(int(code or 0))


def _fault_of(error: Exception) -> UserError | None:
    """What an error is of which the program knows nothing more: too little memory, or a file."""
    if (fault := memory_fault(error)) is not None:
        return fault
    if isinstance(error, OSError) and error.filename is None and error.errno in NO_ROOM:
        give_up_output()
        return UserError("there is no room left where it writes: the disk, or the file that takes its output")
    if isinstance(error, OSError) and error.filename is not None:
        # A file that the user named, or the disk: what is known of it is all in the error.
        return UserError(error.strerror or str(error), where=str(error.filename)[:_PATH_CHARACTERS])
    return None


def print_error(error: UserError) -> None:
    """One message a problem: what, where, what to do. What it quotes cannot steer the terminal."""
    from evalrun.reports.visible import visible

    for problem in error.problems:
        click.echo(f"error: {visible(str(problem))}", err=True)

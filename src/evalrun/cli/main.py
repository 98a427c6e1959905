"""The command line. Parses, calls, prints; each command is a file of its own, imported when it is used."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from evalrun._version import __version__
from evalrun.errors import ExitCode, UserError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "run": ("evalrun.cli.run:run", "Run", "Run a suite (the default: `evalrun SUITE.yaml`)."),
    "validate": ("evalrun.cli.check:validate", "Run", "Check a suite without sending anything."),
    "plan": ("evalrun.cli.check:plan", "Run", "Show the matrix, requests, tokens and cost of a suite."),
    "rescore": ("evalrun.cli.rescore:rescore", "Run", "Score a finished sweep again, asking no model."),
    "init": ("evalrun.cli.init:init", "Start", "Write a commented suite, a prompt and a dataset that run."),
    "models": ("evalrun.cli.models:models", "Start", "List, pull and find models for the embedded engine."),
    "calibrate": ("evalrun.cli.calibrate:calibrate", "Start", "Measure evalrun's own cost on this machine."),
    "schema": ("evalrun.cli.check:schema", "Start", "Print the JSON Schema of the suite language."),
    "docs": ("evalrun.cli.docs:docs", "Start", "Print the suite or metric reference as Markdown."),
    "completion": ("evalrun.cli.completion:completion", "Start", "Complete commands in bash, zsh or fish."),
    "list": ("evalrun.cli.store:list_sweeps", "Look", "List the sweeps in the store."),
    "show": ("evalrun.cli.store:show", "Look", "Show the results of a sweep."),
    "find": ("evalrun.cli.find:find", "Look", "Find runs by metrics, parameters, tags."),
    "samples": ("evalrun.cli.find:samples", "Look", "Find samples of a run by scores, answers, times."),
    "sql": ("evalrun.cli.find:sql", "Look", "Ask in SQL over runs, metrics and samples, read-only."),
    "compare": ("evalrun.cli.compare:compare", "Look", "Compare sweeps or runs, sample by sample."),
    "report": ("evalrun.cli.store:report", "Look", "Write the HTML report of a sweep again."),
    "site": ("evalrun.cli.site:site", "Look", "Write the whole store as static HTML pages."),
    "diff": ("evalrun.cli.diff:diff", "Look", "Show what changed from one sweep to another."),
    "trend": ("evalrun.cli.trend:trend", "Look", "Show a metric of a project over time."),
    "verify": ("evalrun.cli.verify:verify", "Decide", "Ask some samples of a sweep again and compare."),
    "lock": ("evalrun.cli.lock:lock", "Keep", "Pin the data, prompts and weights of a suite."),
    "checkout": ("evalrun.cli.checkout:checkout", "Keep", "Write what a sweep was made from into a folder."),
    "gate": ("evalrun.cli.gates:gate", "Decide", "Hold a stored sweep against gates."),
    "baseline": ("evalrun.cli.gates:baseline", "Decide", "Name sweeps that others are compared with."),
    "promote": ("evalrun.cli.promote:promote", "Decide", "Let a run stand for a name such as production."),
    "deployed": (
        "evalrun.cli.promote:deployed",
        "Decide",
        "Note where a run's model and prompt are deployed.",
    ),
    "whatis": ("evalrun.cli.promote:whatis", "Decide", "Show which run stands for a name, and its numbers."),
    "tag": ("evalrun.cli.people:tag", "Keep", "Set or remove tags of a sweep."),
    "annotate": ("evalrun.cli.people:annotate", "Keep", "Add a note to a sweep, run or sample."),
    "note": ("evalrun.cli.people:annotate", "Keep", "The same as annotate."),
    "rename": ("evalrun.cli.people:rename", "Keep", "Give a sweep another name."),
    "label": ("evalrun.cli.feedback:label", "Keep", "Keep people's labels and ratings of samples."),
    "dataset": ("evalrun.cli.feedback:dataset", "Keep", "Make the worst rows a dataset."),
    "archive": ("evalrun.cli.people:archive", "Keep", "Take a sweep out of the lists."),
    "delete": ("evalrun.cli.people:delete", "Keep", "Delete a sweep, leaving a tombstone."),
    "audit": ("evalrun.cli.audit:audit", "Keep", "Show what was done; verify that nothing was altered."),
    "cache": ("evalrun.cli.cache:cache", "Keep", "Look into the cache of answers, or clear it."),
    "catalog": ("evalrun.cli.catalog:catalog", "Keep", "Show or set where the catalog is kept."),
    "reindex": ("evalrun.cli.store:reindex", "Keep", "Rebuild the catalog from the sweep folders."),
}
"""Command name to (where it is, section of the help, one line)."""

SECTIONS = ("Start", "Run", "Look", "Decide", "Keep")
"""The sections of the help, in their order."""


class Main(click.Group):
    """Finds commands by the table above; a first word that is no command is a suite to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in SECTIONS:
            with formatter.section(section):
                formatter.write_dl([(name, c[2]) for name, c in COMMANDS.items() if c[1] == section])


def _suites() -> list[str]:
    """The YAML files of this folder."""
    import os

    return sorted(each.name for each in os.scandir() if each.name.endswith((".yaml", ".yml")))


EPILOG = """\b
Examples:
  evalrun suites/quickstart.yaml          run a suite, write a report
  evalrun suite.yaml --limit 20 --json    a quick try, for a script
  evalrun plan suite.yaml                 what would be sent, and its cost
  evalrun show latest                     the last results again
  evalrun compare A B --html page.html    two sweeps, sample by sample
"""


@click.command(cls=Main, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
def cli() -> None:
    """Evaluate language models and prompts: quality, fairness, speed and cost of the same answers."""


_PATH_CHARACTERS = 300


def main() -> None:
    """The `evalrun` program. Ends with the exit codes of the documentation."""
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
    except OSError as error:
        if error.filename is None:
            raise
        # A file that the user named, or the disk: what is known of it is all in the error.
        print_error(UserError(error.strerror or str(error), where=str(error.filename)[:_PATH_CHARACTERS]))
        code = ExitCode.INCOMPLETE
    # What is left is not looked through once more on the way out: it takes a tenth of a second. DuckDB
    # would then take what it finds for leaks, and say so at length.
    if "duckdb" not in sys.modules:
        gc.freeze()
    sys.exit(int(code or 0))


def print_error(error: UserError) -> None:
    """One message a problem: what, where, what to do. What it quotes cannot steer the terminal."""
    from evalrun.reports.visible import visible

    for problem in error.problems:
        click.echo(f"error: {visible(str(problem))}", err=True)

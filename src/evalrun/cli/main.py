"""The command line. Parses, calls, prints; each command is a file of its own, imported when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import click

from evalrun._version import __version__
from evalrun.errors import ExitCode, UserError

COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "run": ("evalrun.cli.run:run", "Run", "Run a suite (the default: `evalrun SUITE.yaml`)."),
    "validate": ("evalrun.cli.check:validate", "Run", "Check a suite without sending anything."),
    "plan": ("evalrun.cli.check:plan", "Run", "Show the matrix, requests, tokens and cost of a suite."),
    "rescore": ("evalrun.cli.rescore:rescore", "Run", "Score a finished sweep again, asking no model."),
    "init": ("evalrun.cli.init:init", "Start", "Write a commented suite, a prompt and a dataset that run."),
    "models": ("evalrun.cli.models:models", "Start", "List, pull and find models for the embedded engine."),
    "schema": ("evalrun.cli.check:schema", "Start", "Print the JSON Schema of the suite language."),
    "docs": ("evalrun.cli.docs:docs", "Start", "Print the suite or metric reference as Markdown."),
    "list": ("evalrun.cli.store:list_sweeps", "Look", "List the sweeps in the store."),
    "show": ("evalrun.cli.store:show", "Look", "Show the results of a sweep."),
    "find": ("evalrun.cli.find:find", "Look", "Find runs by metrics, parameters, tags."),
    "samples": ("evalrun.cli.find:samples", "Look", "Find samples of a run by scores, answers, times."),
    "sql": ("evalrun.cli.find:sql", "Look", "Ask in SQL over runs, metrics and samples, read-only."),
    "compare": ("evalrun.cli.compare:compare", "Look", "Compare sweeps or runs, sample by sample."),
    "report": ("evalrun.cli.store:report", "Look", "Write the HTML report of a sweep again."),
    "diff": ("evalrun.cli.diff:diff", "Look", "Show what changed from one sweep to another."),
    "gate": ("evalrun.cli.gates:gate", "Look", "Hold a stored sweep against gates."),
    "baseline": ("evalrun.cli.gates:baseline", "Keep", "Name sweeps that others are compared with."),
    "tag": ("evalrun.cli.people:tag", "Keep", "Set or remove tags of a sweep."),
    "note": ("evalrun.cli.people:note", "Keep", "Add a note to a sweep."),
    "archive": ("evalrun.cli.people:archive", "Keep", "Take a sweep out of the lists."),
    "delete": ("evalrun.cli.people:delete", "Keep", "Delete a sweep, leaving a tombstone."),
    "audit": ("evalrun.cli.audit:audit", "Keep", "Show what was done; verify that nothing was altered."),
    "reindex": ("evalrun.cli.store:reindex", "Look", "Rebuild the catalog from the sweep folders."),
}
"""Command name to (where it is, section of the help, one line)."""


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
        from evalrun.registry import nearest

        near = nearest(first, COMMANDS)
        remedy = f"Did you mean '{near}'?" if near else "`evalrun --help` lists the commands."
        raise UserError(
            f"no command '{first}', and no suite file (a suite's name ends in .yaml)", remedy=remedy
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(each[1] for each in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, c[2]) for name, c in COMMANDS.items() if c[1] == section])


EPILOG = """\b
Examples:
  evalrun suites/quickstart.yaml                run a suite, write a report
  evalrun suite.yaml --limit 20 --json          a quick try, for a script
  evalrun plan suite.yaml                       what would be sent, and its cost
  evalrun show latest                           the last results again
"""


@click.command(cls=Main, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version")
def cli() -> None:
    """Evaluate language models and prompts: quality, fairness, speed and cost of the same answers."""


def main() -> None:
    """The `evalrun` program. Ends with the exit codes of the documentation."""
    try:
        code = cli.main(standalone_mode=False)
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
    sys.exit(int(code or 0))


def print_error(error: UserError) -> None:
    """One message a problem: what, where, what to do."""
    for problem in error.problems:
        click.echo(f"error: {problem}", err=True)

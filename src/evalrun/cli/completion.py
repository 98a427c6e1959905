"""`evalrun completion`: the line for a shell's start file."""

from __future__ import annotations

import click

from evalrun.errors import UserError

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

"""`evalrun experiment`: which arm a unit is in, how an experiment stands, and what it lets stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalrun.cli.options import FILE, cell, json_option, print_json, print_rows, store_option
from evalrun.errors import ExitCode
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.production.experiment import Analysis

_DATA = click.option(
    "--data", required=True, metavar="FILE|SWEEP", help="Rows (Parquet, CSV, JSON lines), or a scored sweep."
)
_WITH = click.option(
    "--with", "others", type=FILE, multiple=True, metavar="FILE", help="Another running experiment."
)


@click.group()
def experiment() -> None:
    """Experiments on the users of a deployment: assignment, verdicts, interactions.

    \b
    Examples:
      evalrun experiment assign prompt-v7.yaml user-17
      evalrun experiment status prompt-v7.yaml --data requests.parquet
    """


@experiment.command()
@click.argument("file", type=FILE)
@click.argument("units", nargs=-1)
@click.option("--code", is_flag=True, help="Print the function that the application calls.")
@json_option
def assign(file: Path, units: tuple[str, ...], code: bool, as_json: bool) -> None:
    """Say which arm each unit is in; "-" where it is in none.

    \b
    Examples:
      evalrun experiment assign prompt-v7.yaml user-17 user-18
      evalrun experiment assign prompt-v7.yaml --code
    """
    from evalrun.production.assignment import load_experiment

    spec = load_experiment(file)
    if code:
        click.echo(spec.code())
    elif as_json:
        print_json({unit: spec.assign(unit) for unit in units})
    else:
        for unit in units:
            click.echo(f"{unit}\t{spec.assign(unit) or '-'}")


@experiment.command()
@click.argument("file", type=FILE)
@_DATA
@_WITH
@click.option("--report", type=FILE, metavar="FILE.html", help="Write the page there.")
@store_option
@json_option
@click.pass_context
def status(
    ctx: click.Context,
    file: Path,
    data: str,
    others: tuple[Path, ...],
    report: Path | None,
    store: Store,
    as_json: bool,
) -> None:
    """Say how an experiment stands: sample ratio first, then effect, guardrails and interactions.

    Exit code 1 where nothing may be concluded or a guardrail is violated.

    \b
    Examples:
      evalrun experiment status prompt-v7.yaml --data requests.parquet
      evalrun experiment status prompt-v7.yaml --data latest --with ranking.yaml --json
      evalrun experiment status prompt-v7.yaml --data latest --report prompt-v7.html
    """
    analysis = _analysed(file, data, others, store)
    if report is not None:
        from evalrun.production.experiment_page import write_page

        write_page(analysis, report)
    if as_json:
        print_json(analysis.document())
    else:
        _print(analysis)
    broken = any(guard.verdict == "violated" for guard in analysis.guards)
    ctx.exit(int(ExitCode.GATE_FAILED if analysis.verdict == "no verdict" or broken else ExitCode.OK))


@experiment.command()
@click.argument("file", type=FILE)
@_DATA
@_WITH
@click.option("--as", "name", required=True, metavar="NAME", help="The name, such as production.")
@click.option("--override", is_flag=True, help="Promote in spite of failed gates; they are recorded.")
@store_option
@json_option
def promote(
    file: Path, data: str, others: tuple[Path, ...], name: str, override: bool, store: Store, as_json: bool
) -> None:
    """Let the run of the arm that won stand for NAME; the promotion names the analysis.

    Refused (exit code 1) where nothing won, or a guardrail is violated.

    \b
    Example:
      evalrun experiment promote prompt-v7.yaml --data requests.parquet --as production
    """
    from dataclasses import asdict

    from evalrun.production.assignment import load_experiment
    from evalrun.production.experiment import promote_winner

    done = promote_winner(
        store, load_experiment(file), _analysed(file, data, others, store), name, override=override
    )
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(cell(f"{done.name} of {done.project} is {done.sweep}/{done.run}: {done.reason}", 400))


def _analysed(file: Path, data: str, others: tuple[Path, ...], store: Store) -> Analysis:
    from evalrun.production.assignment import load_experiment
    from evalrun.production.experiment import analyse, read_rows

    spec = load_experiment(file)
    return analyse(spec, read_rows(store, data), [load_experiment(other) for other in others])


def _print(analysis: Analysis) -> None:
    listed = ", ".join(f"{arm} {count:,}" for arm, count in analysis.ratio.counts.items())
    click.echo(f"{analysis.id}: {analysis.verdict}{f' ({analysis.winner})' if analysis.winner else ''}")
    if analysis.why:
        click.echo(cell(analysis.why, 300))
    click.echo(f"units: {listed}; sample ratio p = {analysis.ratio.p:.3g}; {analysis.method}")
    left = [f"{count:,} with {why}" for why, count in analysis.left_out.items()]
    left += [f"{analysis.in_two_arms:,} units in several arms"] if analysis.in_two_arms else []
    if left:
        click.echo(f"left out: {', '.join(left)}")
    if analysis.effects:
        click.echo()
        head = ["arm", "metric", "control", "treatment", "difference", "interval", "p", "verdict"]
        rows = [
            [
                e.arm,
                e.metric,
                e.control,
                e.treatment,
                e.difference,
                _interval(e.ci_low, e.ci_high),
                e.p,
                e.verdict,
            ]
            for e in analysis.effects
        ]
        print_rows(head, rows)
        for effect in analysis.effects:
            if effect.variance_cut:
                click.echo(f"{effect.arm}: the past took {effect.variance_cut:.0%} of the variance out")
    if analysis.guards:
        click.echo()
        guards = [
            [g.guardrail, g.arm, g.verdict, g.value, _interval(g.ci_low, g.ci_high)] for g in analysis.guards
        ]
        print_rows(["guardrail", "arm", "verdict", "value", "interval"], guards)
    for each in analysis.interactions:
        said = "they change each other's effect" if each.found else "no interaction is seen"
        click.echo(
            f"{' x '.join(each.experiments)}: {said}: {each.d:+.4g} "
            f"{_interval(each.ci_low, each.ci_high)} on {each.units:,} units, which show "
            f"{each.detectable:.3g} four times in five" + (f"; {each.note}" if each.note else "")
        )


def _interval(low: float, high: float) -> str:
    return f"[{low:+.4g}, {high:+.4g}]"

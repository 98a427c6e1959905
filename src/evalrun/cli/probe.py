"""`evalrun probe SUITE`: a deployment is asked again and again, and told of."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.options import (
    ANY_PATH,
    FILE,
    cell,
    json_option,
    make_overrides,
    print_json,
    print_rows,
    store_option,
    suite_options,
)
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.production.summary import RunSummary, Summary


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@click.option(
    "--every", metavar="SPAN", help="Time between two turns: 30s, 5m, 1h. [default: the suite's, 5m]"
)
@click.option("--for", "lasts", metavar="SPAN", help="End after so long. [default: never]")
@click.option("--once", is_flag=True, help="One turn, for cron and the like.")
@click.option(
    "--status", is_flag=True, help="Ask nothing; tell how it stands. Exit code 1 if the probe is dead."
)
@click.option("--acknowledge", metavar="ALERT", help="Take note of an open alert (`all`: of every one).")
@click.option("--since", metavar="SPAN", default="30d", show_default=True, help="How far back is told of.")
@click.option("--report", type=FILE, metavar="FILE.html", help="Write the page of uptime, times and quality.")
@click.option("--slot", type=float, hidden=True, help="The slot of the turn, in Unix seconds.")
@click.option("--missed", default="nobody probed", hidden=True, help="Why slots before it were missed.")
@suite_options
@store_option
@json_option
@click.pass_context
def probe(
    ctx: click.Context,
    /,
    suite: Path,
    every: str | None,
    lasts: str | None,
    once: bool,
    status: bool,
    acknowledge: str | None,
    since: str,
    report: Path | None,
    slot: float | None,
    missed: str,
    store: Store,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Ask a small suite of a deployment again and again: uptime, response times, quality.

    Turns keep to the clock, one sweep a day grows by them, and what is missed is recorded. The exit code is 0
    where all is well; 1 where the deployment is down, a gate fails, an alert is on or (`--status`) the newest
    turn is older than two periods; 3 where nothing can be said.

    \b
    Examples:
      evalrun probe probe.yaml --every 5m
      evalrun probe probe.yaml --once --json
      evalrun probe probe.yaml --status --report probe.html
    """
    if once + status + (acknowledge is not None) > 1:
        raise click.UsageError("--once, --status and --acknowledge exclude one another.")
    back = _span(since, "--since") or 0.0
    if not (once or status or acknowledge):
        ctx.exit(_keep(suite, store, every, lasts, report))
    from evalrun.production import probe as door

    changes = make_overrides(**overrides)
    project, rules = door.project_of(suite, changes)
    if acknowledge is not None:
        from evalrun.gates.alarms import acknowledge as note

        for each in note(store, project, acknowledge):
            click.echo(f"acknowledged: {each.name} ({each.run}), open since {_when(each.opened)}")
        return
    if once:
        from evalrun.production.schedule import slot_of
        from evalrun.production.turn import Due, take_turn
        from evalrun.sweep.options import SweepOptions

        every_s = _span(every or rules.every, "--every") or 300.0
        due = Due(slot_of(time.time(), every_s) if slot is None else slot, every_s, missed)
        options = SweepOptions(overrides=changes, store=store.root, argv=tuple(sys.argv[1:]))
        taken = take_turn(suite, options, due)
    now = time.time()
    summary = door.status(store, project, rules, now=now, since=now - back)
    if report is not None:
        from evalrun.production.page import write_page

        write_page(store, project, summary, report, since=now - back)
    if once:
        for warning in taken.warnings:
            click.echo(f"warning: {warning}", err=True)
        if as_json:
            print_json(door.turn_document(taken, summary))
        else:
            for turn in taken.turns:
                click.echo(_turn_line(turn))
        ctx.exit(int(door.code_of_turn(taken)))
    if as_json:
        print_json(summary.document())
    else:
        _print_status(summary)
    on = [each for each in summary.alerts if each.state != "closed" and each.quiet_since is None]
    ctx.exit(int(ExitCode.GATE_FAILED if summary.stale or on else ExitCode.OK))


def _keep(suite: Path, store: Store, every: str | None, lasts: str | None, report: Path | None) -> int:
    """Take turns, each by the same command with --once."""
    import subprocess

    from evalrun.production.probe import Keeper

    if every is None:  # reading a suite takes libraries that this process is to do without
        code = "import sys; from pathlib import Path; from evalrun.production.probe import project_of"
        asked = subprocess.run(
            [sys.executable, "-c", f"{code}; print(project_of(Path(sys.argv[1]))[1].every)", str(suite)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        every = asked.stdout.strip() or "5m"  # a wrong suite: the first turn says what is wrong
    every_s, lasts_s = _span(every, "--every") or 0.0, _span(lasts, "--for") if lasts else float("inf")
    words = [word for word in sys.argv[1:] if word != "probe"]
    for option in ("--for", "--every"):
        words = _without(words, option)
    keeper = Keeper([*words, "--every", every], every_s)
    click.echo(f"a turn every {every}; Ctrl-C ends it", err=True)
    return keeper.run(lasts_s or float("inf"))


def _without(words: list[str], option: str) -> list[str]:
    """The command line without an option and its value."""
    kept = []
    skip = False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option and not skip
    return kept


def _span(text: str, option: str) -> float | None:
    from evalrun.spans import span_s

    seconds = span_s(text)
    if seconds is None:
        raise UserError(f"'{text}' is no span of time", where=option, remedy="Write 30s, 5m, 2h or 30d.")
    return seconds


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _turn_line(turn: Any) -> str:
    errors = ", ".join(f"{kind} {count}" for kind, count in turn.errors.items())
    score = f", {turn.scorer} {sum(turn.scores) / len(turn.scores):.3g}" if turn.scores else ""
    times = f", slowest {max(turn.e2e_s):.3g} s" if turn.e2e_s else ""
    said = f"{_when(turn.slot)} {turn.run}: {turn.state}, {turn.ok} of {turn.requests} answered"
    return cell(said + times + score + (f" ({errors})" if errors else ""), 400)


def _print_status(summary: Summary) -> None:
    head = ["run", "state", "availability", "95 % interval", "p50 s", "p95 s", "score", "outages", "TLS days"]
    print_rows(head, [_row(run) for run in summary.runs])
    for run in summary.runs:
        for outage in run.outages[-10:]:
            most = "?" if outage.most_s is None else f"{outage.most_s:,.0f}"
            end = "" if outage.over else ", going on"
            took = f"between {outage.least_s:,.0f} and {most} s{end} ({', '.join(outage.errors)})"
            click.echo(cell(f"outage of {run.run} at {_when(outage.first)}: {took}", 300))
        if run.budget is not None:
            click.echo(f"{run.run}: {run.budget.sentence()}")
    slots = sum(gap.slots for gap in summary.missed)
    if slots:
        why = "; ".join(dict.fromkeys(gap.why for gap in summary.missed[-5:]))
        click.echo(cell(f"{slots:,} slots were missed: {why}", 300))
    for each in summary.alerts[-10:]:
        click.echo(
            cell(
                f"alert ({each.state}) {each.name} of {each.run} since {_when(each.opened)}: {each.why}", 300
            )
        )
    if summary.stale:
        click.echo(f"the probe is dead: {summary.why_stale}")


def _row(run: RunSummary) -> list[Any]:
    share = run.availability
    interval = "-" if share.low is None else f"[{share.low:.4f}, {share.high:.4f}]"
    return [
        run.run, run.state, share.value, interval, run.e2e_s.p50, run.e2e_s.p95, run.score.value,
        len(run.outages), run.tls_days,
    ]  # fmt: skip

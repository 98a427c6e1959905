"""`evalrun baseline` and `gate`: what a sweep is compared with, and checking a stored one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from evalrun.cli.options import (
    FILE,
    csv_option,
    inconclusive_option,
    json_option,
    print_csv,
    print_json,
    print_rows,
    store_option,
)
from evalrun.cli.streams import shown
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.tracking.store import Store


@click.group()
def baseline() -> None:
    """Name sweeps that others are compared with.

    \b
    Example:
      evalrun baseline set main latest
    """


@baseline.command("set", no_args_is_help=True)
@click.argument("name")
@click.argument("sweep")
@store_option
def set_(name: str, sweep: str, store: Store) -> None:
    """Let NAME stand for SWEEP in its project. `main` is the one that gates take by default.

    \b
    Example:
      evalrun baseline set main latest
    """
    from evalrun.tracking.changes import set_baseline

    done = set_baseline(store, name, store.resolve(sweep))
    click.echo(f"baseline {done.name} of {done.project} is {done.sweep}")


@baseline.command("list")
@store_option
@json_option
@csv_option
def list_(store: Store, as_json: bool, as_csv: bool) -> None:
    """List the baselines of all projects.

    \b
    Example:
      evalrun baseline list --json
    """
    from evalrun.tracking.changes import list_baselines

    found = list_baselines(store)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if as_csv:
        print_csv([asdict(each) for each in found])
        return
    rows = [
        (
            each.project,
            each.name,
            each.sweep if each.present else f"{each.sweep} (gone)",
            each.actor,
            each.ts[:16],
        )
        for each in found
    ]
    print_rows(["project", "name", "sweep", "set by", "when"], rows)


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option("--gate", "texts", multiple=True, metavar="CONDITION", help="Instead of the suite's gates.")
@click.option("--baseline", "name", metavar="NAME", help="A baseline's name or a sweep. [default: main]")
@inconclusive_option
@click.option("--junit", type=FILE, metavar="FILE.xml", help="JUnit XML.")
@click.option("--summary", type=FILE, metavar="FILE.md", help="Markdown.")
@click.option("--code-quality", type=FILE, metavar="FILE.json", help="For GitLab: gates at their lines.")
@click.option("--attest", type=FILE, metavar="FILE", help="An in-toto attestation, signed by --key.")
@click.option("--key", type=FILE, metavar="FILE", help="An Ed25519 private key (OpenSSH or PEM).")
@store_option
@json_option
@csv_option
@click.pass_context
def gate(
    ctx: click.Context,
    /,
    sweep: str,
    texts: tuple[str, ...],
    name: str | None,
    inconclusive: str | None,
    junit: Path | None,
    summary: Path | None,
    code_quality: Path | None,
    attest: Path | None,
    key: Path | None,
    store: Store,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Check a stored sweep against gates: its suite's, or those given. Exit code 1 when one fails.

    \b
    Examples:
      evalrun gate latest --baseline main --junit gates.xml
      evalrun gate latest --gate "exact_match >= 0.8"
      evalrun gate latest --attest gates.intoto.json --key id_ed25519
    """
    from evalrun.documents import read
    from evalrun.gates.check import blocks, check_sweep, undecided_for_loss
    from evalrun.gates.conditions import Gate, parse_gate
    from evalrun.privacy.scan import more_metrics
    from evalrun.reports.gates import publish
    from evalrun.reports.source import Manifest, Source
    from evalrun.reports.terminal import lead_lines
    from evalrun.reports.visible import visible
    from evalrun.tracking.changes import choose_baseline

    if key is not None and attest is None:
        raise click.UsageError("--key signs an attestation: say where it goes by --attest FILE.")
    folder = store.resolve(sweep)
    manifest = folder.read_manifest()
    resolved = manifest["suite"].get("resolved") or {}
    parsed = [parse_gate(text) for text in texts or resolved.get("gates") or ()]
    problems = [each for each in parsed if isinstance(each, Problem)]
    if problems:
        raise UserError(problems)
    if not parsed:
        raise UserError("the sweep's suite has no gates", remedy="Give some: --gate 'exact_match >= 0.5'")
    held = choose_baseline(store, name, manifest["project"])
    gates = [each for each in parsed if isinstance(each, Gate)]
    first = resolved.get("baseline") == "first"
    more = more_metrics([gate.metric for gate in gates], folder)
    results = check_sweep(gates, folder, manifest["plan"], held, first=first, more=more)
    strict = (inconclusive or resolved.get("inconclusive")) == "fail"
    manifest["gates"] = [{**asdict(result), "verdict": result.verdict.value} for result in results]
    told, source = replace(read(Manifest, manifest), baseline=held.ulid if held else None), Source.of(folder)
    for line in publish(
        told,
        source.runs,
        junit_file=junit,
        summary_file=summary,
        quality_file=code_quality,
        strict=strict,
        said=lambda: lead_lines(replace(source, manifest=told)),
    ):
        click.echo(line, err=True)
    if attest is not None:
        from evalrun.evidence.attest import statement, write

        write(statement(folder, manifest["gates"], strict=strict), attest, key)
    failed = blocks(results, "fail" if strict else "warn")
    code = ExitCode.GATE_FAILED if failed else ExitCode.OK
    if not failed and undecided_for_loss(results):
        code = ExitCode.INCOMPLETE
    with shown():
        if as_json:
            held_id = held.ulid if held else None
            print_json(
                {
                    "sweep": folder.ulid,
                    "baseline": held_id,
                    "exit_code": int(code),
                    "gates": manifest["gates"],
                }
            )
        elif as_csv:
            print_csv(manifest["gates"])
        else:
            rows = [(result.verdict.value, result.gate, result.run, result.value) for result in results]
            print_rows(["verdict", "gate", "run", "value"], rows, widest=110)
            for why in dict.fromkeys(result.reason for result in results if result.reason):
                click.echo(f"  {visible(why)}")
    ctx.exit(int(code))

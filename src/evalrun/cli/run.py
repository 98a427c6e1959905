"""`evalrun run SUITE` (and `evalrun SUITE`), `validate`, `plan`, `lock` and `rescore`."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from evalrun.cli.options import (
    ANY_PATH,
    FILE,
    inconclusive_option,
    json_option,
    make_overrides,
    print_json,
    store_option,
    suite_options,
    sweep_options,
)
from evalrun.cli.streams import shown
from evalrun.errors import ExitCode, UserError
from evalrun.reports.numbers import plural
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.server.client import Remote
    from evalrun.sweep.main import Outcome
    from evalrun.sweep.options import SweepOptions
    from evalrun.sweep.prepare import PreparedSweep


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@sweep_options(fresh="Begin a new sweep even if an unfinished one could go on.")
@click.option(
    "--resume-within", metavar="SPAN", default="12h", show_default=True,
    help="How old an unfinished sweep may be that is gone on with: 90m, 12h, 2d.",
)  # fmt: skip
@click.option(
    "--baseline", metavar="NAME", help="What gates compare with: a baseline or sweep. [default: main]"
)
@inconclusive_option
@click.option("--junit", type=FILE, metavar="FILE.xml", help="Gates as JUnit XML.")
@click.option("--summary", type=FILE, metavar="FILE.md", help="Markdown summary.")
@click.option("--code-quality", type=FILE, metavar="FILE.json", help="For GitLab: gates at their lines.")
@click.option("--reuse", is_flag=True, help="Take over runs that were done before with the same digests.")
@click.option("--no-lock", is_flag=True, help="Run even if something is not as evalrun.lock says.")
@click.option(
    "--stop-when-decided", is_flag=True,
    help="End runs as soon as their gates (else: the comparisons between them) are decided.",
)  # fmt: skip
@click.option(
    "--until", metavar="±W[ of population]",
    help="End a run when its headline's interval is this wide to either side, such as ±0.03.",
)  # fmt: skip
@click.option(
    "--watch", is_flag=True, help="Run again whenever the suite, its prompts, data or code are saved."
)
@click.option("--metrics", metavar="ADDR", help="Serve it to Prometheus at HOST:PORT while it runs.")
@click.option(
    "--metrics-file", type=FILE, metavar="FILE.prom", help="Keep a textfile for node_exporter's collector."
)
@click.option(
    "--on", metavar="ray[://HOST:PORT]", help="Ask on a Ray cluster: this machine's, or the one there."
)
@click.option(
    "--at", metavar="FOLDER|s3://…", help="Where --on keeps answers: a folder or bucket that all nodes see."
)
@click.option("--shard", type=click.IntRange(min=1), metavar="N", help="Samples a task asks. [default: 5000]")
@click.option("--push", metavar="URL", help="Then send it to a server, with the token in EVALRUN_TOKEN.")
@click.option("--cancel", is_flag=True, help="Cancel the batches of its unfinished sweep at the provider.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    suite: Path,
    options: SweepOptions,
    resume_within: str,
    baseline: str | None,
    inconclusive: Literal["warn", "fail"] | None,
    junit: Path | None,
    summary: Path | None,
    code_quality: Path | None,
    reuse: bool,
    no_lock: bool,
    stop_when_decided: bool,
    until: str | None,
    watch: bool,
    metrics: str | None,
    metrics_file: Path | None,
    on: str | None,
    at: str | None,
    shard: int | None,
    push: str | None,
    cancel: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a suite: ask, measure, score, store, and write an HTML report.

    The same command again goes on where an unfinished sweep stopped, if that was within --resume-within.
    """
    if watch:
        _watch(suite)
        return
    from evalrun.atomic import place_for
    from evalrun.reports.progress import make_progress
    from evalrun.sweep.main import run_sweep

    given = options.overrides
    options = replace(
        options,
        overrides=replace(given, sets=(*given.sets, *early_sets(stop_when_decided, until))),
        resume_within=resume_within, baseline=baseline, inconclusive=inconclusive, reuse=reuse,
        use_lock=not no_lock, metrics=metrics, metrics_file=metrics_file,
    )  # fmt: skip
    if cancel:
        _cancel(suite, options, as_json=as_json)
        return
    for file in (junit, summary, code_quality):
        if file is not None:
            place_for(file)
    remote = _remote(push)
    if on is None and (at or shard):
        raise click.UsageError("--at and --shard belong to --on.")
    if on is None:
        outcome = run_sweep(suite, options, make_progress(quiet=quiet))
    else:
        from evalrun.cluster.main import run_on

        outcome = run_on(on, at, shard, suite, options, make_progress(quiet=quiet))
    try:
        lines = _publish(
            outcome, junit, summary, code_quality
        )  # files first: whoever reads the terminal may go away
    finally:
        with shown():
            _show(outcome, as_json=as_json)
    _tell(outcome)
    for line in lines:
        click.echo(line, err=True)
    if remote is not None:
        from evalrun.server.client import push as send

        click.echo(f"{remote.url}: {send(outcome.folder, remote)}", err=True)
    ctx.exit(int(outcome.exit_code))


def _cancel(suite: Path, options: SweepOptions, *, as_json: bool) -> None:
    """Cancel batches, and say what is left to do."""
    from evalrun.sweep.cancel import cancel_batches

    cancelled = cancel_batches(suite, options)
    if as_json:
        print_json({"cancelled": cancelled})
    for name in cancelled:
        click.echo(f"batch {name} is being cancelled; the same command takes what it has answered", err=True)


_UNTIL = re.compile(
    r"\s*(?:±|\+-|\+/-)?\s*(?P<width>\d*\.?\d+(?:[eE]-?\d+)?)(?P<percent>\s*%)?"
    r"(?:\s+of\s+(?:the\s+)?(?P<of>dataset|population))?\s*"
)


def early_sets(decided: bool, until: str | None) -> list[str]:
    """`--stop-when-decided` and `--until` as what they say of the suite."""
    sets = ["stop_early.decided=true"] if decided else []
    if until is None:
        return sets
    said = _UNTIL.fullmatch(until)
    if said is None or float(said["width"]) <= 0:
        raise click.UsageError(
            f"--until takes half an interval's width, such as ±0.03 or '0.03 of population', not '{until}'."
        )
    width = float(said["width"]) / (100 if said["percent"] else 1)
    return [*sets, f"stop_early.until={width!r}", *([f"stop_early.of={said['of']}"] if said["of"] else [])]


def _remote(url: str | None) -> Remote | None:
    """The server to push to. Raises UserError before anything is asked where it cannot be."""
    if url is None:
        return None
    from evalrun.server.client import Remote

    return Remote(url)


def show_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """The results on stdout, faults and warnings on stderr."""
    with shown():
        _show(outcome, as_json=as_json)
    _tell(outcome)


def _watch(suite: Path) -> None:
    """Run the suite again whenever something of it is saved."""
    from evalrun.sweep.watch import watch

    arguments = [word for word in sys.argv[1:] if word != "--watch"]
    watch(suite, arguments, lambda text: click.echo(text, err=True))


def _show(outcome: Outcome, *, as_json: bool) -> None:
    """The results on stdout."""
    if as_json:
        from evalrun.sweep.result import result_document

        print_json(result_document(outcome))
    else:
        from evalrun.reports.terminal import print_result

        print_result(outcome.folder, outcome.report, now=True)


def _tell(outcome: Outcome) -> None:
    """Faults and warnings on stderr."""
    for fault in outcome.faults:
        click.echo(f"error: {fault}", err=True)
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}", err=True)


def _publish(outcome: Outcome, junit: Path | None, summary: Path | None, quality: Path | None) -> list[str]:
    """Write the files of CI; returns the lines about alerts and gates for the log."""
    from evalrun.reports.gates import alert_lines, publish
    from evalrun.reports.source import Source
    from evalrun.reports.terminal import lead_lines

    source = Source.of(outcome.folder)
    strict = source.manifest.inconclusive == "fail"
    lines = publish(
        source.manifest,
        source.runs,
        junit_file=junit,
        summary_file=summary,
        quality_file=quality,
        strict=strict,
        said=lambda: lead_lines(source),
        report=str(outcome.report or ""),
    )
    return [*alert_lines(source.manifest), *lines]


@contextmanager
def _prepare(suite: Path, overrides: dict[str, Any]) -> Iterator[PreparedSweep]:
    """A prepared sweep, for as long as it is looked at."""
    from evalrun.suite.load import load_suite
    from evalrun.sweep.prepare import prepare

    with tempfile.TemporaryDirectory(prefix="evalrun-") as folder:
        prepared = prepare(load_suite(suite, make_overrides(**overrides)), Path(folder))
        try:
            yield prepared
        finally:
            prepared.close()


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@suite_options
@json_option
def validate(suite: Path, as_json: bool, **overrides: Any) -> None:
    """Check a suite, its data, prompts, models and scorers, without sending anything.

    \b
    Example:
      evalrun validate suite.yaml
    """
    with _prepare(suite, overrides) as prepared:
        samples = {name: len(dataset) for name, dataset in prepared.datasets.items()}
        warnings = [*prepared.loaded.notes]
        warnings += [text for dataset in prepared.datasets.values() for text in dataset.warnings]
    if as_json:
        print_json({"valid": True, "runs": len(prepared.specs), "samples": samples, "warnings": warnings})
        return
    for text in warnings:
        click.echo(f"warning: {text}", err=True)
    rows = ", ".join(f"{name} {plural(n, 'sample')}" for name, n in samples.items())
    click.echo(f"{suite} is valid: {plural(len(prepared.specs), 'run')}; {rows}.")


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@suite_options
@click.option("--from", "pilot", metavar="SWEEP", help="Say what the samples will see, if they are like its.")
@click.option(
    "--on", metavar="ray", help="Say how it would be cut for a cluster, and what a lost worker costs."
)
@click.option("--shard", type=click.IntRange(min=1), metavar="N", help="Samples a task asks. [default: 5000]")
@store_option
@json_option
def plan(
    suite: Path,
    pilot: str | None,
    on: str | None,
    shard: int | None,
    store: Store,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Show what a suite would run: the matrix, samples, requests, estimated tokens and cost.

    With --from, also the differences between runs that so many samples will see, and how many are needed.

    \b
    Examples:
      evalrun plan suite.yaml --limit 50 --json
      evalrun plan suite.yaml --from latest
    """
    from evalrun.sweep.estimate import estimate, power_from

    with _prepare(suite, overrides) as prepared:
        warnings = [*prepared.loaded.notes]
        warnings += [text for dataset in prepared.datasets.values() for text in dataset.warnings]
        estimated = estimate(prepared)
        cut = _cut(prepared, shard) if on is not None else None
        searched = None
        if prepared.loaded.suite.search is not None:
            from evalrun.search.expected import expected_calls

            try:
                searched = expected_calls(prepared.loaded)
            except UserError as error:  # the matrix can be run all the same
                warnings += [f"this suite cannot be searched: {each.what}" for each in error.problems]
    power = [] if pilot is None else power_from(estimated, store.resolve(pilot))
    document = {**estimated.document(), "warnings": warnings}
    if cut is not None:
        document["cluster"] = cut
    if searched is not None:
        document["search"] = asdict(searched)
    if pilot is not None:
        document["power"] = [each.document() for each in power]
    if as_json:
        print_json(document)
        return
    for text in warnings:
        click.echo(f"warning: {text}", err=True)
    from evalrun.reports.terminal import print_plan

    print_plan(document)
    if searched is not None:
        click.echo(searched.sentence)
    for text in cut["said"] if cut is not None else ():
        click.echo(text)
    for each in power:
        click.echo(each.sentence)
    if pilot is not None and not power:
        click.echo("The pilot has no scores on a dataset of this plan, so nothing is said of power.")


def _cut(prepared: PreparedSweep, shard: int | None) -> dict[str, Any]:
    """What a cluster would make of it."""
    from evalrun.cluster.expected import expected, sentences

    said = expected(prepared, shard)
    return {**said, "said": sentences(said)}


@click.command()
@click.argument("what", type=click.Choice(["suite", "sweep", "run", "sample"]), default="suite")
@click.option("--out", type=FILE, metavar="FILE", help="Write it there.")
def schema(what: str, out: Path | None) -> None:
    """Print the JSON Schema of the suite language, for editors that complete and check YAML.

    `sweep`, `run` and `sample` are those of sweep.json, of run.json and of a row of samples.parquet.

    \b
    Examples:
      evalrun schema --out suite.schema.json
      evalrun schema run --out run.schema.json
    """
    from evalrun.evidence import schemas
    from evalrun.suite.reference import schema_text

    texts = {"sweep": schemas.sweep_text, "run": schemas.run_text, "sample": schemas.sample_text}
    text = texts.get(what, schema_text)()
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


@click.command(no_args_is_help=True)
@click.argument("suite", type=ANY_PATH)
@click.option("--check", is_flag=True, help="Change nothing; exit code 2 when something differs.")
@json_option
@click.pass_context
def lock(ctx: click.Context, /, suite: Path, check: bool, as_json: bool) -> None:
    """Write the digests of a suite's rows, prompts, examples, weights and Hub commits into evalrun.lock.

    The file lies beside the suite, to be committed with it. From then on a run of the suite that would use
    anything else is an error that names what changed; run `evalrun lock` again to take a change over.
    """
    from evalrun.paths import default_store
    from evalrun.suite.load import load_suite
    from evalrun.sweep.lock import drift, lock_path, write_lock
    from evalrun.sweep.prepare import prepare

    prepared = prepare(load_suite(suite), default_store() / "engines")
    path = lock_path(prepared.loaded)
    found = drift(prepared)
    if not check:
        path, changed = write_lock(prepared)
        found = changed if found is not None else None
    prepared.close()
    differences = [each.what for each in found or []]
    if as_json:
        print_json({"lock": path, "pinned": found is not None or not check, "differences": differences})
    elif check and found is None:
        click.echo(f"{path} does not pin {suite.name}: run `evalrun lock {suite}`", err=True)
    else:
        for difference in differences:
            click.echo(difference)
        done = "agrees" if check and not differences else "differs" if check else "written"
        click.echo(f"{path}: {done}")
    ctx.exit(int(ExitCode.USAGE if check and (found is None or found) else ExitCode.OK))


@click.command(no_args_is_help=True)
@click.argument("sweep")
@click.option(
    "--scorers", "file", type=FILE, required=True, metavar="FILE.yaml",
    help="A list of scorers, or a mapping with any of scorers, parse, derive, judges, gates, unparsed, "
    "fairness.",
)  # fmt: skip
@click.option(
    "--report", type=FILE, metavar="FILE.html", help="Where the report goes. [default: reports/<sweep>.html]"
)
@click.option("--no-report", is_flag=True, help="Write no report.")
@store_option
@json_option
@click.pass_context
def rescore(
    ctx: click.Context,
    /,
    sweep: str,
    file: Path,
    report: Path | None,
    no_report: bool,
    store: Store,
    as_json: bool,
) -> None:
    """Score a finished sweep again. The models that answered are not asked; judges are.

    The result is a sweep of its own that names the first as its parent; that one stays as it was.

    \b
    Example:
      evalrun rescore latest --scorers scorers.yaml
    """
    from dataclasses import replace

    from evalrun.reports.progress import make_progress
    from evalrun.sweep.rescore import rescore as score_again

    progress = make_progress(quiet=as_json)
    outcome = score_again(store, store.resolve(sweep), file, tuple(sys.argv[1:]), progress)
    if not no_report:
        from evalrun.reports.report import write_report

        out = report or Path("reports") / f"{outcome.folder.path.name.lower()}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        write_report(outcome.folder, out)
        outcome = replace(outcome, report=out)
    with shown():
        if as_json:
            from evalrun.sweep.result import result_document

            print_json({**result_document(outcome), "parent": outcome.manifest["parent"]})
        else:
            from evalrun.reports.terminal import print_result

            print_result(outcome.folder, outcome.report)
    _tell(outcome)
    ctx.exit(int(outcome.exit_code))

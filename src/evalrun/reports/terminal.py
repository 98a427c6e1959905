"""Results in a terminal: tables that fit 80 columns, plain text where the output is piped.

Everything is printed as `Text`, never as markup, and texts from outside are stripped of control characters:
a model's answer can neither colour nor clear the screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.gates.conditions import FIRST
from evalrun.reports import numbers
from evalrun.reports.by_column import by_column
from evalrun.reports.details import task_groups
from evalrun.reports.fairness import fairness
from evalrun.reports.fit import Column, fit
from evalrun.reports.gates import gates, lost_sentences
from evalrun.reports.leaderboard import columns, standing_word
from evalrun.reports.numbers import count, plural
from evalrun.reports.previous import previous_line
from evalrun.reports.source import MANY_UNREADABLE, Source, column_titles, missing_runs
from evalrun.reports.sweep_list import print_line, table_of
from evalrun.reports.verdicts import Verdicts, judge
from evalrun.reports.view import RunView, lead_of, other_scores, words
from evalrun.reports.visible import terminal
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.running import RUNNING, RunningRun, running_runs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from evalrun.tracking.changes import Placed
    from evalrun.tracking.people import Note, Said

MOST_VALUES = 21
"""Of a column with more values than twenty only the mean over them is printed."""
MOST_LOST = 8
"""So many runs are listed with their unparsed, refused and failed samples."""


def print_result(
    folder: SweepFolder,
    report: Path | None = None,
    name: str = "",
    *,
    now: bool = False,
) -> None:
    """Print what a sweep found to standard output; `name` is what people call it now. It ended just `now`."""
    from rich.console import Console

    result_table(folder, Console(highlight=False), report=report, name=name, now=now)


MOST_LINES = 4
"""So many lines of checkpoints are told of; the report has all."""
MOST_POOLED = 8
"""So many figures over all datasets are printed; all of them stand in `sweep.json`."""


def result_table(
    folder: SweepFolder,
    console: Console,
    *,
    report: Path | None = None,
    name: str = "",
    now: bool = False,
) -> None:
    """Print a sweep's answer, its runs, fairness, gates and warnings, and what to do next; of runs that have
    no results yet how they stand."""
    source = Source.of(folder)
    verdicts = judge(source)
    running = running_runs(folder) if source.missing else []
    _head(console, source, name or source.manifest.name, running)
    if running and not source.runs:
        _next(console, source, report)
        return
    _answers(console, source, verdicts)
    _against_previous(console, source, verdicts, now=now)
    for dataset, ranked in verdicts.by_dataset.items():
        console.print()
        if verdicts.named:
            print_line(console, dataset, "bold")
        console.print(_runs_table(ranked, verdicts, other_scores(source.suite, ranked), console.width))
        _lost(console, ranked)
    _groups(console, source)
    _by_column(console, source, verdicts)
    _fairness(console, verdicts, source)
    _gates(console, source, verdicts)
    cautions = dict.fromkeys(caution for answer in verdicts.answers for caution in answer.cautions)
    if cautions:
        console.print()
    for caution in cautions:
        print_line(console, f"Note: {caution}", "yellow")
    _next(console, source, report)


def _answers(console: Console, source: Source, verdicts: Verdicts) -> None:
    """What the runs come to, in sentences."""
    if source.results.load:
        from evalrun.reports.charts.load import sentences

        for said in sentences(source.results.load):
            print_line(console, said, "bold")
    if verdicts.overall:
        print_line(console, words(verdicts.overall), "bold")
    for pooled in source.results.pooled[:MOST_POOLED]:
        print_line(console, pooled.sentence)
    for answer in verdicts.answers:
        print_line(console, words(answer.verdict), "bold")
        for sentence in (*answer.more, answer.advice):
            if sentence:
                print_line(console, words(sentence))
    for line in source.results.checkpoints[:MOST_LINES]:
        print_line(console, line.sentence)


def lead_lines(source: Source) -> list[str]:
    """What a sweep comes to, in a few sentences: which run is best, what to ship, what changed since."""
    verdicts = judge(source)
    lines = [words(verdicts.overall)] if verdicts.overall else []
    for answer in verdicts.answers:
        lines += [words(sentence) for sentence in (answer.verdict, answer.advice) if sentence]
    previous = source.manifest.previous
    if previous is not None:
        labels = {run.id: run.label for run in verdicts.views}
        lines.append(previous_line(previous, source.manifest.started_at, labels, now=False))
    return lines


def _head(console: Console, source: Source, name: str, running: Sequence[RunningRun]) -> None:
    samples = sum(run.counts.samples for run in [*source.runs, *(run.results for run in running)])
    parts = [name, source.manifest.sweep, source.manifest.status]
    parts += [plural(len(source.runs) + len(running), "run"), plural(samples, "sample")]
    print_line(console, "  ".join(part for part in parts if part), "dim")
    for run in running:
        print_line(console, run.sentence(), "yellow")
    if source.missing > len(running):
        print_line(console, missing_runs(source), "red")
    for said in [*source.ended_early, *source.erased]:
        print_line(console, said, "yellow")
    if source.from_cache:
        print_line(console, f"{source.from_cache} --no-cache asks for all of them.", "yellow")
    for sentence in source.unreadable[:MANY_UNREADABLE]:
        print_line(console, sentence, "red")


def _against_previous(console: Console, source: Source, verdicts: Verdicts, *, now: bool) -> None:
    if (previous := source.manifest.previous) is not None:
        labels = {view.id: view.full for view in verdicts.views}
        print_line(console, previous_line(previous, source.manifest.started_at, labels, now=now))


def _runs_table(ranked: Sequence[RunView], verdicts: Verdicts, others: Sequence[str], width: int) -> Table:
    """The columns of the report's leaderboard that have a title for the terminal, by their rank."""
    lead = lead_of(ranked, verdicts.primary)
    metric = lead.metric if lead else "score"
    standing = [standing_word(run, ranked) for run in ranked]
    scores = [_score(run) for run in ranked]
    shown: list[Column] = [("run", "left", [run.label for run in ranked])]
    shown += [("", "left", standing)] if any(standing) else []
    shown.append((metric, "left", scores))
    known = [(column.terminal, column.cells) for column in columns(ranked, others) if column.terminal]
    for (_, title), cells in sorted(known, key=lambda each: each[0][0]):
        shown.append((title, "right", [cell.text for cell in cells]))
    return table_of(fit(shown, width, rigid={metric, ""}))


def _groups(console: Console, source: Source) -> None:
    """Groups of published tasks."""
    groups = task_groups(source.manifest.groups)
    if groups is None:
        return
    console.print()
    print_line(console, groups.caption, "bold")
    shown: list[Column] = [
        (title, "right" if at in groups.numeric else "left", [row[at] for row in groups.rows])
        for at, title in enumerate(groups.columns)
    ]
    console.print(table_of(fit(shown, console.width, rigid={"value"})))


def _by_column(console: Console, source: Source, verdicts: Verdicts) -> None:
    """Scores by the values of columns, of as many runs as fit; long tables stand in the report alone."""
    columns = source.suite.report.by if source.suite.report else ()
    for table in by_column(verdicts.by_dataset, columns, named=verdicts.named):
        rows = table.rows if len(table.rows) <= MOST_VALUES else table.rows[-1:]
        shown: list[Column] = [
            (title, "right" if at == 1 else "left", [row[at] for row in rows])
            for at, title in enumerate(table.columns)
        ]
        console.print()
        print_line(console, table.caption, "bold")
        console.print(table_of(fit(shown, console.width, rigid={*table.columns[2:]})))


def _score(run: RunView) -> str:
    if run.primary is None:
        return numbers.NONE
    return f"{numbers.metric(run.primary)} {numbers.metric_interval(run.primary)}".strip()


def _lost(console: Console, runs: Sequence[RunView]) -> None:
    """The runs with unparsed, refused or failed samples, and why scores are missing; nothing where all were
    scored."""
    lines = []
    for run in runs:
        lines += [f"{run.label}: {sentence}" for sentence in lost_sentences(run.details.lost)]
        counts = run.counts
        found = [
            f"{getattr(counts, name)} {name}"
            for name in ("unparsed", "refused", "failed")
            if getattr(counts, name)
        ]
        if found:
            lines.append(f"{run.label}: {', '.join(found)} of {count(counts.samples)}")
    for line in lines[:MOST_LOST]:
        print_line(console, line, "dim")
    if len(lines) > MOST_LOST:
        print_line(console, f"and {plural(len(lines) - MOST_LOST, 'run')} more with such samples", "dim")


def _fairness(console: Console, verdicts: Verdicts, source: Source) -> None:
    if verdicts.primary is None:
        return
    metric, titles = verdicts.primary.metric, column_titles(source.suite)
    for at, (name, runs) in enumerate(verdicts.by_dataset.items()):
        for view in fairness(runs[:1], metric, name, named=verdicts.named, at=at, titles=titles):
            console.print()
            print_line(console, f"By {view.column}: {view.sentence}")
            for note in view.notes:
                print_line(console, note, "yellow")


def _gates(console: Console, source: Source, verdicts: Verdicts) -> None:
    views = gates(source.manifest.gates, verdicts.views)
    if not views:
        return
    console.print()
    passed = sum(view.passed for view in views)
    for view in views[: len(views) - passed]:
        why = f" ({view.reason})" if view.reason else ""
        sign, style = ("FAIL", "bold red") if view.verdict == "fail" else ("inconclusive", "yellow")
        print_line(console, f"{sign}  {view.gate}  {view.run}: {view.value} {view.interval}{why}", style)
    for reason in dict.fromkeys(view.reason for view in views if view.passed and view.reason == FIRST):
        print_line(console, f"Note: {reason}.", "yellow")
    if passed:
        print_line(console, f"pass  {passed} of {plural(len(views), 'gate check')}", "green")


def _next(console: Console, source: Source, report: Path | None) -> None:
    sweep = source.manifest.sweep
    console.print()
    if report is not None:
        print_line(console, f"Report: {report}", "bold")
    if source.manifest.status in ("interrupted", "incomplete"):
        print_line(console, "Run the same command again to go on where it stopped.")
    elif source.manifest.status == RUNNING:
        print_line(console, f"Next: `evalrun show {sweep} --live` follows it.")
    elif report is not None:
        print_line(console, f"Next: open the report, or `evalrun show {sweep}` for these lines.")
    else:
        print_line(console, f"Next: `evalrun report {sweep}` writes the HTML report.")


def print_plan(document: Mapping[str, Any]) -> None:
    """Print what a suite would run (the document of `evalrun plan --json`) to standard output."""
    from rich.console import Console

    plan_table(document, Console(highlight=False))


def plan_table(document: Mapping[str, Any], console: Console) -> None:
    """Print a plan: one line a run, then the totals."""
    runs = document["runs"]
    columns: list[Column] = [
        ("run", "left", [run["run"] for run in runs]),
        ("requests", "right", [count(run["requests"]) for run in runs]),
        ("prompt tokens", "right", [f"~{count(run['prompt_tokens'])}" for run in runs]),
        ("answer tokens", "right", [_at_most(run["max_completion_tokens"]) for run in runs]),
    ]
    if any(run.get("load") for run in runs):
        columns.insert(1, ("load", "left", [run["load"] or numbers.NONE for run in runs]))
        columns.insert(2, ("seconds", "right", [_lasting(run["seconds"]) for run in runs]))
    if any(run["usd"] is not None for run in runs):
        columns.append(("cost", "right", [_cost(run["usd"]) for run in runs]))
    if "usd_live" in document["total"]:
        live = [_cost(run["usd_live"]) if "usd_live" in run else numbers.NONE for run in runs]
        columns.append(("without batch", "right", live))
    console.print(table_of(fit(columns, console.width)))
    total = document["total"]
    console.print()
    parts = [
        f"{plural(total['runs'], 'run')}, {plural(total['requests'], 'request')}",
        f"about {count(total['prompt_tokens'])} prompt tokens",
    ]
    if sending := sum(run.get("seconds") or 0 for run in runs):
        parts.append(f"levels that send for {sending:,.0f} s")
    if total["max_completion_tokens"] is not None:
        parts.append(f"at most {count(total['max_completion_tokens'])} answer tokens")
    if total["usd"] is not None:
        without = f" ({numbers.usd(total['usd_live'])} without batch)" if "usd_live" in total else ""
        parts.append(f"at most about {numbers.usd(total['usd'])}{without}")
    if total.get("judge_requests"):
        parts.append(f"{plural(total['judge_requests'], 'request')} to judges")
    print_line(console, ", ".join(parts) + ". Nothing was sent.")


def _at_most(tokens: int | None) -> str:
    return numbers.NONE if tokens is None else f"<= {count(tokens)}"


def _lasting(seconds: float | None) -> str:
    return "until answered" if seconds is None else f"{seconds:,.0f}"


def _cost(usd: float | None) -> str:
    return numbers.NONE if usd is None else f"<= {numbers.usd(usd)}"


MOST_NOTES = 10


def said_lines(said: Said, suite_name: str, standing: Sequence[str]) -> Iterator[str]:
    """One line for each thing, none where nobody said any. `standing` are those of `standing_lines`."""
    if said.name is not None and said.name != suite_name:
        yield f"Called {terminal(said.name)}; the suite calls it {terminal(suite_name)}."
    if said.tags:
        yield "Tags: " + ", ".join(terminal(f"{key}={value}") for key, value in sorted(said.tags.items()))
    if said.archived:
        yield "Archived: `evalrun archive --undo` puts it back into the lists."
    yield from standing
    for label in said.labels:
        of = f" of {terminal(label.target)}" if label.target else ""
        what = f"{plural(label.n, 'label')} of {terminal(label.column)!r}{of}"
        yield f"Labels: {what}, by {terminal(label.actor)}"
    for run, figures in said.figures.items():
        logged = ", ".join(terminal(f"{name} {value:g}") for name, value in figures.items())
        yield f"Logged for {terminal(run)}: {logged}"
    if len(said.notes) > MOST_NOTES:
        yield f"Notes: {len(said.notes)}, of which these are the last; `evalrun annotate` shows all."
    yield from map(_note, said.notes[-MOST_NOTES:])


def standing_lines(
    places: Sequence[Placed], now: Mapping[tuple[str, str, str], Placed], baselines: Sequence[str]
) -> list[str]:
    """Where the runs of one sweep stand or stood (`places`), given what stands now in the whole store."""
    lines = [f"Baseline: {terminal(name)}" for name in baselines]
    for place in places:
        stands = now.get((place.project, place.kind, place.name)) == place
        said = "Promoted" if place.kind == "promote" else "Deployed"
        why = terminal(place.reason or place.url, 200)
        tail = "" if stands else "; another stands there now"
        over = f"; overridden: {len(place.overridden)}" if place.overridden else ""
        what = f"{said}: {terminal(place.run)} as {terminal(place.name)}"
        who = f"{place.ts[:16]}, by {terminal(place.actor)}"
        lines.append(f"{what}, {who}{': ' + why if why else ''}{over}{tail}")
    return lines


def _note(note: Note) -> str:
    on = f" on {terminal(note.target)}" if note.target else ""
    return f"Note{on}, {note.ts[:16]}, {terminal(note.actor)}: {terminal(' '.join(note.text.split()), 400)}"

"""A comparison as a table for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from evalrun.analysis.comparison import Compared, Comparison
from evalrun.analysis.measures import RunInfo
from evalrun.analysis.standings import DatasetStandings, Place
from evalrun.reports.numbers import decimals_for
from evalrun.results import AxisEffect, Estimate, PairedResult, PromptAblation, PromptSensitivity

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_IDS = 5
_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "inconclusive": "yellow"}
_BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "descriptive"}
_CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg", "none": "no correction"}


def print_comparison(comparison: Comparison) -> None:
    """Print tables on stdout; without colours where that is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    for title, rows in by_metric(comparison.compared):
        _print_table(console, title, HEADS, [cells(each) for each in rows], verdict_column=5)
        for each in rows:
            _print_line(console, f"{_label(each)}: {each.verdict.word}, {each.verdict.sentence}", 2)
            for note in remarks(each):
                _print_line(console, note, 4, "dim")
        console.print()
    for table in sections(comparison):
        _print_table(console, *table[:3], verdict_column=None)
        for line in table[3]:
            _print_line(console, line, 2)
        console.print()
    for line in footer(comparison):
        console.print(line, style="dim")


def comparison_markdown(comparison: Comparison) -> str:
    """The same as Markdown, for a pull request or a wiki."""
    lines: list[str] = []
    for title, rows in by_metric(comparison.compared):
        lines += _markdown_table(title, HEADS, [cells(each) for each in rows])
        for each in rows:
            lines.append(f"- {_escaped(_label(each))}: **{each.verdict.word}**, {each.verdict.sentence}")
            lines += [f"  - {_escaped(note)}" for note in remarks(each)]
        lines.append("")
    for title, heads, rows_of_cells, notes in sections(comparison):
        lines += _markdown_table(title, heads, rows_of_cells)
        lines += [f"- {_escaped(note)}" for note in notes]
        lines.append("")
    lines += footer(comparison)
    return "\n".join(lines).strip() + "\n"


HEADS = ("run", "a", "b", "b - a (interval)", "p", "verdict")


def by_metric(compared: Sequence[Compared]) -> list[tuple[str, list[Compared]]]:
    """The comparisons of each metric, under a title that says which way it gets better."""
    found: dict[str, list[Compared]] = {}
    for each in compared:
        found.setdefault(each.metric, []).append(each)
    return [
        (f"{metric} ({_unit(rows[0].unit)}{_BETTER[rows[0].direction]})", rows)
        for metric, rows in found.items()
    ]


def _unit(unit: str) -> str:
    return f"{unit}; " if unit not in ("fraction", "score") else ""


def _label(each: Compared) -> str:
    if each.a.run == each.b.run:
        return each.b.run + (f" ({', '.join(each.differs)})" if each.differs else "")
    return f"{each.b.run} against {each.a.run}"


def cells(each: Compared) -> tuple[str, ...]:
    """One comparison as a row of a table, under HEADS."""
    result = each.result
    return (
        _label(each),
        _figure(result.mean_a),
        _figure(result.mean_b),
        change(result),
        _p(each.p_corrected),
        each.verdict.word,
    )


def change(result: PairedResult) -> str:
    """A difference with its interval, all with the decimals that the interval supports; empty where none."""
    return _signed(result.difference, result.ci_low, result.ci_high)


def _signed(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:+.3g}"
    # Of large figures none; of small ones three, as the means beside them, or what the interval supports.
    least = 3 if max(abs(value), abs(low), abs(high)) < 10 else 0
    decimals = 0 if high - low >= 100 else max(least, decimals_for((high - low) / 2))
    return f"{value:+,.{decimals}f} ({low:+,.{decimals}f} … {high:+,.{decimals}f})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:.4g}"


def _p(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _flip_lines(each: Compared) -> list[str]:
    if each.flips is None:
        return []
    named = []
    for ids, what in ((each.flips.lost, "right to wrong"), (each.flips.won, "wrong to right")):
        if ids:
            more = f", … {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
            named.append(f"{len(ids)} went from {what}: {', '.join(ids[:SHOWN_IDS])}{more}")
    return named


def remarks(each: Compared) -> list[str]:
    return [*_flip_lines(each), *notes(each)]


def notes(each: Compared) -> list[str]:
    """What else is to be said about a comparison, without what the verdict says already."""
    note = each.result.note
    return [*each.notes, *([note] if note and note not in each.verdict.sentence else [])]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _figure(estimate.value)
    return f"{_figure(estimate.value)} ({_figure(estimate.low)} … {_figure(estimate.high)})"


Section = tuple[str, Sequence[str], Sequence[Sequence[str]], list[str]]


def sections(comparison: Comparison) -> list[Section]:
    """What was found within one sweep: title, heads, rows and remarks of each table, the standings first."""
    return [
        *(_standing(each) for each in comparison.standings),
        *(_effect(each) for each in comparison.effects),
        *(_sensitivity(each) for each in comparison.sensitivity),
        *(_ablation(each) for each in comparison.ablations),
    ]


def _standing(each: DatasetStandings) -> Section:
    rows = [
        (place.run.run, _interval(place.mean), _behind(place), _p(place.p), "=" if place.tied else "")
        for place in each.places
    ]
    title = f"{each.metric} on {each.dataset} ({_unit(each.unit)}{_BETTER[each.direction]})"
    return title, ("run", "mean (interval)", "best - run", "p", "tied"), rows, [each.sentence]


def _behind(place: Place) -> str:
    """As many decimals as the means beside it have."""
    return f"{place.behind:+.3f}" if abs(place.mean.value or 0.0) < 10 else f"{place.behind:+.4g}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _effect(each: AxisEffect) -> Section:
    rows = []
    for level in each.levels:
        result = level.against_first
        difference, p, word = "", "", ""
        if result is not None and result.difference is not None:
            difference = change(result)
            p, word = _p(level.p_corrected), level.verdict.word if level.verdict else ""
        rows.append((str(level.value), _interval(level.mean), difference, p, word))
    title = (
        f"{each.metric} by {each.axis}, over {_count(each.cells, 'combination')} of the rest, n = {each.n}"
    )
    notes = [f"spread {each.spread:.3g}", *filter(None, [each.note])]
    notes += [f"{level.value}: {level.verdict.sentence}" for level in each.levels if level.verdict]
    return title, (each.axis, "mean (interval)", "from the first (interval)", "p", "verdict"), rows, notes


def _sensitivity(each: PromptSensitivity) -> Section:
    rows = [(name, _interval(estimate)) for name, estimate in each.prompts]
    gap = f"best - worst {_signed(each.gap, each.gap_low, each.gap_high)}"
    notes = [
        f"mean over the prompts {_interval(each.mean)}",
        f"{gap}, p = {each.p:.2g} corrected for all pairs",
        f"standard deviation {each.sd:.3g}, beyond chance {each.sd_beyond_chance:.3g}",
    ]
    title = f"{each.metric}: prompts of {each.model} on {each.dataset}, n = {each.n}"
    return title, ("prompt, best first", "mean (interval)"), rows, notes


def _ablation(each: PromptAblation) -> Section:
    rows = [("(whole prompt)", _interval(each.whole), "", "", "", "")]
    for part in each.parts:
        tokens = "" if part.tokens is None else f"{part.tokens:.3g}"
        word = part.verdict.word if part.verdict else ""
        rows.append(
            (part.part, _interval(part.without), change(part.gain), tokens, _p(part.p_corrected), word)
        )
    title = f"{each.metric}: parts of prompt {each.prompt}, {each.model} on {each.dataset}, n = {each.n}"
    heads = ("without", "mean (interval)", "the part adds (interval)", "tokens", "p", "verdict")
    return title, heads, rows, [part.sentence for part in each.parts if part.sentence]


def footer(comparison: Comparison) -> list[str]:
    """Which sweeps a and b are, and how p values and intervals were made."""
    lines = list(comparison.notes)
    if comparison.compared:
        lines += [f"a: {_sweep(comparison.compared[0].a)}"]
        lines += [f"b: {each}" for each in dict.fromkeys(_sweep(each.b) for each in comparison.compared)]
    if comparison.tests:
        what = _CORRECTIONS[comparison.correction]
        over = "" if comparison.correction == "none" else f" over {_count(comparison.tests, 'comparison')}"
        lines.append(
            f"p: {what}{over}. Intervals: {100 * (1 - comparison.alpha):g} %, of each difference alone."
        )
    return lines


def _sweep(run: RunInfo) -> str:
    return f"{run.name} {run.sweep}"


def _print_line(console: Console, text: str, indent: int, style: str = "default") -> None:
    margin = " " * indent
    console.print(fill(text, console.width, initial_indent=margin, subsequent_indent=margin), style=style)


def _print_table(
    console: Console,
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    verdict_column: int | None,
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold", min_width=min(14, max(len(row[0]) for row in rows)))
    for head in heads[1:]:
        # An interval may go to the next line; a figure or a word is never broken.
        table.add_column(
            head, justify="left" if head == "verdict" else "right", no_wrap="interval" not in head
        )
    for row in rows:
        cells = [Text(cell) for cell in row]
        if verdict_column is not None:
            cells[verdict_column].stylize(_COLOURS.get(row[verdict_column], "default"))
        table.add_row(*cells)
    console.print(title, style="bold")
    console.print(table)


def _markdown_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"### {_escaped(title)}",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'|'.join('---' if at == 0 else '---:' for at in range(len(heads)))}|",
        *(f"| {' | '.join(map(_escaped, row))} |" for row in rows),
        "",
    ]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: ids and names may hold anything."""
    for character in ("\\", "|", "<", "`", "*", "[", "_"):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())

"""A comparison as tables for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from evalrun.analysis.compare import Compared, Comparison
from evalrun.analysis.measures import RunInfo
from evalrun.analysis.standings import DatasetStandings
from evalrun.reports import effects, numbers
from evalrun.reports.effects import Section, change, estimated
from evalrun.reports.fit import Column, fit, lines
from evalrun.reports.numbers import SHARES, figure, measured, p_value, plural
from evalrun.reports.view import Table, verdict_word
from evalrun.reports.visible import terminal
from evalrun.sweep_results import PairedResult

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_IDS = 5
FEW = 3
"""Of so many rows each has its remarks below the table."""
LONGEST_NAME = 16
"""A column of figures is headed by no longer name."""
LONGEST_ID, LONGEST_LINE = 60, 2000

_COLOURS = {"better": "green", "worse": "red", "equivalent": "cyan", "tied": "yellow"}
_BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "descriptive"}
_CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg", "none": "no correction"}


def print_comparison(comparison: Comparison, lead: str = "", names: Sequence[str] = ()) -> None:
    """Print one sentence (`lead`) and one table of all that was compared, by these names, then what neither
    can say; plain where stdout is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if lead:
        _print_line(console, lead, 0, "bold")
        console.print()
    if comparison.compared:
        called = list(names) or [label(row) for row in comparison.compared]
        _print_table(console, _one_table(comparison.compared, called))
        for line in _beside(comparison.compared, called):
            _print_line(console, line, 2, "dim")
        console.print()
    for section in sections(comparison):
        _print_table(console, section.table)
        for line in section.remarks:
            if line not in lead:
                _print_line(console, line, 2)
        console.print()
    differs = list(dict.fromkeys(what for row in comparison.compared for what in row.differs))
    for line in (*([f"between the sides: {', '.join(differs)}"] if differs else []), *footer(comparison)):
        _print_line(console, line, 0, "dim")


def _one_table(rows: Sequence[Compared], names: Sequence[str]) -> Table:
    """All pairs by all metrics. What all rows have in common stands above it."""
    metrics = dict(by_metric(rows))
    table = pairs_table("", rows, names)
    if len(metrics) == 1:
        return Table(next(iter(metrics)), table.columns, table.rows, table.numeric)
    cells = [(*row[:1], each.metric, *row[1:]) for row, each in zip(table.rows, rows, strict=True)]
    heads = (table.columns[0], "metric", *table.columns[1:])
    if len(set(names)) == 1:
        return Table(names[0], heads[1:], [row[1:] for row in cells], table.numeric)
    return Table("", heads, cells, frozenset(at + 1 for at in table.numeric))


def _beside(rows: Sequence[Compared], names: Sequence[str]) -> list[str]:
    """Of few rows all remarks; of many only what was noted, once, and of which."""
    if len(rows) > FEW:
        noted: dict[str, list[str]] = {}
        for row, name in zip(rows, names, strict=True):
            for note in notes(row):
                noted.setdefault(note, []).append(name)
        return [
            note if len(set(runs)) > FEW else f"{numbers.listing(dict.fromkeys(runs))}: {note}"
            for note, runs in noted.items()
        ]
    several = len(set(names)) > 1, len({row.metric for row in rows}) > 1
    found: list[str] = []
    for row, name in zip(rows, names, strict=True):
        of = " by ".join(part for part, said in zip((name, row.metric), several, strict=True) if said)
        found += [f"{of}: {line}" if of else line for line in _remarks(row)]
    return found


def comparison_markdown(comparison: Comparison) -> str:
    """The same as Markdown, for a pull request or a wiki."""
    lines: list[str] = []
    for title, rows in by_metric(comparison.compared):
        lines += _markdown_table(pairs_table(title, rows))
        for row in rows:
            lines.append(f"- {_escaped(label(row))}: **{verdict_word(row.verdict)}**")
            lines += [f"  - {_escaped(remark)}" for remark in _remarks(row)]
        lines.append("")
    for section in sections(comparison):
        lines += _markdown_table(section.table)
        lines += [f"- {_escaped(note)}" for note in section.remarks]
        lines.append("")
    lines += footer(comparison)
    return "\n".join(lines).strip() + "\n"


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
    return f"{unit}; " if unit not in SHARES else ""


def label(each: Compared) -> str:
    """The pair in words: the run's name alone where both sweeps have it."""
    if each.a.run == each.b.run:
        return each.b.run + (f" ({', '.join(each.differs)})" if each.differs else "")
    return f"{each.b.run} against {each.a.run}"


def pairs_table(
    title: str, rows: Sequence[Compared], labels: Sequence[str] = (), sides: tuple[str, str] | None = None
) -> Table:
    """Both values of each pair, their difference, and what that amounts to. `labels` name the pairs, `sides`
    what is compared."""
    heads = ("run", *(sides or side_names(rows)), "difference [interval]", "p", "verdict")
    cells = [
        (
            name, *means(each.result, each.unit),
            change(each.result, each.unit) if each.result.difference is not None else "",
            "" if each.p_corrected is None else p_value(each.p_corrected), verdict_word(each.verdict),
        )
        for name, each in zip(labels or [label(row) for row in rows], rows, strict=True)
    ]  # fmt: skip
    return Table(title, heads, cells, frozenset({1, 2, 3, 4}))


def side_names(rows: Sequence[Compared]) -> tuple[str, str]:
    """What both sides are called, where all pairs have them in common: the sweeps, or the runs of one."""
    for names in ([(row.a.name, row.b.name) for row in rows], [(row.a.run, row.b.run) for row in rows]):
        before, after = ({name for name, _ in names}, {name for _, name in names})
        if len(before) == len(after) == 1 and before != after:
            one, other = before.pop(), after.pop()
            if max(len(one), len(other)) <= LONGEST_NAME:
                return one, other
    return "before", "after"


def means(result: PairedResult, unit: str) -> list[str]:
    """Both means, with as many decimals as the interval of their difference supports."""
    ends = (result.ci_low, result.ci_high)
    return ["" if mean is None else figure(mean, *ends, unit) for mean in (result.mean_a, result.mean_b)]


def _flip_lines(each: Compared) -> list[str]:
    if each.flips is None:
        return []
    named = []
    for ids, what in ((each.flips.lost, "right to wrong"), (each.flips.won, "wrong to right")):
        if ids:
            more = f", … {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
            shown = ", ".join(terminal(each, LONGEST_ID) for each in ids[:SHOWN_IDS])
            named.append(f"{len(ids)} went from {what}: {shown}{more}")
    return named


_TOLD = ("better", "worse", "higher", "lower")
"""Verdicts of which the table says all; of others it is said how far the samples could see."""


def _remarks(each: Compared) -> list[str]:
    """What a table cannot say: how far the samples could see, which of them changed sides, what was noted."""
    sight = [] if verdict_word(each.verdict) in _TOLD else [each.verdict.sentence]
    return [*sight, *_flip_lines(each), *notes(each)]


def notes(each: Compared) -> list[str]:
    """What else is to be said about a comparison, without what the verdict says already."""
    note, where = each.result.note, numbers.where(each.where)
    return [
        *([f"what became worse: {where}"] if where else []),
        *each.notes,
        *([note] if note and note not in each.verdict.sentence else []),
    ]


def sections(comparison: Comparison) -> list[Section]:
    """What was found within one sweep, the standings first."""
    return [
        *map(_standings, comparison.standings),
        *map(effects.axis, comparison.effects),
        *map(effects.sensitivity, comparison.sensitivity),
        *map(effects.ablation, comparison.ablations),
    ]


def _standings(each: DatasetStandings) -> Section:
    best, *others = each.places
    rows = [(best.run.run, estimated(best.mean, each.unit), "", "", best.verdict)]
    rows += [
        (
            place.run.run, estimated(place.mean, each.unit),
            measured(*_minus(place.behind, place.behind_low, place.behind_high), each.unit, sign=True),
            p_value(place.p), place.verdict,
        )
        for place in others
    ]  # fmt: skip
    title = f"{each.metric} on {each.dataset} ({_unit(each.unit)}{_BETTER[each.direction]})"
    columns = ("run", "mean [interval]", "against the best", "p", "verdict")
    return Section(Table(title, columns, rows, frozenset({1, 2, 3})), [each.sentence])


def _minus(
    value: float | None, low: float | None, high: float | None
) -> tuple[float | None, float | None, float | None]:
    """A difference the other way round, so that a run that is worse stands below zero, as everywhere."""
    return tuple(None if each is None else -each for each in (value, high, low))  # type: ignore[return-value]


def footer(comparison: Comparison) -> list[str]:
    """Which sweeps were compared, and how p values and intervals were made."""
    lines = list(comparison.notes)
    if comparison.compared:
        lines += [f"before: {_sweep(comparison.compared[0].a)}"]
        lines += [f"after: {each}" for each in dict.fromkeys(_sweep(each.b) for each in comparison.compared)]
    if comparison.tests:
        what = _CORRECTIONS[comparison.correction]
        over = "" if comparison.correction == "none" else f" over {plural(comparison.tests, 'comparison')}"
        together = " for all of them together" if over and comparison.tests > 1 else ""
        lines.append(f"p: {what}{over}. Intervals: {100 * (1 - comparison.alpha):g} %{together}.")
    return lines


def _sweep(run: RunInfo) -> str:
    return f"{run.name} {run.sweep}"


def _print_line(console: Console, text: str, indent: int, style: str = "default") -> None:
    margin, text = " " * indent, terminal(text, LONGEST_LINE)
    console.print(fill(text, console.width, initial_indent=margin, subsequent_indent=margin), style=style)


def _print_table(console: Console, table: Table) -> None:
    """A table whose names are cut where they do not fit; an interval that has no room stands below."""
    from rich.text import Text

    columns: list[Column] = [
        (
            head.removesuffix(" [interval]"),
            "right" if at in table.numeric else "left",
            [terminal(row[at]) for row in table.rows],
        )
        for at, head in enumerate(table.columns)
    ]
    fitted = fit(columns, console.width, least=len(columns), rigid={"verdict"})
    if table.caption:
        _print_line(console, table.caption, 0, "bold")
    head, *rows = lines(fitted)
    console.print(Text(head, "dim"), soft_wrap=True)
    for line, row in zip(rows, table.rows, strict=True):
        made = Text(line)
        word = row[-1]
        if word in _COLOURS and line.endswith(word):
            made.stylize(_COLOURS[word], len(line) - len(word))
        console.print(made, soft_wrap=True)


def _markdown_table(table: Table) -> list[str]:
    sides = ["---:" if at in table.numeric else "---" for at in range(len(table.columns))]
    return [
        f"### {_escaped(table.caption)}",
        "",
        f"| {' | '.join(map(_escaped, table.columns))} |",
        f"|{'|'.join(sides)}|",
        *(f"| {' | '.join(map(_escaped, row))} |" for row in table.rows),
        "",
    ]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: ids and names may hold anything."""
    for character in ("\\", "|", "<", "`", "*", "[", "_"):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())

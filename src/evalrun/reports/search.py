"""A search: what it found, what that is worth on rows that nothing was chosen by, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from evalrun.frozen import frozen
from evalrun.reports.charts.parallel import axes_of, parallel
from evalrun.reports.charts.theme import COLOURS, LINE_LEGEND, base, nominal
from evalrun.reports.numbers import (
    NONE,
    count,
    fixed,
    listing,
    measured,
    p_value,
    plural,
    significant,
    tested,
)
from evalrun.reports.source import Source
from evalrun.reports.view import PALETTE, Chart, Table
from evalrun.reports.visible import visible
from evalrun.search_results import Candidate, SearchResults, difference_held_out
from evalrun.sweep_results import Standing
from evalrun.tracking.naming import plain_value

_NAMED = PALETTE - 1
"""So many candidates have a colour of their own in the chart; the others are drawn alike."""
_OTHERS = "others"
_SHOWN = 12
"""So many candidates stand in the table; those dropped before them are folded away."""
_LEAST = -6.0
"""The least power of ten that is drawn."""


@frozen
class SearchView:
    """What a page shows of a search."""

    sentences: Sequence[str]
    charts: Sequence[Chart]
    table: Table
    more: Table | None
    effects: Table | None


def search_view(source: Source) -> SearchView | None:
    """The search that a sweep belongs to, if it does."""
    found = source.manifest.search
    if found is None:
        return None
    charts = [_chart(found), *([parallel(found, _names(found))] if len(axes_of(found)) > 1 else [])]
    table, more = _table(found), None
    if len(table.rows) > _SHOWN + 3:
        more = replace(table, rows=table.rows[_SHOWN:])
        table = replace(table, rows=table.rows[:_SHOWN])
    return SearchView(search_sentences(source), charts, table, more, _effects(found))


def search_sentences(source: Source) -> list[str]:
    """The result first: winner against baseline where nothing was chosen; then what it took."""
    found = source.manifest.search
    if found is None:
        return []
    race = found.race
    saved = 1 - race.calls / race.grid if race.grid else 0.0
    whole = "that all candidates would take on all rows" if found.made else "of the whole matrix"
    made = f"{race.calls:,} of the {race.grid:,} scores {whole} were made ({saved:.0%} saved)"
    said = [f"{_result(found, source.results.standings)}; {made}."]
    name_of = _names(found)
    others = [name for name in race.left if name != found.winner]
    if others:
        could = f"{len(others)} of {len(race.candidates)} candidates could not be told from it"
        said.append(
            f"{could}: {listing(map(name_of, others[:5]))}{' and others' if len(others) > 5 else ''}."
        )
    said.append(_how_sure(found))
    if found.shared:
        said.append(
            f"For {found.shared:,} of these scores nothing was sent: candidates that differ by their parsers "
            "alone read the same answers."
        )
    for name, broken in list(found.unguarded.items())[:3]:
        said.append(
            f"{name_of(name)} was not chosen, since it does not hold {listing(map(visible, broken))}."
        )
    if found.refused:
        reasons = listing(visible(each) for each in list(dict.fromkeys(found.refused))[:3])
        said.append(f"{plural(len(found.refused), 'proposal')} went back to the writer: {reasons}.")
    if found.looks > 1:
        said.append(f"The rows held out have been looked at {found.looks} times now.")
    return said


def _how_sure(found: SearchResults) -> str:
    """Why it ended, and what may be said of who was dropped."""
    race = found.race
    ended = f"It ended because {race.ended or 'it was stopped'}"
    flatters = "Scores below are of the rows that chose: those of the best are too high."
    if not found.made:
        sure = f"however often one looks, the best candidate is dropped in at most {race.alpha:.0%} of races"
        return f"{ended}; {sure}. {flatters}"
    # Candidates were made, or compared with one that was chosen, by these very rows.
    how = f"One is ended when it is shown at {race.alpha:.0%} to be worse than others that these rows chose"
    return f"{ended}. {how}, so that only rows held out say what the winner is worth. {flatters}"


def _result(found: SearchResults, standings: Sequence[Standing]) -> str:
    winner = next((each for each in found.race.candidates if each.name == found.winner), None)
    if winner is None:
        return "No candidate is left: none has a score on enough of its rows"
    if not found.held_out:
        return _chosen_alone(found, winner)
    baseline, chosen = _names(found)(found.baseline), _names(found)(winner.name)
    if found.winner == found.baseline:
        return (
            f"Nothing is shown to be better than the baseline {baseline}, which stays; it was asked "
            f"the {count(found.held_out)} rows held out, which nothing was chosen by"
        )
    against = next((each for each in standings if each.difference is not None), None)
    held_out = difference_held_out(found, standings)
    if against is None or held_out is None:
        return f"{chosen} was chosen; on the rows held out it cannot be compared with {baseline}"
    difference, low, high, chance, n = held_out
    word = "is tied with" if against.verdict == "tied" else "beats" if difference > 0 else "is worse than"
    p = f" ({tested(chance)})" if chance is not None else ""
    return (
        f"{chosen} {word} {baseline} in {found.metric}: "
        f"{measured(difference, low, high, 'fraction', sign=True)} on the {n:,} rows held out, which nothing "
        f"was chosen by{p}"
    )


def _names(found: SearchResults) -> Callable[[str], str]:
    """A candidate's short name."""
    return lambda name: visible(found.labels.get(name, name))


def _chosen_alone(found: SearchResults, winner: Candidate) -> str:
    name = _names(found)(winner.name)
    said = f"{name} was chosen, and its score is that of the {winner.rows:,} rows that chose it"
    if found.optimism is None:
        return f"{said}: it is too high"
    return f"{said}: it is too high by about {significant(found.optimism, 2)}"


def _lines(found: SearchResults, named: Sequence[str]) -> list[dict[str, Any]]:
    """The e-value against each candidate over the scores made; of its own colour where it is `named`."""
    values: list[dict[str, Any]] = []
    name_of = _names(found)
    begun, before = set[str](), 0
    for step in found.race.steps:
        for name, against in step.against.items():
            said = name_of(name)
            line = {"name": said, "shown": said if said in named else _OTHERS}
            if name not in begun:  # with nothing for or against it
                begun.add(name)
                values.append({"calls": before, "e": 1, **line})
            values.append({"calls": step.calls, "e": 10 ** min(max(against, _LEAST), -_LEAST), **line})
        before = step.calls
    return values


def _chart(found: SearchResults) -> Chart:
    race = found.race
    rank = sorted(race.candidates, key=lambda each: (each.out is not None, -(each.mean or 0.0)))
    name_of = _names(found)
    named = [name_of(each.name) for each in rank[:_NAMED]]
    values = _lines(found, named)
    groups = [*named, *([_OTHERS] if len(rank) > len(named) else [])]
    grey = ["var(--rule)"] if len(groups) > len(named) else []
    scale = {"domain": groups, "range": [*COLOURS[: len(named)], *grey]}
    legend = {
        **LINE_LEGEND,
        "columns": {"expr": "width < 500 ? 1 : 3"},
        "labelLimit": {"expr": "width < 500 ? width - 40 : 280"},
    }
    upright = {"field": "e", "type": "quantitative", "scale": {"type": "log"}}
    title = "e-value against a candidate"
    limit = 1 / race.alpha
    spec = base(
        260,
        layer=[
            {
                "data": {"values": values},
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {
                    "x": {"field": "calls", "type": "quantitative", "title": "scores made"},
                    "y": {**upright, "title": title},
                    "detail": {"field": "name"},
                    "color": nominal("shown", scale, legend),
                    "tooltip": [{"field": "name"}, {"field": "calls"}, {"field": "e", "format": ".3~g"}],
                },
            },
            {
                "data": {"values": [{"e": limit}]},
                "mark": {"type": "rule", "strokeDash": [4, 3]},
                "encoding": {"y": upright},
            },
        ],
    )
    left = Table(
        "Candidates left",
        ("After block", "Scores made", "Candidates asked"),
        [(str(step.block), count(step.calls), str(len(step.against))) for step in race.steps],
        frozenset({0, 1, 2}),
    )
    return Chart(
        "search",
        "Evidence against each candidate",
        f"Lines of {plural(len(race.candidates), 'candidate')} over the scores made; one that reaches the "
        f"dashed line at {fixed(limit, 0)} is dropped.",
        spec,
        left,
        note=f"A candidate whose line reaches {fixed(limit, 0)} (dashed) is asked no more.",
        wide=True,
    )


def _table(found: SearchResults) -> Table:
    race = found.race
    rows, name_of = [], _names(found)
    for each in sorted(race.candidates, key=lambda each: (each.out or 10**9, each.mean or 0.0), reverse=True):
        fate = "won" if each.name == found.winner else "left"
        if each.out is not None:
            fate = f"dropped after block {each.out}"
        elif each.aside:
            fate = f"set aside: {each.aside}"
        evidence = significant(10**each.against) if -4 < each.against < 9 else f"1e{each.against:.0f}"
        rows.append((name_of(each.name), fate, count(each.rows), fixed(each.mean, 3), evidence))
    return Table(
        "Candidates, on the rows that chose",
        ("Candidate", "What became of it", "Rows", f"{found.metric} (chosen on these)", "e-value against it"),
        rows,
        frozenset({2, 3, 4}),
    )


def _effects(found: SearchResults) -> Table | None:
    """What the values of the axes do, on the rows that all candidates were asked."""
    rows = [
        (
            each.axis, plain_value(each.value), str(each.candidates), fixed(each.mean, 3),
            NONE if each.difference is None
            else measured(each.difference, each.ci_low, each.ci_high, "fraction", sign=True),
            "" if each.p is None else p_value(each.p),
        )
        for each in found.effects
    ]  # fmt: skip
    rows += [
        (name, "(range)", "", "", f"{share:.0%} of what the trials differ by", "")
        for name, share in found.importance.items()
    ]
    if not rows:
        return None
    n = f" they all were asked ({count(found.effects[0].n)})" if found.effects else ""
    columns = (
        "Axis",
        "Value",
        "Candidates",
        f"{found.metric} (chosen on these)",
        "From its first value",
        "p",
    )
    return Table(f"What the axes do, on the rows that{n or ' chose'}", columns, rows, frozenset({2, 3, 4, 5}))

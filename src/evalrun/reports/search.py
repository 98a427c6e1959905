"""A search: what it found, what that is worth on rows that nothing was chosen by, and how it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evalrun.reports.charts.theme import COLOURS, base
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
_LABELLED = 6
_LEAST = -6.0
"""The least power of ten that is drawn."""


@dataclass(frozen=True, slots=True)
class SearchView:
    """What a page shows of a search."""

    sentences: Sequence[str]
    charts: Sequence[Chart]
    table: Table
    effects: Table | None


def search_view(source: Source) -> SearchView | None:
    """The search that a sweep belongs to, if it does."""
    found = source.manifest.search
    if found is None:
        return None
    charts = [_chart(found), *([_parallel(found)] if len(_axes(found)) > 1 else [])]
    return SearchView(search_sentences(source), charts, _table(found), _effects(found))


def search_sentences(source: Source) -> list[str]:
    """The result first: winner against baseline where nothing was chosen; then what it took."""
    found = source.manifest.search
    if found is None:
        return []
    race = found.race
    said = [_result(found, source.results.standings)]
    name_of = _names(found)
    others = [name for name in race.left if name != found.winner]
    if others:
        could = f"{len(others)} of {len(race.candidates)} candidates could not be told from it"
        said.append(
            f"{could}: {listing(map(name_of, others[:5]))}{' and others' if len(others) > 5 else ''}."
        )
    saved = 1 - race.calls / race.grid if race.grid else 0.0
    said.append(
        f"{race.calls:,} of the {race.grid:,} scores of the whole matrix were made ({saved:.0%} saved); the "
        f"race ended because {race.ended or 'it was stopped'}. The best candidate is dropped in at most "
        f"{race.alpha:.0%} of races."
    )
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


def _result(found: SearchResults, standings: Sequence[Standing]) -> str:
    winner = next((each for each in found.race.candidates if each.name == found.winner), None)
    if winner is None:
        return "No candidate is left: none has a score on enough of its rows."
    if not found.held_out:
        return _chosen_alone(found, winner)
    baseline, chosen = _names(found)(found.baseline), _names(found)(winner.name)
    if found.winner == found.baseline:
        return (
            f"Nothing is shown to be better than the baseline {baseline}, which stays; it was asked "
            f"the {count(found.held_out)} rows held out, and its score below is on these."
        )
    against = next((each for each in standings if each.difference is not None), None)
    held_out = difference_held_out(found, standings)
    if against is None or held_out is None:
        return f"{chosen} was chosen; on the rows held out it cannot be compared with {baseline}."
    difference, low, high, chance, n = held_out
    word = "is tied with" if against.verdict == "tied" else "beats" if difference > 0 else "is worse than"
    p = f", {tested(chance)}" if chance is not None else ""
    return (
        f"{chosen} {word} {baseline} in {found.metric} on the rows held out: "
        f"{measured(difference, low, high, 'fraction', sign=True)} (n = {n:,}{p})."
    )


def _names(found: SearchResults) -> Callable[[str], str]:
    """A candidate's short name."""
    return lambda name: visible(found.labels.get(name, name))


def _chosen_alone(found: SearchResults, winner: Candidate) -> str:
    name = _names(found)(winner.name)
    said = f"{name} was chosen, and its score is that of the {winner.rows:,} rows that chose it"
    if found.optimism is None:
        return f"{said}: it is too high."
    return f"{said}: it is too high by about {significant(found.optimism, 2)}."


def _chart(found: SearchResults) -> Chart:
    race = found.race
    rank = sorted(race.candidates, key=lambda each: (each.out is not None, -(each.mean or 0.0)))
    name_of = _names(found)
    named = [name_of(each.name) for each in rank[:_NAMED]]
    values: list[dict[str, Any]] = []
    for step in race.steps:
        for name, against in step.against.items():
            said = name_of(name)
            shown = said if said in named else _OTHERS
            e = 10 ** min(max(against, _LEAST), -_LEAST)
            values.append({"calls": step.calls, "e": e, "name": said, "shown": shown})
    groups = [*named, *([_OTHERS] if len(rank) > len(named) else [])]
    scale = {"domain": groups, "range": list(COLOURS[: len(groups)])}
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
                    "color": {"field": "shown", "type": "nominal", "scale": scale},
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


def _axes(found: SearchResults) -> list[str]:
    return list(dict.fromkeys(axis for of in found.axes.values() for axis in of))


def _parallel(found: SearchResults) -> Chart:
    """Each candidate as a line over the axes, which ends at its score."""
    axes, name_of, score = _axes(found), _names(found), f"{found.metric} (chosen on these)"
    known = [each for each in found.race.candidates if each.mean is not None and each.name in found.axes]
    of = {each.name: {**found.axes[each.name], score: each.mean} for each in known}
    places = {axis: _places([each[axis] for each in of.values() if axis in each]) for axis in (*axes, score)}
    values = []
    for each in known:
        kind = (
            "winner" if each.name == found.winner else "baseline" if each.name == found.baseline else "others"
        )
        values += [
            {
                "name": name_of(each.name), "kind": kind, "axis": axis, "order": order,
                "at": places[axis][_said(value)], "value": _said(value),
            }
            for order, (axis, value) in enumerate(of[each.name].items())
        ]  # fmt: skip
    marks = [
        {"axis": axis, "at": at, "value": said}
        for axis, ends in places.items()
        for said, at in _labels(ends).items()
    ]
    kinds = ["others", "baseline", "winner"]
    across = {
        "field": "axis",
        "type": "nominal",
        "sort": [*axes, score],
        "title": None,
        "scale": {"padding": 0.3},
    }
    across["axis"] = {"labelAngle": 0, "grid": True}
    up = {"field": "at", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}}
    colours = {"domain": kinds, "range": ["var(--rule)", COLOURS[1], COLOURS[0]]}
    dashes = {"domain": kinds, "range": [[1, 0], [6, 3], [1, 0]]}
    widths = {"domain": kinds, "range": [1, 2, 3]}
    spec = base(
        300,
        layer=[
            {
                "data": {"values": values},
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "x": across, "y": up, "detail": {"field": "name"}, "order": {"field": "order"},
                    "color": {"field": "kind", "type": "nominal", "scale": colours},
                    "strokeDash": {"field": "kind", "type": "nominal", "scale": dashes, "legend": None},
                    "strokeWidth": {"field": "kind", "type": "nominal", "scale": widths, "legend": None},
                    "tooltip": [{"field": "name"}, {"field": "axis"}, {"field": "value"}],
                },
            },
            {
                "data": {"values": marks},
                "mark": {"type": "text", "align": "left", "dx": 7, "dy": -7},
                "encoding": {"x": across, "y": up, "text": {"field": "value"}},
            },
        ],
    )  # fmt: skip
    rows = [
        (name_of(each.name), *(_said(of[each.name].get(axis, "")) for axis in (*axes, score)))
        for each in known
    ]
    return Chart(
        "search-axes",
        "Candidates over the axes",
        f"{plural(len(known), 'candidate')}, each a line over {listing(axes)} that ends at its score.",
        spec,
        Table("Candidates over the axes", ("Candidate", *axes, score), rows),
        note="Each line is a candidate; it ends at its score on the rows that chose.",
        wide=True,
    )


def _places(values: Sequence[Any]) -> dict[str, float]:
    """Where values lie on an axis from 0 to 1: numbers to scale, names one above the other."""
    unique = list({_said(value): value for value in values}.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in unique):
        low, high = min(unique), max(unique)
        return {_said(value): (value - low) / (high - low) if high > low else 0.5 for value in unique}
    last = max(1, len(unique) - 1)
    return {_said(value): at / last for at, value in enumerate(unique)}


def _labels(places: dict[str, float]) -> dict[str, float]:
    """All values of an axis that has few, else its ends."""
    if len(places) <= _LABELLED:
        return places
    ends = sorted(places, key=lambda said: places[said])
    return {said: places[said] for said in (ends[0], ends[-1])}


def _said(value: Any) -> str:
    return significant(value, 3) if isinstance(value, float) else visible(plain_value(value))

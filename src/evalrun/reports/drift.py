"""A comparison of two sets of rows, in a terminal and as one HTML file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from evalrun.drift_results import ColumnDrift, DriftResults, ScoreDrift, TextDrift
from evalrun.reports.charts.theme import base, dots
from evalrun.reports.fit import Column, fit, lines
from evalrun.reports.numbers import count, fixed, interval, p_value, plural, significant
from evalrun.reports.sections import Section, Sections
from evalrun.reports.view import Chart, Table
from evalrun.reports.visible import terminal, visible

WORDS = {True: "drift", False: "-", None: "too few"}
DRAWN = 30
"""Columns in the chart; the table has them all."""

HEADER = ("column", "about", "reference", "live", "moved", "effect", "least seen", "test", "q", "")
TOLD = (0, 2, 3, 5, 6, 7, 8, 9)
"""Of these the terminal shows the columns at these places."""


def drift_lines(found: DriftResults) -> list[str]:
    """The comparison as lines of text, what drifted first."""
    said = [f"{found.live} against {found.reference}: {found.n_live:,} and {found.n_reference:,} rows"]
    said = [terminal(line, 400) for line in (*said, *found.sentences)]
    rows = [[terminal(cell, 100) for cell in row] for row in _rows(found)]
    columns: list[Column] = [
        (HEADER[at], "right" if at in (5, 6, 8) else "left", [row[at] for row in rows]) for at in TOLD
    ]
    width = shutil.get_terminal_size((1000, 24)).columns
    said += ["", *lines(fit(columns, width))]
    for text in found.texts:
        if text.words and text.drift:
            said += ["", terminal(_words_line(text), 400)]
    for score in found.scores:
        said += ["", *(terminal(line, 200) for line in _score_lines(score))]
    said += [terminal(line, 300) for line in _estimated(found)]
    return [
        *said,
        *(["", *(terminal(f"note: {note}", 400) for note in _notes(found))] if _notes(found) else []),
    ]


def _ordered(found: DriftResults) -> list[ColumnDrift | TextDrift]:
    return sorted(found.tested, key=lambda each: (each.q is None, each.q if each.q is not None else 0.0))


def _rows(found: DriftResults) -> list[list[str]]:
    rows = []
    for each in _ordered(found):
        q = p_value(each.q) if each.q is not None else "-"
        least = "-" if each.least is None else significant(each.least)
        if isinstance(each, TextDrift):
            auc = "-" if each.auc is None else f"AUC {fixed(each.auc)} {interval(each.ci_low, each.ci_high)}"
            told = [
                "",
                "",
                auc,
                fixed(each.auc) if each.auc is not None else "-",
                least,
                "classifier, held out",
            ]
            rows.append([f"{each.column} (text)", "text", *told, q, WORDS[each.drift]])
            continue
        effect = "-" if each.effect is None else significant(each.effect)
        rows.append(
            [
                each.column,
                each.role,
                each.reference,
                each.live,
                each.moved,
                effect,
                least,
                each.test,
                q,
                WORDS[each.drift],
            ]
        )
    return rows


def _words_line(text: TextDrift) -> str:
    told = [f"{word.word} ({word.reference:.0%} to {word.live:.0%})" for word in text.words[:8]]
    return f"words that separate {text.column}: {', '.join(told)}"


def _score_lines(score: ScoreDrift) -> list[str]:
    over = f" over {plural(len(score.segments), 'segment')} of {score.by}" if score.by else ""
    mix, quality = (
        f"{fixed(part.value, 3, sign=True)} {interval(part.ci_low, part.ci_high)}"
        for part in (score.mix, score.quality)
    )
    change = fixed(score.difference, 3, sign=True)
    whole = f"{score.score}: {fixed(score.reference, 3)} to {fixed(score.live, 3)} ({change})"
    return [f"{whole} = mix {mix} + quality {quality}{over}"]


def _estimated(found: DriftResults) -> list[str]:
    return [
        f"{each.score} without labels, by {each.confidence}: {fixed(each.live, 3)} "
        f"{interval(each.ci_low, each.ci_high)} against {fixed(each.reference, 3)} of the reference "
        f"({each.note})"
        for each in found.estimated
    ]


def _notes(found: DriftResults) -> list[str]:
    left = [
        f"only {which} has {', '.join(names[:8])}"
        for which, names in (("the reference", found.only_reference), ("live", found.only_live))
        if names
    ]
    few = [f"{each.column}: {each.note}" for each in _ordered(found) if each.note]
    return [*found.notes, *left, *few[:3]]


def write_drift(found: DriftResults, out: Path) -> None:
    """Write the page to `out`, whole or not at all. Raises UserError where it cannot be written."""
    _page(found).write(out)


def render_drift(found: DriftResults) -> str:
    """The page of a comparison."""
    return _page(found).html()


def _page(found: DriftResults) -> Sections:
    charts = [chart for chart in (_psi_chart(found), *map(_score_chart, found.scores)) if chart is not None]
    rows = [[visible(cell) for cell in row] for row in _rows(found)]
    words = [_words_table(text) for text in found.texts if text.words]
    segments = [_segments_table(score) for score in found.scores if len(score.segments) > 1]
    alpha = f"{found.alpha:.0%}"
    tests = Section(
        "tests", "Tests", [Table("Every test", HEADER, rows, frozenset({5, 6, 8}))],
        notes=[
            f"q is p over all tests of this comparison (Benjamini and Hochberg): at {alpha}, one comparison "
            "in twenty without any change has a finding at the usual level. Least seen: the effect that so "
            "many rows show four times in five.",
            *(visible(note) for note in _notes(found)),
        ],
    )  # fmt: skip
    return Sections(
        "Drift",
        visible(f"{found.live} against {found.reference}"),
        [
            *(visible(sentence) for sentence in (*found.sentences, *_estimated(found))),
            f"{plural(found.n_live, 'row')} against {count(found.n_reference)}",
        ],
        [],
        [
            *([Section("moved", "What moved", charts=charts)] if charts else []),
            tests,
            *([Section("words", "Words that separate", words)] if words else []),
            *([Section("segments", "Segments", segments)] if segments else []),
        ],
    )


def _psi_chart(found: DriftResults) -> Chart | None:
    """PSI of the columns, and the least that these rows can show."""
    shown = [each for each in _ordered(found) if isinstance(each, ColumnDrift) and each.effect_name == "PSI"][
        :DRAWN
    ]
    shown = [each for each in shown if each.effect is not None]
    if not shown:
        return None
    rows = [
        {
            "name": visible(each.column),
            "psi": each.effect,
            "least": each.least,
            "drift": WORDS[each.drift],
            "q": p_value(each.q) if each.q is not None else "-",
        }
        for each in shown
    ]
    y = {"field": "name", "type": "nominal", "sort": [row["name"] for row in rows], "title": None}
    layers = [
        {
            "mark": {"type": "bar", "height": {"band": 0.6}},
            "encoding": {
                "y": y,
                "x": {"field": "psi", "type": "quantitative", "title": "PSI"},
                "color": {
                    "condition": {"test": "datum.drift === 'drift'", "value": "var(--run-1)"},
                    "value": "var(--run-0)",
                },
                "tooltip": [
                    {"field": name, "type": "nominal"} for name in ("name", "psi", "least", "q", "drift")
                ],
            },
        },
        {
            "mark": {"type": "tick", "color": "var(--ink)"},
            "encoding": {"y": y, "x": {"field": "least", "type": "quantitative"}},
        },
    ]
    return Chart(
        key="psi",
        title="How far columns moved",
        alt=f"Bars of the population stability index of {plural(len(rows), 'column')}.",
        spec=base(24 * len(rows) + 20, data={"values": rows}, layer=layers),
        table=Table(
            "PSI", ("column", "PSI", "least seen", "q", ""),
            [
                [visible(e.column), significant(e.effect), significant(e.least), p_value(e.q), WORDS[e.drift]]
                for e in shown
            ],
            frozenset({1, 2, 3}),
        ),
        note="The tick is the least that so many rows show four times in five; the other colour is drift.",
        wide=True,
    )  # fmt: skip


def _score_chart(score: ScoreDrift) -> Chart:
    """The difference of a score and its two parts."""
    parts = (
        ("all", score.difference, score.difference, score.difference),
        ("mix", score.mix.value, score.mix.ci_low, score.mix.ci_high),
        ("quality", score.quality.value, score.quality.ci_low, score.quality.ci_high),
    )
    rows = [
        {"name": name, "v": v, "low": low, "high": high, "ends": interval(low, high)}
        for name, v, low, high in parts
    ]
    x = {
        "field": "v",
        "type": "quantitative",
        "title": f"change of {visible(score.score)}",
        "scale": {"zero": True},
    }
    layers = dots(
        "name", [name for name, *_ in parts], x, {"color": {"value": "var(--run-0)"}}, {},
        {"name": "part", "ends": "95 % interval"},
    )  # fmt: skip
    return Chart(
        key=f"parts-{visible(score.score)}",
        title=f"{visible(score.score)}: what changed it",
        alt=f"The change of {visible(score.score)} and its parts, mix and quality.",
        spec=base(26 * len(rows) + 8, data={"values": rows}, layer=layers),
        table=Table(
            "Parts of the change", ("part", "change", "95 % interval"),
            [[name, fixed(v, 3, sign=True), interval(low, high)] for name, v, low, high in parts],
            frozenset({1}),
        ),
        note="Mix: other rows are asked. Quality: alike rows are answered otherwise. The two add up.",
    )  # fmt: skip


def _words_table(text: TextDrift) -> Table:
    rows = [
        [visible(w.word), f"{w.reference:.1%}", f"{w.live:.1%}", fixed(w.z, 1, sign=True)] for w in text.words
    ]
    columns = ("word", "reference", "live", "z")
    return Table(
        f"Words that separate {visible(text.column)}: share of texts", columns, rows, frozenset({1, 2, 3})
    )


def _segments_table(score: ScoreDrift) -> Table:
    rows = [
        [
            visible(s.segment), f"{s.share_reference:.1%}", f"{s.share_live:.1%}",
            fixed(s.score_reference, 3), fixed(s.score_live, 3),
        ]
        for s in score.segments
        if s.share_reference or s.share_live
    ]  # fmt: skip
    columns: Sequence[str] = (score.by, "share, reference", "share, live", "score, reference", "score, live")
    return Table(f"{visible(score.score)} by {visible(score.by)}", columns, rows, frozenset({1, 2, 3, 4}))

"""Explanations of answers on a page: words with their weights, a table of the same, bars of the sections, and
what each word adds to each token of the answer. Colour is never the only sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalrun.atomic import replacing
from evalrun.errors import UserError
from evalrun.explain.kept import SampleTexts, read_explanations, sample_texts
from evalrun.explain.words import CAUTION, headline, together
from evalrun.explanations import Attention, Explained, Explanation, Unit
from evalrun.reports import page
from evalrun.reports.numbers import fixed, plural, significant
from evalrun.reports.view import Table
from evalrun.tracking.folder import SweepFolder

STEPS = 8
"""So many shades a word may have to either side of none."""
_ROWS = 12
_TEXT = 60
_LAYERS = 6
"""So many layers of the logit lens are told, evenly spaced up to the last."""
SCRIPTS = ("page.js", "download.js", "explain.js")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a message. `shade` is 0 for none, to STEPS for what adds most, to -STEPS for what takes
    most away; `said` is its value in words, "" where it has none; `at` its place in the rows, or -1."""

    text: str
    shade: int = 0
    said: str = ""
    at: int = -1


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message of the prompt."""

    role: str
    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Bar:
    """One section: its share of the longest bar in per cent, to the left where it is below 0."""

    name: str
    text: str
    value: str
    left: float
    width: float
    below: bool
    alone: Bar | None = None
    """What is lost when the part alone is left out, beside its share by Shapley's or Owen's value."""


@dataclass(frozen=True, slots=True)
class TokenView:
    """One token of the answer, what the model thought of it, and the likeliest others where known."""

    text: str
    said: str


@dataclass(frozen=True, slots=True)
class AttentionView:
    """Maps of attention, drawn by a script: see `Attention`. `first` is the token from which on the answer is
    made."""

    answer: str
    means: str
    layers: int
    heads: int
    size: int
    made: int
    span: int
    first: int
    labels: Sequence[str]
    note: str
    lens: Table | None


@dataclass(frozen=True, slots=True)
class ExplanationView:
    """One explained answer."""

    key: str
    title: str
    answer: str
    sentences: Sequence[str]
    notes: Sequence[str]
    messages: Sequence[MessageView]
    bars: Sequence[Bar]
    table: Table
    tokens: Sequence[TokenView]
    rows: str
    units: int
    faithful: Table
    attention: AttentionView | None = None
    over: Sequence[str] = ()
    """What is to be said of all explanations of the run, before its first."""


def views(folder: SweepFolder, explained: Explained) -> list[ExplanationView]:
    """The explanations of a run; shades are shared by all of them."""
    there = [(one, texts) for one in explained.samples if (texts := _texts(folder, explained.run, one))]
    scale = max((abs(unit.value or 0.0) for one, _ in there for unit in _finest(one)), default=0.0)
    made = [
        _view(f"{explained.run}-{at}", explained.run, one, texts, scale)
        for at, (one, texts) in enumerate(there)
    ]
    return [replace(made[0], over=[together(found) for found in explained.over]), *made[1:]] if made else []


def _texts(folder: SweepFolder, run_id: str, one: Explanation) -> SampleTexts | None:
    """The texts of a sample; None where it was erased since."""
    try:
        return sample_texts(folder, run_id, one)
    except UserError:
        return None


def of_sweep(folder: SweepFolder) -> list[ExplanationView]:
    """All explanations that a sweep holds."""
    found = [read_explanations(folder, run_id) for run_id in folder.run_ids()]
    return [view for each in found if each is not None for view in views(folder, each)]


def write_page(folder: SweepFolder, explained: Sequence[Explained], out: Path) -> None:
    """Write a page of these explanations alone. Raises UserError where it cannot be written."""
    made = [view for each in explained for view in views(folder, each)]
    name = folder.manifest().name
    text = (
        page.environment()
        .get_template("explain.html.j2")
        .render(explanations=made, name=name, caution=CAUTION, **page.frame(SCRIPTS))
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.chmod(page.REPORT_MODE)


def _finest(one: Explanation) -> list[Unit]:
    level = one.units[-1].level
    return [unit for unit in one.units if unit.level == level and unit.value is not None]


def _view(key: str, run: str, one: Explanation, texts: SampleTexts, scale: float) -> ExplanationView:
    said = [texts.of(unit) for unit in one.units]
    *sentences, _ = headline(one, said) if one.faithfulness.word != "nothing to explain" else (
        *headline(one, said), CAUTION,
    )  # fmt: skip
    rows = one.rows
    tokens = [] if rows is None else _tokens(one, texts)
    return ExplanationView(
        key=key,
        title=f"{run}: sample {one.sample_id}",
        answer=texts.answer,
        sentences=sentences,
        notes=[_how(one), *one.notes],
        messages=_messages(one, texts, scale),
        bars=_bars(one, said),
        table=_table(one, said),
        tokens=tokens,
        rows="" if rows is None else rows.values,
        units=0 if rows is None else len(rows.units),
        faithful=_faithful(one),
        attention=None if one.attention is None else _attention(one.attention, texts, tokens),
    )


def _attention(found: Attention, texts: SampleTexts, tokens: Sequence[TokenView]) -> AttentionView:
    said = {found.answer_from + at: token.text for at, token in enumerate(tokens)}
    labels = [
        said.get(at, "(answer)" if at >= found.answer_from else "(frame)")
        if place is None
        else texts.contents[place.message][place.start : place.end]
        for at, place in enumerate(found.places)
    ]
    rows = [
        (str(at), f"{lens.token!r}", fixed(lens.logprob, 3), fixed(lens.answer, 3))
        for at, lens in enumerate(found.lens, 1)
        if (len(found.lens) - at) % -(-len(found.lens) // _LAYERS) == 0
    ]
    columns = ("layer", "likeliest token", "log p", "log p of the answer's first token")
    title = "What each layer would answer (logit lens)"
    lens = Table(title, columns, rows, frozenset({0, 2, 3})) if rows else None
    return AttentionView(
        found.answer, found.means, found.layers, found.heads, found.tokens, found.made, found.span,
        found.answer_from, labels, found.note, lens,
    )  # fmt: skip


def _how(one: Explanation) -> str:
    against = f" against {one.against}" if one.against else ""
    return (
        f"Method {one.method}, removal {one.removal}, target {one.target}{against}; "
        f"{plural(one.evaluations, 'prompt')} asked about in {significant(one.seconds, 2)} s."
    )


def _value(unit: Unit) -> str:
    value = fixed(unit.value or 0.0, 3, sign=True)
    return f"{value} ± {significant(unit.se, 2)}" if unit.se else value


def _shade(value: float, scale: float) -> int:
    if not scale or abs(value) < scale / (2 * STEPS):
        return 0
    step = max(1, round(abs(value) / scale * STEPS))
    return step if value > 0 else -step


def _messages(one: Explanation, texts: SampleTexts, scale: float) -> list[MessageView]:
    level = one.units[-1].level
    rows = {} if one.rows is None else {at: row for row, at in enumerate(one.rows.units)}
    found: list[MessageView] = []
    for number, (content, role) in enumerate(zip(texts.contents, texts.roles, strict=True)):
        placed = sorted(
            (place.start, place.end, at)
            for at, unit in enumerate(one.units)
            if unit.level == level and unit.value is not None
            for place in unit.places
            if place.message == number
        )
        found.append(MessageView(role or "prompt", list(_pieces(one, content, placed, rows, scale))))
    return found


def _pieces(
    one: Explanation,
    content: str,
    placed: Sequence[tuple[int, int, int]],
    rows: dict[int, int],
    scale: float,
) -> Iterator[Piece]:
    reached = 0
    for start, end, at in placed:
        if start > reached:
            yield Piece(content[reached:start])
        unit = one.units[at]
        shade = _shade(unit.value or 0.0, scale)
        if one.faithfulness.word == "did not converge":
            shade = 0
        yield Piece(content[start:end], shade, f"{_value(unit)} nats" if shade else "", rows.get(at, -1))
        reached = end
    if reached < len(content):
        yield Piece(content[reached:])


def _bars(one: Explanation, said: Sequence[str]) -> list[Bar]:
    level = one.units[0].level
    own = [(unit, text) for unit, text in zip(one.units, said, strict=True) if unit.level == level]
    own = [(unit, text) for unit, text in own if unit.value is not None]
    longest = max((max(abs(unit.value or 0.0), abs(unit.left_out or 0.0)) for unit, _ in own), default=0.0)
    if level == one.units[-1].level and level == "word":
        return []
    made = []
    for unit, text in own:
        alone = None
        if unit.left_out is not None:
            alone = _bar("", "", unit.left_out, fixed(unit.left_out, 3, sign=True), longest)
        bar = _bar(unit.name or level, _short(text), unit.value or 0.0, _value(unit), longest)
        made.append(replace(bar, alone=alone))
    return made


def _bar(name: str, text: str, value: float, said: str, longest: float) -> Bar:
    width = 50 * abs(value) / longest if longest else 0.0
    return Bar(name, text, said, 50 - width if value < 0 else 50.0, width, value < 0)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _table(one: Explanation, said: Sequence[str]) -> Table:
    own = [(unit, text) for unit, text in zip(one.units, said, strict=True) if unit.value is not None]
    own.sort(key=lambda pair: -abs(pair[0].value or 0.0))
    rows = [
        (
            _short(text), unit.level, unit.name, _value(unit),
            _otherwise(unit),
            "" if unit.tokens is None else str(unit.tokens),
        )
        for unit, text in own[:_ROWS]
    ]  # fmt: skip
    left = len(own) - len(rows)
    caption = "Parts by weight" + (f" ({left} lighter ones are not listed)" if left else "")
    second = "removed otherwise" if one.method == "occlusion" else "left out alone"
    columns = ("part", "unit", "name", "nats", second, "tokens")
    return Table(caption, columns, rows, frozenset({3, 4, 5}))


def _otherwise(unit: Unit) -> str:
    if unit.left_out is not None:
        return fixed(unit.left_out, 3, sign=True)
    if unit.other is None:
        return ""
    return fixed(unit.other, 3, sign=True) + (", sign flips" if unit.flips else "")


def _faithful(one: Explanation) -> Table:
    rows = [
        (
            f"top {curve.share:.0%} ({curve.units})",
            fixed(curve.comprehensiveness, 3), _maybe(curve.random_comprehensiveness),
            fixed(curve.sufficiency, 3), _maybe(curve.random_sufficiency),
        )
        for curve in one.faithfulness.curve
    ]  # fmt: skip
    columns = ("removed", "loses", "random rankings lose", "alone misses", "random ones miss")
    return Table("Against random rankings (nats)", columns, rows, frozenset({1, 2, 3, 4}))


def _maybe(value: float | None) -> str:
    return "" if value is None else fixed(value, 3)


def _tokens(one: Explanation, texts: SampleTexts) -> list[TokenView]:
    rows = one.rows
    if rows is None or one.target == "target" or not texts.answer:
        return []
    answer = texts.answer
    made = []
    for at, ((start, end), logprob) in enumerate(zip(rows.spans, rows.logprobs, strict=True)):
        said = f"log p {fixed(logprob, 3)}"
        if at < len(rows.alternatives):
            others = ", ".join(f"{token!r} {fixed(value, 2)}" for token, value in rows.alternatives[at])
            said = f"{said}; likeliest: {others}"
        made.append(TokenView(answer[start:end], said))
    return made

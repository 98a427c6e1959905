"""Two sets of rows compared: what of the inputs changed, whether answers got worse, and what could be seen.

All tests of a window are one family: Benjamini and Hochberg keep false alarms at the level. A difference of a
score is taken apart into mix and quality, which add up. Rows of unequal weight are thinned to equal ones
first: a stratified sample would else look like drift.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis import drift_tests as tests
from evalrun.analysis.correction import ALPHA, benjamini_hochberg
from evalrun.analysis.distributions import normal_quantile, t_quantile, t_tail
from evalrun.canonical import derived_seed
from evalrun.drift_results import (
    ColumnDrift,
    DriftResults,
    Estimated,
    Part,
    Role,
    ScoreDrift,
    Segment,
    TextDrift,
    Word,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_ROWS = 50
"""With fewer rows on a side nothing is said."""
FEW = 20
"""Numbers of at most so many values are classes."""
MOST_CLASSES = 50
TEXT_ROWS = 2_000
"""So many texts a side are looked at."""
SPEED = ("e2e_s", "ttft_s", "tpot_s", "cost_usd", "prompt_tokens", "completion_tokens")
ANSWER = ("output", "answer", "status", "finish_reason", "error", "refused")


@dataclass(frozen=True)
class Side:
    """One set of rows: columns by name, each of numbers (NaN: missing), of texts or None, or of vectors.

    `weights` are what rows stand for, `clusters` what belongs together (None or codes). `better` says for
    scores whether higher or lower is better.
    """

    name: str
    columns: Mapping[str, Any]
    rows: int
    weights: Floats | None = None
    clusters: Ints | None = None
    better: Mapping[str, str] = field(default_factory=dict)

    def thinned(self, seed: int) -> Side:
        """Rows of equal weight: each is kept with a chance in proportion to its weight."""
        weights = self.weights
        if weights is None or not len(weights) or float(weights.max()) <= float(weights.min()) * 1.001:
            return self
        keep = np.flatnonzero(np.random.default_rng(seed).random(self.rows) < weights / weights.max())
        columns = {name: _taken(values, keep) for name, values in self.columns.items()}
        clusters = None if self.clusters is None else self.clusters[keep]
        return replace(self, columns=columns, rows=len(keep), weights=None, clusters=clusters)


def _taken(values: Any, keep: Ints) -> Any:
    return values[keep] if isinstance(values, np.ndarray) else [values[at] for at in keep.tolist()]


@dataclass(frozen=True)
class Asked:
    """What is asked of a comparison: the level, the text that is tested, the column that segments, seeds."""

    alpha: float = ALPHA
    text: str = ""
    by: str = ""
    seed: int = 0
    confidence: str = ""
    """The column of confidences from which accuracy is estimated; empty: those that are called so."""


def drift(reference: Side, live: Side, asked: Asked | None = None) -> DriftResults:
    """Compare two sides column by column, by their texts, and by their scores."""
    asked = asked or Asked()
    notes = []
    for side in (reference, live):
        thin = side.thinned(asked.seed)
        if thin.rows < side.rows:
            notes.append(
                f"{side.name}: {side.rows:,} rows of unequal weight are {thin.rows:,} of equal weight"
            )
    before, after = reference.thinned(asked.seed), live.thinned(asked.seed)
    shared = [name for name in before.columns if name in after.columns]
    columns, texts = _tested(before, after, shared, asked)
    family: list[ColumnDrift | TextDrift] = [*columns, *texts]
    qs = benjamini_hochberg([each.p for each in family])
    decided = [
        replace(each, q=q, drift=None if q is None else q <= asked.alpha)
        for each, q in zip(family, qs, strict=True)
    ]
    columns = [each for each in decided if isinstance(each, ColumnDrift)]
    texts = [each for each in decided if isinstance(each, TextDrift)]
    found = DriftResults(
        reference=reference.name,
        live=live.name,
        n_reference=before.rows,
        n_live=after.rows,
        alpha=asked.alpha,
        columns=tuple(columns),
        texts=tuple(texts),
        scores=tuple(_scores(before, after, columns, asked)),
        only_reference=tuple(name for name in before.columns if name not in after.columns),
        only_live=tuple(name for name in after.columns if name not in before.columns),
        notes=tuple(notes),
        estimated=tuple(_estimated(before, after, asked)),
    )
    return _judged(found)


def _estimated(before: Side, after: Side, asked: Asked) -> Iterator[Estimated]:
    """What confidences say of the accuracy of rows whether or not they have labels."""
    from evalrun.analysis.cbpe import confidences, estimated_accuracy

    for name, right in confidences(before.columns, after.columns, asked.confidence):
        seed = derived_seed(asked.seed, "confidence", name)
        found = estimated_accuracy(before.columns[name], before.columns[right], after.columns[name], seed)
        if found.value is not None:
            known = float(np.nanmean(before.columns[right]))
            yield Estimated(
                right.removeprefix("score."), name, known, found.value, found.low, found.high, found.n,
                found.note,
            )  # fmt: skip


def _tested(
    before: Side, after: Side, shared: Sequence[str], asked: Asked
) -> tuple[list[ColumnDrift], list[TextDrift]]:
    columns: list[ColumnDrift] = []
    texts: list[TextDrift] = []
    wanted = [asked.text] if asked.text else _texts_of(before, after, shared)
    for name in shared:
        one, other = before.columns[name], after.columns[name]
        if name.startswith("score."):
            columns.append(_score_column(name, before, after, asked))
        elif _is_vectors(one) and _is_vectors(other):
            columns.append(_vectors(name, one, other, asked))
        elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            columns += _numbers(name, before, after, asked)
        elif not isinstance(one, np.ndarray) and not isinstance(other, np.ndarray):
            if name in wanted or _is_text(one) or _is_text(other):
                columns += _numbers(f"{name}.length", _lengths(before, name), _lengths(after, name), asked)
                if name in wanted:
                    texts.append(_text(name, one, other, asked))
            else:
                columns.append(_classes(name, before, after, asked))
    return columns, texts


def role_of(name: str) -> Role:
    """What a column is about."""
    head = name.removesuffix(".length").removesuffix(" missing")
    if head.startswith("score."):
        return "score"
    return "speed" if head in SPEED else "answer" if head in ANSWER else "input"


def _is_vectors(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 2


def _is_text(values: Sequence[str | None]) -> bool:
    """Whether a column is free text or ids: nearly every row has a value of its own."""
    known = [value for value in values if value is not None]
    return len(known) > 0 and len(set(known)) > max(MOST_CLASSES, 0.5 * len(known))


def _texts_of(before: Side, after: Side, shared: Sequence[str]) -> list[str]:
    """The text of the inputs, and that of the answers, as far as both sides have them as free text."""
    free = [
        name
        for name in shared
        if not isinstance(before.columns[name], np.ndarray)
        and not isinstance(after.columns[name], np.ndarray)
        and _is_text(before.columns[name])
    ]
    inputs = [name for name in free if role_of(name) == "input"]
    preferred = [name for name in ("text", "input", "question", "prompt", "message") if name in inputs]
    longest = sorted(inputs, key=lambda name: -sum(len(v or "") for v in before.columns[name][:200]))
    return [*(preferred or longest)[:1], *(name for name in free if name == "output")]


def _lengths(side: Side, name: str) -> Side:
    values = np.array([math.nan if v is None else len(v) for v in side.columns[name]], np.float64)
    return replace(side, columns={f"{name}.length": values})


def _effective(before: Side, after: Side, ranks: tuple[Floats, Floats], keep: tuple[Any, Any]) -> float:
    """One over the design effect, the mean of both sides'."""
    worth = []
    for side, values, kept in zip((before, after), ranks, keep, strict=True):
        if side.clusters is None:
            return 1.0
        worth.append(1 / tests.design_effect(values, side.clusters[kept]))
    return min(1.0, sum(worth) / 2)


def _too_few(column: ColumnDrift) -> ColumnDrift:
    few = min(column.n_reference, column.n_live) < LEAST_ROWS
    note = f"too few rows: fewer than {LEAST_ROWS} on a side" if few else column.note
    return replace(column, p=None, note=note) if few else column


def _numbers(name: str, before: Side, after: Side, asked: Asked) -> list[ColumnDrift]:
    """A column of numbers, and where values are missing how often."""
    one, other = before.columns[name], after.columns[name]
    keep = np.isfinite(one), np.isfinite(other)
    made = []
    if not (keep[0].all() and keep[1].all()):
        missing = [[None if k else "missing" for k in kept.tolist()] for kept in keep]
        sides = [
            replace(side, columns={f"{name} missing": ["present" if v is None else v for v in values]})
            for side, values in zip((before, after), missing, strict=True)
        ]
        made.append(_classes(f"{name} missing", sides[0], sides[1], asked))
    first, second = one[keep[0]], other[keep[1]]
    values = np.unique(np.concatenate([first, second]))
    if len(values) < 2:
        return made
    if len(values) <= FEW:
        texts = [[None if math.isnan(v) else f"{v:g}" for v in side.tolist()] for side in (one, other)]
        kept = [replace(s, columns={name: t}) for s, t in zip((before, after), texts, strict=True)]
        return [*made, _classes(name, kept[0], kept[1], asked, missing=False)]
    ordered = np.sort(np.concatenate([first, second]))
    ranks = tuple(np.searchsorted(ordered, side).astype(float) for side in (first, second))
    effective = _effective(before, after, (ranks[0], ranks[1]), keep)
    if not len(first) or not len(second):
        return made
    seed = derived_seed(asked.seed, "drift", name)
    test, p = tests.number_test(first, second, effective, seed)
    edges = tests.quantile_edges(first)
    shares = tests.psi_test(tests.binned(first, edges), tests.binned(second, edges), asked.alpha)
    shift, low, high = _median_shift(first, second)
    column = ColumnDrift(
        name, role_of(name), "number", test, p, None, shares.psi, "PSI", None, len(first), len(second),
        least=shares.least / effective,
        reference=f"median {np.median(first):.4g}",
        live=f"median {np.median(second):.4g}",
        moved=f"median {shift:+.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]"),
    )  # fmt: skip
    return [*made, _too_few(column)]


def _median_shift(first: Floats, second: Floats) -> tuple[float, float | None, float | None]:
    """The difference of medians with an interval made of both medians' (MOVER; Zou and Donner 2008)."""
    from evalrun.analysis.intervals import percentile

    one, other = percentile(np.sort(first), 0.5), percentile(np.sort(second), 0.5)
    shift = (other.value or 0.0) - (one.value or 0.0)
    if None in (one.low, one.high, other.low, other.high):
        return shift, None, None
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    below = math.hypot((other.value or 0.0) - other.low, one.high - (one.value or 0.0))
    above = math.hypot(other.high - (other.value or 0.0), (one.value or 0.0) - one.low)
    return shift, shift - below, shift + above


def _classes(name: str, before: Side, after: Side, asked: Asked, *, missing: bool = True) -> ColumnDrift:
    """A column of classes; a missing value is one of them, rare ones are one together."""
    sides = [side.columns[name] for side in (before, after)]
    if not missing:
        sides = [[value for value in side if value is not None] for side in sides]
    counted = [Counter("missing" if value is None else str(value) for value in side) for side in sides]
    both = counted[0] + counted[1]
    levels = [level for level, _ in sorted(both.items(), key=lambda item: (-item[1], item[0]))]
    kept, rest = levels[: MOST_CLASSES - 1], levels[MOST_CLASSES - 1 :]
    tables = [
        np.array(
            [float(side[level]) for level in kept] + ([float(sum(side[r] for r in rest))] if rest else [])
        )
        for side in counted
    ]
    effective = 1.0
    if before.clusters is not None and after.clusters is not None and missing:
        codes = {level: at for at, level in enumerate(kept)}
        coded = [np.array([codes.get(str(v), len(kept)) for v in side], float) for side in sides]
        every = (np.ones(before.rows, bool), np.ones(after.rows, bool))
        by_level = [
            _effective(before, after, ((coded[0] == at) * 1.0, (coded[1] == at) * 1.0), every)
            for at in range(min(len(kept), 12))
        ]
        effective = float(np.mean(by_level)) if by_level else 1.0
    test, p = tests.class_test(tables[0], tables[1], effective, derived_seed(asked.seed, "drift", name))
    shares = tests.psi_test(tables[0], tables[1], asked.alpha) if len(tables[0]) > 1 else None
    names = [*kept, *(["(others)"] if rest else [])]
    first, second = (table / max(1.0, table.sum()) for table in tables)
    at = int(np.argmax(np.abs(second - first)))
    column = ColumnDrift(
        name, role_of(name), "class", test, p, None, shares.psi if shares else 0.0, "PSI", None,
        len(sides[0]), len(sides[1]),
        least=None if shares is None else shares.least / effective,
        reference=f"{names[at]} {first[at]:.1%}", live=f"{names[at]} {second[at]:.1%}",
        moved=f"{names[at]} {second[at] - first[at]:+.1%}",
    )  # fmt: skip
    return _too_few(column)


def _vectors(name: str, one: Floats, other: Floats, asked: Asked) -> ColumnDrift:
    value, p = tests.mmd_test(one, other, derived_seed(asked.seed, "drift", name))
    return _too_few(
        ColumnDrift(
            name,
            role_of(name),
            "embedding",
            "MMD, permuted",
            p,
            None,
            value,
            "MMD squared",
            None,
            len(one),
            len(other),
        )
    )


def _score_column(name: str, before: Side, after: Side, asked: Asked) -> ColumnDrift:
    """The difference of means (Welch; clusters where there are any)."""
    from evalrun.analysis.intervals import mean

    found = []
    for side in (before, after):
        values = np.asarray(side.columns[name], np.float64)
        keep = np.isfinite(values)
        codes = None if side.clusters is None else np.unique(side.clusters[keep], return_inverse=True)[1]
        found.append((mean(values[keep], codes), values[keep]))
    (one, first), (other, second) = found
    n, m = len(first), len(second)
    empty = ColumnDrift(name, "score", "number", "Welch", None, None, None, "difference", None, n, m)
    if one.se is None or other.se is None or one.value is None or other.value is None:
        return _too_few(replace(empty, note="no spread to compare by"))
    difference, error = other.value - one.value, math.hypot(one.se, other.se)
    sizes = [one.clusters.count if one.clusters else n, other.clusters.count if other.clusters else m]
    if error == 0:
        p = 1.0 if difference == 0 else 0.0
        return _too_few(
            replace(empty, p=p, effect=difference, reference=f"{one.value:.4g}", live=f"{other.value:.4g}")
        )
    parts = [one.se**4 / max(1, sizes[0] - 1), other.se**4 / max(1, sizes[1] - 1)]
    df = max(1.0, error**4 / sum(parts))
    half = t_quantile(0.975, df) * error
    made = replace(
        empty, test="Welch" if one.clusters is None else "Welch, clusters",
        p=2 * t_tail(abs(difference) / error, df), effect=difference, ci_low=difference - half,
        ci_high=difference + half, reference=f"mean {one.value:.4g}", live=f"mean {other.value:.4g}",
        least=(normal_quantile(1 - asked.alpha / 2) + normal_quantile(tests.POWER)) * error,
        moved=f"mean {difference:+.4g} [{difference - half:.4g}, {difference + half:.4g}]",
    )  # fmt: skip
    return _too_few(made)


def _text(name: str, one: Sequence[str | None], other: Sequence[str | None], asked: Asked) -> TextDrift:
    rng = np.random.default_rng(derived_seed(asked.seed, "text", name))
    sides = []
    for side in (one, other):
        known = [value for value in side if value]
        picked = rng.choice(len(known), TEXT_ROWS, replace=False).tolist() if len(known) > TEXT_ROWS else None
        sides.append(known if picked is None else [known[at] for at in picked])
    first, second = sides
    empty = TextDrift(name, None, None, None, None, None, None, len(first), len(second))
    if min(len(first), len(second)) < LEAST_ROWS:
        return replace(empty, note=f"too few texts: fewer than {LEAST_ROWS} on a side")
    told = tests.classifier_test(first, second, derived_seed(asked.seed, "half", name) % 2**32)
    words = tuple(Word(*each) for each in tests.separating_words(first, second))
    if told is None:
        return replace(empty, words=words, note="too few different texts on one side")
    return replace(
        empty, auc=told.auc, ci_low=told.low, ci_high=told.high, p=told.p, least=told.least, words=words
    )


def _scores(before: Side, after: Side, columns: Sequence[ColumnDrift], asked: Asked) -> list[ScoreDrift]:
    """Each score's difference as mix and quality."""
    scores = [each for each in columns if each.role == "score" and each.effect is not None]
    if not scores:
        return []
    by, codes, names = _segments(before, after, columns, asked)
    made = []
    for column in scores:
        sides = []
        for side, of in zip((before, after), codes, strict=True):
            values = np.asarray(side.columns[column.column], np.float64)
            keep = np.isfinite(values)
            sides.append((values[keep], of[keep]))
        if not len(sides[0][0]) or not len(sides[1][0]):
            continue
        worth = [
            _cluster_factor(side, np.asarray(side.columns[column.column], np.float64))
            for side in (before, after)
        ]
        parts = [
            _part(value, error * math.sqrt(max(worth)))
            for value, error in tests.decompose(sides[0], sides[1], len(names))
        ]
        name = column.column.removeprefix("score.")
        one, other = (float(side[0].mean()) for side in sides)
        made.append(
            ScoreDrift(
                name,
                one,
                other,
                other - one,
                by,
                parts[0],
                parts[1],
                _segment_rows(sides, names),
                after.better.get(name, before.better.get(name, "higher")),
            )
        )
    return made


def _cluster_factor(side: Side, values: Floats) -> float:
    keep = np.isfinite(values)
    return 1.0 if side.clusters is None else tests.design_effect(values[keep], side.clusters[keep])


def _part(value: float, error: float) -> Part:
    half = normal_quantile(0.975) * error
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error > 0 else (1.0 if value == 0 else 0.0)
    return Part(value, value - half, value + half, p)


def _segment_rows(sides: Sequence[tuple[Floats, Ints]], names: Sequence[str]) -> tuple[Segment, ...]:
    rows = []
    for at, name in enumerate(names):
        share, score = [], []
        for values, codes in sides:
            inside = values[codes == at]
            share.append(len(inside) / len(values))
            score.append(float(inside.mean()) if len(inside) else None)
        if any(share):
            rows.append(Segment(name, share[0], share[1], score[0], score[1]))
    return tuple(sorted(rows, key=lambda row: -max(row.share_reference, row.share_live)))


def _segments(
    before: Side, after: Side, columns: Sequence[ColumnDrift], asked: Asked
) -> tuple[str, list[Ints], list[str]]:
    """Codes of segments on both sides: of the column that is named, else of the input that moved most."""
    inputs = [
        each for each in columns if each.role == "input" and each.p is not None and each.kind != "embedding"
    ]
    by = asked.by or next((each.column for each in sorted(inputs, key=lambda each: each.p or 0.0)), "")
    lengths = by.endswith(".length") and by not in before.columns
    sources: list[Any] = [
        _lengths(side, by.removesuffix(".length")).columns[by] if lengths else side.columns.get(by)
        for side in (before, after)
    ]
    if not by or any(source is None for source in sources):
        return "", [np.zeros(before.rows, np.int64), np.zeros(after.rows, np.int64)], ["all rows"]
    if all(isinstance(source, np.ndarray) for source in sources):
        known = sources[0][np.isfinite(sources[0])]
        edges = tests.quantile_edges(known, 5) if len(known) else np.empty(0)
        coded = [
            np.where(
                np.isfinite(s), np.searchsorted(edges, np.nan_to_num(s), side="right"), len(edges) + 1
            ).astype(np.int64)
            for s in sources
        ]
        bounds = [f"{edge:.4g}" for edge in edges]
        names = [f"{by} < {bounds[0]}"] if bounds else [by]
        names += [f"{low} to {high}" for low, high in pairwise(bounds)]
        names += [f"{by} >= {bounds[-1]}"] if bounds else []
        return by, coded, [*names, "missing"]
    texts = [["missing" if value is None else str(value) for value in source] for source in sources]
    common = [level for level, _ in Counter(texts[0] + texts[1]).most_common(FEW)]
    place = {level: at for at, level in enumerate(common)}
    names = [*common, *(["(others)"] * (FEW + 1 - len(common)))]
    return by, [np.array([place.get(v, FEW) for v in side], np.int64) for side in texts], names


def _judged(found: DriftResults) -> DriftResults:
    """With what it comes to, in words."""
    tested = [each for each in found.tested if each.drift is not None]
    inputs = [each for each in tested if _role(each) == "input"]
    answers = [each for each in tested if _role(each) == "answer"]
    changed = any(each.drift for each in inputs) if inputs else None
    other = any(each.drift for each in answers) if answers else None
    scores = [
        score
        for score in found.scores
        if any(c.column == f"score.{score.score}" and c.drift is not None for c in found.columns)
    ]
    worse = [score for score in scores if _is_worse(score, found.alpha / max(1, len(scores)))]
    said = [_input_sentence(inputs, changed, found), _answer_sentence(scores, worse)]
    if other:
        named = [each.column for each in answers if each.drift]
        said.append(f"Answers changed in {', '.join(named[:5])}.")
    return replace(
        found, inputs_changed=changed, answers_changed=other, answers_worse=bool(worse) if scores else None,
        sentences=tuple(sentence for sentence in said if sentence),
    )  # fmt: skip


def _role(each: ColumnDrift | TextDrift) -> Role:
    return each.role if isinstance(each, ColumnDrift) else role_of(each.column)


def _is_worse(score: ScoreDrift, alpha: float) -> bool:
    down = score.quality.value < 0 if score.direction != "lower" else score.quality.value > 0
    return down and score.quality.p <= alpha


def _input_sentence(
    inputs: Sequence[ColumnDrift | TextDrift], changed: bool | None, found: DriftResults
) -> str:
    if changed is None:
        return "Whether inputs changed cannot be said: too few rows, or no column of inputs in common."
    if not changed:
        return f"No change of the inputs is shown in {len(inputs)} tests."
    moved = sorted((each for each in inputs if each.drift), key=lambda each: each.q or 0.0)
    told = [
        f"{each.column} ({each.moved})"
        if isinstance(each, ColumnDrift)
        else f"{each.column} (text, AUC {each.auc:.2f})"
        for each in moved[:4]
    ]
    return f"Inputs changed in {len(moved)} of {len(inputs)} tests: {', '.join(told)}."


def _answer_sentence(scores: Sequence[ScoreDrift], worse: Sequence[ScoreDrift]) -> str:
    if not scores:
        return "Whether answers got worse cannot be said: no score in common, or too few rows."
    if not worse:
        score = scores[0]
        bound = score.quality.ci_low if score.direction != "lower" else score.quality.ci_high
        return (
            f"Answers are not shown to be worse: {score.score} {score.quality.value:+.3f} for alike rows "
            f"(at worst {bound:+.3f})."
        )
    told = [
        f"{s.score} {s.reference:.3f} to {s.live:.3f}: {s.quality.value:+.3f} "
        f"[{s.quality.ci_low:+.3f}, {s.quality.ci_high:+.3f}] for alike rows, {s.mix.value:+.3f} by the mix"
        for s in worse[:3]
    ]
    return f"Answers got worse: {'; '.join(told)}."

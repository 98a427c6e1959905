"""The levels of load of one model, prompt and dataset together: what it bears, and whether it stays right.

Capacity is an answer to a promise: the greatest level at which the share of requests that keep it is at least
the one that is wanted. Scores of a level are held against a reference level (one request in flight) on the
samples that both answered; the reference is run twice, and what differs between its two runs is noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.correction import ALPHA, corrected
from evalrun.analysis.intervals import wilson
from evalrun.analysis.knee import knee
from evalrun.analysis.measures import Measure, RunSamples, joined, seed_of
from evalrun.analysis.paired import agreeing, paired_difference
from evalrun.analysis.verdict import verdict
from evalrun.canonical import canonical_json
from evalrun.results import Estimate, LoadProbe, RunLoad
from evalrun.sweep_results import LoadCurve, LoadPoint, Primary, QualityAtLoad, RateAtLoad
from evalrun.tracking.parquet import reading

Floats = NDArray[np.float64]

ATTAIN = 0.95
"""The share of requests that must keep the promise, where the suite does not say."""
HALF = 0.5
"""A score from which on an answer counts as right where flips are counted."""


def load_curves(
    runs: Sequence[RunSamples], measure: Measure, primary: Primary, attain: float | None
) -> tuple[LoadCurve, ...]:
    """A curve for every model, prompt, dataset and parameters that were put under load."""
    groups: dict[tuple[Any, ...], list[RunSamples]] = {}
    for run in runs:
        if run.run.details.load is not None:
            rest = {name: value for name, value in run.run.params.items() if name != "load"}
            groups.setdefault(
                (run.run.model, run.run.prompt, run.run.dataset, canonical_json(rest)), []
            ).append(run)
    return tuple(
        _curve(group, measure, primary, ATTAIN if attain is None else attain) for group in groups.values()
    )


def _load(run: RunSamples) -> RunLoad:
    assert run.run.details.load is not None
    return run.run.details.load


def _order(run: RunSamples) -> tuple[bool, float]:
    load = _load(run)
    return load.open_loop, float(load.concurrency or load.rate or 0)


def _curve(runs: Sequence[RunSamples], measure: Measure, primary: Primary, attain: float) -> LoadCurve:
    if (search := next((run for run in runs if _load(run).role == "search"), None)) is not None:
        return _searched(search, measure)
    reference = next((run for run in runs if _load(run).role == "reference"), None)
    again = next((run for run in runs if _load(run).role == "again"), None)
    ordered = sorted((run for run in runs if _load(run).role != "again"), key=_order)
    if any(_load(run).open_loop for run in ordered):  # the reference of an open loop is no level of its curve
        ordered = [run for run in ordered if _load(run).open_loop]
    quality = _quality(ordered, reference, again, measure, primary)
    points = tuple(_point(run, measure, quality.get(run.run.run)) for run in ordered)
    first, own = runs[0].run, reference.run if reference is not None else None
    curve = LoadCurve(
        model=first.model,
        prompt=first.prompt,
        dataset=first.dataset,
        params={name: value for name, value in first.params.items() if name != "load"},
        metric=measure.name,
        unit=measure.unit,
        direction=measure.direction,
        slo=_load(ordered[0]).slo,
        attain=attain,
        points=points,
        reference=own.run if own is not None else "",
        again=again.run.run if again is not None else "",
        reference_score=_score(reference, measure) if reference is not None else Estimate(None, 0),
    )
    capacity, how = _capacity(points, attain) if curve.slo else (None, "")
    curve = replace(
        curve,
        capacity=None if capacity is None else points[capacity].words,
        certainty=how,
        knee=_knee(points),
    )
    promise = f" (promise: {', '.join(curve.slo)} for {attain:.0%} of requests)" if curve.slo else ""
    return replace(curve, sentence=_sentence(curve, capacity) + promise)


def _searched(run: RunSamples, measure: Measure) -> LoadCurve:
    """What a search found. Its probes are the points; that many levels were looked at, so that scores are not
    compared between them."""
    load, first = _load(run), run.run
    attain = ATTAIN if load.attain is None else load.attain
    held = next((probe for probe in reversed(load.probes) if probe.confirms), None)
    # What was held once more was not ended when it did well: that is the figure of its level.
    by_level = {(point := _probed(first.run, probe)).size: point for probe in load.probes}
    points = tuple(by_level[size] for size in sorted(by_level))
    passed = [point for point in points if point.verdict == "pass"]
    best = passed[-1] if passed else None
    if held is not None:
        best = by_level[_probed(first.run, held).size]
    told, certainty = _found(points, best, held, attain)
    requests = sum(probe.n for probe in load.probes)
    return LoadCurve(
        first.model, first.prompt, first.dataset,
        {name: value for name, value in first.params.items() if name != "load"},
        measure.name, measure.unit, measure.direction, load.slo, attain, points,
        capacity=None if best is None or certainty == "not confirmed" else best.words, certainty=certainty,
        sentence=f"{told} ({len(points)} probes, {requests:,} requests)",
    )  # fmt: skip


def _probed(run: str, probe: LoadProbe) -> LoadPoint:
    """A probe of a search as a point of its curve."""
    open_loop = probe.concurrency is None
    words = f"{probe.rate:.12g}/s arriving" if open_loop else f"{probe.concurrency} at once"
    return LoadPoint(
        run=run, level=f"{probe.rate:.12g}/s" if open_loop else probe.concurrency, words=words,
        open_loop=open_loop, concurrency=probe.concurrency, rate=probe.rate, n=probe.n,
        attainment=wilson(probe.kept, probe.n), verdict=probe.decision,
    )  # fmt: skip


def _found(
    points: Sequence[LoadPoint], best: LoadPoint | None, held: LoadProbe | None, attain: float
) -> tuple[str, str]:
    """What a search comes to, in words, and how certain that is."""
    above = [point for point in points if best is None or point.size > best.size]
    certainty = "" if best is None else "certified"
    if best is None:
        told = "was not seen to keep the promise at any level that was probed"
    else:
        told = f"bears {best.spoken} within the promise"
    if best is not None and held is not None:
        share, seconds = wilson(held.kept, held.n), held.end_s - held.start_s
        again = f"{share.value or 0:.1%} of {held.n:,} requests kept it in {seconds:.0f} s more"
        if share.low is not None and share.low >= attain:
            told += f" (confirmed: {again})"
        elif share.high is not None and share.high >= attain:
            certainty = "estimated"
            told += f" (estimated: {again})"
        else:
            certainty = "not confirmed"
            told = f"seemed to bear {best.spoken} within the promise, but {again}: not confirmed"
    failed = next((point for point in above if (point.attainment.value or 0.0) < attain), None)
    if failed is not None:
        missed = 1 - (failed.attainment.value or 0.0)
        told += f"; with {failed.spoken}, {missed:.0%} of answers come late or not at all"
    elif best is not None and not above:
        told += ", the highest level that was probed"
    if unsure := [p.spoken for p in above if p.verdict == "undecided" and p is not failed]:
        told += f"; undecided at {_list(unsure)}"
    return told, certainty


def _score(run: RunSamples, measure: Measure) -> Estimate:
    found = run.run.metric(measure.name)
    if found is None:
        return Estimate(None, 0)
    return Estimate(found.value, found.n, found.se, found.ci_low, found.ci_high, found.method)


def _point(run: RunSamples, measure: Measure, quality: QualityAtLoad | None) -> LoadPoint:
    load = _load(run)

    def figure(name: str) -> Estimate:
        found = run.run.metric(f"performance.{name}")
        if found is None:
            return Estimate(None, 0)
        return Estimate(found.value, found.n, found.se, found.ci_low, found.ci_high, found.method, found.note)

    counts = run.run.counts
    return LoadPoint(
        run=run.run.run,
        level=load.level,
        words=load.words,
        open_loop=load.open_loop,
        concurrency=load.concurrency,
        rate=load.rate,
        n=load.requests,
        failed=counts.failed,
        offered_rps=figure("offered_rps"),
        requests_per_s=figure("requests_per_s"),
        output_tokens_per_s=figure("output_tokens_per_s"),
        response_p50_s=figure("response_s.p50" if load.open_loop else "e2e_s.p50"),
        response_p95_s=figure("response_s.p95" if load.open_loop else "e2e_s.p95"),
        attainment=figure("attainment"),
        goodput_rps=figure("goodput_rps"),
        goodput_right_rps=figure("goodput_right_rps"),
        score=_score(run, measure),
        verdict=load.verdict,
        banners=load.banners,
        quality=quality,
        in_time=load.in_time,
        late=load.late,
    )


def _knee(points: Sequence[LoadPoint]) -> float | None:
    """Where throughput stops rising, over the levels that have one."""
    rates = [(point.size, point.requests_per_s.value) for point in points]
    known = [(size, rate) for size, rate in rates if size and rate is not None]
    return knee([size for size, _ in known], [rate for _, rate in known])


def _capacity(points: Sequence[LoadPoint], attain: float) -> tuple[int | None, str]:
    """The greatest level that keeps the promise often enough, and whether its lower bound does too."""
    for at in range(len(points) - 1, -1, -1):
        share = points[at].attainment
        if share.value is not None and share.value >= attain and points[at].verdict != "growing":
            sure = share.low is not None and share.low >= attain
            return at, "certified" if sure else "estimated"
    return None, ""


@dataclass(frozen=True, slots=True)
class _Answers:
    """The first answer to each sample, by its id: a hash of its text, and how it ended."""

    text: dict[str, bytes]
    score: dict[str, float]
    ended: dict[str, str]
    tokens: dict[str, float]


def _answers(run: RunSamples, score: str | None) -> _Answers:
    path = run.folder.samples_path(run.run.run)
    found = _Answers({}, {}, {}, {})
    with reading(path) as file:
        column = f"score.{score}"
        names = ["sample_id", "repeat", "status", "output", "finish_reason", "completion_tokens"]
        names += [column] if column in file.schema_arrow.names else []
        for batch in file.iter_batches(batch_size=4_096, columns=names, use_threads=False):
            for row in batch.to_pylist():
                if row["repeat"]:
                    continue
                own = row["sample_id"]
                ended = row["status"]
                if ended == "scored" and row["finish_reason"] == "length":
                    ended = "truncated"
                found.ended[own] = ended
                if row["status"] != "failed":
                    text = (row["output"] or "").encode("utf-8", "surrogatepass")
                    found.text[own] = blake2b(text, digest_size=8).digest()
                    if row["completion_tokens"] is not None:
                        found.tokens[own] = row["completion_tokens"]
                if row.get(column) is not None:
                    found.score[own] = row[column]
    return found


def _quality(
    levels: Sequence[RunSamples],
    reference: RunSamples | None,
    again: RunSamples | None,
    measure: Measure,
    primary: Primary,
) -> dict[str, QualityAtLoad]:
    """Every level against the reference, p values corrected over the levels (Holm)."""
    others = [run for run in levels if run is not reference and run.has_samples]
    if reference is None or not reference.has_samples or not others:
        return {}
    base = _answers(reference, primary.score)
    noise = _answers(again, primary.score) if again is not None and again.has_samples else None
    seed = seed_of(measure, reference.seed)
    made = [_against(run, reference, base, noise, measure, primary, seed) for run in others]
    out: list[QualityAtLoad] = []
    ps = corrected([each.difference.p for each in made], "holm")
    excess = corrected([None if each.excess is None else each.excess.p for each in made], "holm")
    rates = corrected([rate.difference.p for each in made for rate in each.rates], "holm")
    left = iter(rates)
    tests = sum(p is not None for p in ps)
    for each, p, more in zip(made, ps, excess, strict=True):
        result = agreeing(each.difference, p, tests)
        word = verdict(result, measure.direction, measure.unit, p=p)
        of_rates = tuple(replace(rate, p_corrected=next(left)) for rate in each.rates)
        out.append(
            replace(each, difference=result, p_corrected=p, verdict=word, excess_p=more, rates=of_rates)
        )
    return {run.run.run: each for run, each in zip(others, out, strict=True)}


def _against(
    run: RunSamples,
    reference: RunSamples,
    base: _Answers,
    noise: _Answers | None,
    measure: Measure,
    primary: Primary,
    seed: int,
) -> QualityAtLoad:
    data = joined([reference, run], measure)
    difference = paired_difference(
        data.values[:, 0], data.values[:, 1], data.clusters, seed=seed, alpha=ALPHA
    )
    own = _answers(run, primary.score)
    changed, of = _changed(base, own)
    differing = {x for x in base.text if x in own.text and base.text[x] != own.text[x]}
    scored = [each for each in base.score if each in own.score]
    before = np.array([base.score[each] >= HALF for each in scored], bool)
    after = np.array([own.score[each] >= HALF for each in scored], bool)
    excess, noisy = None, None
    if noise is not None:
        shared = [each for each in scored if each in noise.score]
        own_flips = np.array([(base.score[x] >= HALF) != (own.score[x] >= HALF) for x in shared], float)
        aa_flips = np.array([(base.score[x] >= HALF) != (noise.score[x] >= HALF) for x in shared], float)
        excess = paired_difference(aa_flips, own_flips, seed=seed, alpha=ALPHA)
        noisy = wilson(*_changed(base, noise))
    both = [each for each in base.tokens if each in own.tokens and base.tokens[each] > 0]
    ratio = float(np.median([own.tokens[each] / base.tokens[each] for each in both])) if both else None
    return QualityAtLoad(
        against=reference.run.run,
        n=difference.n,
        difference=difference,
        lost=int((before & ~after).sum()),
        gained=int((~before & after).sum()),
        changed=wilson(changed, of),
        changed_by_noise=noisy,
        excess=excess,
        rates=tuple(_rate(what, base, own, seed) for what in ("truncated", "unparsed", "refused", "failed")),
        tokens_ratio=ratio,
        changed_at=_changed_at(reference, run, differing) if differing else None,
    )


def _changed(one: _Answers, other: _Answers) -> tuple[int, int]:
    """How many texts differ, of those that both have."""
    shared = [each for each in one.text if each in other.text]
    return sum(one.text[each] != other.text[each] for each in shared), len(shared)


def _changed_at(reference: RunSamples, run: RunSamples, samples: Set[str]) -> float | None:
    """The median of the characters at which texts first differ, counted from 0."""
    before, after = (_texts(each, samples) for each in (reference, run))
    pairs = [(before[own], after[own]) for own in samples if own in before and own in after]
    places = [
        next((at for at, (a, b) in enumerate(zip_longest(*pair)) if a != b), len(pair[0])) for pair in pairs
    ]
    return float(np.median(places)) if places else None


def _texts(run: RunSamples, samples: Set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    with reading(run.folder.samples_path(run.run.run)) as file:
        names = ["sample_id", "repeat", "output"]
        for batch in file.iter_batches(batch_size=4_096, columns=names, use_threads=False):
            for row in batch.to_pylist():
                if not row["repeat"] and row["sample_id"] in samples:
                    found[row["sample_id"]] = row["output"] or ""
    return found


def _rate(what: str, base: _Answers, own: _Answers, seed: int) -> RateAtLoad:
    """How often samples ended so, at the reference and at the level, over those that both asked."""
    shared = [each for each in base.ended if each in own.ended]
    before = np.array([base.ended[each] == what for each in shared], float)
    after = np.array([own.ended[each] == what for each in shared], float)
    result = paired_difference(before, after, seed=seed, alpha=ALPHA)
    return RateAtLoad(what, int(before.sum()), int(after.sum()), len(shared), result)


def _sentence(curve: LoadCurve, capacity: int | None) -> str:
    """What it bears, in one sentence."""
    points = curve.points
    parts = [_borne(curve, capacity)]
    if growing := [point.spoken for point in points if point.verdict == "growing"]:
        parts.append(f"its queue grows at {_list(growing)}")
    if curve.knee is not None:
        unit = "requests/s" if points[-1].concurrency is None else "requests in flight"
        parts.append(f"throughput stops rising at about {curve.knee:.2g} {unit}")
    parts.append(_right(curve))
    return "; ".join(part for part in parts if part)


def _borne(curve: LoadCurve, capacity: int | None) -> str:
    points = curve.points
    if not curve.slo:
        best = max(points, key=lambda point: point.requests_per_s.value or 0.0)
        if best.requests_per_s.value is None:
            return "no promise (load.slo) was made, so what it bears is not told"
        return (
            f"answers {best.requests_per_s.value:.3g} requests/s at most, at {best.spoken} (no promise, "
            "load.slo,"
            " was made)"
        )
    if capacity is None:
        worst = points[0]
        late = 1 - (worst.attainment.value or 0.0)
        return (
            f"does not keep the promise even at {worst.spoken}: {late:.0%} of answers come late or not at all"
        )
    sure = (
        ""
        if curve.certainty == "certified"
        else f" (estimated: {points[capacity].n} requests cannot be sure)"
    )
    told = f"bears {points[capacity].spoken} within the promise{sure}"
    above = points[capacity + 1 :]
    if not above:
        return f"{told}, the highest level that was tried"
    shares = sorted(1 - (point.attainment.value or 0.0) for point in above)
    span = f"{shares[0]:.0%}" if len(shares) == 1 else f"{shares[0]:.0%} to {shares[-1]:.0%}"
    return f"{told}; above, {span} of answers come late or not at all"


def _right(curve: LoadCurve) -> str:
    """Whether answers stay right."""
    tested = [(point, point.quality) for point in curve.points if point.quality is not None]
    if not tested:
        return ""
    worse = [point for point, quality in tested if quality.verdict and quality.verdict.word == "worse"]
    if worse:
        values = ", ".join(
            f"{point.score.value:.3g} at {point.spoken}" for point in worse if point.score.value is not None
        )
        whole = curve.reference_score.value
        with_one = "" if whole is None else f" against {whole:.3g} at the reference"
        return f"answers get worse under load: {curve.metric} {values}{with_one}"
    seen = [quality.difference.mde for _, quality in tested if quality.difference.mde]
    limit = f" (a difference of {max(seen):.2g} or more would mostly be seen)" if seen else ""
    return f"none are seen to get worse{limit}"


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def attain_of(suite: Mapping[str, Any]) -> float | None:
    """The share of requests that must keep the promise, as a suite says it."""
    load = suite.get("load")
    search = load.get("search") if isinstance(load, Mapping) else None
    value = search.get("attain") if isinstance(search, Mapping) else None
    return float(value) if isinstance(value, int | float) else None

"""The answer in words: which run is best, what it cannot be told apart from, how fast it is, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from evalrun.reports import numbers
from evalrun.reports.advice import ALIKE, FEW_SAMPLES, advice, median, said, timed, unequal
from evalrun.reports.charts.groups import gap_of
from evalrun.reports.judgewords import doubt
from evalrun.reports.numbers import count, fixed, listing, plural, ratio, seconds, size
from evalrun.reports.runs import Primary
from evalrun.reports.standings import E2E, MEMORY, TOKENS, TTFT, equal
from evalrun.reports.view import Answer, Fact, Figure, Phrase, RunView, Sentence
from evalrun.reports.visible import visible

MANY_FAILED = 0.02
NAMED = 4
NAMED_LONG = 3
"""So many runs are named in a sentence, fewer where their names are long; the rest are counted."""


ALL_WRONG = (
    "Every answer was scored 0. Read some samples: a parser or a target that does not fit is a "
    "commoner reason than a model that is never right."
)
CHECK_THE_JUDGE = "Choose nothing by these grades before the judge has been checked."
ALL_WORST = (
    "The judge gave every answer the lowest grade. Read some samples and what it wrote of them: a rubric "
    "that asks for something else, or a judge too weak to tell, is a commoner reason than a model that is "
    "never right."
)


def answer(
    dataset: str,
    runs: Sequence[RunView],
    primary: Primary | None,
    *,
    named: bool,
    failed_gates: Mapping[str, Sequence[str]] = MappingProxyType({}),
    causes: Sequence[str] = (),
) -> Answer:
    """What the ranked runs of one dataset say. `named` puts the dataset's name into the verdict.

    `failed_gates` are the gates that runs (by id) did not pass: what is recommended must own up to them.
    `causes` are the kinds of failures of all runs, the commonest first.
    """
    where = f" on {dataset}" if named else ""
    best = runs[0] if runs and (runs[0].standing == "best" or equal(runs)) else None
    if best is None or best.primary is None or primary is None:
        return Answer(dataset, _no_verdict(runs, primary, where, causes), [], [], [], [], [], runs)
    more = [_speed(best, runs)]
    doubted = doubt(best, primary.score) if primary.judged and primary.score else ""
    warning = [f"The score is given by a judge: {doubted}."] if doubted else []
    return Answer(
        dataset=dataset,
        verdict=_verdict(best, runs, primary, where),
        more=[sentence for sentence in more if sentence],
        advice=[Phrase(CHECK_THE_JUDGE)] if doubted else advice(best, runs),
        unequal=unequal(best),
        cautions=[*warning, *_gate_cautions(best, runs, failed_gates), *_cautions(best, runs, primary)],
        facts=[] if equal(runs) else _facts(best),
        runs=runs,
    )


def _runs(runs: Sequence[RunView]) -> list[Phrase]:
    """`a`, `b` and `c`; where there are more (or their names are long) the first ones and how many more."""
    named = NAMED if all(len(run.parts) == 1 for run in runs) else NAMED_LONG
    shown = list(runs) if len(runs) <= named else list(runs[: named - 1])
    rest = len(runs) - len(shown)
    phrases: list[Phrase] = []
    for at, run in enumerate(shown):
        last = at == len(shown) - 1 and not rest
        if at:
            phrases.append(Phrase(" and " if last else ", "))
        phrases.append(said(run))
    return [*phrases, Phrase(f" and {rest} more")] if rest else phrases


def _measured(figure: Figure) -> str:
    return f"{figure.text} {figure.interval}".strip()


def _no_verdict(
    runs: Sequence[RunView], primary: Primary | None, where: str, causes: Sequence[str]
) -> Sentence:
    if not runs:
        return [Phrase(f"No run{where} has results yet.")]
    samples = sum(run.counts.samples for run in runs)
    failed = sum(run.counts.failed for run in runs)
    if samples and failed == samples:
        why = f", most often by {visible(causes[0])}" if causes else ""
        return [Phrase(f"No answer{where} could be scored: all {plural(samples, 'request')} failed{why}.")]
    if primary is None:
        return [Phrase(f"There is no score{where} to rank the runs by.")]
    return [Phrase(f"No run{where} has a value for {primary.metric}: there is nothing to rank.")]


def _verdict(best: RunView, runs: Sequence[RunView], primary: Primary, where: str) -> Sentence:
    assert best.primary is not None
    figure = Phrase(_measured(best.primary), "value")
    metric = Phrase(f" {primary.metric} ")
    size_of = Phrase(f"(n = {count(best.primary.n)})", "whole")
    others = [run for run in runs[1:] if run.primary is not None and run.primary.value is not None]
    if not others:
        lead = "is the only run" if len(runs) == 1 else "is the only run with a score"
        return [said(best), Phrase(f" {lead}{where}: "), figure, metric, size_of, Phrase(".")]
    tied = [run for run in others if run.standing == "tied"]
    behind = [run for run in others if run.standing == "behind"]
    if equal(runs):
        every = "Both" if len(runs) == 2 else f"All {len(runs)}"
        return [
            Phrase(f"{every} runs score the same{where}: "), figure, metric, size_of,
            Phrase(". By quality there is nothing to choose."),
        ]  # fmt: skip
    lead = "is best" if behind and not tied else "scores highest"
    if best.primary.direction == "lower" and tied:
        lead = "scores lowest, which is best"
    sentence = [said(best), Phrase(f" {lead}{where}: "), figure, metric, size_of]
    if tied:
        return [*sentence, Phrase("; not distinguishable from "), *_runs(tied), Phrase(".")]
    if len(behind) == len(others):
        return [*sentence, Phrase(", ahead of " + ("every other run." if len(others) > 1 else "")),
                *([said(others[0]), Phrase(".")] if len(others) == 1 else [])]  # fmt: skip
    return [*sentence, Phrase(".")]


def _speed(best: RunView, runs: Sequence[RunView]) -> Sentence:
    """How its median end-to-end time stands against the fastest (or, if it is the fastest, the next) run."""
    own = best.value(E2E)
    others = [run for run in timed(runs) if run is not best]
    if not own or not others:
        return []
    if equal(runs):
        return _fastest(runs)
    other = min(others, key=lambda run: run.value(E2E) or 0.0)
    theirs = other.value(E2E) or own
    against = f": {seconds(own)} against {seconds(theirs)} (median, end to end)."
    slow, fast = max(own, theirs), min(own, theirs)
    if slow / fast < ALIKE:
        return [Phrase("It is as fast as "), said(other), Phrase(against)]
    if own > theirs:
        fastest = ", the fastest" if len(others) > 1 else ""
        return [
            Phrase(f"It is {ratio(own, theirs)} slower than "), said(other), Phrase(f"{fastest}{against}"),
        ]  # fmt: skip
    last = "the next fastest, " if len(others) > 1 else ""
    return [Phrase(f"It is also {ratio(theirs, own)} faster than {last}"), said(other), Phrase(against)]


def _fastest(runs: Sequence[RunView]) -> Sentence:
    """Which of several equally good runs is the fastest, if they differ in that."""
    quick, slow = min(timed(runs), key=median), max(timed(runs), key=median)
    if median(slow) / median(quick) < ALIKE:
        return []
    pace = f": {seconds(median(quick))} against {seconds(median(slow))} (median, end to end)."
    lead = f" is the fastest, {ratio(median(slow), median(quick))} faster than "
    return [said(quick), Phrase(lead), said(slow), Phrase(pace)]


def _gate_cautions(
    best: RunView, runs: Sequence[RunView], failed_gates: Mapping[str, Sequence[str]]
) -> list[str]:
    """The gates that the best run, or one that cannot be told apart from it, does not pass."""
    leading = [best, *(run for run in runs[1:] if run.standing == "tied")]
    return [
        f"{run.spoken} does not pass {listing(failed_gates[run.run][:NAMED])}."
        for run in leading[:NAMED]
        if failed_gates.get(run.run)
    ]


def _cautions(best: RunView, runs: Sequence[RunView], primary: Primary) -> list[str]:
    found = []
    assert best.primary is not None
    if best.primary.n < FEW_SAMPLES:
        found.append(f"n = {best.primary.n} is small: an interval from so few samples says little.")
    unseen = [run.difference.detectable for run in runs if run.standing == "tied" and run.difference]
    known = [value for value in unseen if value]
    if known:
        found.append(
            f"With these samples a true difference below about {fixed(max(known), 2)} would often go unseen."
        )
    if _all_wrong(runs):
        found.append(ALL_WORST if primary.judged else ALL_WRONG)
    if not primary.exact and any(run.difference for run in runs):
        found.append(
            f"{primary.metric} has no value for a single sample; runs are told apart by the score "
            f"{primary.score} of each sample."
        )
    return found + _failures(runs) + _client(runs)


def _all_wrong(runs: Sequence[RunView]) -> bool:
    figures = [run.primary for run in runs if run.primary is not None and run.primary.value is not None]
    return all(f.value == 0 and f.direction == "higher" and f.unit == "fraction" for f in figures)


def _failures(runs: Sequence[RunView]) -> list[str]:
    many = [run for run in runs if run.counts.failed > MANY_FAILED * max(1, run.counts.samples)]
    if not many:
        return []
    shown = [f"{run.label} ({run.counts.failed} of {run.counts.samples})" for run in many[:NAMED]]
    rest = [f"{len(many) - NAMED} more"] if len(many) > NAMED else []
    return [f"Requests failed and are left out of n: {listing(shown + rest)}."]


def _client(runs: Sequence[RunView]) -> list[str]:
    limited = [run.label for run in runs if client_limited(run)]
    if not limited:
        return []
    return [
        f"evalrun itself may have slowed these runs, so their latencies are too high: {listing(limited)}."
    ]


def client_limited(run: RunView) -> bool:
    """Whether the run's own figures say that evalrun was the bottleneck."""
    return bool(run.details.get("client_limited"))


def _facts(best: RunView) -> list[Fact]:
    """The best run's few figures: quality, speed, memory, fairness, as far as they are there."""
    assert best.primary is not None
    facts = [Fact(best.primary.name, best.primary.text, best.primary.interval, "leaderboard")]
    e2e, ttft = best.figure(E2E), best.figure(TTFT)
    if e2e is not None and e2e.value is not None:
        beside = f"first token {seconds(ttft.value)}" if ttft and ttft.value else e2e.interval
        facts.append(Fact("median time per answer", e2e.text, beside, "speed"))
    tokens = best.value(TOKENS)
    if tokens is not None:
        facts.append(Fact("output rate", f"{numbers.significant(tokens)} tokens/s", "", "speed"))
    memory = best.value(MEMORY)
    if memory is not None:
        facts.append(Fact("engine memory, peak", size(memory), "", "resources"))
    return facts + _gap(best, best.primary.name)


def _gap(best: RunView, metric: str) -> list[Fact]:
    """The widest gap between groups, beside what chance alone gives."""
    columns = best.details.get("groups") or {}
    found = {column: gap for column in columns if (gap := gap_of(best, column, metric))}
    if not found:
        return []
    # Widest beside what chance gives: of many small groups some gap is always wide.
    column = max(found, key=lambda name: found[name]["value"] - (found[name].get("chance_gap_p95") or 0))
    gap = found[column]
    beside = (
        f"by chance up to {fixed(gap['chance_gap_p95'])}" if gap.get("chance_gap_p95") is not None else ""
    )
    return [Fact(f"gap by {visible(column)}", fixed(gap["value"]), beside, "fairness")]

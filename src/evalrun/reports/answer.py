"""The answer in words: which run is best, what it is tied with, how fast it is, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from evalrun.reports import numbers
from evalrun.reports.advice import ALIKE, advice, median, said, several, timed, unlike_loads
from evalrun.reports.cautions import NAMED, cautions, reached, unequal
from evalrun.reports.charts.groups import gap_of
from evalrun.reports.judges import doubt
from evalrun.reports.leaderboard import E2E, MEMORY, TOKENS, TTFT
from evalrun.reports.numbers import count, fixed, listing, plural, ratio, seconds, size
from evalrun.reports.view import Answer, Fact, Phrase, RunView, Sentence, equal
from evalrun.reports.visible import visible
from evalrun.sweep_results import GateVerdict, Primary
from evalrun.types import MetricValue

WINNERS = 3
"""So many runs that lead on some dataset are named; of more it is only said that they differ."""


def overall(answers: Sequence[Answer]) -> Sentence:
    """Which run leads over several datasets; empty where there is one dataset, or on some nobody leads."""
    led: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.best is None:
            return []
        led.setdefault(answer.best.spoken, []).append(answer)
    if len(answers) < 2:
        return []
    every = f"all {len(answers)} datasets" if len(answers) > 2 else "both datasets"
    if len(led) == 1:
        (name,) = led
        ties = "" if any(answer.has_tied for answer in answers) else ", ahead of every other run"
        return [Phrase(name, "run"), Phrase(f" leads on {every}{ties}.")]
    if len(led) > WINNERS:
        return [
            Phrase(f"No run leads everywhere: {len(led)} of them do on some of the {len(answers)} datasets.")
        ]
    phrases: list[Phrase] = []
    for name, where in sorted(led.items(), key=lambda item: -len(item[1])):
        phrases += [Phrase("; " if phrases else ""), Phrase(name, "run")]
        phrases.append(Phrase(f" leads on {listing([each.dataset for each in where])}"))
    return [*phrases, Phrase(".")]


def answer(
    dataset: str,
    runs: Sequence[RunView],
    primary: Primary | None,
    *,
    named: bool,
    failed_gates: Mapping[str, Sequence[GateVerdict]] = MappingProxyType({}),
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
        advice=advice(best, runs, failed_gates, doubted),
        unequal=unequal(best),
        cautions=[*warning, *cautions(best, runs, primary, failed_gates)],
        facts=[] if equal(runs) else _facts(best),
        runs=runs,
        chance=f"Chance: {reached(best.chance)}." if best.chance else "",
    )


def _measured(figure: MetricValue) -> str:
    return f"{numbers.metric(figure)} {numbers.metric_interval(figure)}".strip()


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
        return [*sentence, Phrase("; tied with "), *several(tied), Phrase(".")]
    if len(behind) == len(others):
        return [*sentence, Phrase(", ahead of " + ("every other run." if len(others) > 1 else "")),
                *([said(others[0]), Phrase(".")] if len(others) == 1 else [])]  # fmt: skip
    return [*sentence, Phrase(".")]


def _speed(best: RunView, runs: Sequence[RunView]) -> Sentence:
    """How its median end-to-end time stands against the fastest (or, if it is the fastest, the next) run."""
    own = best.value(E2E)
    if loads := unlike_loads(runs):
        return [Phrase(f"Speeds are not compared: runs were asked {listing(loads[:NAMED], 'or')}.")]
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


def _facts(best: RunView) -> list[Fact]:
    """The best run's few figures: quality, speed, memory, fairness, as far as they are there."""
    assert best.primary is not None
    quality = best.primary
    ends = numbers.metric_interval(quality)
    facts = [Fact(quality.name, numbers.metric(quality), ends, "leaderboard")]
    e2e, ttft = best.metric(E2E), best.metric(TTFT)
    if e2e is not None and e2e.value is not None:
        beside = f"first token {seconds(ttft.value)}" if ttft and ttft.value else numbers.metric_interval(e2e)
        beside = ", ".join(part for part in (beside, best.results.load_words) if part)
        facts.append(Fact("median time per answer", numbers.metric(e2e), beside, "speed"))
    tokens = best.value(TOKENS)
    if tokens is not None:
        facts.append(Fact("output rate", f"{numbers.significant(tokens)} tokens/s", "", "speed"))
    memory = best.value(MEMORY)
    if memory is not None:
        facts.append(Fact("engine memory, peak", size(memory), "", "resources"))
    return facts + _gap(best, quality.name)


def _gap(best: RunView, metric: str) -> list[Fact]:
    """The widest gap between groups, beside what chance alone gives."""
    found = {column: gap for column in best.details.groups if (gap := gap_of(best, column, metric))}
    if not found:
        return []
    # Widest beside what chance gives: of many small groups some gap is always wide.
    column = max(found, key=lambda name: (found[name].value or 0.0) - (found[name].chance_gap_p95 or 0.0))
    gap = found[column]
    beside = "" if gap.chance_gap_p95 is None else f"by chance up to {fixed(gap.chance_gap_p95)}"
    return [Fact(f"gap by {visible(column)}", fixed(gap.value), beside, "fairness")]

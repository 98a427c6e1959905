"""The answer in words: which run is best, what it is tied with, how fast it is, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from evalrun.reports import numbers
from evalrun.reports.charts.groups import gap_of
from evalrun.reports.judges import doubt
from evalrun.reports.leaderboard import E2E, MEMORY, TOKENS, TTFT
from evalrun.reports.numbers import count, fixed, listing, plural, ratio, seconds, size
from evalrun.reports.view import FEW_SAMPLES, Answer, Fact, Phrase, RunView, Sentence, behind, equal
from evalrun.reports.visible import visible
from evalrun.results import Gap, like_loads
from evalrun.sweep_results import GateVerdict, Primary
from evalrun.types import MetricValue

ALIKE = 1.05
"""Speeds within this ratio are called alike."""

MUCH_FASTER = 1.2
MARGIN = 0.05
"""A run that is so much faster, and worse by no more than this, is recommended in place of the best."""

WINNERS = 3
"""So many runs that lead on some dataset are named; of more it is only said that they differ."""


def said(run: RunView) -> Phrase:
    """A run's name in a sentence."""
    return Phrase(run.spoken, "run")


def timed(runs: Sequence[RunView]) -> list[RunView]:
    """The runs that have a median end-to-end time; none where these were taken under unlike loads."""
    known = [run for run in runs if run.value(E2E)]
    return [] if unlike_loads(known) else known


def unlike_loads(runs: Sequence[RunView]) -> list[str]:
    """The loads under which runs were asked, where they are not the same: then their speeds say nothing of
    which is faster. A load that is not known stands in nobody's way."""
    loads = [run.results.load_words for run in runs if run.value(E2E)]
    return [] if like_loads(loads) else list(dict.fromkeys(load for load in loads if load))


def median(run: RunView) -> float:
    """Its median end-to-end time in seconds; infinite where there is none."""
    return run.value(E2E) or float("inf")


def advice(best: RunView, runs: Sequence[RunView]) -> Sentence:
    """What to ship: the best run, unless a tied one is clearly faster and surely not much worse."""
    tied = [run for run in runs if run.standing == "tied"]
    if tied and best.primary is not None and best.primary.n < FEW_SAMPLES:
        return [
            Phrase(f"So few samples (n = {count(best.primary.n)}) decide nothing: ask more before choosing.")
        ]
    if equal(runs):
        return _by_speed(runs)
    if not any(run.standing in ("tied", "behind") for run in runs):
        return _nothing_beside(runs)
    if not tied:
        return [Phrase("Ship "), said(best), Phrase(" if its speed will do." if _slower(best, runs) else ".")]
    own = None if unlike_loads(runs) else best.value(E2E)
    faster = [run for run in timed(tied) if own and own / median(run) >= MUCH_FASTER]
    if not faster or own is None:
        return [Phrase("Ship "), said(best), Phrase(": no tied run is clearly faster." if own else ".")]
    return _instead(best, min(faster, key=median), own)


def _instead(best: RunView, other: RunView, own: float) -> Sentence:
    """Whether a faster run may take the best one's place."""
    speed = f" is {ratio(own, median(other))} faster"
    worst = _at_worst(best, other)
    if worst is not None and worst <= MARGIN:
        return [
            said(other),
            Phrase(f"{speed} and at most {fixed(worst)} worse: ship "),
            said(other),
            Phrase("."),
        ]
    how_much = "may be worse" if worst is None else f"may be up to {fixed(worst)} worse"
    return [
        Phrase("Ship "), said(best), Phrase(" if quality decides. "), said(other),
        Phrase(f"{speed} but {how_much}: more samples would tell."),
    ]  # fmt: skip


def _by_speed(runs: Sequence[RunView]) -> Sentence:
    """Of runs that are equally good: the fastest, if it clearly is."""
    known = sorted(timed(runs), key=median)
    if len(known) < len(runs) or median(known[1]) / median(known[0]) < MUCH_FASTER:
        return []
    return [Phrase("Ship "), said(known[0]), Phrase(": it is as good as the others and the fastest.")]


def _nothing_beside(runs: Sequence[RunView]) -> Sentence:
    """Where no other run could be compared with the first one."""
    without = [run for run in runs[1:] if run.primary is None or run.primary.value is None]
    if not without:
        return []
    who = plural(len(without), "other run")
    has = "has" if len(without) == 1 else "have"
    return [Phrase(f"There is nothing to choose between: {who} {has} no score.")]


def _at_worst(best: RunView, other: RunView) -> float | None:
    """By how much the other run may be worse: the far end of the difference's interval."""
    if other.difference is None:
        return None
    _, low, high = behind(other.difference)
    lower = best.primary is not None and best.primary.direction == "lower"
    end = high if lower else low
    return None if end is None else max(0.0, end if lower else -end)


def _slower(best: RunView, runs: Sequence[RunView]) -> bool:
    times = [median(run) for run in timed(runs)]
    return bool(times) and (best.value(E2E) or 0.0) > ALIKE * min(times)


def _gaps_beyond_chance(best: RunView) -> list[tuple[str, Gap]]:
    """The columns whose groups the run serves unequally, by more than chance gives."""
    if best.primary is None:
        return []
    gaps = ((column, gap_of(best, column, best.primary.name)) for column in best.details.groups)
    return [(column, gap) for column, gap in gaps if gap and gap.wider_than_chance]


def unequal(best: RunView) -> list[str]:
    """The groups that the best run serves worse, by more than chance gives, as sentences."""
    found = []
    for column, gap in _gaps_beyond_chance(best):
        than = "" if gap.chance_gap_p95 is None else f" (up to {fixed(gap.chance_gap_p95)})"
        found.append(
            f"By {visible(column)}, {best.spoken} is worse for {visible(gap.worst)} than for "
            f"{visible(gap.best)}: a gap of {fixed(gap.value)}, wider than chance gives{than}."
        )
    return found


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


EVERY_RUN = ""
"""Gates over the whole sweep are kept under this in place of a run."""

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
        advice=_advice(best, runs, failed_gates, doubted),
        unequal=unequal(best),
        cautions=[
            *warning,
            *_gate_cautions(best, runs, failed_gates),
            *_blind(best, runs),
            *_cautions(best, runs, primary),
        ],
        facts=[] if equal(runs) else _facts(best),
        runs=runs,
        chance=_chance(best),
    )


def _advice(
    best: RunView, runs: Sequence[RunView], failed: Mapping[str, Sequence[GateVerdict]], doubted: str
) -> Sentence:
    """What to ship. It obeys, in this order: gates, the level of chance, what the judge is worth, few
    samples, groups that are served worse."""
    if failed:
        passing = [run for run in runs if run.id not in failed and EVERY_RUN not in failed]
        leading = [run for run in passing if run is best or run.standing == "tied"]
        if not leading:
            return _ship_nothing(runs, passing, failed)
        bias = any(run.details.bias for run in runs)
        if len(passing) < len(runs) and best not in leading and not bias:
            sighted = [run for run in leading if not run.blind]
            if not sighted:
                return _no_better_than_chance(leading[0])
            beside = [Phrase(": it passes every gate, and "), said(best), Phrase(" does not.")]
            return [Phrase("Ship "), said(sighted[0]), *beside]
    if best.blind:
        return _no_better_than_chance(best)
    if doubted:
        return [Phrase(CHECK_THE_JUDGE)]
    if any(run.details.bias for run in runs):
        return _by_bias(best)
    sighted = [run for run in runs if not run.blind]
    if len(sighted) == 1 < len(runs):
        found: Sentence = [Phrase("Ship "), said(best), Phrase(".")]
    else:
        found = advice(best, sighted)
    columns = [column for column, _ in _gaps_beyond_chance(best)]
    if found and columns and any(phrase.text.rstrip().lower().endswith("ship") for phrase in found):
        more = f" First look at how unequally {best.spoken} serves {listing(map(visible, columns))}."
        return [*found, Phrase(more)]
    return found


def _no_better_than_chance(best: RunView) -> Sentence:
    """Nothing to ship: the leading run has not shown that it reads its input."""
    assert best.chance is not None
    return [
        Phrase("Ship nothing", "value"), Phrase(": "), said(best),
        Phrase(
            f" scores no better than chance ({visible(best.chance.by)} reaches {fixed(best.chance.level)}, "
            f"{numbers.tested(best.chance.p)})."
        ),
    ]  # fmt: skip


def _chance(best: RunView) -> str:
    """What is reached without reading the input, where that is known."""
    if best.chance is None:
        return ""
    return f"Chance: {visible(best.chance.by)} reaches {fixed(best.chance.level)}."


def _blind(best: RunView, runs: Sequence[RunView]) -> list[str]:
    """The other runs that are no better than chance."""
    found = [run.label for run in runs if run.blind and run is not best]
    if not found or best.blind:
        return []
    rest = [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
    return [f"No better than chance: {listing(found[:NAMED] + rest)}."]


NOT_BY_ACCURACY = "These questions measure bias: how many are answered rightly is no reason to ship."


def _by_bias(best: RunView) -> Sentence:
    """What the measures of bias say of the run that is right most often."""
    said_of = [finding.sentence for finding in best.details.bias]
    shown = f" Of {best.spoken}: {'; '.join(said_of)}." if said_of else ""
    return [Phrase(NOT_BY_ACCURACY + shown)]


def _ship_nothing(
    runs: Sequence[RunView], passing: Sequence[RunView], failed: Mapping[str, Sequence[GateVerdict]]
) -> Sentence:
    """No run that leads passes its gates: how many fail, by how much at worst, and who else passes."""
    ids = {EVERY_RUN, *(run.id for run in runs)}
    checks = [gate for run, gates in failed.items() if run in ids for gate in gates]
    fail = f"{plural(len(checks), 'gate')} {'fails' if len(checks) == 1 else 'fail'}"
    changes = [gate for gate in checks if gate.difference is not None]
    worst = max(changes, key=lambda gate: abs(gate.difference or 0.0), default=None)
    against = "" if worst is None else f", {fixed(worst.difference, sign=True)} against the baseline"
    found = [Phrase("Ship nothing", "value"), Phrase(f": {fail}{against}.")]
    if passing:
        alone = "passes every gate, but is" if len(passing) == 1 else "pass every gate, but are"
        found += [Phrase(" "), *_runs(passing), Phrase(f" {alone} behind.")]
    return found


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
        return [*sentence, Phrase("; tied with "), *_runs(tied), Phrase(".")]
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


def _gate_cautions(
    best: RunView, runs: Sequence[RunView], failed_gates: Mapping[str, Sequence[GateVerdict]]
) -> list[str]:
    """The gates that the best run, or one that is tied with it, does not pass."""
    leading = [best, *(run for run in runs[1:] if run.standing == "tied")]
    return [
        f"{run.spoken} does not pass {listing(gate.gate for gate in failed_gates[run.id][:NAMED])}."
        for run in leading[:NAMED]
        if run.id in failed_gates
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
            f"{primary.metric} has no value for a single sample; runs are compared by the score "
            f"{primary.score} of each sample."
        )
    return found + _incomplete(runs) + _failures(runs) + _client(runs)


def _incomplete(runs: Sequence[RunView]) -> list[str]:
    """The runs whose figure lost too many rows to be believed."""
    found = [run for run in runs if run.primary is not None and run.primary.incomplete]
    if not found:
        return []
    rest = [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
    ranked = "" if len(found) == len(runs) else "; ranked after the others"
    named = listing([run.label for run in found[:NAMED]] + rest)
    return [f"Incomplete, too many rows were lost{ranked}: {named}."]


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
    return bool(run.details.client_limited)


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

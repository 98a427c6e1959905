"""The words of a comparison's page: what runs and sweeps are called, its first sentence, the lines below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evalrun.analysis.compare import Compared, Comparison
from evalrun.analysis.measures import RunInfo
from evalrun.reports.compared import means, notes
from evalrun.reports.effects import change
from evalrun.reports.numbers import count, figure, listing, moment, plural, tested, where
from evalrun.reports.source import Source
from evalrun.reports.view import Phrase, RunView, Sentence, make_runs, verdict_word, words
from evalrun.reports.visible import visible
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.naming import number_of

BROKE = 3
"""Of so many pairs it is said on top where they broke."""


class Names:
    """What runs are called on the page: by what tells them apart in their sweep, and by their sweep."""

    def __init__(self, called: Mapping[str, str], views: Mapping[str, Sequence[RunView]]) -> None:
        self.called = called
        self.views = {(ulid, run.id): run for ulid, runs in views.items() for run in runs}

    def view(self, run: RunInfo) -> RunView | None:
        return self.views.get((run.sweep, run.run))

    def run(self, run: RunInfo) -> str:
        """The run alone."""
        found = self.view(run)
        return found.full if found else visible(run.run)

    def whole(self, run: RunInfo) -> str:
        """The run with its sweep, where there are several."""
        if len(self.called) < 2:
            return self.run(run)
        return f"{self.run(run)} \N{MIDDLE DOT} {self.called[run.sweep]}"

    def sides(self, each: Compared) -> tuple[str, str]:
        """Both sides of a pair: the sweeps where these differ, else the runs."""
        if each.a.sweep != each.b.sweep:
            return self.called[each.a.sweep], self.called[each.b.sweep]
        return self.run(each.a), self.run(each.b)

    def pair(self, each: Compared) -> str:
        """The pair, with what differs beside the name."""
        differs = f" ({', '.join(each.differs)})" if each.differs and each.a.run == each.b.run else ""
        return visible(f"{self.plain(each)}{differs}")

    def plain(self, each: Compared) -> str:
        """The pair: the run alone where both sweeps have it."""
        one, other = self.run(each.a), self.run(each.b)
        if one == other or each.a.run == each.b.run:
            return f"{other}, {self.called[each.b.sweep]}" if len(self.called) > 2 else other
        return f"{self.whole(each.b)} against {self.whole(each.a)}"


def called_by(sources: Mapping[str, Source], folders: Mapping[str, SweepFolder]) -> dict[str, str]:
    """A name for each sweep: its own where they differ, else the day it began, its number, its id."""
    manifests = {ulid: source.manifest for ulid, source in sources.items()}
    own = {ulid: visible(manifest.name) for ulid, manifest in manifests.items()}
    lead = {ulid: f"{name} " if len(set(own.values())) > 1 else "" for ulid, name in own.items()}
    begun = {ulid: moment(manifest.started_at).removesuffix(" UTC") for ulid, manifest in manifests.items()}
    days = {ulid: text.rpartition(", ")[0] for ulid, text in begun.items()}
    numbers = {ulid: number_of(folder) for ulid, folder in folders.items()}
    choices = [
        days,
        {ulid: f"#{number}" for ulid, number in numbers.items()} if all(numbers.values()) else days,
    ]
    for names in [own, *({ulid: lead[ulid] + when[ulid] for ulid in own} for when in [*choices, begun])]:
        if len(set(names.values())) == len(names) and all(names.values()):
            return names
    return {ulid: f"{own[ulid]} {ulid[-6:]}" for ulid in own}


def lead_of(comparison: Comparison, folders: Sequence[SweepFolder]) -> tuple[str, list[str]]:
    """The page's first sentence as plain text, and what its pairs are called, for the terminal."""
    sources = {folder.ulid: Source.of(folder) for folder in {each.ulid: each for each in folders}.values()}
    views = {ulid: make_runs(s.manifest.plan, s.runs, s.results.primary) for ulid, s in sources.items()}
    names = Names(called_by(sources, {each.ulid: each for each in folders}), views)
    return words(lead_sentence(comparison, first_of(comparison), names)), [
        names.plain(each) for each in comparison.compared
    ]


def first_of(comparison: Comparison) -> list[Compared]:
    """The comparisons by the first metric."""
    return [each for each in comparison.compared if each.metric == comparison.compared[0].metric]


MOVED = ("worse", "lower", "better", "higher")
_ORDER = (*MOVED, "tied", "equivalent", "unchanged")
"""What went wrong is told first."""

NAMED = 3
"""So many pairs that moved are named in the first sentence."""


def rank(each: Compared) -> tuple[int, float]:
    """The order of pairs: by their verdict, the largest difference first."""
    word = verdict_word(each.verdict)
    return _ORDER.index(word) if word in _ORDER else len(_ORDER), -abs(each.result.difference or 0)


def lead_sentence(comparison: Comparison, first: Sequence[Compared], names: Names) -> Sentence:
    """What the first metric says, in words: of one pair the figures, of several how many moved which way, and
    those that moved by name."""
    if not first:
        said = [standing.sentence for standing in comparison.standings[:1]]
        return [
            Phrase(
                f"By {comparison.standings[0].metric}: {said[0]}." if said else "Nothing could be compared."
            )
        ]
    if len(first) == 1:
        return _lead_of_one(first[0], names)
    words = [verdict_word(each.verdict) for each in first]
    counted = {word: words.count(word) for word in _ORDER if word in words}
    runs = "run" if len(names.called) == 2 else "comparison"
    of = f"{next(iter(counted.values()))} of {plural(len(first), runs)}" if len(counted) > 1 else ""
    told = [f"{number} {word}" for word, number in [*counted.items()][1:]]
    word = next(iter(counted))
    lead = f"{of or _every(len(first), runs)} {_is(counted[word], word)} by {first[0].metric}"
    rest = f" ({listing(told)})" if told else ""
    moved = sorted((each for each in first if verdict_word(each.verdict) in MOVED), key=rank)
    if not moved:
        return [Phrase(f"{lead}{rest}.")]
    phrases = [Phrase(f"{lead}{rest}: ")]
    for at, each in enumerate(moved[:NAMED]):
        phrases += [Phrase(", ")] if at else []
        phrases += [Phrase(names.plain(each), "run"), Phrase(" ")]
        phrases.append(Phrase(change(each.result, each.unit), "value"))
    more = f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
    return [*phrases, Phrase(f"{more}.")]


def _every(number: int, noun: str) -> str:
    return f"{'Both' if number == 2 else f'All {number}'} {noun}s"


def _is(number: int, word: str) -> str:
    verb = "is" if number == 1 else "are"
    return f"{verb} as good as before" if word == "equivalent" else f"{verb} {word}"


def _lead_of_one(each: Compared, names: Names) -> Sentence:
    before, after = names.sides(each)
    if each.result.difference is None:
        return [Phrase(f"{after} cannot be compared with {before}: {each.verdict.sentence}.")]
    word = verdict_word(each.verdict)
    how = {"tied": "is tied with", "equivalent": "is as good as", "unchanged": "has the same answers as"}
    lead = [Phrase(after, "run"), Phrase(f" {how.get(word, f'is {word} than')} "), Phrase(before, "run")]
    one, other = means(each.result, each.unit)
    p = "" if each.p_corrected is None else f", {tested(each.p_corrected)}"
    figures = f"{one} \N{RIGHTWARDS ARROW} {other}, {change(each.result, each.unit)}{p}"
    served = ", but what served it changed" if each.served else ""
    return [
        *lead, Phrase(f" by {each.metric}: "), Phrase(figures, "value"),
        Phrase(f" (n = {count(each.result.n)}){served}.", "whole"),
    ]  # fmt: skip


def cautions(first: Sequence[Compared], names: Names) -> list[str]:
    """What was noted of the comparisons by the first metric; what not all have says which."""
    of: dict[str, list[str]] = {}
    for each in first:
        for line in notes_of(each):
            of.setdefault(visible(line), []).append(names.plain(each))
    return [line if len(pairs) == len(first) else f"{line} ({_some(pairs)})" for line, pairs in of.items()]


def _some(names: Sequence[str]) -> str:
    rest = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listing([*names[:NAMED], *rest])


def more_sentences(
    first: Sequence[Compared], names: Names, changed: Sequence[tuple[str, Sequence[str]]]
) -> list[Sentence]:
    """What changed in between, what the samples could not have shown, and how many samples moved."""
    found: list[Sentence] = []
    for called, said in changed:
        since = f" in {called}" if len(changed) > 1 else ""
        what = listing(said) if said else "nothing that shapes answers or scores"
        found.append([Phrase(f"What changed{since}: {what}.")])
    better, worse = (sum(getattr(each, way) or 0 for each in first) for way in ("better", "worse"))
    if better or worse:
        found.append([Phrase(f"{plural(better, 'sample')} became better, {count(worse)} worse.")])
    broke = [pair for pair in sorted(first, key=rank) if pair.where]
    for at, pair in enumerate(broke[:BROKE]):
        of = f"{names.plain(pair)}: " if len(first) > 1 else ""
        lead = Phrase(f"Where it broke: {of}" if not at else of)
        found.append([lead, Phrase(visible(where(pair.where)), "value"), Phrase(".")])
    unseen = [each.result.mde for each in first if verdict_word(each.verdict) == "tied" and each.result.mde]
    if unseen:
        size = figure(max(unseen), unit=first[0].unit)
        found.append(
            [Phrase(f"With these samples a true difference below about {size} would often go unseen.")]
        )
    return found


def notes_of(each: Compared) -> list[str]:
    """What was noted of a comparison; where it broke stands with the samples."""
    return notes(replace(each, where=()))

"""A prompt as one text with the stretches that units stand for, and what it is without some of them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from evalrun.errors import UserError
from evalrun.explanations import Place, Unit

Removal: TypeAlias = Literal["delete", "mask", "resample"]
Span = tuple[int, int]

NEUTRAL = "."
"""What stands in the place of a token that is masked: one token in the usual vocabularies, alone and after a
space."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads before the answer, and from where on each message stands in it.

    `starts` is where the content of each message would begin in `text` (a template may have taken white space
    off its ends: `bounds` says what of the text is truly its own).
    """

    text: str
    contents: tuple[str, ...]
    roles: tuple[str, ...]
    starts: tuple[int, ...] = (0,)
    bounds: tuple[Span, ...] = ()

    def span(self, place: Place) -> Span:
        """Where a place of a message stands in the text."""
        base = self.starts[place.message]
        low, high = self.bounds[place.message] if self.bounds else (0, len(self.text))
        return max(low, base + place.start), min(high, base + place.end)

    def place(self, start: int, end: int) -> Place | None:
        """The place of a message that a stretch of the text is; None for what belongs to the frame."""
        bounds = self.bounds or ((0, len(self.text)),)
        for message, (low, high) in enumerate(bounds):
            if low <= start < end <= high:
                base = self.starts[message]
                return Place(message, start - base, end - base)
        return None

    def spans(self, unit: Unit) -> list[Span]:
        """Where a unit stands in the text."""
        return [span for span in map(self.span, unit.places) if span[0] < span[1]]

    def text_of(self, unit: Unit) -> str:
        """What a unit says."""
        return " … ".join(self.contents[place.message][place.start : place.end] for place in unit.places)


SENTINEL = "evalrunpart{}x"


def locate(text: str, template: str, contents: Sequence[str], roles: Sequence[str]) -> Prompt:
    """The prompt that a chat template made of messages. `template` is what it made of the same messages with
    `SENTINEL` in the place of each content. Raises UserError where contents cannot be told from the frame."""
    frame: list[str] = []
    rest = template
    for at in range(len(contents)):
        before, mark, rest = rest.partition(SENTINEL.format(at))
        if not mark:
            raise _unknown_frame()
        frame.append(before)
    frame.append(rest)
    for bare in (False, True):
        shown = [content.strip() if bare else content for content in contents]
        if "".join(piece for pair in zip(frame, [*shown, ""], strict=True) for piece in pair) != text:
            continue
        starts, bounds, place = [], [], 0
        for before, content, kept in zip(frame, contents, shown, strict=False):
            place += len(before)
            starts.append(place - content.find(kept))
            bounds.append((place, place + len(kept)))
            place += len(kept)
        return Prompt(text, tuple(contents), tuple(roles), tuple(starts), tuple(bounds))
    raise _unknown_frame()


def _unknown_frame() -> UserError:
    return UserError(
        "the model's chat template changes what messages say, so their parts cannot be told from it",
        remedy="Ask with api: completions and a text prompt; such a run can be explained.",
    )


@dataclass(frozen=True, slots=True)
class Remover:
    """Takes units out of a prompt in one way.

    `counts` are the tokens of units by their spans, for masks of the same length; where they are not known a
    word counts as one. `donors` are the texts that may stand in a unit's place, by its span, for `resample`.
    """

    prompt: Prompt
    removal: Removal
    counts: dict[Span, int]
    donors: dict[Span, list[str]]

    @property
    def draws(self) -> int:
        """Over how many texts a value is the mean."""
        if self.removal != "resample":
            return 1
        return max(map(len, self.donors.values()), default=1)

    def without(self, units: Sequence[Unit], draw: int = 0) -> str:
        """The text without these units."""
        spans = merged([span for unit in units for span in self.prompt.spans(unit)])
        text, made, at = self.prompt.text, [], 0
        for start, end in spans:
            if self.removal == "delete":
                start, end = widened(text, start, end, at, self._bounds(start))
                put = ""
            elif self.removal == "mask":
                put = self._mask(start, end)
            else:
                put = self._donor(start, end, draw)
            made += [text[at:start], put]
            at = end
        return "".join(made) + text[at:]

    def _bounds(self, start: int) -> Span:
        for low, high in self.prompt.bounds:
            if low <= start < high:
                return low, high
        return 0, len(self.prompt.text)

    def _mask(self, start: int, end: int) -> str:
        """Line by line, so that lines stay lines."""
        count = sum(tokens for (s, e), tokens in self.counts.items() if start <= s and e <= end) or len(
            self.prompt.text[start:end].split()
        )
        return " ".join([NEUTRAL] * max(1, count))

    def _donor(self, start: int, end: int, draw: int) -> str:
        known = self.donors.get((start, end))
        if known:
            return known[draw % len(known)]
        inside = [
            (span, texts)
            for span, texts in sorted(self.donors.items())
            if start <= span[0] and span[1] <= end
        ]
        text, made, at = self.prompt.text, [], start
        for (s, e), texts in inside:
            if s >= at:
                made += [text[at:s], texts[draw % len(texts)] if texts else ""]
                at = e
        return "".join(made) + text[at:end]


def merged(spans: Sequence[Span]) -> list[Span]:
    """Spans in their order, those that touch or overlap as one."""
    found: list[list[int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return [(start, end) for start, end in found]


def widened(text: str, start: int, end: int, least: int, bounds: Span) -> Span:
    """A stretch with the white space that goes with it: what follows it, or before the end of a line or of
    the message the blanks before it."""
    after = end
    while after < bounds[1] and text[after].isspace():
        after += 1
    at_line = start <= max(least, bounds[0]) or text[start - 1] == "\n"
    if after < bounds[1] and ("\n" not in text[end:after] or at_line):
        return start, after
    before = start
    while before > max(least, bounds[0]) and text[before - 1] in " \t":
        before -= 1
    return before, (after if after >= bounds[1] else end)


def token_counts(units: Sequence[Unit], prompt: Prompt, tokens: Sequence[Span]) -> dict[Span, int]:
    """How many tokens each of the finest units has: those that begin in it, or in the blank before it."""
    counts: dict[Span, int] = {}
    text = prompt.text
    begins = sorted(_inner(text, start, end) for start, end in tokens if start < end)
    for unit in units:
        for start, end in prompt.spans(unit):
            counts[start, end] = sum(start <= at < end for at in begins)
    return counts


def _inner(text: str, start: int, end: int) -> int:
    """Where a token's first character that is no white space stands."""
    while start < end - 1 and text[start].isspace():
        start += 1
    return start


def torn(units: Sequence[Unit], prompt: Prompt, tokens: Sequence[Span]) -> list[Unit]:
    """The units that begin or end within a token."""
    cut: set[int] = set()
    for start, end in tokens:
        cut |= set(range(_inner(prompt.text, start, end) + 1, end))
    return [unit for unit in units if any(border in cut for span in prompt.spans(unit) for border in span)]


def donors_of(
    units: Sequence[Unit],
    prompt: Prompt,
    others: Sequence[Sequence[Unit]],
    texts: Sequence[Prompt],
    seed: int,
) -> dict[Span, list[str]]:
    """For each unit the same section of other rows; for sentences and words one drawn from the same message
    there. `others` are the units of those rows, `texts` their prompts."""
    rng = random.Random(seed)
    donors: dict[Span, list[str]] = {}
    for unit in units:
        for place in unit.places:
            drawn = [
                text
                for mine, of in zip(others, texts, strict=True)
                if (text := _like(unit, place, mine, of, rng)) is not None
            ]
            if drawn:
                donors[prompt.span(place)] = drawn
    return donors


def _like(unit: Unit, place: Place, others: Sequence[Unit], of: Prompt, rng: random.Random) -> str | None:
    alike = [
        other
        for other in others
        if other.level == unit.level
        and (other.name == unit.name)
        and any(each.message == place.message for each in other.places)
    ]
    if not alike:
        return None
    other = alike[0] if unit.level == "section" else rng.choice(alike)
    found = next(each for each in other.places if each.message == place.message)
    return of.contents[found.message][found.start : found.end]


_BLANK = re.compile(r"\s*")


def is_blank(text: str) -> bool:
    """Whether there is nothing but white space."""
    return _BLANK.fullmatch(text) is not None

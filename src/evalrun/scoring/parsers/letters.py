r"""The letter of an option that an answer names: "B", "(B)", "The answer is B", "答案是B", "정답은 ②".

Letters are words too ("A person …", "I think"), and a text names letters that it rejects ("A is wrong"). So
the places where a letter is meant are tried from the surest to the least sure, and the first kind of place
that names any letter decides:

1. the whole answer is a letter ("b", "(B)", "B.") or the text of an option;
2. "final answer: B", \boxed{B};
3. "the answer is B", "Answer: (B)", "the correct option is B", "答案：B", "选B", "정답은 B";
4. the first words are a letter ("B\n\n…", "B because …", "B) the nurse"), or the last line is one;
5. "B is correct", "I would choose B", "it must be B", "so B.";
6. a letter with a bracket, full stop or colon after it, or in brackets or asterisks: "B) the nurse", "**B**",
   "option B";
7. a capital letter that stands alone;
8. the text of an option as whole words, or its number in words ("the second option", "第二个", "2번").

A and I before a word that no option's letter takes ("A person", "I think") are words. A letter that the text
rejects ("B is wrong", "not B", "rather than B", "B不对") is not named, if another is. Two different letters
in the same kind of place, or two that are given together ("A and B"), are ambiguous.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from evalrun.scoring.base import Unparsed, shown
from evalrun.scoring.text import UNSPACED, composed, stands_alone

ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_LOOKALIKES: Final[dict[int, str]] = {
    **{0xFF21 + at: letter for at, letter in enumerate(ALPHABET)},  # Ａ
    **{0xFF41 + at: letter.lower() for at, letter in enumerate(ALPHABET)},  # ａ
    **{0x249C + at: f"({letter})" for at, letter in enumerate(ALPHABET)},  # ⒜
    **{0x24B6 + at: f"({letter})" for at, letter in enumerate(ALPHABET)},  # Ⓐ
    **{0x24D0 + at: f"({letter})" for at, letter in enumerate(ALPHABET)},  # ⓐ
    **{0x1F170 + at: f"({letter})" for at, letter in enumerate(ALPHABET)},  # 🅰
    **{0x2460 + at: f"({letter})" for at, letter in enumerate(ALPHABET[:20])},  # ①
    **{0x2474 + at: f"({letter})" for at, letter in enumerate(ALPHABET[:20])},  # ⑴
    **{0x2776 + at: f"({letter})" for at, letter in enumerate(ALPHABET[:10])},  # ❶
    **dict(zip(map(ord, "（）［］｛｝：．，"), "()[]{}:.,", strict=True)),
    0xFE0F: "",
}  # fmt: skip

# In scripts without spaces a letter of theirs beside a Latin one is no part of the same word.
_WORD: Final = rf"[^\W\u3040-\u309f{UNSPACED}]"
_BEFORE: Final = rf"(?<![A-Z]\.)(?<!{_WORD})(?<!['’\\])"
_AFTER: Final = rf"(?!\.[A-Z])(?!{_WORD})(?!['’]\w)"

# Repeats are bounded: an answer of nothing but brackets or spaces costs no more than any other.
_OPEN: Final = r"(?:[\s(\[{\"'*_$`“‘「『【《<]|\\text|\\mathrm|\\textbf|\\mathbf){0,12}"
_WHOLE: Final = re.compile(
    r"[\s(\[{\"'*_$`“‘「『【《]{0,12}([A-Za-z])[\s)\]}\"'*_$`”’」』】》.:,;!。：，]{0,12}"
)
_LETTER: Final = (
    rf"{_OPEN}(?:{_BEFORE}([A-Z]){_AFTER}|(?<!\w)([a-z])(?=\s{{0,9}}[)\].,:;*\"'$}}_`<]|\s{{0,9}}(?:\n|$)))"
)
_ANSWER: Final = (
    "answer|ans|respuesta|réponse|antwort|lösung|risposta|resposta|ответ|odpowiedź|cevap|"
    "jawaban|svar|antwoord"
)
_BE: Final = r"(?:\s{1,9}(?:is|would\s{1,9}be|should\s{1,9}be|must\s{1,9}be|will\s{1,9}be|es|est|ist|è|é)\b)"
_TO_BE: Final = (
    r"(?:(?:clearly|therefore|thus|likely|probably|simply|indeed|then|letter|option|choice|"
    r"answer)\s{1,9}){0,2}"
)
_MARKS: Final = r"[\s:=>\"'*_`—–-]{0,9}"
_FINAL: Final = re.compile(
    rf"\\(?:boxed|fbox)\s{{0,9}}{_LETTER}|(?i:\bfinal\s{{1,9}}(?:answer|choice){_BE}?){_MARKS}(?i:{_TO_BE}){_LETTER}"
)
_STATED: Final = re.compile(
    rf"(?<![^\W_])(?<!/)(?i:(?:(?:{_ANSWER}){_BE}?|(?:option|choice)(?:{_BE}|\s{{0,9}}[:=])))"
    rf"{_MARKS}(?i:{_TO_BE}){_LETTER}"
)
_STATED_CJK: Final = re.compile(
    r"(?:答案|正解|答え|解答|回答|故选|故選|应选|應選|选择|選擇|我选|我選|选|選|정답|답)"
    r"[^\Wa-zA-Z0-9不非没沒아错錯]{0,5}[\s:为為是は은는「『\"'*(\[{$]{0,9}"
    r"[^\Wa-zA-Z0-9不非没沒아错錯]{0,3}[\s:「『\"'*(\[{$]{0,5}([A-Z])" + _AFTER
)
_LEAD: Final = re.compile(rf"{_OPEN}{_BEFORE}([A-Z]){_AFTER}")
_LEAD_SMALL: Final = re.compile(r"[\s(\[*]{0,5}([a-z])[)\]}.:](?=\s|$)")
_JUDGED: Final = (
    r"\s{1,9}(?:option\s{1,9}|choice\s{1,9})?(?:is|was|must\s+be|would\s+be|seems?(?:\s+to\s+be)?|looks?|appears?(?:\s+to\s+be)?)"
    r"\s+(?:(?:\w{2,12}ly|the|most|also|indeed|in\s+fact)\s+){0,3}"
    r"(?:correct|right|true|best|answer|only\s+(?:correct|right|possible|remaining|valid))\b"
)
_ASSERTED: Final = re.compile(
    rf"{_BEFORE}([A-Z]){_AFTER}[)\]*_\"']{{0,3}}(?:(?i:{_JUDGED}|\s+(?:best|correctly)\s+\w+|\s+(?:fits|matches)\b)"
    r"|\s?(?:选项|選項|项|項)?\s?(?:是|为|為)?(?:正确|正確|对的|對的|正解|最)|(?:가|이|은|는|が|は)\s?(?:정답|맞|옳|正解|正しい))"
    rf"|(?i:\b(?:choose|chose|pick|picked|select|selected|say|go\s+with|going\s+with|went\s+with|opt\s+for|settle\s+on|"
    r"vote\s+for|guess|lean\s+towards?|conclude|prefer)"
    r"(?:\s+(?:that|it\s+is|it['’]s|is|on|option|answer|choice|letter|the)){0,3}\s+"
    r"|\b(?:it|that|this)(?:['’]s|\s+is|\s+must\s+be|\s+should\s+be|\s+would\s+be|\s+has\s+to\s+be)\s+"
    r"(?:\w{2,12}ly\s+)?(?:option\s+|answer\s+|choice\s+)?)"
    rf"{_OPEN}{_BEFORE}([A-Z]){_AFTER}"
    rf"|(?i:\b(?:so|therefore|thus|hence)),?\s+{_OPEN}([A-Z])(?=[)\]*_\"'$]{{0,4}}\s{{0,3}}(?:[.!\n]|$))"
    r"|(?:而是|应该是|應該是|所以选|所以是|因此选|因此是)\s{0,3}([A-Z])" + _AFTER
)
_MARKED: Final = re.compile(
    rf"(?<![\w.])(?:[(\[*]{{1,9}}([A-Z])[)\]*]|([A-Z])(?:[):](?!\w))|(?<![^\n])([A-Z])\.(?!\w))"
    rf"|(?i:\b(?:option|choice)\s{{1,9}}){_LETTER}"
    rf"|(?:选项|選項)\s{{0,3}}([A-Z]){_AFTER}|{_BEFORE}([A-Z])\s?(?:选项|選項|项|項|번|番)"
)
_INITIAL: Final = re.compile(r"[A-Z][a-z]+ [A-Z]\. [A-Z]|[A-Z]\. ?[A-Z]\.")
_ALONE: Final = re.compile(
    rf"(?i:\b(?:vitamin|hepatitis|type|plan|grade|group|class|phase|stage|section|part|figure|appendix|influenza|war|"
    r"room|team|exhibit|column|person|company|point|step|case|series|schedule|item)s?[\s-]|维生素|維生素|ビタミン|비타민\s?)"
    rf"[A-Z]{_AFTER}|{_BEFORE}([A-Z]){_AFTER}(?!型|股|级|級|座|-\w)"
)
_TOGETHER: Final = re.compile(
    rf"[)\]}}*_$\"']{{0,5}}\s{{0,5}}(?:,|/|&|\+|、|和|或|与|跟|と|와|과|"
    rf"(?i:and|or|and/or|as\s+well\s+as)\b|(?<=[ \t]))"
    rf"\s{{0,5}}(?:(?i:and|or|possibly|maybe|perhaps|option|also)\s{{1,5}}){{0,2}}{_OPEN}([A-Z]){_AFTER}"
)

_AFTER_LETTER: Final = frozenset(
    re.findall(
        r"\S+",
        """
    is isn't was wasn't are aren't and or nor but because since as would wouldn't should shouldn't
    could couldn't can can't cannot must may might will won't seems appears looks sounds fits matches
    makes does doesn't did has for in on from with to over instead if than not states says describes
    represents refers contains includes being due while whereas though although however the a an this
    that these those it its he she they we you his her their best correctly here again though only too
    by at repeats fails contradicts
""",
    )
)
_AFTER_I: Final = frozenset(
    re.findall(
        r"\S+",
        """
    is isn't seems appears looks sounds fits matches makes does doesn't states says describes
    represents refers contains includes because whereas correctly repeats fails contradicts
""",
    )
)
"""Words after which "A" or "I" is a letter: an article is followed by none of the first, a pronoun by none of
the second."""
_NEXT_WORD: Final = re.compile(r"\s+([^\W\d_]+(?:['’][a-z]+)?)")

_REJECTED_BEFORE: Final = re.compile(
    r"(?:\b(?:not|never|nor|neither|cannot\s+be|rather\s+than|instead\s+of|except|unlike|other\s+than|than|without)"
    r"|n['’]t(?:\s+be)?|\b(?:eliminat|exclud|reject|discard|dismiss|disregard|ruling\s+out|rul(?:e|ed)\s+out)\w{0,4}"
    r"|不是|不选|不選|不能选|并非|並非|排除|除了|而非|而不是)"
    r"\s{0,4}(?:(?:be|is|the|it|out|answer|option|choice|letter|选项|選項)\s{0,4}){0,3}[(\[{\"'*_$]{0,5}$",
    re.IGNORECASE,
)
_WRONG: Final = (
    r"(?:wrong|incorrect|false|invalid|irrelevant|unlikely|impossible|implausible|eliminated|ruled\s+out|"
    r"excluded|unrelated|tempting|inaccurate|misleading|unsupported|a\s+distractor|too\s+\w+|out\b)"
)
_REJECTED_AFTER: Final = re.compile(
    r"[)\]}*_$\"'.:]{0,5}\s{0,4}(?:(?:option|choice|answer)\s+)?(?:"
    r"(?:is|are|was|were|seems?|can|could|would|should|does|did|do|has|must|might|may|will|wo|ca)(?:\s*n['’]t|\s+not|not)\b"
    r"|(?:is|are|was|were|seems?|appears?|looks?|sounds?|can\s+be|must\s+be|to\s+be)\s+"
    rf"(?:(?:\w{{2,12}}ly|also|just|both|all|simply)\s+){{0,2}}{_WRONG}"
    r"|(?:选项|選項|项|項)?\s?(?:是|为|為|明显|顯然|显然|都)?(?:错|錯|不对|不對|不正|不是|不符|不合|有误|有誤)"
    r"|(?:는|은|가|이|が|は)\s?(?:틀|아니|아닙|오답|間違|誤|違)"
    r")|[^.!?;\n]{0,120}?\b(?:it|this|that|which|so|thus|therefore)(?:\s+it)?(?:['’]s|\s+is|\s+was|\s+seems|\s+must\s+be)?\s+"
    r"(?:\w{2,12}ly\s+|also\s+)?(?:wrong|incorrect|false|eliminated|ruled\s+out|not\s+(?:correct|right|true|it|the))\b",
    re.IGNORECASE,
)
_PLURAL: Final = re.compile(r"[)\]}*_$\"']{0,5}\s{1,9}(?:are|were|can|do|都)")
_CONFIRMED: Final = re.compile(rf"[)\]*_\"']{{0,3}}{_JUDGED}", re.IGNORECASE)

_ORDERS: Final = (
    "一二三四五六七八九十",
    [str(at + 1) for at in range(26)],
    ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"],
    ["첫", "두", "세", "네", "다섯", "여섯"],
)
_NUMERALS: Final = {word: at for order in _ORDERS for at, word in enumerate(order)}
_ORDINAL: Final = re.compile(
    r"(?i:\b(first|second|third|fourth|fifth|sixth|seventh|eighth)\s+(?:option|choice|answer|one|statement)\b)"
    r"|第\s?([一二三四五六七八九十]|[0-9]{1,2})(?!次|天|年|月|日|届|屆|章|节|節|名|位|世|[0-9])"
    r"|(?:选项|選項)\s?([一二三四五六七八九十]|[0-9]{1,2}(?![0-9]))"
    r"|(?<![0-9])([0-9]{1,2})\s?(?:번|番)|(첫|두|세|네|다섯|여섯)\s?번째"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A letter that stands at a place of the text."""

    letter: str
    start: int
    end: int


class LetterFinder:
    """Finds the letter among as many as there are option texts (one character texts stand for themselves)."""

    def __init__(self, texts: Sequence[str], pick: str | None) -> None:
        self._known = ALPHABET[: len(texts)]
        self._pick = pick
        self._texts = {
            _plain(text): letter
            for text, letter in zip(texts, self._known, strict=False)
            if len(text.strip()) > 1
        }

    def find(self, text: str) -> str:
        """The letter. Raises Unparsed where none, or more than one, is named."""
        read = composed(text).translate(_LOOKALIKES)
        whole = _WHOLE.fullmatch(read)
        if whole and whole[1].upper() in self._known:
            return whole[1].upper()
        exact = self._texts.get(_plain(text).rstrip(".")) or self._texts.get(_plain(text))
        if exact is not None:
            return exact
        if self._pick is not None:
            return self._picked(read, text)
        for place in _PLACES:
            named = self._named(place, read)
            if named:
                return _decided(named)
        named = self._named_by_text(text) or self._by_number(read)
        if named:
            return _decided(named)
        raise Unparsed(f"none of the options is named in {shown(text.strip())}")

    def _picked(self, read: str, text: str) -> str:
        """The first or the last letter that is named anywhere, in whatever way."""
        named = sorted((m for place in _PLACES for m in self._mentions(place, read)), key=lambda m: m.start)
        letters = [mention.letter for mention in named] or self._named_by_text(text) or self._by_number(read)
        if not letters:
            raise Unparsed(f"none of the options is named in {shown(text.strip())}")
        return letters[0 if self._pick == "first" else -1]

    def _mentions(self, place: Place, text: str) -> list[Mention]:
        """The letters in places of a kind, with those that are given together with them."""
        return [mention for group in self._groups(place, text) for mention in group]

    def _groups(self, place: Place, text: str) -> Iterator[list[Mention]]:
        reached = 0
        for mention in place(text):
            if mention.start < reached or mention.letter not in self._known or _is_word(text, mention):
                continue
            group = [mention]
            while (other := _TOGETHER.match(text, group[-1].end)) is not None and other[1] in self._known:
                joined = Mention(other[1], *other.span(1))
                if _is_word(text, joined):
                    break
                group.append(joined)
            reached = group[-1].end
            yield group

    def _named(self, place: Place, text: str) -> list[str]:
        """The same, without those that the text rejects: "A and C are wrong", "not A or C" reject both."""
        named = []
        for group in self._groups(place, text):
            rejected = [self._rejected(text, mention) for mention in group]
            together = rejected[0] and not _REJECTED_AFTER.match(text, group[0].end)
            if not (together or (rejected[-1] and _PLURAL.match(text, group[-1].end))):
                named += [each.letter for each, no in zip(group, rejected, strict=True) if not no]
        return named

    def _rejected(self, text: str, mention: Mention) -> bool:
        if _REJECTED_BEFORE.search(text, max(0, mention.start - 40), mention.start):
            return True
        if _CONFIRMED.match(text, mention.end):
            return False
        # What follows is said of this letter up to the next one.
        following = (
            m.start()
            for m in _ALONE.finditer(text, mention.end + 1, mention.end + 160)
            if m[1] in self._known
        )
        until = next((at for at in following if not _is_word(text, Mention(text[at], at, at + 1))), len(text))
        return _REJECTED_AFTER.match(text, mention.end, until) is not None

    def _named_by_text(self, text: str) -> list[str]:
        """Letters of the options whose text stands in the answer, in order; a text within another is not."""
        plain = _plain(text)
        places: list[tuple[int, int, str]] = []
        for option, letter in sorted(self._texts.items(), key=lambda pair: -len(pair[0])):
            places.sort()
            starts = [start for start, _, _ in places]
            reach = list(accumulate((end for _, end, _ in places), max))
            for start, end in _occurrences(option, plain):
                before = bisect_right(starts, start)
                if not before or reach[before - 1] < end:
                    places.append((start, end, letter))
        return [letter for _, _, letter in sorted(places)]

    def _by_number(self, text: str) -> list[str]:
        """Letters of the options that are named by their number in words."""
        numbers = [
            _NUMERALS.get((match[match.lastindex or 0]).lower(), 99) for match in _ORDINAL.finditer(text)
        ]
        return [self._known[at] for at in numbers if 0 <= at < len(self._known)]


def _plain(text: str) -> str:
    return " ".join(composed(text).casefold().split())


def _decided(named: Sequence[str]) -> str:
    if len(set(named)) > 1:
        other = next(letter for letter in named if letter != named[0])
        raise Unparsed(f"ambiguous: both {named[0]} and {other} are named")
    return named[0]


def _is_word(text: str, mention: Mention) -> bool:
    """Whether an A or I is the article or the pronoun: a word follows that follows no option's letter."""
    if mention.letter not in "AI" or text[mention.start] != mention.letter:
        return False
    following = _NEXT_WORD.match(text, mention.end)
    if following is None:
        return mention.letter == "I" and text[mention.end : mention.end + 2].startswith(("'", "’", ", "))
    word = following[1].replace("’", "'")
    if word == "rather":
        return not text.startswith(" than", following.end())
    if len(word) == 1 and word.isupper():  # "A B": two letters
        return False
    known = _AFTER_LETTER if mention.letter == "A" else _AFTER_I
    if mention.letter == "A" and word[0].isupper() and "\n" in following[0]:
        return False
    return word.lower() not in known


Place = Callable[[str], Iterator[Mention]]


def _of(pattern: re.Pattern[str]) -> Place:
    def mentions(text: str) -> Iterator[Mention]:
        for match in pattern.finditer(text):
            group = match.lastindex
            if group:
                yield Mention(match[group].upper(), *match.span(group))

    return mentions


def _final(text: str) -> Iterator[Mention]:
    if "box" in text or "inal" in text or "INAL" in text:
        yield from _of(_FINAL)(text)


def _stated(text: str) -> Iterator[Mention]:
    if text.isascii():
        yield from _of(_STATED)(text)
    else:
        both = (*_of(_STATED)(text), *_of(_STATED_CJK)(text))
        yield from sorted(both, key=lambda mention: mention.start)


def _marked(text: str) -> Iterator[Mention]:
    """Marked letters, without the initials of names."""
    for mention in _of(_MARKED)(text):
        around = text[max(0, mention.start - 30) : mention.end + 4]
        if text[mention.end : mention.end + 1] == "." and any(
            match.start() <= mention.start - max(0, mention.start - 30) < match.end()
            for match in _INITIAL.finditer(around)
        ):
            continue
        yield mention


def _leading(text: str) -> Iterator[Mention]:
    """The letter that the text begins with, and one that is all of the last line.

    A letter with a bracket, full stop or colon at the beginning may be the first of a list of options: it
    counts only where no other line, nor the rest of its own, begins like that with another letter.
    """
    lines = text.strip().splitlines()
    if not lines:
        return
    offset = len(text) - len(text.lstrip())
    lead = _LEAD.match(text, offset)
    if lead is not None:
        alone = _WHOLE.fullmatch(lines[0]) is not None
        marked = text[lead.end() : lead.end() + 1] in tuple(").:]*")
        listed = marked and not alone and _is_list(text, lead)
        if not listed and (alone or not _INITIAL.match(text, lead.start(1))):
            yield Mention(lead[1], *lead.span(1))
    small = _LEAD_SMALL.match(text, offset)
    if small is not None:
        yield Mention(small[1].upper(), *small.span(1))
    last = _WHOLE.fullmatch(lines[-1])
    if last is not None and len(lines) > 1:
        at = text.rindex(lines[-1]) + last.start(1)
        yield Mention(last[1].upper(), at, at + 1)


_LISTED: Final = re.compile(r"(?:^|(?<=\s))([(\[*]{0,3})([A-Z])[).:\]](?=\s|\*)", re.MULTILINE)


def _is_list(text: str, lead: re.Match[str]) -> bool:
    """Whether the letter at the beginning is the first of several that begin lines, or are marked like it."""
    bracketed = text[: lead.start(1)].rstrip("*").endswith(("(", "["))
    for other in _LISTED.finditer(text, lead.end()):
        begins_line = text[other.start() - 1] == "\n"
        alike = begins_line or bool(other[1].strip("*")) == bracketed
        if alike and other[2] != lead[1] and not _REJECTED_AFTER.match(text, other.end(2)):
            return True
    return False


_PLACES: Final[Sequence[Place]] = (
    _final,
    _stated,
    _leading,
    _of(_ASSERTED),
    _marked,
    _of(_ALONE),
)


def _occurrences(words: str, text: str) -> Iterator[tuple[int, int]]:
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if stands_alone(text, at, end):
            yield at, end
        at = text.find(words, end)

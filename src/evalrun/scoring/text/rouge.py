"""ROUGE as the package rouge-score computes it (Lin 2004), in time and memory that long texts can bear.

The values are those of rouge-score 0.1.2 (`RougeScorer.score(...).fmeasure`); the tests compare them. That
package fills tables of Python lists, a second for two texts of 2,000 words, and importing it takes seconds;
here the longest common subsequence is found with one integer a row whose bits are the columns (Hyyrö 2004).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

KINDS = ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum")

Stem = Callable[[str], str]

_WORD = re.compile(r"[a-z0-9]+")
_STEMMED_FROM = 4
"""Words of fewer characters are not stemmed."""


def rouge(target: str, answer: str, stem: Stem | None = None) -> dict[str, float]:
    """The F-measures of KINDS, each between 0 and 1."""
    target_words, answer_words = words(target, stem), words(answer, stem)
    return {
        "rouge_1": _ngrams(target_words, answer_words, 1),
        "rouge_2": _ngrams(target_words, answer_words, 2),
        "rouge_l": _lcs(target_words, answer_words),
        "rouge_lsum": _lcs_by_line(_lines(target, stem), _lines(answer, stem)),
    }


def words(text: str, stem: Stem | None = None) -> list[str]:
    """Runs of a to z and 0 to 9 in lower case, stemmed if asked; other letters separate words."""
    found = _WORD.findall(text.lower())
    if stem is None:
        return found
    stemmed = (stem(word) if len(word) >= _STEMMED_FROM else word for word in found)
    return [word for word in stemmed if _WORD.fullmatch(word)]


def porter_stemmer() -> Stem:
    """The stemmer that rouge-score uses. Raises ImportError where nltk is not installed."""
    from nltk.stem.porter import PorterStemmer

    stem: Stem = PorterStemmer().stem
    return stem


def _lines(text: str, stem: Stem | None) -> list[list[str]]:
    return [words(line, stem) for line in text.split("\n") if line]


def _f_measure(hits: int, answer: int, target: int) -> float:
    precision, recall = hits / max(answer, 1), hits / max(target, 1)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def _ngrams(target: Sequence[str], answer: Sequence[str], n: int) -> float:
    counts: list[Mapping[object, int]] = [
        Counter(zip(*(each[at:] for at in range(n)), strict=False)) for each in (target, answer)
    ]
    hits = sum(min(count, counts[1].get(gram, 0)) for gram, count in counts[0].items())
    return _f_measure(hits, sum(counts[1].values()), sum(counts[0].values()))


def _lcs(target: Sequence[str], answer: Sequence[str]) -> float:
    last = None
    for last in _rows(target, answer):  # noqa: B007
        pass
    hits = 0 if last is None else len(answer) - last.bit_count()
    return _f_measure(hits, len(answer), len(target))


def _rows(target: Sequence[str], answer: Sequence[str]) -> Iterable[int]:
    """For each word of the target an integer: bit j is 0 where the table of LCS lengths grows at column j."""
    places: dict[str, int] = {}
    for at, word in enumerate(answer):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(answer)) - 1
    row = full
    for word in target:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & full
        yield row


def _lcs_places(target: Sequence[str], answer: Sequence[str]) -> set[int]:
    """Places in the target of one longest common subsequence: that which rouge-score's way back finds."""
    full = (1 << len(answer)) - 1
    rows = [full, *_rows(target, answer)]
    places: set[int] = set()
    i, j = len(target), len(answer)
    while i and j:
        if target[i - 1] == answer[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
            continue
        below = (1 << j) - 1
        left = j - 1 - (rows[i] & below >> 1).bit_count()
        above = j - (rows[i - 1] & below).bit_count()
        if left > above:
            j -= 1
        else:
            i -= 1
    return places


def _lcs_by_line(target: Sequence[Sequence[str]], answer: Sequence[Sequence[str]]) -> float:
    """Summary-level LCS: of each line of the target, the union of its LCS with every line of the answer."""
    target_size, answer_size = sum(map(len, target)), sum(map(len, answer))
    if not target_size or not answer_size:
        return 0.0
    if len(target) == len(answer) == 1:
        return _lcs(target[0], answer[0])
    left_in_target = Counter(word for line in target for word in line)
    left_in_answer = Counter(word for line in answer for word in line)
    hits = 0
    for line in target:
        found: set[int] = set()
        for other in answer:
            found |= _lcs_places(line, other)
        for at in sorted(found):
            word = line[at]
            # A word counts as often as it stands in both texts, however many lines match it.
            if left_in_answer[word] > 0 and left_in_target[word] > 0:
                hits += 1
                left_in_answer[word] -= 1
                left_in_target[word] -= 1
    return _f_measure(hits, answer_size, target_size)

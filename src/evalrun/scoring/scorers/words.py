"""Scorers that compare the words of answer and target: token F1, SQuAD, ROUGE, METEOR."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import (
    NO_TARGET,
    Example,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
    target_texts,
)
from evalrun.scoring.functions import scorer
from evalrun.scoring.text import UNSPACED, composed, plain_words, squad_tokens
from evalrun.types import JSON, Score

_STAY = " Unparsed and refused answers count as 0; failed samples are left out."


@scorer(
    "token_f1",
    summary="F1 over the words that answer and target share, in lower case without punctuation and articles, "
    "much as SQuAD has it, but signs, decimal points and symbols of mathematics stay; of several targets the "
    "best counts.",
    metric="Mean over samples of the F1 between the words of the answer and of the target, each word "
    "counted as often as it stands: 2PR / (P + R), with P the share of the answer's words that are "
    "in the target and R the share of the target's words that are in the answer. Words are lower "
    "case without articles and punctuation, but for what belongs to a number (-5, 3.14). Of several "
    "targets the best counts." + _STAY,
    example=Example("token_f1", "the big cat", "a cat", 0.6667),
    needs_target=True,
)
def token_f1(answer: JSON, target: JSON) -> Score:
    """Between 0 and 1. Where either has no words, 1 if both have none, else 0, as SQuAD 2.0 has it."""
    if target is None:
        return Score(None, NO_TARGET)
    words = plain_words(as_text(answer))
    targets = [plain_words(as_text(alternative)) for alternative in alternatives(target)]
    if not targets:
        return Score(None, "the list of targets is empty")
    best = max(targets, key=lambda each: squad_f1(words, each))
    value = squad_f1(words, best)
    if not words or not best:
        what = "answer and target have no words" if value == 1.0 else "answer or target has no words"
        return Score(value, what)
    return Score(
        value,
        f"{_common(words, best)} of the answer's {len(words)} words are among the {len(best)} of the target; "
        f"answer {shown(answer)}",
    )


@scorer(
    "squad",
    summary="Exact match and word F1 of SQuAD (lower case, no ASCII punctuation, no articles); of several "
    "targets the best counts. A question without an answer has an empty list of targets, and wants an "
    "empty answer. As in SQuAD's script -5 is 5 and 3.14 is 314: the reason says where that decided; "
    "exact_match and token_f1 keep signs and points. Unlike there, an empty answer is not the target 'A'.",
    metric=(
        fraction(
            "f1",
            "Mean over samples of the F1 between the words of answer and target, as SQuAD's evaluation "
            "script has it (Rajpurkar et al. 2016): 2PR / (P + R) over words counted as often as they "
            "stand, in lower case without ASCII punctuation and articles; of several targets the best. "
            "Where either has no words it is 1 if both have none, else 0." + _STAY,
        ),
        fraction(
            "exact_match",
            "Share of samples whose answer has exactly the words of a target, in order, after SQuAD's "
            "normalisation (lower case, no ASCII punctuation, no articles)." + _STAY,
        ),
    ),
    example=Example("squad", "The cat!", ["a cat sat", "dog"], 0.6667),
    parts=("exact_match", "f1"),
    needs_target=True,
)
def squad(answer: JSON, target: JSON) -> Score:
    """F1, with both as parts. An empty list of targets means that there is no answer to give."""
    if target is None:
        return Score(None, NO_TARGET)
    words = squad_tokens(as_text(answer))
    targets = [squad_tokens(as_text(alternative)) for alternative in alternatives(target)] or [[]]
    exact = float(words in targets)
    f1 = max(squad_f1(words, each) for each in targets)
    reason = f"answer {shown(answer)}: exact match {exact:g}, F1 {f1:.4g}"
    if exact and all(
        plain_words(as_text(answer)) != plain_words(as_text(one)) for one in alternatives(target)
    ):
        reason += f"; equal to {shown(target)} only because SQuAD deletes signs, points and symbols"
    return Score(f1, reason, {"exact_match": exact, "f1": f1})


def squad_f1(answer: list[str], target: list[str]) -> float:
    """F1 over words; where either has none, 1 if both have none, else 0 (SQuAD 2.0)."""
    if not answer or not target:
        return float(answer == target)
    common = _common(answer, target)
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(target)
    return 2 * precision * recall / (precision + recall)


def _common(answer: list[str], target: list[str]) -> int:
    return sum((Counter(answer) & Counter(target)).values())


KINDS = ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum")
_KINDS = {
    "rouge_l": ("ROUGE-L", "the words of the longest common subsequence"),
    "rouge_1": ("ROUGE-1", "single words"),
    "rouge_2": ("ROUGE-2", "pairs of neighbouring words"),
    "rouge_lsum": (
        "ROUGE-Lsum",
        "the words of the longest common subsequences of their lines, joined line by line",
    ),
}


class RougeOptions(ScorerOptions):
    """What a word is."""

    tokenizer: Literal["auto", "rouge_score", "unicode"] = Field(
        default="auto",
        description="rouge_score: words are runs of a to z and 0 to 9, as that package has them. unicode: "
        "runs of letters and digits of any script, and single characters in scripts without spaces "
        "between words. auto: unicode where more than a fifth of the target's letters are not a to z, else "
        "rouge_score.",
    )

    stemmer: bool = Field(
        default=False,
        description="Compare word stems (Porter, English). Needs the extra `text`; loading it takes seconds.",
    )


@scorer(
    "rouge",
    summary="ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum as rouge-score computes them: F-measures, averaged "
    "over samples. Words are runs of a to z and 0 to 9, as there; where the target is in another script, "
    "runs of its letters, or its characters where there are no spaces between words.",
    metric=tuple(
        fraction(
            part,
            f"Mean over samples of the {kind} F-measure (Lin 2004), 2PR / (P + R), over {what} in answer and "
            "target. Words are runs of a to z and 0 to 9 in lower case, or, where the target is in another "
            "script, runs of letters and digits, and single characters where words have no spaces between "
            "them. Of several targets the best counts. "
            "A plain mean, never the resampled median of rouge-score's aggregator." + _STAY,
        )
        for part, (kind, what) in _KINDS.items()
    ),
    example=Example("rouge", "the cat was on the mat", "the cat sat on the mat", 0.8333),
)
class Rouge(Scorer[RougeOptions]):
    """F-measures of the words that answer and target share."""

    needs_target = True
    parts = KINDS

    def __init__(self, options: RougeOptions) -> None:
        super().__init__(options)
        self._stem: Stem | None = None
        if options.stemmer:
            try:
                self._stem = porter_stemmer()
            except ImportError:
                raise UserError(
                    "the stemmer of 'rouge' needs the package nltk",
                    where="scorers",
                    remedy="Install it: pip install 'nltk>=3.9'. Or leave stemmer out.",
                ) from None

    def score(self, sample: ScoringInput) -> Score:
        """ROUGE-L, with all four as parts; of several targets the best counts for each. None without one."""
        targets = target_texts(sample.target)
        if not targets:
            return Score(None, NO_TARGET)
        answer = as_text(sample.answer)
        measured = [rouge(target, answer, self._stem, self.options.tokenizer) for target in targets]
        parts = {kind: max(measures[kind] for measures in measured) for kind in KINDS}
        reason = ", ".join(f"{kind} {value:.4g}" for kind, value in parts.items())
        return Score(parts["rouge_l"], reason, dict(parts))


Stem = Callable[[str], str]

_WORD = re.compile(r"[a-z0-9]+")
_ANY_WORD = re.compile(rf"[{UNSPACED}\u3040-\u309f]|(?:(?![{UNSPACED}\u3040-\u309f])[^\W_])+")
"""A character of a script without spaces between words, or a run of other letters and digits."""
_STEMMED_FROM = 4
"""Words of fewer characters are not stemmed."""


def rouge(
    target: str,
    answer: str,
    stem: Stem | None = None,
    tokenizer: Literal["auto", "rouge_score", "unicode"] = "auto",
) -> dict[str, float]:
    """The F-measures of KINDS, each between 0 and 1."""
    if tokenizer != "rouge_score":
        target, answer = composed(target), composed(answer)
    word = _WORD
    if tokenizer == "unicode" or (tokenizer == "auto" and _in_other_script(target)):
        word = _ANY_WORD
    target, answer = target.lower(), answer.lower()
    target_words, answer_words = words(target, stem, word), words(answer, stem, word)
    target_lines, answer_lines = (
        [words(line, stem, word) for line in text.split("\n") if line] for text in (target, answer)
    )
    return {
        "rouge_1": _ngrams(target_words, answer_words, 1),
        "rouge_2": _ngrams(target_words, answer_words, 2),
        "rouge_l": _lcs(target_words, answer_words),
        "rouge_lsum": _lcs_by_line(target_lines, answer_lines),
    }


def _in_other_script(text: str) -> bool:
    """Whether more than a fifth of its letters are not a to z: not so of French, or English with a café."""
    if text.isascii():
        return False
    letters = sum(map(str.isalpha, text))
    return 5 * sum(character.isalpha() and not character.isascii() for character in text) > letters


def words(text: str, stem: Stem | None, word: re.Pattern[str] = _WORD) -> list[str]:
    """The words of a text in lower case, stemmed if asked; other characters separate words."""
    tokens = word.findall(text)
    if stem is None:
        return tokens
    stemmed = (stem(token) if len(token) >= _STEMMED_FROM and token.isascii() else token for token in tokens)
    return [token for token in stemmed if word.fullmatch(token) or not token.isascii()]


def porter_stemmer() -> Stem:
    """The stemmer that rouge-score uses. Raises ImportError where nltk is not installed."""
    from nltk.stem.porter import PorterStemmer

    stem: Stem = PorterStemmer().stem
    return stem


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
        places: set[int] = set()
        for other in answer:
            places |= _lcs_places(line, other)
        for at in sorted(places):
            word = line[at]
            # A word counts as often as it stands in both texts, however many lines match it.
            if left_in_answer[word] > 0 and left_in_target[word] > 0:
                hits += 1
                left_in_answer[word] -= 1
                left_in_target[word] -= 1
    return _f_measure(hits, answer_size, target_size)


DATA = {"wordnet": "corpora/wordnet", "punkt_tab": "tokenizers/punkt_tab"}
"""Packages of NLTK's data that are needed, and where they lie."""


class MeteorOptions(ScorerOptions):
    """Options of the scorer `meteor`."""

    alpha: float = Field(default=0.9, gt=0, lt=1, description="Weight of precision against recall.")
    beta: float = Field(default=3.0, ge=0, description="Shape of the penalty for scattered matches.")
    gamma: float = Field(default=0.5, ge=0, le=1, description="Weight of that penalty.")


@scorer(
    "meteor",
    summary="METEOR (NLTK's). Needs NLTK and its data wordnet and punkt_tab on this machine.",
    metric="METEOR (Banerjee and Lavie 2005) as NLTK computes it, with the best of several targets: the "
    "harmonic mean of unigram precision and recall, weighted by alpha, of words matched by form, "
    "by stem and by WordNet synonyms, times 1 - gamma (chunks / matches)^beta. Mean over "
    "samples.",
)
class Meteor(Scorer[MeteorOptions]):
    """METEOR of the answer against the best of its targets."""

    needs_target = True
    late = True

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """NLTK and its data must be here: nothing is downloaded."""
        missing = missing_data()
        if not missing:
            return []
        return [
            Problem(
                f"METEOR needs {', '.join(missing)}, which this machine has not",
                f"scorer {self.name}",
                "pip install 'nltk>=3.9', then python -m nltk.downloader wordnet punkt_tab. "
                "Without a network, chrf and rouge need no data.",
            )
        ]

    def score(self, sample: ScoringInput) -> Score:
        """The greatest METEOR of the answer with any of its targets; None without a target."""
        from nltk.translate.meteor_score import single_meteor_score

        targets = target_texts(sample.target)
        if not targets:
            return Score(None, NO_TARGET)
        options = self.options
        answer = _words(as_text(sample.answer))
        wordnet = _wordnet()
        with _LOCK:  # the corpus reader seeks in files that all threads share
            value = max(
                single_meteor_score(
                    _words(target),
                    answer,
                    alpha=options.alpha,
                    beta=options.beta,
                    gamma=options.gamma,
                    wordnet=wordnet,
                )
                for target in targets
            )
        return Score(float(value), f"METEOR {value:.3f}")


_LOCK = threading.Lock()


def missing_data() -> list[str]:
    """What METEOR needs and this machine has not, in words."""
    try:
        import nltk
    except ImportError:
        return ["NLTK"]
    missing = []
    for package, place in DATA.items():
        for form in (place, f"{place}.zip"):
            try:
                nltk.data.find(form)
                break
            except (LookupError, OSError):
                continue
        else:
            missing.append(f"NLTK's data '{package}'")
    return missing


@lru_cache(maxsize=20_000)
def _words(text: str) -> tuple[str, ...]:
    from nltk import word_tokenize

    return tuple(word_tokenize(text))


def _wordnet() -> Any:
    from nltk.corpus import wordnet

    return wordnet

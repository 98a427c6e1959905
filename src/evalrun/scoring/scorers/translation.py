"""Scorers whose figure of a run is computed from counts: BLEU, chrF, TER, word and character error rate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from evalrun.scoring.base import (
    NO_TARGET,
    Corpus,
    Example,
    MetricInfo,
    OptionsT,
    ScoreColumns,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    target_texts,
)
from evalrun.scoring.functions import scorer
from evalrun.scoring.scorers.text import ExactMatchOptions
from evalrun.scoring.text import normaliser
from evalrun.types import JSON, Direction, Score

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

    from evalrun.scoring.figures import Formula


_LEFT_OUT = " Unparsed and refused answers count as empty answers; failed samples are left out."


def _metrics(
    unit: str, direction: Direction, highest: float | None, mean: str, corpus: str
) -> tuple[MetricInfo, ...]:
    """The mean over samples, then the figure of the whole run."""
    mean += " {name}.corpus; paired tests go by this one." + _LEFT_OUT
    corpus += _LEFT_OUT + " Interval: percentile bootstrap over samples from their counts."
    return (
        MetricInfo("sample_mean", unit, direction, mean, (0.0, highest)),
        MetricInfo("corpus", unit, direction, corpus, (0.0, highest)),
    )


class CountedScorer(Scorer[OptionsT]):
    """A score of each sample, and one figure of all of them from the sums of their counts.

    The counts are the first of the `parts`, in the order that `formula` wants; they are stored with the
    samples and are no metrics.
    """

    unanswered_as_empty: ClassVar[bool] = True

    @abstractmethod
    def formula(self) -> Formula:
        """Sums of shape (..., k) to values of shape (...). Imports numpy."""

    def counts(self) -> tuple[str, ...]:
        """The parts that are counts."""
        return self.parts

    def signature(self, columns: ScoreColumns) -> str:
        """How the reference library would say that it computed the figure; "" where it has no word for it."""
        return ""

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """The one figure, as a function of sums over the samples."""
        import numpy as np

        formula = self.formula()
        name = f"{self.name}.corpus"
        signature = self.signature(columns)
        details: dict[str, JSON] = {"signature": signature} if signature else {}
        return Corpus(
            kinds=np.arange(len(columns.value), dtype=np.int64),
            statistics=np.stack([columns.parts[part] for part in self.counts()], axis=1),
            figures=lambda sums: formula(sums)[..., None],
            names=(name,),
            infos={name: self.metrics_by_name()[name]},
            notes={name: signature} if signature else {},
            details=details,
        )


TARGETS = "targets"
"""The part that holds how many targets a sample has: the signature says it."""


class SacrebleuScorer(CountedScorer[OptionsT]):
    """A metric of sacrebleu. Subclasses say which, and name its counts."""

    def __init__(self, options: OptionsT) -> None:
        super().__init__(options)
        self._metric = self.make_metric()
        self.parts = (*self.count_names(), TARGETS)

    @abstractmethod
    def make_metric(self) -> Metric:
        """The metric of sacrebleu, which is imported here and only here."""

    @abstractmethod
    def count_names(self) -> tuple[str, ...]:
        """Names of the counts that sacrebleu keeps of a sample, in its order."""

    @abstractmethod
    def sample_value(self, counts: list[Any]) -> float:
        """The score of one sample from its counts."""

    def counts(self) -> tuple[str, ...]:
        """The parts that are counts."""
        return self.parts[:-1]

    def score(self, sample: ScoringInput) -> Score:
        """On sacrebleu's scale of 0 to 100; None where there is no target."""
        targets = target_texts(sample.target)
        if not targets:
            return Score(None, NO_TARGET)
        answer = as_text(sample.answer)
        # The same call that sacrebleu's own significance tests begin with.
        counts = self._metric._extract_corpus_statistics([answer], [[target] for target in targets])[0]
        value = self.sample_value(list(counts))
        parts = dict(zip(self.parts, (*map(float, counts), float(len(targets))), strict=True))
        many = f"the best of {len(targets)} targets" if len(targets) > 1 else "the target"
        return Score(value, f"{type(self._metric).__name__} {value:.4g} against {many}", parts)

    def signature(self, columns: ScoreColumns) -> str:
        """sacrebleu's signature of the figure: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0."""
        numbers = set(columns.parts[TARGETS].tolist())
        return self._signature(int(numbers.pop()) if len(numbers) == 1 else -1)

    def _signature(self, targets: int) -> str:
        self._metric.num_refs = targets
        return str(self._metric.get_signature())

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same as `describe`, with the signature."""
        plain = "|".join(each for each in self._signature(1).split("|") if not each.startswith("nrefs:"))
        return tuple(
            replace(info, definition=f"{info.definition} sacrebleu {plain}.")
            if info.name == f"{self.name}.corpus"
            else info
            for info in self.describe(self.name)
        )


class BleuOptions(ScorerOptions):
    """Options of the scorer `bleu`."""

    tokenize: Literal["13a", "intl", "char", "zh", "none"] = Field(
        default="13a",
        description="How words are told apart: 13a (the standard), intl (all scripts), zh (Chinese), "
        "char (every character), none (at white space).",
    )
    ignore_case: bool = Field(default=False, description="Compare in lower case.")
    smooth: Literal["exp", "floor", "add-k", "none"] = Field(
        default="exp", description="What stands for a precision of 0."
    )
    smooth_value: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="For floor (default 0.1) and add-k (default 1)."
    )
    max_order: int = Field(default=4, ge=1, le=8, description="Longest n-grams that are counted.")


@scorer(
    "bleu",
    summary="BLEU as sacrebleu computes it, 0 to 100: over the whole run from summed n-gram counts, and a "
    "score of each sample. A list of targets holds several references.",
    metric=_metrics(
        "points",
        "higher",
        100.0,
        "Mean over samples of the BLEU of each alone, 0 to 100, with effective order: orders of n-grams that "
        "an answer is too short for are left out. The BLEU of the run is",
        "BLEU of all samples together (Papineni et al. 2002), 0 to 100: brevity penalty times the geometric "
        "mean of the n-gram precisions, n = 1 to 4, from counts summed over the samples.",
    ),
    example=Example("bleu", "the cat sat on a mat", "the cat sat on the mat", 53.7285),
)
class Bleu(SacrebleuScorer[BleuOptions]):
    """Shared n-grams of words, 0 to 100."""

    shorthand = "tokenize"

    def make_metric(self) -> Metric:
        """sacrebleu's BLEU."""
        from sacrebleu.metrics.bleu import BLEU

        options = self.options
        return BLEU(
            lowercase=options.ignore_case,
            force=True,  # only silences a warning about answers that end in " ."
            tokenize=options.tokenize,
            smooth_method=options.smooth,
            smooth_value=options.smooth_value,
            max_ngram_order=options.max_order,
        )

    def count_names(self) -> tuple[str, ...]:
        """Words of answer and target, then matches and totals by order."""
        orders = range(1, self.options.max_order + 1)
        matches, totals = (tuple(f"{what}_{n}" for n in orders) for what in ("matches", "ngrams"))
        return ("answer_words", "target_words", *matches, *totals)

    def sample_value(self, counts: list[Any]) -> float:
        """Sentence BLEU with effective order, as sacrebleu recommends for single sentences."""
        from sacrebleu.metrics.bleu import BLEU

        options = self.options
        order = options.max_order
        result = BLEU.compute_bleu(
            correct=counts[2 : 2 + order],
            total=counts[2 + order :],
            sys_len=counts[0],
            ref_len=counts[1],
            smooth_method=options.smooth,
            smooth_value=options.smooth_value,
            effective_order=True,
            max_ngram_order=order,
        )
        return float(result.score)

    def formula(self) -> Formula:
        """Corpus BLEU from summed counts."""
        from evalrun.scoring.figures import bleu_formula

        return bleu_formula(self.options.max_order, self.options.smooth, self.options.smooth_value)


class ChrfOptions(ScorerOptions):
    """Options of the scorer `chrf`."""

    char_order: int = Field(default=6, ge=1, le=12, description="Longest character n-grams.")
    word_order: int = Field(
        default=0, ge=0, le=4, description="Longest word n-grams; 2 makes it chrF++, 0 leaves words out."
    )
    beta: int = Field(default=2, ge=1, le=10, description="How much more recall weighs than precision.")
    ignore_case: bool = Field(default=False, description="Compare in lower case.")
    whitespace: bool = Field(default=False, description="Whether spaces are characters.")


@scorer(
    "chrf",
    summary="chrF as sacrebleu computes it, 0 to 100: F-measure over character n-grams, good for languages "
    "with many word forms; word_order: 2 is chrF++. Of several targets the best counts.",
    metric=_metrics(
        "points",
        "higher",
        100.0,
        "Mean over samples of the chrF of each alone, 0 to 100. The chrF of the run is",
        "chrF of all samples together (Popović 2015), 0 to 100: 100 (1 + b²) P R / (b² P + R), with P and R "
        "the precision and recall of character n-grams, averaged over n = 1 to 6, from counts summed over "
        "the samples; b = 2 unless the suite says otherwise.",
    ),
    example=Example("{chrf: {word_order: 2}}", "the cat sat on a mat", "the cat sat on the mat", 67.4444),
)
class Chrf(SacrebleuScorer[ChrfOptions]):
    """Shared n-grams of characters, 0 to 100."""

    shorthand = "word_order"

    def make_metric(self) -> Metric:
        """sacrebleu's CHRF."""
        from sacrebleu.metrics.chrf import CHRF

        options = self.options
        return CHRF(
            char_order=options.char_order,
            word_order=options.word_order,
            beta=options.beta,
            lowercase=options.ignore_case,
            whitespace=options.whitespace,
        )

    def count_names(self) -> tuple[str, ...]:
        """By order, characters before words: n-grams of the answer, of the target, and common ones."""
        options = self.options
        orders = [f"char_{n}" for n in range(1, options.char_order + 1)]
        orders += [f"word_{n}" for n in range(1, options.word_order + 1)]
        return tuple(f"{order}_{what}" for order in orders for what in ("answer", "target", "common"))

    def sample_value(self, counts: list[Any]) -> float:
        """chrF of one sample."""
        return float(self._metric._compute_f_score(counts))  # type: ignore[attr-defined]

    def formula(self) -> Formula:
        """Corpus chrF from summed counts."""
        from evalrun.scoring.figures import chrf_formula

        return chrf_formula(self.options.char_order + self.options.word_order, self.options.beta)


class TerOptions(ScorerOptions):
    """Options of the scorer `ter`."""

    normalized: bool = Field(default=False, description="Split punctuation from words, decode entities.")
    ignore_punctuation: bool = Field(default=False, description="Leave punctuation out.")
    asian_support: bool = Field(
        default=False, description="With the two above: also for Chinese, Japanese and Korean text."
    )
    ignore_case: bool = Field(default=True, description="Compare in lower case.")
    max_words: int = Field(
        default=200,
        ge=1,
        description="Samples whose answer or target is longer are not scored: the search for shifts takes "
        "seconds at 200 words in the worst case, and holds up the run meanwhile.",
    )


@scorer(
    "ter",
    summary="Translation edit rate as sacrebleu computes it: insertions, deletions, substitutions and shifts "
    "of blocks per 100 words of the target; less is better. Of several targets the nearest counts.",
    metric=_metrics(
        "points",
        "lower",
        None,
        "Mean "
        "over samples of the TER of each alone: edits per 100 words of the target. The TER of the run is",
        "Translation edit rate of all samples together (Snover et al. 2006): 100 times the edits "
        "(insertions, deletions, substitutions, shifts of blocks of words) divided by the words of the "
        "targets, both summed over the samples.",
    ),
    example=Example("ter", "the cat sat on a mat", "the cat sat on the mat", 16.6667),
)
class Ter(SacrebleuScorer[TerOptions]):
    """Edits, block shifts included, per word of the target."""

    def make_metric(self) -> Metric:
        """sacrebleu's TER."""
        from sacrebleu.metrics.ter import TER

        options = self.options
        return TER(
            normalized=options.normalized,
            no_punct=options.ignore_punctuation,
            asian_support=options.asian_support,
            case_sensitive=not options.ignore_case,
        )

    def count_names(self) -> tuple[str, ...]:
        """Edits, and the mean length of the targets."""
        return ("edits", "target_words")

    def score(self, sample: ScoringInput) -> Score:
        """Edits per 100 words; None where there is no target, or where the texts are too long."""
        longest = max(len(as_text(each).split()) for each in (sample.answer, *alternatives(sample.target)))
        if longest > self.options.max_words:
            limit = self.options.max_words
            return Score(None, f"{longest} words are more than max_words, which is {limit}")
        return super().score(sample)

    def sample_value(self, counts: list[Any]) -> float:
        """TER of one sample."""
        return float(self._metric._compute_score_from_stats(counts).score)

    def formula(self) -> Formula:
        """Corpus TER from summed counts."""
        from evalrun.scoring.figures import ter

        return ter


Unit = Literal["words", "characters"]
Counter = Callable[[str, str], tuple[int, int]]


def edit_counter(unit: Unit) -> Counter:
    """A function of (target, answer) to (edits, units of the target).

    Edits are the least number of substitutions, deletions and insertions that make the answer the target.
    """
    import jiwer
    from rapidfuzz.distance import Levenshtein

    transform = jiwer.wer_default if unit == "words" else jiwer.cer_default

    def units(text: str) -> Sequence[str]:
        # jiwer gives a list of sentences, each a list of units; an empty text gives none, or an empty one.
        sentences: list[list[str]] = transform([text])
        return sentences[0] if sentences else []

    def count(target: str, answer: str) -> tuple[int, int]:
        wanted, given = units(target), units(answer)
        return Levenshtein.distance(wanted, given), len(wanted)

    return count


def rate(edits: float, size: float) -> float:
    """Edits per unit of the target; for an empty target the number of edits, as in jiwer."""
    return edits / size if size else float(edits)


class ErrorRateOptions(ExactMatchOptions):
    """How texts are made comparable."""

    ignore_whitespace: bool = Field(
        default=False,
        description="Make every run of white space one space first. Without it words are told apart at "
        "spaces only, as in jiwer: a single line break joins two words.",
    )


def _error_rate(name: str, unit: Unit) -> tuple[MetricInfo, ...]:
    what = f"the least number of {unit} substituted, deleted and inserted to make the answer the target"
    return _metrics(
        "fraction",
        "lower",
        None,
        f"Mean over samples of the {name} error rate of each alone: {what}, divided by the {unit} of the "
        "target. It may exceed 1. Of several targets the nearest counts. The rate of the run is",
        f"{name.capitalize()} error rate of all samples together: {what}, divided by the {unit} of the "
        "targets, both summed over the samples, as jiwer has it.",
    )


class ErrorRate(CountedScorer[ErrorRateOptions]):
    """Edits per unit of the target."""

    unit: ClassVar[Unit]

    def __init__(self, options: ErrorRateOptions) -> None:
        super().__init__(options)
        self.parts = ("edits", f"target_{self.unit}")
        self._count = edit_counter(self.unit)
        # Without any of the options the ends stay too, as in jiwer.
        as_it_is = not (options.ignore_case or options.ignore_punctuation or options.ignore_whitespace)
        self._normalise = str if as_it_is else normaliser(options)

    def score(self, sample: ScoringInput) -> Score:
        """Edits per unit of the nearest target; None where there is no target."""
        targets = [self._normalise(text) for text in target_texts(sample.target)]
        if not targets:
            return Score(None, NO_TARGET)
        answer = self._normalise(as_text(sample.answer))
        counted = [self._count(target, answer) for target in targets]
        edits, size = min(counted, key=lambda pair: rate(*pair))
        parts = dict(zip(self.parts, (float(edits), float(size)), strict=True))
        return Score(rate(edits, size), f"{edits} edits on the target's {size} {self.unit}", parts)

    def formula(self) -> Formula:
        """Edits divided by units, both summed."""
        from evalrun.scoring.figures import error_rate

        return error_rate


@scorer(
    "wer",
    summary="Word error rate as jiwer computes it: edits of words per word of the target; less is better, "
    "and more than 1 is possible.",
    metric=_error_rate("word", "words"),
    example=Example("wer", "the cat was on the mat", "the cat sat on the mat", 0.1667),
)
class WordErrorRate(ErrorRate):
    """Edits of words per word of the target."""

    unit = "words"


@scorer(
    "cer",
    summary="Character error rate as jiwer computes it: edits of characters, spaces included, per character "
    "of the target; less is better.",
    metric=_error_rate("character", "characters"),
    example=Example("cer", "the cat", "the cut", 0.1429),
)
class CharacterErrorRate(ErrorRate):
    """Edits of characters per character of the target."""

    unit = "characters"

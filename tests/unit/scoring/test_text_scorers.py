"""Text scorers against the reference libraries, to 1e-9, on text of all kinds: empty, non-Latin, long."""

import math
import random

import jiwer
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.quality import score_metrics
from evalrun.analysis.samples import SampleTable
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.scorers.words import porter_stemmer, rouge
from evalrun.types import MetricValue, SampleRecord, Score, Status

WORDS = [
    "the",
    "a",
    "cat",
    "cats",
    "sat",
    "on",
    "mat",
    "mat.",
    "It's",
    "42",
    "3.5",
    "ça",
    "мир",
    "кот",
    "猫",
    "は",
]
TEXT = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.lists(st.sampled_from([*WORDS, "\n", "\t", "  "]), max_size=15).map(" ".join),
    st.text(max_size=30),
)
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def score(made: Scorer, answer: object, target: object) -> Score:
    return made.score(ScoringInput(answer, str(answer), target, Status.SCORED, {}))


def table_of(pairs: list[tuple[str, object]], made: Scorer) -> SampleTable:
    """Answers are passed unparsed and unstripped, as the reference libraries get them."""
    records = []
    for number, (answer, target) in enumerate(pairs):
        verdict = score(made, answer, target)
        scores = {made.name: verdict.value, **{f"{made.name}.{k}": v for k, v in verdict.parts.items()}}
        records.append(
            SampleRecord(
                sample_id=f"s{number}",
                repeat=0,
                position=number,
                vars={},
                target=target,
                status=Status.SCORED,
                output=answer,
                answer=answer,
                scores=scores,
            )
        )
    return sample_table(records)


def metrics(pairs: list[tuple[str, object]], made: Scorer) -> dict[str, MetricValue]:
    found, _ = score_metrics(table_of(pairs, made), [made], exclude_unparsed=False, seed=0)
    return {metric.name: metric for metric in found}


PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from(["13a", "intl", "char", "zh", "none"]), st.booleans())
def test_bleu_is_that_of_sacrebleu(pairs: list[tuple[str, str]], tokenize: str, fold: bool) -> None:
    made = scorer("bleu", tokenize=tokenize, ignore_case=fold)
    reference = sacrebleu.BLEU(tokenize=tokenize, lowercase=fold, force=True)
    whole = reference.corpus_score([a for a, _ in pairs], [[t for _, t in pairs]]).score
    assert metrics(list(pairs), made)["bleu.corpus"].value == pytest.approx(whole, **CLOSE)
    alone = sacrebleu.BLEU(tokenize=tokenize, lowercase=fold, force=True, effective_order=True)
    for answer, target in pairs:
        wanted = alone.sentence_score(answer, [target]).score
        assert score(made, answer, target).value == pytest.approx(wanted, **CLOSE)


@settings(max_examples=80, deadline=None)
@given(
    PAIRS,
    st.sampled_from([("floor", None), ("floor", 0.3), ("add-k", None), ("add-k", 2.0), ("none", None)]),
    st.integers(1, 5),
)
def test_bleu_smooths_like_sacrebleu(
    pairs: list[tuple[str, str]], smooth: tuple[str, float | None], order: int
) -> None:
    made = scorer("bleu", smooth=smooth[0], smooth_value=smooth[1], max_order=order)
    reference = sacrebleu.BLEU(
        smooth_method=smooth[0], smooth_value=smooth[1], max_ngram_order=order, force=True
    )
    whole = reference.corpus_score([a for a, _ in pairs], [[t for _, t in pairs]]).score
    assert metrics(list(pairs), made)["bleu.corpus"].value == pytest.approx(whole, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from([0, 2]), st.booleans(), st.booleans())
def test_chrf_is_that_of_sacrebleu(
    pairs: list[tuple[str, str]], words: int, fold: bool, whitespace: bool
) -> None:
    made = scorer("chrf", word_order=words, ignore_case=fold, whitespace=whitespace)
    reference = sacrebleu.CHRF(word_order=words, lowercase=fold, whitespace=whitespace)
    whole = reference.corpus_score([a for a, _ in pairs], [[t for _, t in pairs]]).score
    assert metrics(list(pairs), made)["chrf.corpus"].value == pytest.approx(whole, **CLOSE)
    for answer, target in pairs:
        wanted = reference.sentence_score(answer, [target]).score
        assert score(made, answer, target).value == pytest.approx(wanted, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.booleans(), st.booleans())
def test_ter_is_that_of_sacrebleu(pairs: list[tuple[str, str]], normalized: bool, asian: bool) -> None:
    made = scorer("ter", normalized=normalized, asian_support=asian)
    reference = sacrebleu.TER(normalized=normalized, asian_support=asian)
    whole = reference.corpus_score([a for a, _ in pairs], [[t for _, t in pairs]]).score
    assert metrics(list(pairs), made)["ter.corpus"].value == pytest.approx(whole, **CLOSE)
    for answer, target in pairs:
        wanted = reference.sentence_score(answer, [target]).score
        assert score(made, answer, target).value == pytest.approx(wanted, **CLOSE)


def test_several_references_and_the_signature() -> None:
    pairs: list[tuple[str, object]] = [
        ("the cat sat on the mat", ["a cat sat on a mat", "the cat was on the mat"]),
        ("a dog barked loudly at night", ["the dog barked", "a dog barked loudly in the night"]),
    ]
    streams = [[targets[at] for _, targets in pairs] for at in range(2)]  # type: ignore[index]
    for name, kind in (("bleu", sacrebleu.BLEU), ("chrf", sacrebleu.CHRF), ("ter", sacrebleu.TER)):
        reference = kind()
        wanted = reference.corpus_score([a for a, _ in pairs], streams)
        found = metrics(pairs, scorer(name))[f"{name}.corpus"]
        assert found.value == pytest.approx(wanted.score, **CLOSE)
        assert str(reference.get_signature()) in found.note
        assert "nrefs:2" in found.note
    mixed = [pairs[0], ("a dog", "the dog")]
    assert "nrefs:var" in metrics(mixed, scorer("bleu"))["bleu.corpus"].note
    assert "tok:13a" in scorer("bleu").metrics()[1].definition


def test_the_interval_of_a_corpus_figure_is_that_of_resampling_the_samples() -> None:
    draw = random.Random(5)
    pairs = []
    for _ in range(60):
        target = [draw.choice(WORDS) for _ in range(draw.randint(3, 10))]
        answer = [word if draw.random() < 0.7 else draw.choice(WORDS) for word in target]
        pairs.append((" ".join(answer), " ".join(target)))
    found = metrics(list(pairs), scorer("bleu"))["bleu.corpus"]
    assert found.method == "bootstrap"
    reference, rng = sacrebleu.BLEU(force=True), np.random.default_rng(1)
    values = []
    for _ in range(400):
        taken = [pairs[at] for at in rng.integers(len(pairs), size=len(pairs))]
        values.append(reference.corpus_score([a for a, _ in taken], [[t for _, t in taken]]).score)
    low, high = np.quantile(values, [0.025, 0.975])
    width = high - low
    assert found.ci_low == pytest.approx(low, abs=0.15 * width)
    assert found.ci_high == pytest.approx(high, abs=0.15 * width)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_error_rates_are_those_of_jiwer(pairs: list[tuple[str, str]]) -> None:
    answers, targets = [a for a, _ in pairs], [t for _, t in pairs]
    for name, function in (("wer", jiwer.wer), ("cer", jiwer.cer)):
        made = scorer(name)
        for answer, target in pairs:
            assert score(made, answer, target).value == pytest.approx(function(target, answer), **CLOSE)
        whole = metrics(list(pairs), made)[f"{name}.corpus"].value
        assert whole == pytest.approx(function(targets, answers), **CLOSE)


def test_error_rates_of_unanswered_samples_are_those_of_empty_answers() -> None:
    no_label = registry.load("parser", "choice")
    pipeline = Pipeline([no_label(no_label.Options(labels=["yes", "no"]))], [scorer("wer"), scorer("bleu")])
    scored = pipeline.evaluate("who knows", "the cat sat", {})
    assert scored.status is Status.UNPARSED
    assert scored.scores["wer"] == 1
    assert scored.scores["wer.target_words"] == 3
    assert scored.scores["bleu.target_words"] == 3
    assert scored.reasons["wer"].startswith("unparsed: ")
    assert pipeline.evaluate("who knows", "the cat sat", {}, True).scores["wer"] == 1


ROUGE_NAMES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
LINES = st.lists(
    st.lists(st.sampled_from([*"abcd", "Cats", "é1"]), max_size=7).map(" ".join), max_size=5
).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(LINES, TEXT), st.one_of(LINES, TEXT))
def test_rouge_is_that_of_rouge_score(answer: str, target: str) -> None:
    wanted = RougeScorer(list(ROUGE_NAMES.values())).score(target, answer)
    found = score(scorer("rouge", tokenizer="rouge_score"), answer, target).parts
    for ours, theirs in ROUGE_NAMES.items():
        assert found[ours] == pytest.approx(wanted[theirs].fmeasure, **CLOSE)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("the café was closed", "the café was open"),
        ("“the end” — of it’s story", "the end of its story"),
        ("L'été était très chaud à Paris", "L'été à Paris était chaud"),
        ("5 € and 3½ pounds", "5 € and 3 pounds"),
    ],
)
def test_rouge_of_latin_script_is_that_of_rouge_score(answer: str, target: str) -> None:
    wanted = RougeScorer(list(ROUGE_NAMES.values())).score(target, answer)
    found = score(scorer("rouge"), answer, target).parts
    assert [found[ours] for ours in ROUGE_NAMES] == [
        wanted[theirs].fmeasure for theirs in ROUGE_NAMES.values()
    ]


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("猫坐在垫子上", "猫坐在垫子上", 1),
        ("кошка", "кошка", 1),
        ("кошка спит", "кошка ест", 0.5),
        ("Η γάτα κάθεται", "η γάτα ΚΆΘΕΤΑΙ", 1),
        ("القط على السجادة", "القط على الأرض", 2 / 3),
        ("고양이가 앉아", "고양이가 앉아", 1),
        ("ねこはいる", "ねこはいない", 8 / 11),
        ("猫在", "狗在", 0.5),
        ("bilinmeyen", "кошка", 0),
    ],
)
def test_rouge_reads_the_words_of_other_scripts(answer: str, target: str, value: float) -> None:
    assert score(scorer("rouge"), answer, target).parts["rouge_1"] == pytest.approx(value)


def test_rouge_with_stems_and_several_targets() -> None:
    reference = RougeScorer(list(ROUGE_NAMES.values()), use_stemmer=True)
    answer, targets = "the cats were running home", ["a cat runs home", "cats run"]
    wanted = reference.score_multi(targets, answer)
    found = score(scorer("rouge", stemmer=True), answer, targets).parts
    for ours, theirs in ROUGE_NAMES.items():
        assert found[ours] == pytest.approx(wanted[theirs].fmeasure, **CLOSE)
    assert rouge("running", "run", porter_stemmer())["rouge_1"] == 1


def test_rouge_is_the_plain_mean_and_the_score_is_listed_once() -> None:
    pairs: list[tuple[str, object]] = [("a b c", "a b d"), ("x", "y"), ("a b", "a b")]
    found = metrics(pairs, scorer("rouge"))
    reference = RougeScorer(["rougeL"])
    wanted = [reference.score(str(t), a)["rougeL"].fmeasure for a, t in pairs]
    assert found["rouge.rouge_l"].value == pytest.approx(np.mean(wanted), **CLOSE)
    assert set(found) == {f"rouge.{kind}" for kind in ROUGE_NAMES}


def test_very_long_texts_are_scored_in_reasonable_time_and_equal_the_libraries() -> None:
    draw = random.Random(3)
    target = [draw.choice(["alpha", "beta", "gamma", "delta", "мир"]) for _ in range(1500)]
    answer = [word if draw.random() < 0.8 else draw.choice(WORDS) for word in target]
    a, t = " ".join(answer), " ".join(target)
    assert score(scorer("wer"), a, t).value == pytest.approx(jiwer.wer(t, a), **CLOSE)
    assert score(scorer("bleu"), a, t).value == pytest.approx(sacrebleu.sentence_bleu(a, [t]).score, **CLOSE)
    wanted = RougeScorer(["rougeL", "rougeLsum"]).score(t.replace("beta", "\n"), a.replace("beta", "\n"))
    found = rouge(t.replace("beta", "\n"), a.replace("beta", "\n"), tokenizer="rouge_score")
    assert found["rouge_l"] == pytest.approx(wanted["rougeL"].fmeasure, **CLOSE)
    assert found["rouge_lsum"] == pytest.approx(wanted["rougeLsum"].fmeasure, **CLOSE)
    huge = "ab " * 50_000
    for name in ("rouge", "wer", "cer", "bleu", "chrf", "edit_distance", "squad"):
        assert score(scorer(name), huge, "ab cd " * 200).value is not None
    assert "max_words" in score(scorer("ter"), huge, "ab").reason


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("kitten", "sitting", 3 / 7),
        ("", "", 0),
        ("", "abc", 1),
        ("abc", ["x", "abd"], 1 / 3),
        ("мир", "мир ", 0),
    ],
)
def test_edit_distance_is_a_share_of_the_longer_text(answer: str, target: object, value: float) -> None:
    assert score(scorer("edit_distance"), answer, target).value == pytest.approx(value)
    assert score(scorer("edit_distance"), "x", None).value is None


@pytest.mark.parametrize(
    ("answer", "target", "exact", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1, 1),
        ("the cat", ["dog", "cat sat"], 0, 2 / 3),
        ("", [], 1, 1),
        ("something", [], 0, 0),
        ("tower eiffel", "eiffel tower", 0, 1),
    ],
)
def test_squad(answer: str, target: object, exact: float, f1: float) -> None:
    parts = score(scorer("squad"), answer, target).parts
    assert (parts["exact_match"], parts["f1"]) == (exact, pytest.approx(f1))


def test_begins_ends_and_holds() -> None:
    assert score(scorer("starts_with"), " Yes, indeed", "yes").value == 1
    assert score(scorer("starts_with", ignore_case=False), "Yes", "yes").value == 0
    assert score(scorer("ends_with", values=["now", "later"]), "do it NOW ", "ignored").value == 1
    assert score(scorer("ends_with"), "now or never", "now").value == 0
    assert score(scorer("starts_with"), "x", "").value is None
    assert score(scorer("contains_all", values=["a b", "c"]), "A B and C", None).value == 1
    assert score(scorer("contains_all"), "only a", ["a", "b"]).value == 0
    assert score(scorer("contains_any"), "only a", ["a", "b"]).value == 1
    assert score(scorer("contains_any", values="zebra"), "only a", None).value == 0


def test_length() -> None:
    made = scorer("length", min=2, max=3)
    assert score(made, "one two", None).value == 1
    assert score(made, "one", None).reason == "1 words, fewer than 2"
    assert score(made, "a b c d", None).value == 0
    assert score(made, "a b c d", None).parts == {"count": 4}
    assert score(scorer("length", unit="characters", max=3), "мир", None).value == 1
    assert score(scorer("length", unit="lines", max=1), "a\n\nb", None).value == 0
    unparsed = made.unanswered(ScoringInput(None, "x", None, Status.UNPARSED, {}), "unparsed: x")
    assert (unparsed.value, unparsed.parts) == (0, {"count": None})
    with pytest.raises(ValueError, match="min, max or both"):
        scorer("length")
    with pytest.raises(ValueError, match="more than max"):
        scorer("length", min=3, max=2)


def test_refusal_goes_by_phrases_at_the_beginning() -> None:
    made = scorer("refusal")

    def value(output: str) -> float | None:
        return made.score(ScoringInput(output, output, "x", Status.SCORED, {})).value

    assert value("I\u2019m sorry, but I can\u2019t help with that.") == 1
    assert value("I  cannot\nassist with this") == 1
    assert value("Paris is the capital of France.") == 0
    assert value("x " * 400 + "I cannot help") == 0
    assert (
        scorer("refusal", also=["kein Kommentar"])
        .score(ScoringInput("", "Kein Kommentar!", "", Status.SCORED, {}))
        .value
        == 1
    )
    refused = Pipeline([], [made]).evaluate("", "x", {}, True)
    assert refused.scores["refusal"] == 1


def test_counts_of_a_corpus_figure_are_stored_and_are_no_metrics() -> None:
    found = metrics([("a b", "a b"), ("c", "d")], scorer("wer"))
    assert set(found) == {"wer.sample_mean", "wer.corpus"}
    assert found["wer.corpus"].value == pytest.approx(1 / 3)
    assert found["wer.sample_mean"].value == pytest.approx(0.5)
    assert not math.isnan(found["wer.corpus"].value or 0)

"""Our `evaluate.Metric` subclasses: the values of the reference libraries, with every socket blocked."""

import socket
from collections.abc import Iterator
from typing import Any

import jiwer
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn import metrics as reference

from evalrun.errors import UserError

evaluate_metrics = pytest.importorskip("evalrun.scoring.evaluate_metrics")

ANSWERS = ["the cat sat on the mat", "", "Это кот", "hello there general kenobi"]
TARGETS = ["a cat sat on the mat", "nothing", "Это мой кот", "hello there general"]
LISTS = [["a cat sat on the mat", "the cat"], ["nothing"], ["Это кот"], ["hello", "hello there general"]]


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a metric opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield


def compute(name: str, predictions: Any, references: Any, **options: Any) -> Any:
    return evaluate_metrics.make(name).compute(predictions=predictions, references=references, **options)


def test_they_are_metrics_of_evaluate() -> None:
    import evaluate

    for name in evaluate_metrics.METRICS:
        made = evaluate_metrics.make(name)
        assert isinstance(made, evaluate.Metric)
        assert made.keep_in_memory
    with pytest.raises(UserError, match="rouge"):
        evaluate_metrics.make("rougee")


def test_sacrebleu_family() -> None:
    streams = [[each[at] if at < len(each) else None for each in LISTS] for at in range(2)]
    bleu = sacrebleu.BLEU().corpus_score(ANSWERS, streams)
    found = compute("sacrebleu", ANSWERS, LISTS)
    assert found["score"] == pytest.approx(bleu.score, abs=1e-9)
    assert found["counts"] == bleu.counts
    assert compute("sacrebleu", ANSWERS, TARGETS)["score"] == pytest.approx(
        sacrebleu.BLEU().corpus_score(ANSWERS, [TARGETS]).score, abs=1e-9
    )
    plain = sacrebleu.BLEU(smooth_method="none").corpus_score(ANSWERS, streams)
    assert compute("bleu", ANSWERS, LISTS)["bleu"] == pytest.approx(plain.score / 100, abs=1e-9)
    chrf = sacrebleu.CHRF(word_order=2).corpus_score(ANSWERS, streams)
    assert compute("chrf", ANSWERS, LISTS, word_order=2)["score"] == pytest.approx(chrf.score, abs=1e-9)
    ter = sacrebleu.TER().corpus_score(ANSWERS, [TARGETS])
    assert compute("ter", ANSWERS, TARGETS)["score"] == pytest.approx(ter.score, abs=1e-9)


def test_rouge_is_the_mean_of_f_measures() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    each = [scorer.score(t, a) for a, t in zip(ANSWERS, TARGETS, strict=True)]
    found = compute("rouge", ANSWERS, TARGETS)
    for name, value in found.items():
        assert value == pytest.approx(sum(one[name].fmeasure for one in each) / len(each), abs=1e-9)
    assert len(compute("rouge", ANSWERS, LISTS, use_aggregator=False)["rouge1"]) == 4


def test_error_rates() -> None:
    assert compute("wer", ANSWERS, TARGETS) == pytest.approx(jiwer.wer(TARGETS, ANSWERS), abs=1e-12)
    assert compute("cer", ANSWERS, TARGETS) == pytest.approx(jiwer.cer(TARGETS, ANSWERS), abs=1e-12)


def test_labels_are_those_of_scikit_learn() -> None:
    answers, targets = [0, 1, 2, 2, 1, 0], [0, 2, 2, 1, 1, 0]
    assert compute("accuracy", answers, targets) == {"accuracy": pytest.approx(4 / 6)}
    for name, function in (
        ("f1", reference.f1_score),
        ("precision", reference.precision_score),
        ("recall", reference.recall_score),
    ):
        wanted = function(targets, answers, average="macro")
        assert compute(name, answers, targets, average="macro")[name] == pytest.approx(wanted, abs=1e-12)
        assert list(compute(name, answers, targets, average=None)[name]) == pytest.approx(
            list(function(targets, answers, average=None))
        )
    wanted = reference.matthews_corrcoef(targets, answers)
    assert compute("matthews_correlation", answers, targets)["matthews_correlation"] == pytest.approx(wanted)


def test_exact_match_and_squad() -> None:
    assert compute("exact_match", ["Cat!", "dog 1"], ["cat", "dog 2"]) == {"exact_match": 0}
    options = {"ignore_case": True, "ignore_punctuation": True, "ignore_numbers": True}
    assert compute("exact_match", ["Cat!", "dog 1"], ["cat", "dog 2"], **options) == {"exact_match": 1}
    assert compute("exact_match", ["a cat", "x"], ["cat", "y"], regexes_to_ignore=["^a "]) == {
        "exact_match": 0.5
    }
    predictions = [{"id": "1", "prediction_text": "The cat"}, {"id": "2", "prediction_text": "a dog barked"}]
    references = [
        {"id": "1", "answers": {"text": ["cat", "x"], "answer_start": [0, 1]}},
        {"id": "2", "answers": {"text": ["dog"], "answer_start": [0]}},
    ]
    found = compute("squad", predictions, references)
    assert found == {"exact_match": 50, "f1": pytest.approx((100 + 200 / 3) / 2)}

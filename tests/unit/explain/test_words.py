"""Explanations in sentences."""

from __future__ import annotations

from dataclasses import replace

from evalrun.explain.words import headline, together, verdict
from evalrun.explanations import Explanation, Faithfulness, OverSamples, Place, Unit

JUDGED = Faithfulness("faithful", "section", 5.0, 0.5, 20, 19, 2.5)
UNITS = (
    Unit("section", "a", (Place(0, 0, 1),), value=-0.5),
    Unit("section", "b", (Place(0, 2, 3),), value=9.106),
)
ONE = Explanation("x", 0, "occlusion", "delete", "answer", "", -1.0, -10.0, 0.4, UNITS, JUDGED, 3, 0.1)


def said(one: Explanation) -> list[str]:
    return list(headline(one, ["first", "second"]))


def test_the_part_that_weighs_most_is_named_with_what_it_does() -> None:
    first, second, third, caution = said(ONE)
    assert first == "Without \u201csecond\u201d the answer loses 9.11 nats (9,010 times less likely)."
    assert (
        second
        == "Faithful: removing its top sections costs 5.000 nats, more than in 19 of 20 random rankings."
    )
    assert third == "With the whole prompt -1.000, without its parts -10.000, gap 0.400 nats."
    assert "not why" in caution
    harmful = replace(ONE, units=(replace(UNITS[1], value=-2.0),), target="contrast", against="the target")
    assert said(harmful)[0].endswith(
        "the answer against the target gains 2.00 nats (7.39 times more likely)."
    )


def test_gradients_remove_nothing_and_may_say_nothing() -> None:
    assert said(replace(ONE, method="gradient"))[0].startswith("By gradients")
    lost = replace(ONE, faithfulness=replace(JUDGED, word="did not converge"))
    assert said(lost)[0] == "The gradients did not converge: there is no ranking."
    flat = replace(ONE, faithfulness=replace(JUDGED, word="nothing to explain"))
    assert said(flat) == ["Nothing to explain: leaving out parts of the prompt does not change the answer."]
    assert (
        verdict(replace(ONE, faithfulness=replace(JUDGED, rankings=0)))
        == "Not compared with random rankings."
    )


def test_what_is_said_of_all_samples_of_a_run() -> None:
    found = OverSamples("occlusion", "answer", "word", 20, 15, 2.0, 0.5, 1.5, 1.0, 2.0, 0.00001)
    assert together(found) == (
        "Over 20 samples by occlusion (target answer): removing the top words costs 1.500 nats more than "
        "random rankings do (95 % interval 1.000 to 2.000), p < 0.0001; 15 of 20 are faithful."
    )
    worse = replace(found, difference=-0.25, ci_low=None, ci_high=None, p=None)
    assert "costs 0.250 nats less than random rankings do; 15" in together(worse)

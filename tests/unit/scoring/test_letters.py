"""The letter that an answer names: said in many ways, rejected, given together, in several languages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun import registry
from evalrun.scoring.base import Parser, Unparsed


def choice(**options: object) -> Parser:
    kind = registry.load("parser", "choice")
    made: Parser = kind(kind.Options(**options))
    return made


FOUR = choice(labels=list("ABCD"))


def letter(text: str, made: Parser = FOUR) -> object:
    try:
        return made.parse(text)
    except Unparsed as error:
        assert error.reason
        return None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("A is correct because B is wrong.", "A"),
        ("A is the correct answer; C is not.", "A"),
        ("Both A and C", None),
        ("A and B", None),
        ("A or B", None),
        ("B is correct because C is wrong.", "B"),
        ("B\n\nA) repeats the premise, so it is wrong.", "B"),
        ("C\n\nReason: (A) is too narrow.", "C"),
        ("答案是B", "B"),
        ("答案：B。", "B"),
        ("答은 B입니다", "B"),
        ("답은 B입니다", "B"),
        ("Ｂ", "B"),
        ("选B，因为A不对", "B"),
        ("選Ｂ", "B"),
        ("正确答案为：C", "C"),
        ("答案是（D）", "D"),
        ("정답은 B", "B"),
        ("정답: ②", "B"),
        ("②", "B"),
        ("정답은 ③입니다.", "C"),
        ("第二", "B"),
        ("第二个选项", "B"),
        ("선택지 2번", "B"),
        ("2번", "B"),
        ("正解はCです", "C"),
        ("答えはBです。", "B"),
        ("我认为应该选择D", "D"),
        ("B选项正确，A选项错误", "B"),
        ("不是A，而是B", "B"),
        ("答案不是A，是C", "C"),
        ("A不对，B正确", "B"),
        ("A和B", None),
        ("A或C", None),
        ("A、B", None),
        ("⑤", None),
        ("ANSWER: $B$", "B"),
        ("ANSWER: **B**", "B"),
        ("**ANSWER: B**", "B"),
        ("ANSWER: b", "B"),
        (r"\boxed{\text{B}}", "B"),
        ("Answer: this asks which is a colour\nANSWER: B", "B"),
        ("ANSWER: None of the above", None),
        ("ANSWER: Don't know", None),
        ("The answer is B, not A.", "B"),
        ("The answer is not A but B.", "B"),
        ("It can't be A, so B.", "B"),
        ("A, C and D are wrong. B", "B"),
        ("A is wrong. C is wrong. D is wrong. So it must be B.", "B"),
        ("Not A. Not B. C.", "C"),
        ("A person would choose B", "B"),
        ("I think C", "C"),
        ("I would go with D because A is too vague.", "D"),
        ("A", "A"),
        ("a", "A"),
        ("(a)", "A"),
        ("a)", "A"),
        ("A.", "A"),
        ("A because it fits", "A"),
        ("A because B is not relevant", "A"),
        ("A, because B and C are incorrect.", "A"),
        ("A; B is wrong", "A"),
        ("A\nB is tempting but wrong", "A"),
        ("A - the nurse", "A"),
        ("A: the nurse", "A"),
        ("The correct option is A. Option B is incorrect.", "A"),
        ("Option A is incorrect because it is late. The answer is C", "C"),
        ("Option B", "B"),
        ("option b.", "B"),
        ("Answer: A\nB) is a distractor", "A"),
        ("Answer: A or B", None),
        ("Answer: A and B", None),
        ("Answer: A, B", None),
        ("The answer is A/B", None),
        ("A & C", None),
        ("A, B", None),
        ("A, B, and C are all correct", None),
        ("Answer: B (not A)", "B"),
        ("Final answer: D", "D"),
        ("The answer is A. Wait, no. Final answer: C", "C"),
        ("The answer is A. Hmm, the answer is B.", None),
        ("<answer>C</answer>", "C"),
        ('{"answer": "D"}', "D"),
        ("My choice: C", "C"),
        ("Vitamin C is good, so B", "B"),
        ("I'd say A, although B is tempting.", "A"),
        ("I choose option (C).", "C"),
        ("Choose B", "B"),
        ("The best choice would be D", "D"),
        ("Correct answer: A) Paris", "A"),
        ("A) Paris", "A"),
        ("B) Paris\nA) is wrong because it is in Italy", "B"),
        ("A. Paris\nB. Rome", None),
        ("D. All of the above", "D"),
        ("E", None),
        ("", None),
        ("Paris", None),
        ("I am not sure", None),
        ("None", None),
        ("A lot of people think so.", None),
        ("As a result, B.", "B"),
        ("It's A", "A"),
        ("It is A.", "A"),
        ("A?", "A"),
        ("**A**", "A"),
        ("*A*", "A"),
        ("`A`", "A"),
        ("“A”", "A"),
        ("「A」", "A"),
        ("A」", "A"),
        ("[A]", "A"),
        ("{A}", "A"),
        ("$A$", "A"),
        (r"$\boxed{A}$", "A"),
        (r"\(\boxed{\mathrm{C}}\)", "C"),
        ("A\n", "A"),
        ("Answer is: A", "A"),
        ("answer:a", "A"),
        ("The answer is (A) because of (B) being wrong", "A"),
        ("Réponse : B", "B"),
        ("Respuesta: C", "C"),
        ("Die Antwort ist B", "B"),
        ("Antwort: D", "D"),
        ("Ответ: B", "B"),
        ("The answer is option B", "B"),
        ("The answer: option (B)", "B"),
        ("I believe the correct answer is indeed B.", "B"),
        ("Between A and B, B is better.", None),
        ("B is better than A", "B"),
        ("Rather than A, I pick B", "B"),
        ("Eliminating A and C, we get D", "D"),
        ("So the answer must be C.", "C"),
        ("Thus, C", "C"),
        ("C is right", "C"),
        ("C fits best", "C"),
        ("The statement A is true, and B is false", "A"),
        ("A is not correct", None),
        ("not A", None),
        ("Neither A nor B", None),
        ("either A or B", None),
        ("A + B", None),
        ("both (A) and (B)", None),
        ("A B", None),
        ("AB", None),
        ("The second option", "B"),
        ("the third one", "C"),
        ("A/C", None),
        ("A Because it rains", "A"),
        ("A The nurse", "A"),
        ("Answer - B", "B"),
        ("Answer = C", "C"),
        ("ANS: C", "C"),
        ("So, B it is.", "B"),
        ("Let's go with C", "C"),
        ("The correct answer is A) Mitochondria. B) is the nucleus, C) is wrong.", "A"),
        ("D is the best answer since A, B, and C are all incorrect.", "D"),
        ("While A is tempting, the correct answer is C.", "C"),
        ("I believe it's B, since A and D don't fit.", "B"),
        ("Between B and C, I choose C.", "C"),
        ("Not A; it's B.", "B"),
        ("A isn't right. The answer should be D", "D"),
        ("It's not C. It's D.", "D"),
        ("C (not B)", "C"),
        ("A, not B", "A"),
        ("B instead of A", "B"),
        ("A rather than B", "A"),
        ("Answer: A. Because B does not apply.", "A"),
        ("Answer: **C. Paris**", "C"),
        ("**Answer:** B", "B"),
        ("### Answer\nC", "C"),
        ("### Final Answer: (D)", "D"),
        (r"The final answer is: $\boxed{B}$.", "B"),
        (r"$\boxed{\textbf{(C)}}$", "C"),
        (r"\boxed{A) 5}", "A"),
        ("Answer: (A) or (B)", None),
        ("The answer could be A or B.", None),
        ("Possibly A, possibly B.", None),
        ("A and C are correct", None),
        ("Both B and D are correct.", None),
        ("All of them", None),
        ("(A) and (C)", None),
        ("A, C", None),
        ("A,B", None),
        ("A / B", None),
        ("答案：B", "B"),
        ("答案是 B。", "B"),
        ("正确答案是选项C。", "C"),
        ("应该选D。", "D"),
        ("本题选A", "A"),
        ("因此，答案为B", "B"),
        ("所以选择C。", "C"),
        ("选项B是正确的", "B"),
        ("B。因为…", "B"),
        ("答案是第二个", "B"),
        ("第三个选项是正确的。", "C"),
        ("选第二项", "B"),
        ("答案是（B）。A是错误的", "B"),
        ("A错误，B错误，C正确", "C"),
        ("答案：Ｃ", "C"),
        ("【答案】B", "B"),
        ("故选：D．", "D"),
        ("答案不是B，应该是D", "D"),
        ("我选A和B", None),
        ("选AB", None),
        ("A或B", None),
        ("정답은 B입니다.", "B"),
        ("정답: C", "C"),
        ("답: ③", "C"),
        ("③번", "C"),
        ("정답은 ④번입니다", "D"),
        ("3번", "C"),
        ("정답은 2번", "B"),
        ("B가 정답입니다", "B"),
        ("답은 A가 아니라 C입니다", "C"),
        ("정답은 (D)", "D"),
        ("①", "A"),
        ("正解はB", "B"),
        ("答えはDです", "D"),
        ("Bが正しい", "B"),
        ("②が正解", "B"),
        ("答えは②", "B"),
        ("A和B都对", None),
        ("AとB", None),
        ("A와 B", None),
        ("a. because", "A"),
        ("b: text", "B"),
        ("answer is c", "C"),
        ("The answer is d", "D"),
        ("(b) the second", "B"),
        ("Choice A", "A"),
        ("Selected option: B", "B"),
        ("My answer would be B", "B"),
        ("I'd pick D", "D"),
        ("I'd go for C", "C"),
        ("Going with B.", "B"),
        ("B it is", "B"),
        ("B!", "B"),
        ("Ans. B", "B"),
        ("A is a vitamin; the answer is C", "C"),
        ("As A says, B follows", None),
        ("Person A gave it to person B. The answer is C.", "C"),
        ("A ", "A"),
        ("Option A is wrong, option B is wrong, option C is wrong.", None),
        ("None of A, B, C or D", None),
        ("The answer is neither A nor B.", None),
        ("A or maybe B", None),
        ("I think A... or B?", None),
        ("A. B. C. D.", None),
        ("U.S.A.", None),
        ("Plan B is better", None),
        ("Type A blood", None),
        ("I would say the answer is A because A describes it and B doesn't.", "A"),
        ("C. Reason: B is about water.", "C"),
        ("A: B is wrong", "A"),
        ("C - because A and B are false", "C"),
        ("B) because (A) is only partly true", "B"),
        ("The answer is B: A and C are both false.", "B"),
        ('{"answer": "B", "why": "A is wrong"}', "B"),
        ("<answer>(B)</answer> A was close", "B"),
        ("Correct: B", "B"),
        ("B is correct, A is not, C is not, D is not.", "B"),
        ("A is false, so the answer is not A. It is C.", "C"),
        ("Let me think. A says x. B says y. C says z. Thus B.", "B"),
        ("Therefore, the correct choice is (C).", "C"),
        ("Thus the answer: C", "C"),
        ("Answer:\n\nB", "B"),
        ("Answer:\n(B) Paris", "B"),
        ("The answer is:\n\nB", "B"),
    ],
)
def test_the_letter_that_is_meant(text: str, meant: str | None) -> None:
    assert letter(text) == meant


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("A is correct because B is wrong.", "A", "B"),
        ("Both A and C", "A", "C"),
        ("A or B", "A", "B"),
        ("B\n\nA) repeats the premise, so it is wrong.", "B", "A"),
        ("A person says B, then C", "B", "C"),
        ("Answer: B (because D is not)", "B", "D"),
        ("选B，因为A不对", "B", "A"),
        ("It is C.", "C", "C"),
    ],
)
def test_pick_takes_the_first_or_the_last_letter_that_stands_in_the_text(
    text: str, first: str, last: str
) -> None:
    assert letter(text, choice(labels=list("ABCD"), pick="first")) == first
    assert letter(text, choice(labels=list("ABCD"), pick="last")) == last


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("I is correct", "I"),
        ("I", "I"),
        ("The answer is I", "I"),
        ("I think B", "B"),
        ("Answer: I think it is B", "B"),
        ("I, the author, say C", "C"),
        ("I would say J", "J"),
        ("As I said, it's D", "D"),
    ],
)
def test_the_pronoun_is_no_ninth_option(text: str, meant: str) -> None:
    assert letter(text, choice(labels=list("ABCDEFGHIJ"))) == meant


def test_an_article_before_the_text_of_an_option_is_no_letter() -> None:
    made = choice(letters=True, options=["a cat", "a dog"])
    assert letter("Answer: A dog", made) == "B"
    assert letter("Answer: A", made) == "A"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from("ABCD"),
    st.sampled_from(
        [
            "{}",
            "({})",
            "{}.",
            "**{}**",
            "Answer: {}",
            "The answer is {}.",
            "答案是{}",
            "정답은 {}입니다",
            "\\boxed{{{}}}",
        ]
    ),
    st.sampled_from(["", "Let me think about it. ", "A long story, as I know. "]),
)
def test_a_letter_is_read_however_it_is_given(meant: str, form: str, before: str) -> None:
    said = form.format(meant)
    assert letter(said) == meant
    if "nswer" in form or "答" in form or "정" in form:
        assert letter(before + said) == meant


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ABCDabi .,:()*\n答案是选不\\{}$andorthe", max_size=80),
    st.sampled_from([None, "first", "last"]),
)
def test_any_text_gives_a_letter_or_a_reason(text: str, pick: str | None) -> None:
    assert letter(text, choice(labels=list("ABCD"), pick=pick)) in ("A", "B", "C", "D", None)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("0.5", None),
        ("15", None),
        ("-5", None),
        ("2.5", None),
        ("1 or 2", None),
        ("1,000", None),
        ("5-3", None),
        ("5", "5"),
        ("5.", "5"),
        ("3.0", "3"),
        ("4/5", "4"),
        ("4 out of 5", "4"),
        ("I rate it 4", "4"),
        ("５", "5"),
        ("③", "3"),
    ],
)
def test_a_label_that_is_a_number_is_not_found_within_another(text: str, label: str | None) -> None:
    assert letter(text, choice(labels=["1", "2", "3", "4", "5"])) == label

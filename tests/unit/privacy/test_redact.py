"""Rows and records as they are stored: numbering, known values, columns, what fails."""

import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import UserError
from evalrun.privacy import redactor
from evalrun.privacy.redact import FAILED
from evalrun.types import Attempt, Message, SampleRecord, Status

ROW = {
    "id": "C-17",
    "name": "Ana María Souza",
    "phone": "+49 (30) 123 45 67",
    "age": 34,
    "text": "Dear Ana, card 4111 1111 1111 1111",
}


def record(**fields: Any) -> SampleRecord:
    known: dict[str, Any] = {"sample_id": "s", "repeat": 0, "position": 0, "vars": ROW, "target": "x"}
    return SampleRecord(**{**known, "status": Status.SCORED, **fields})


def test_the_same_value_has_the_same_number_in_a_sample() -> None:
    clean = redactor({}, None)
    assert clean("a@x.org b@x.org A@x.org") == "<EMAIL_1> <EMAIL_2> <EMAIL_1>"
    made = clean.record(record(output="a@x.org", answer="b@x.org and a@x.org", vars={"q": "a@x.org"}))
    assert (made.vars["q"], made.output, made.answer) == ("<EMAIL_1>", "<EMAIL_1>", "<EMAIL_2> and <EMAIL_1>")


def test_known_values_go_from_every_text_of_the_row() -> None:
    clean = redactor({"known": ["name", "phone"]}, None)
    made = clean.record(
        record(
            messages=(Message("user", [{"type": "text", "text": "I am ana maría souza"}]),),
            output="Hello SOUZA! Your number is 0049? no: +493012345 67.",
            reasoning='{"name": "Ana Mar\\u00eda Souza"}',
            tool_calls=[{"function": {"arguments": '{"q": "Ana%20Mar%C3%ADa%20Souza"}'}}],
            error="no Souza here",
            reasons={"judge": "Souza is right"},
            attempt_log=(Attempt(0, 1, "server", "bad María"),),
            logprobs=[{"token": "Sou"}, {"token": "za"}],
            cluster="Ana María Souza",
        )
    )
    text = repr(made).lower()
    for word in ("souza", "maría", "mar%c3", "mar\\u00eda", "4567", "4111"):
        assert word not in text
    assert made.logprobs is None
    assert made.cluster is not None and len(made.cluster) == 16
    assert made.messages[0].content[0]["text"] == "I am <NAME_1>"


def test_columns(tmp_path: Path) -> None:
    settings = {"columns": {"age": "drop", "name": "withhold", "phone": "full"}, "subject": "id"}
    clean = redactor(settings, tmp_path)
    made = clean.record(record(prompt="C-17 is 34 years old, Ana María Souza", output="34 of 134"))
    assert made.vars == {
        "id": clean.pseudonym("C-17"),
        "name": "<WITHHELD>",
        "phone": ROW["phone"],
        "text": "Dear Ana, card <CREDIT_CARD_1>",
    }
    assert made.prompt == f"{clean.pseudonym('C-17')} is <AGE_1> years old, <NAME_1>"
    assert made.output == "<AGE_1> of 134"
    assert clean.identity("C-17", ROW) == clean.pseudonym("C-17")
    assert clean.identity("0123abcd", ROW) == "0123abcd"


def test_pseudonyms_are_of_the_store_and_its_key_is_private(tmp_path: Path) -> None:
    one, again, other = (redactor({}, tmp_path / name) for name in ("a", "a", "b"))
    assert one.pseudonym("Ana") == again.pseudonym("Ana") != other.pseudonym("Ana")
    assert stat.S_IMODE((tmp_path / "a" / "keys" / "privacy.key").stat().st_mode) == 0o600
    (tmp_path / "b" / "keys" / "privacy.key").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        redactor({}, tmp_path / "b")


def test_numbers_in_columns_are_texts_too() -> None:
    made = redactor({}, None).row(
        {"card": 4111111111111111, "n": 7, "f": 0.5, "ok": True, "list": ["a@x.org"]}
    )
    assert made == {"card": "<CREDIT_CARD_1>", "n": 7, "f": 0.5, "ok": True, "list": ["<EMAIL_1>"]}


def test_what_a_server_says_of_itself_is_searched_too() -> None:
    echoed = {"model": "m of a@x.org", "fingerprint": "4111 1111 1111 1111", "finish_reason": "stop a@x.org"}
    made = redactor({}, None).record(record(vars={}, **echoed))
    assert (made.model, made.finish_reason) == ("m of <EMAIL_1>", "stop <EMAIL_1>")
    assert made.fingerprint == "<CREDIT_CARD_1>"


def test_addresses_of_endpoints_stay_in_a_manifest_and_no_others() -> None:
    document = {
        "suite": "url: http://192.0.2.9:8000",
        "git": {"diff": {"text": "+192.0.2.9\n+0803 555 1234"}},
    }
    made = redactor({}, None).document(document)
    assert made["suite"] == document["suite"]
    assert made["git"]["diff"]["text"] == "+<IP_1>\n<PHONE_1>"


def test_a_record_without_anything_is_the_record() -> None:
    plain = record(vars={"q": "How many apples?"}, output="Seven.", target="7")
    assert redactor({}, None).record(plain) is plain


def test_outputs_may_stay() -> None:
    made = redactor({"outputs": "full"}, None).record(record(output="a@x.org", prompt="a@x.org"))
    assert (made.output, made.prompt) == ("a@x.org", "<EMAIL_1>")


def raises_sometimes(text: str) -> Iterable[tuple[int, int]]:
    if "boom" in text:
        raise ValueError(text)
    return []


def raises(text: str) -> Iterable[tuple[int, int]]:
    raise RuntimeError(text)


def test_a_recogniser_that_raises_stores_nothing_raw() -> None:
    own = [{"name": "mine", "python": f"{__name__}:raises_sometimes"}]
    clean = redactor({"recognisers": own}, None)
    made = clean.record(record(output="boom: private", answer="fine"))
    assert (made.output, made.answer) == (FAILED, "fine")
    assert clean.failed == 1
    assert "ValueError" in str(clean.fault()) and "private" not in str(clean.fault())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"entities": ["emial"]}, "Did you mean 'email'"),
        ({"redact": "most"}, "privacy.redact"),
        ({"entities": ["person"]}, "found by no pattern"),
        ({"recognisers": [{"name": "mine", "python": f"{__name__}:raises"}]}, "raised RuntimeError"),
        ({"recognisers": [{"name": "mine", "python": "nowhere_at_all:f"}]}, "cannot import"),
        ({"recognisers": [{"name": "mine", "pattern": "("}]}, "no regular expression"),
        ({"recognisers": [{"name": "mine", "pattern": "x*"}]}, "matches the empty text"),
    ],
)
def test_wrong_settings_are_said_before_anything(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        redactor(settings, None)
    assert said in str(raised.value)


def test_a_pattern_of_ones_own() -> None:
    own = [{"name": "staff_no", "pattern": r"\bE-\d{5}\b"}]
    assert redactor({"recognisers": own}, None)("ask E-12345") == "ask <STAFF_NO_1>"
    assert redactor({"recognisers": own, "redact": "off"}, None)("E-12345 a@x.org") == "<STAFF_NO_1> a@x.org"


def test_presidio_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setitem(sys.modules, "tldextract", None)
    with pytest.raises(UserError, match="pip install presidio-analyzer"):
        redactor({"redact": "presidio"}, None)


def test_a_quick_look_passes_what_only_strict_or_ones_own_recognisers_find() -> None:
    own = [{"name": "staff_no", "pattern": r"\bE-\d{5}\b"}]
    for settings, text in (({"redact": "strict"}, "no. AB123456C"), ({"recognisers": own}, "ask E-12345")):
        clean = redactor(settings, None)
        assert clean.may_hold(text) and clean.findings(text).total() == 1
    assert not redactor({}, None).may_hold("ask E-12345")

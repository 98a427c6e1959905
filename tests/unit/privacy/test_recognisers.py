"""What is recognised and what is not: check digits, borders, and forms that people write."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.privacy import redactor
from evalrun.privacy.national import STRICT, mod_11_10
from evalrun.privacy.recognisers import STANDARD, hides_secret, iban_valid, luhn, may_hold
from evalrun.secrets import _KEY_SHAPES, scrub

CLEAN = redactor({"redact": "standard"}, None)
STRICTLY = redactor({"redact": "strict"}, None)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("credit_card", "4111 1111 1111 1111"),
        ("credit_card", "paid with 4111-1111-1111-1111 exp 12/27"),
        ("credit_card", "378282246310005"),
        ("credit_card", "4111 1111 1111 1111 12/27 123"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "de89370400440532013000"),
        ("iban", "GB82WEST12345698765432 and more text"),
        ("iban", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
        ("us_ssn", "536-90-4399"),
        ("ip", "::1"),
        ("ip", "2001:db8::1"),
        ("ip", "from 192.168.1.17."),
        ("email", "mailto:ana.souza+x@mail.example.org"),
        ("email", "müller@bücher.de"),
        ("email", "ana%40example.org"),
        ("email", "ana [at] example.org"),
        ("phone", "+49 30 1234567"),
        ("phone", "+4915112345678"),
        ("phone", "(030) 1234567"),
        ("phone", "0049 30 1234567"),
        ("phone", "555-123-4567"),
        ("phone", "12345 0301234567"),
        ("url_userinfo", "postgres://ana:hunter22@db.example.org/x"),
    ],
)
def test_what_is_recognised(kind: str, text: str) -> None:
    assert list(STANDARD[kind](text))
    assert CLEAN(text) != text
    assert may_hold(text)


@pytest.mark.parametrize(
    "text",
    [
        "0301234567 0307654321",
        "(415) 555-2671 (415) 555-2672",
        "1-202-555-0143 202-555-0144 202.555.0145 202 555 0146",
        "030 1234567 030 7654321",
        "01 23 45 67 89 01 23 45 67 80",
        "555-123-4567 42",
        "4111 1111 1111 1112 (415) 555-2671",
        "0301234567 2026-11-30 0301234568",
        "2026-11-30(030) 1234567",
        "536-90-4399 536 90 4398",
    ],
)
def test_of_a_list_of_numbers_all_are_found(text: str) -> None:
    """Of telephone numbers that stand side by side none is left, and no part of one; what is no such number
    stays."""
    left = re.sub(r"<[A-Z_]+\d>", "", CLEAN(text)).split()
    assert " ".join(left) in ("", "42", "4111 1111 1111 1112", "2026-11-30")


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "DE89 3704 0044 0532 0130 01",
        "666-12-3456 000-12-3456 900-12-3456 123-00-4567",
        "version 1.2.3.4.5",
        "1234567890",
        "2026-11-30 10:20:30",
        "2026-11-30T08:18:09.123456+00:00",
        "01.02.2026 and 11/29/2026",
        "3.14159265 and 0.01234567890123",
        "0.4539148803436467",
        "1,234,567,890",
        "10 20 30 40 50",
        "std::vector add::face 12:30:45",
        "user@localhost",
        "01M8NRBJVM94KAR6QSAPDT2BPY c5148f9419422708",
    ],
)
def test_what_is_left(text: str) -> None:
    assert CLEAN(text) == text


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("de_tax_id", "86095742719", "86095742718"),
        ("uk_nino", "QQ123456C", "BG123456A"),
        ("fr_nir", "255081416802538", "255081416802539"),
        ("br_cpf", "529.982.247-25", "529.982.247-26"),
        ("es_dni", "12345678Z", "12345678A"),
        ("mac_address", "00:1A:2B:3C:4D:5E", "00:1A:2B:3C:4D"),
    ],
)
def test_national_numbers_are_found_by_strict(kind: str, right: str, wrong: str) -> None:
    if kind == "uk_nino":
        right = "AB123456C"
    assert list(STRICT[kind](f"no. {right}."))
    assert not list(STRICT[kind](f"no. {wrong}."))
    assert right not in STRICTLY(f"no. {right}.")


def test_a_key_is_a_secret() -> None:
    assert CLEAN("use sk-abcdefghijklmnopqrstuvwx now") == "use [redacted] now"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Basic abc12345",
        "sent with Bearer abcdefgh12345678 today",
        '{"api_key": "correcthorse,battery"}',
        "password=s3cretWord1234 for it",
        "https://x.example/?sig=abc",
        "https://hooks.slack.com/services/T0/B0/xyz123",
        "AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_the_quick_look_passes_is_what_the_slow_one_hides(text: str) -> None:
    assert scrub(text) != text
    assert CLEAN(f"{text} and more") == scrub(f"{text} and more")


@settings(max_examples=60)
@given(
    st.text(alphabet="abz09 :=\"'?&#.,-_/@\n", max_size=40),
    st.sampled_from(["api_key", "Token", "password", "sig", "Authorization"]),
    st.sampled_from([": ", "=", '": "', " = ", ": Bearer "]),
    st.text(alphabet="aZ09+/=_", min_size=1, max_size=24),
)
def test_no_secret_goes_by_the_quick_look(before: str, name: str, sign: str, value: str) -> None:
    text = f"{before} {name}{sign}{value}"
    assert hides_secret(text) or scrub(text) == text


@settings(max_examples=200)
@given(
    st.sampled_from([shape for _, shape in _KEY_SHAPES]).flatmap(
        lambda shape: st.from_regex(
            shape.replace(r"\d", "[0-9]").replace(r"(?![A-Za-z0-9])", ""), fullmatch=True
        )
    ),
    st.sampled_from(
        ["", " ", '"', "'", ",", "(", "=", ":", "\u00e9", "\n", "@", "word ", "a@b.org ", "Bearer "]
    ),
    st.sampled_from(["", " ", '"', "'", ",", ")", "\u00e9", "\n", "@", " word", " a@b.org"]),
)
def test_no_key_goes_by_the_quick_look(key: str, before: str, after: str) -> None:
    text = f"{before}{key}{after}"
    assert hides_secret(text) or scrub(text) == text


@settings(max_examples=40)
@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_one_check_digit_of_ten_is_right(digits: str) -> None:
    assert sum(luhn(digits + str(last)) for last in range(10)) == 1
    if digits[0] != "0" and len(digits) > 10:
        assert sum(mod_11_10(digits[:10] + str(last)) for last in range(10)) == 1


@settings(max_examples=40)
@given(st.text(alphabet=string.digits, min_size=18, max_size=18))
def test_ibans_have_one_pair_of_check_digits(account: str) -> None:
    right = [check for check in range(2, 99) if iban_valid(f"DE{check:02}{account}")]
    assert len(right) == 1
    assert f"DE{right[0]:02}{account}" not in CLEAN(f"to DE{right[0]:02}{account} please")


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_any_text_is_taken_and_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = CLEAN(text)
    assert CLEAN(once) == once
    assert not CLEAN.failed


@settings(max_examples=40)
@given(
    st.text(alphabet=string.ascii_letters + " ,.\n(", max_size=60),
    st.sampled_from(["ana@x.org", "4111 1111 1111 1111", "+49 30 1234567", "DE89370400440532013000"]),
    st.text(alphabet=string.ascii_letters + " ,.\n)", max_size=60),
)
def test_what_is_planted_is_gone_wherever_it_stands(before: str, item: str, after: str) -> None:
    text = f"{before} {item} {after}"
    assert item not in CLEAN(text)
    assert re.sub(r"\s", "", item) not in re.sub(r"\s", "", CLEAN(text))

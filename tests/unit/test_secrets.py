"""Secrets never come through `scrub`; ordinary text always does."""

from __future__ import annotations

import base64
import hashlib
import string
import time
import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evalrun.secrets import MASK, names_secret, scrub, scrub_json, scrub_url

ALNUM = string.ascii_letters + string.digits
URLSAFE = ALNUM + "_-"


def _key(prefix: str, alphabet: str, length: int, suffix: str = "") -> st.SearchStrategy[tuple[str, str]]:
    """(the whole key, the part of it that must not come through)."""
    body = st.text(alphabet, min_size=length, max_size=length)
    return body.map(lambda text: (f"{prefix}{text}{suffix}", text))


KEYS = st.one_of(
    _key("sk-", ALNUM, 48),
    _key("sk-proj-", URLSAFE, 60),
    _key("sk-ant-api03-", URLSAFE, 93),
    _key("sk-or-v1-", "0123456789abcdef", 64),
    _key("hf_", ALNUM, 34),
    _key("ghp_", ALNUM, 36),
    _key("gho_", ALNUM, 36),
    _key("github_pat_", ALNUM + "_", 82),
    _key("glpat-", URLSAFE, 20),
    _key("AKIA", string.ascii_uppercase + string.digits, 16),
    _key("ASIA", string.ascii_uppercase + string.digits, 16),
    _key("AIza", URLSAFE, 35),
    _key("xoxb-", ALNUM + "-", 40),
    _key("sk_live_", ALNUM, 24),
    _key("npm_", ALNUM, 36),
    _key("gsk_", ALNUM, 52),
    _key("r8_", ALNUM, 37),
    _key("nvapi-", URLSAFE, 64),
    _key("eyJ", URLSAFE, 20, ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlc2lnbmF0dXJl"),
    _key("pypi-AgEIcHlwaS5vcmc", URLSAFE, 60),
    _key("csk-", ALNUM, 48),
    _key("tgp_v1_", URLSAFE, 43),
    _key("fw_", ALNUM, 24),
    _key("sk_", "0123456789abcdef", 48),
    _key("secret_", ALNUM, 43),
    _key("lin_api_", ALNUM, 40),
    _key("ATATT3xFfGF0", URLSAFE, 60),
    _key("dckr_pat_", URLSAFE, 27),
    _key("dp.pt.", ALNUM, 43),
    _key("figd_", URLSAFE, 40),
    _key("key-", "0123456789abcdef", 32),
    _key("NRAK-", string.ascii_uppercase + string.digits, 27),
    _key("phx_", ALNUM, 43),
    _key("pscale_tkn_", URLSAFE, 43),
    _key("SK", "0123456789abcdef", 32),
    _key("1234567890:AA", URLSAFE, 33),
)
SURROUNDINGS = st.sampled_from(
    ["{}", "key={}", 'api_key: "{}"', "Authorization: Bearer {}", "error: invalid key {}, see docs", "({})",
     "https://host/v1?api_key={}&x=1", "https://user:{}@host/x", "+export TOKEN={}\n-old\n", '{{"key":"{}"}}',
     "--api-key={} --verbose", "a\n{}\nb"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(KEYS, SURROUNDINGS)
def test_known_kinds_of_keys_never_survive(key: tuple[str, str], around: str) -> None:
    whole, body = key
    cleaned = scrub(around.format(whole))
    assert body not in cleaned
    assert MASK in cleaned
    assert scrub(cleaned) == cleaned


@given(st.text(string.printable, max_size=60), st.text(string.printable, max_size=60), KEYS)
def test_keys_between_any_words_never_survive(before: str, after: str, key: tuple[str, str]) -> None:
    # A letter or digit right before would make it another word; anything else may stand there.
    assert key[0] not in scrub(f"{before} {key[0]} {after}")


@given(st.binary(max_size=40))
def test_digests_and_ids_are_untouched(data: bytes) -> None:
    sha = hashlib.sha256(data).hexdigest()
    for text in (sha, sha[:40], str(uuid.UUID(sha[:32])), f"sha256:{sha}", f"commit {sha[:40]} (main)"):
        assert scrub(text) == text


@given(st.text(ALNUM + " ", max_size=20))
def test_base64_of_short_text_is_untouched(text: str) -> None:
    encoded = base64.b64encode(text.encode()).decode()
    assert scrub(encoded) == encoded


@given(st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26))
@example("AKIA0123456789ABCDEFGHJKMN")
def test_ulids_are_untouched(ulid: str) -> None:
    assert scrub(ulid) == ulid


@given(st.text(max_size=200))
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    once = scrub(text)
    assert scrub(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "The secret to a good password: make it long. A token of thanks, the key to it all.",
        "max_tokens: 48, prompt_tokens=1200345678901, token_f1: 0.8123456789",
        "api_key_env: MY_KEY_VARIABLE",
        "key: ticket_id",
        "api_key: ${OPENAI_API_KEY}",
        "token = tokenizer.decode(ids[0], skip_special_tokens=True)",
        "password = getpass.getpass(prompt)",
        "git@github.com:team/project.git",
        "ssh://git@host/team/project.git",
        "https://host.example/a/b?page=2&model=llama-3-70b",
        "mail ada@example.org or visit https://example.org/@ada",
        "The bearer of bad news; basic arithmetic; basic characteristics.",
        "Is this task-oriented or risk-averse? desk-bound-and-overworked",
        "2026-11-23T07:18:07+00:00 smollm2-few_shot-tickets-temperature=0.7",
    ],
)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert scrub(text) == text


def test_private_keys_are_hidden_whole_even_when_cut() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n"
    assert scrub(f"x\n{block}-----END RSA PRIVATE KEY-----\ny") == f"x\n{MASK}\ny"
    assert "MIIE" not in scrub(block)


def test_values_of_secret_environment_variables_are_hidden_in_every_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEAM_API_KEY", "plain words/with+signs")
    monkeypatch.setenv("MY_SECRET_THING", "zyxwvuts")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "not-hidden-at-all")
    monkeypatch.setenv("SSH_KEY_FILE", "/home/ada/.ssh/id")
    text = "plain words/with+signs, plain%20words%2Fwith%2Bsigns, zyxwvuts"
    assert scrub(text) == f"{MASK}, {MASK}, {MASK}"
    text = "true, not-hidden-at-all, /home/ada/.ssh/id"
    assert scrub(text) == text


def test_json_is_scrubbed_by_key_and_by_value() -> None:
    key = "sk-" + "a1" * 20
    value = {
        "api_key": "short",
        "api_key_env": "MY_KEY",
        "max_tokens": 48,
        "password": "",
        "headers": {"Authorization": "Basic abc", "X-Api-Key": "q"},
        "nested": [{"text": f"see {key}"}, 1, None, True],
        "argv": ["evalrun", "--api-key", "hunter2", "--limit", "5", f"--set=x={key}"],
        "columns": {"token": "{{ text.split()[0] }}"},
    }
    assert scrub_json(value) == {
        "api_key": MASK,
        "api_key_env": "MY_KEY",
        "max_tokens": 48,
        "password": "",
        "headers": {"Authorization": MASK, "X-Api-Key": MASK},
        "nested": [{"text": f"see {MASK}"}, 1, None, True],
        "argv": ["evalrun", "--api-key", MASK, "--limit", "5", f"--set=x={MASK}"],
        "columns": {"token": "{{ text.split()[0] }}"},
    }


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://ada:pa@ss@host:8000/v1", "https://host:8000/v1"),
        ("https://ghp_token@github.com/team/p.git", "https://github.com/team/p.git"),
        ("https://host/v1?api_key=abc&model=m", f"https://host/v1?api_key={MASK}&model=m"),
        ("https://host/v1?sig=abc", f"https://host/v1?sig={MASK}"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("git@github.com:team/p.git", "git@github.com:team/p.git"),
    ],
)
def test_urls_lose_userinfo_and_secret_parameters(url: str, clean: str) -> None:
    assert scrub_url(url) == clean


def test_names_of_secrets() -> None:
    assert all(
        map(names_secret, ["api_key", "apiKey", "OPENAI_API_KEY", "x-api-key", "password", "hf_token"])
    )
    assert not any(
        map(names_secret, ["key", "api_key_env", "max_tokens", "keyboard", "token_f1", "secretary"])
    )


def test_a_large_diff_is_scrubbed_quickly() -> None:
    line = "+    value = compute(first_argument, second_argument)  # token of the key, A-Z, https://example.org/x\n"
    diff = line * (500_000 // len(line))
    started = time.process_time()
    assert scrub(diff) == diff
    assert time.process_time() - started < 0.5

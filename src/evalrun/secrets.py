"""Takes secrets out of text before it reaches a disk, a log or a screen.

Three nets, each for what the others miss: the shapes of well-known keys; values that stand where a secret
is named (`password=`, `Authorization:`, URL userinfo); and the values of this process's own environment
variables whose names say that they are secret. Each shape has a literal that must occur in the text before
its pattern is tried, so that ordinary text costs little.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote

from evalrun.frozen import frozen

MASK = "[redacted]"
"""What stands in a secret's place."""

MIN_ENVIRONMENT_LENGTH = 8
"""Shorter values of secret-looking variables ("1", "false") are left alone: they are common words."""

_KEY_SHAPES: tuple[tuple[str, str], ...] = (
    ("sk-", r"sk-[A-Za-z0-9_-]{12,}"),  # OpenAI, Anthropic, OpenRouter, DeepSeek, Langfuse
    ("pk-lf-", r"pk-lf-[0-9a-f-]{20,}"),
    ("hf_", r"hf_[A-Za-z0-9]{20,}"),
    ("api_org_", r"api_org_[A-Za-z0-9]{20,}"),
    *((f"gh{kind}_", rf"gh{kind}_[A-Za-z0-9]{{20,}}") for kind in "pousr"),
    ("github_pat_", r"github_pat_[A-Za-z0-9_]{20,}"),
    *(
        (f"gl{kind}-", rf"gl{kind}-[A-Za-z0-9_.-]{{16,}}")
        for kind in ("pat", "ptt", "dt", "rt", "cbt", "agent")
    ),
    *((kind, rf"{kind}[A-Z0-9]{{16}}(?![A-Za-z0-9])") for kind in ("AKIA", "ASIA", "ABIA", "ACCA")),  # AWS
    ("AIza", r"AIza[A-Za-z0-9_-]{35}"),  # Google
    ("ya29.", r"ya29\.[A-Za-z0-9_-]{20,}"),
    ("GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
    ("xox", r"xox[abeoprs](?:\.[a-z]+)?-[A-Za-z0-9-]{10,}"),  # Slack
    ("xapp-", r"xapp-[A-Za-z0-9-]{10,}"),
    ("k_live_", r"[rsp]k_live_[A-Za-z0-9]{10,}"),  # Stripe
    ("k_test_", r"[rsp]k_test_[A-Za-z0-9]{10,}"),
    ("whsec_", r"whsec_[A-Za-z0-9+/=]{16,}"),
    *(
        (host, rf"{host}/[A-Za-z0-9/_@.-]{{12,}}")  # addresses that anybody may post to
        for host in ("hooks.slack.com", "discord.com/api/webhooks", "webhook.office.com")
    ),
    ("npm_", r"npm_[A-Za-z0-9]{30,}"),
    ("pypi-", r"pypi-[A-Za-z0-9_-]{50,}"),
    ("gsk_", r"gsk_[A-Za-z0-9]{20,}"),  # Groq
    ("xai-", r"xai-[A-Za-z0-9]{20,}"),
    ("r8_", r"r8_[A-Za-z0-9]{20,}"),  # Replicate
    ("pplx-", r"pplx-[A-Za-z0-9]{20,}"),
    ("nvapi-", r"nvapi-[A-Za-z0-9_-]{20,}"),
    ("tvly-", r"tvly-[A-Za-z0-9-]{16,}"),
    ("dapi", r"dapi[0-9a-f]{32}(?![A-Za-z0-9])"),  # Databricks
    ("lsv2_", r"lsv2_[a-z]{2}_[A-Za-z0-9_]{20,}"),
    ("SG.", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    ("dop_v1_", r"dop_v1_[0-9a-f]{32,}"),
    ("hvs.", r"hvs\.[A-Za-z0-9_-]{20,}"),
    ("glsa_", r"glsa_[A-Za-z0-9_]{20,}"),
    ("sbp_", r"sbp_[0-9a-f]{32,}"),
    ("shpat_", r"shpat_[0-9a-fA-F]{32}"),
    ("ntn_", r"ntn_[A-Za-z0-9]{30,}"),
    ("AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{30,}"),
    ("csk-", r"csk-[A-Za-z0-9]{20,}"),  # Cerebras
    ("tgp_v", r"tgp_v\d_[A-Za-z0-9_-]{20,}"),  # Together
    ("fw_", r"fw_[A-Za-z0-9]{20,}"),  # Fireworks
    ("sk_", r"sk_[0-9a-f]{40,}"),  # ElevenLabs
    ("jina_", r"jina_[A-Za-z0-9_-]{32,}"),
    ("secret_", r"secret_[A-Za-z0-9]{40,}"),  # Notion, the older ones
    ("pat", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),  # Airtable
    ("lin_api_", r"lin_api_[A-Za-z0-9]{20,}"),
    ("ATATT3", r"ATATT3[A-Za-z0-9_=-]{20,}"),  # Atlassian
    ("dckr_", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    ("dp.", r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]+\.)?[A-Za-z0-9]{40,}"),  # Doppler
    ("figd_", r"figd_[A-Za-z0-9_-]{20,}"),
    ("glc_", r"glc_[A-Za-z0-9+/=]{32,}"),
    ("key-", r"key-[0-9a-f]{32}(?![A-Za-z0-9])"),  # Mailgun
    ("NRAK-", r"NRAK-[A-Z0-9]{20,}"),
    ("ops_eyJ", r"ops_eyJ[A-Za-z0-9+/=_-]{40,}"),
    *((kind, rf"{kind}[A-Za-z0-9]{{32,}}") for kind in ("phc_", "phx_")),  # PostHog
    ("pscale_", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{20,}"),
    ("pul-", r"pul-[0-9a-f]{40}"),
    ("rubygems_", r"rubygems_[0-9a-f]{40,}"),
    ("SK", r"SK[0-9a-f]{32}(?![A-Za-z0-9])"),  # Twilio
    ("sntry", r"sntry[su]_[A-Za-z0-9+/=_-]{30,}"),
    ("sq0", r"sq0[a-z]{3}-[A-Za-z0-9_-]{20,}"),
    *((f"shp{kind}_", rf"shp{kind}_[0-9a-fA-F]{{32}}") for kind in ("ss", "ca", "pa")),
    (":AA", r"\d{8,10}:AA[A-Za-z0-9_-]{30,}"),  # Telegram
    ("eyJ", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]*"),  # JWT, JWE
)

_WORDS = (
    r"(?:api[_-]?key|secret[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|signing[_-]?key"
    r"|encryption[_-]?key|auth[_-]?key|token|secret|password|passwd|passphrase|credentials?|authorization)"
)
_NAMED = re.compile(rf"(?:{_WORDS}s?|cookie)$", re.IGNORECASE)
_NOT_A_SECRET_NAME = re.compile(
    r"(?:max|min|num|n|total|eos|bos|pad|unk|sep|mask|stop|prompt|completion|input|output)[_-]?tokens?$",
    re.IGNORECASE,
)
_ENVIRONMENT_NAME = re.compile(
    r"(?:^|_)[A-Z0-9]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(?:_|$)|_(?:PASS|PWD|PAT|AUTH)$",
    re.IGNORECASE,
)
_ENVIRONMENT_NOT = re.compile(r"_(?:FILE|PATH|DIR|SOCK|NAME|ENV|SIZE|LENGTH|TYPE|VERSION)$", re.IGNORECASE)
_OPTION = re.compile(rf"^--?(?:[\w-]*-)?{_WORDS}$", re.IGNORECASE)
_QUERY_NAME = r"(?:[\w.-]*(?:key|token|secret|password|passwd|signature|credential)|sig|auth|pwd|pass)"


@frozen
class _Net:
    """A pattern, what replaces it, and literals (lower case) one of which must occur for it to match."""

    literals: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]

    def clean(self, text: str, lower: str) -> str:
        if not any(literal in lower for literal in self.literals):
            return text
        return self.pattern.sub(self.replacement, text)


def _hide_userinfo(match: re.Match[str]) -> str:
    scheme, userinfo = match.group(1), match.group(2)
    # A bare user name is part of an ssh address (git@host); in a web address it is usually a token.
    if ":" not in userinfo and not scheme.lower().startswith("http"):
        return match.group(0)
    return f"{scheme}://{MASK}@"


_NETS: tuple[_Net, ...] = (
    _Net(
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
            r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
            re.DOTALL,
        ),
        MASK,
    ),
    _Net(("://",), re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20})://([^\s/?#\"'<>]+)@"), _hide_userinfo),
    _Net(
        ("hooks.slack.com",),
        re.compile(r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9/_-]+"),
        rf"\1{MASK}",
    ),
    _Net(
        ("=",),
        re.compile(rf"([?&#]{_QUERY_NAME}=)[^\s&#\"'<>]+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    _Net(
        ("bearer", "basic", "authorization"),
        re.compile(
            r"(\b(?:authorization[\"']?\s*[:=]\s*[\"']?)?\b(?:bearer|basic|token|negotiate)\s+)"
            r"(?=[A-Za-z._~+/=-]*[0-9=])[A-Za-z0-9._~+/=-]{12,}",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    _Net(
        ("authorization", "x-api-key", "api-key"),
        re.compile(
            r"\b((?:proxy-)?authorization|(?:x-)?api-key)([\"']?\s*:\s*[\"']?)((?:bearer|basic|token)\s+)?"
            r"(?=[^\s\"',;]*[0-9])[^\s\"',;]{8,}",
            re.IGNORECASE,
        ),
        rf"\1\2\3{MASK}",
    ),
    # A quoted value after a secret's name: whatever it is, if it is one word and longish.
    _Net(
        ("key", "token", "secret", "passw", "passphrase", "credential"),
        re.compile(
            rf"((?:\b|_){_WORDS}[\"']?\s*[:=]\s*)([\"'])(?![$]\{{|\{{\{{)[^\s\"']{{8,}}\2",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}\2",
    ),
    # An unquoted one: only if it looks random, since code and prose have names there too.
    _Net(
        ("key", "token", "secret", "passw", "passphrase", "credential"),
        re.compile(
            rf"((?:\b|_){_WORDS}\s*[:=]\s*)"
            r"(?=[A-Za-z+/_=~!@%^*-]*\d)(?=[\d+/_=~!@%^*-]*[A-Za-z])[A-Za-z0-9+/_=~!@%^*-]{12,}(?![\w.(\[])",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)

_SHAPE_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (literal, re.compile(rf"(?<![A-Za-z0-9]){shape}")) for literal, shape in _KEY_SHAPES
)


_HINTS = tuple(sorted({each.lower() for each, _ in _KEY_SHAPES} | {h for net in _NETS for h in net.literals}))
"""None of them occurs in most short texts, which then need not be looked at any further. To look for one
after the other takes a tenth of the time of one pattern."""

_SHORT = 1000


def scrub(text: str) -> str:
    """The text with everything that looks like a secret replaced by `[redacted]`.

    Scrubbing twice is scrubbing once. Digests, ULIDs, UUIDs, base64 and prose are left as they are.
    """
    return _scrub(text, environment_secrets())


def holds_key(token: str) -> bool:
    """Whether a short text holds something of the shape of a well-known key: what `scrub` finds by shape."""
    return _any_shape().search(token) is not None or "hooks.slack.com/" in token


@cache
def _any_shape() -> re.Pattern[str]:
    """All shapes at once: quicker for a word, and ten times as slow for a text."""
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(shape for _, shape in _KEY_SHAPES)})")


def _hinted(lower: str) -> bool:
    return any(hint in lower for hint in _HINTS)


def scrub_json(value: Any) -> Any:
    """A copy of a JSON-like value with every string scrubbed.

    A string under a key that names a secret (`password`, `api_key`) is masked whatever it looks like, and so
    is the argument after an option that names one (`["--api-key", "…"]`). Numbers and booleans stay.
    """
    return _scrub_value(value, environment_secrets())


def scrub_url(url: str) -> str:
    """The URL without userinfo, and with the values of secret query parameters masked."""
    return _scrub(re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", r"\1", url), environment_secrets())


@lru_cache(4096)
def names_secret(name: str) -> bool:
    """Whether a key of this name holds a secret: `api_key` does, `api_key_env` and `max_tokens` do not."""
    return bool(_NAMED.search(name)) and not _NOT_A_SECRET_NAME.search(name)


def is_secret_variable(name: str, value: str) -> bool:
    """Whether a variable of the environment holds a secret, by its name; short values are common words."""
    named = _ENVIRONMENT_NAME.search(name) and not _ENVIRONMENT_NOT.search(name)
    return bool(named) and len(value) >= MIN_ENVIRONMENT_LENGTH


def environment_secrets() -> tuple[str, ...]:
    """Values of secret-looking variables in the forms they take in text, longest first."""
    return _secrets_of(tuple(os.environ.items()))


@lru_cache(1)
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    found: set[str] = set()
    for name, value in environment:
        if is_secret_variable(name, value):
            found |= {value, value.strip(), quote(value, safe=""), json.dumps(value)[1:-1]}
    return tuple(
        sorted((each for each in found if len(each) >= MIN_ENVIRONMENT_LENGTH), key=len, reverse=True)
    )


def _scrub(text: str, known: Sequence[str]) -> str:
    for secret in known:
        if secret in text and secret not in MASK:
            text = text.replace(secret, MASK)
    lower = text.lower()
    if len(text) < _SHORT and not _hinted(lower):
        return text
    for literal, pattern in _SHAPE_PATTERNS:
        if literal in text:
            text = pattern.sub(MASK, text)
    for net in _NETS:
        text = net.clean(text, lower)
    return text


def _scrub_value(value: Any, known: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _scrub(value, known)
    if isinstance(value, Mapping):
        return {
            key: MASK
            if isinstance(item, str)
            and item
            and "{{" not in item
            and isinstance(key, str)
            and names_secret(key)
            else _scrub_value(item, known)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        hidden = False
        cleaned = []
        for item in value:
            cleaned.append(MASK if hidden and isinstance(item, str) else _scrub_value(item, known))
            hidden = isinstance(item, str) and bool(_OPTION.match(item))
        return cleaned
    return value

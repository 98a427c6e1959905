"""Finds personal data in a text: patterns, each with a check that random digits and words do not pass.

Every recogniser is a function text -> spans. Each has something cheap that must occur before its pattern is
tried, so that ordinary text costs little: less than 60 µs a kilobyte for all.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from evalrun.secrets import holds_key

Span: TypeAlias = tuple[int, int]
Recogniser: TypeAlias = Callable[[str], Iterable[Span]]

# E-mail addresses and what stands in URLs. The at sign is looked for first, and the parts to both sides of
# it: a pattern that begins with the local part tries every character of the text.
_WIDE_AT = "\uff20"
_AT = re.compile(rf"@|{_WIDE_AT}|%40|&#64;|\\u0040|(?<=\w) ?[\[(]at[\])] ?(?=\w)", re.IGNORECASE)
_LOCAL = re.compile(r"[\w.!#$&'*+/=?^`{|}~-]{1,64}")
"""Matched from the sign backwards."""
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,62})\.|\[?\(?dot\)?\]?)+[^\W\d_][\w-]{1,62}|\[[\d.]{7,15}\]")


def _has_other_sign(text: str) -> bool:
    # Single characters first: they are found ten times as fast.
    escaped = "%" in text or "&" in text or "\\" in text
    if (escaped and ("%40" in text or "&#64;" in text or "\\u0040" in text)) or _WIDE_AT in text:
        return True
    for bracket in "])":
        at = text.find(bracket)
        while at >= 0:
            if text[at - 1] in "tT" and text[max(0, at - 2) : at].lower() == "at":
                return True
            at = text.find(bracket, at + 1)
    return False


def _signs(text: str) -> Iterator[Span]:
    """Where an at sign stands, in any of its forms."""
    if _has_other_sign(text):
        for sign in _AT.finditer(text):
            yield sign.span()
        return
    at = text.find("@")
    while at >= 0:
        yield at, at + 1
        at = text.find("@", at + 1)


def email(text: str) -> Iterator[Span]:
    """E-mail addresses, percent-encoded and "name [at] host" too. Hosts need a dot."""
    for at, after in _signs(text):
        local = _LOCAL.match(text[max(0, at - 64) : at][::-1])
        domain = _DOMAIN.match(text, after)
        if local and domain:
            begin = at - local.end()
            while begin < at and text[begin] in ".'/=?&{|}`":  # what an address does not begin with
                begin += 1
            begin = max(begin, text.rfind("/", begin, at) + 1, text.rfind("=", begin, at) + 1)
            if begin < at:
                yield begin, domain.end()


_USERINFO = re.compile(r"(?<=://)[^\s/?#@\"'<>]+@")


def url_userinfo(text: str) -> Iterator[Span]:
    """User and password in an address."""
    if "@" in text and "://" in text:
        for match in _USERINFO.finditer(text):
            yield match.start(), match.end() - 1


# Numbers. One pattern finds runs of digits with what people put between them; checks decide what each is.
_RUN = re.compile(  # it begins with one of few characters and looks back: the engine skips all others
    r"[\d+(](?<![\w.,][\d+(])(?<!\d:[\d+(])(?>(?<=\d)|(?:(?<=\()\+)?\d)"
    r"\d*+(?:[ \u00a0\u202f()./\u2010-\u2013-]{1,3}+\d++)*(?!\w)"
)


def luhn(digits: str) -> bool:
    """The check digit of cards (ISO/IEC 7812)."""
    plain = digits.encode()
    total = sum(plain[-1::-2]) + sum(plain[-2::-2].translate(_DOUBLED))
    return (total - 48 * len(plain)) % 10 == 0


_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")
"""Of twice a digit the sum of its own digits."""


_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
    r"|(?:50|5[6-8]|6[0-9])\d{11,17}"
)
_GROUP = re.compile(r"\d+")
_PLAIN_GROUPS = re.compile(r"\d+(?:[ \u00a0\u202f\u2010-\u2013-]\d+)*")


_IN_FOURS = re.compile(r"\d{4}(?:[ \u00a0\u202f\u2010-\u2013-]?\d+)*")
_LEAST_CARD, _MOST_GROUPS = 13, 16


_NO_DIGITS = bytes(code for code in range(256) if not 48 <= code < 58)


def digits_of(text: str) -> str:
    """The decimal digits of a text in ASCII."""
    if text.isascii():
        return text.encode().translate(None, _NO_DIGITS).decode()
    digits = "".join(filter(str.isdecimal, text))
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)


def credit_card(text: str) -> Iterator[Span]:
    """Card numbers: 13 to 19 digits, a known prefix, and the check digit."""
    for begin, end, run in runs_of(text):
        digits = digits_of(run)
        if _is_card(digits) and _IN_FOURS.fullmatch(run):
            yield begin, end
        elif len(digits) >= _LEAST_CARD and (first := run.find(" ") if run[0] == "+" else 0) >= 0:
            for part in _PLAIN_GROUPS.finditer(run, first):
                yield from _cards_in(run, list(_GROUP.finditer(run, *part.span())), begin)


def _is_card(digits: str) -> bool:
    return _LEAST_CARD <= len(digits) <= 19 and _CARD.fullmatch(digits) is not None and luhn(digits)


def _cards_in(run: str, groups: list[re.Match[str]], begin: int) -> Iterator[Span]:
    """A card, or one with an expiry date, a code or another card beside it. Cards are written in fours, or in
    one; what follows "0." in one is a fraction."""
    at = 0
    while at < len(groups):
        size = len(groups[at].group())
        before = run[: groups[at].start()]
        fraction = size >= _LEAST_CARD and before.endswith("0.") and not before[-3:-2].isdecimal()
        most = min(len(groups), at + _MOST_GROUPS)
        for last in range(most, at, -1) if size >= 4 and not fraction else ():
            if _is_card(digits_of(run[groups[at].start() : groups[last - 1].end()])):
                yield begin + groups[at].start(), begin + groups[last - 1].end()
                at = last - 1
                break
        at += 1


@lru_cache(8)  # cards and telephone numbers are looked for in the same ones
def runs_of(text: str) -> list[tuple[int, int, str]]:
    """Runs of digits with what people put between them: where each begins and ends, and the run."""
    runs = [(match.start(), match.end(), match.group()) for match in _RUN.finditer(text)]
    return [run for run in runs if run[1] - run[0] >= _LEAST_TOGETHER]


_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}[ -]?[0-9]{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])"
)
_IBAN_LENGTHS: Mapping[str, str] = dict(
    re.findall(
        r"(\w\w)(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18"
        "FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20"
        "LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24"
        "SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30",
    )
)
"""ISO 13616 registry: country to characters."""


def iban_valid(text: str) -> bool:
    """ISO 13616: the length of its country, and mod 97 = 1."""
    plain = re.sub(r"[^A-Za-z0-9]", "", text).upper()
    if int(_IBAN_LENGTHS.get(plain[:2], 0)) != len(plain):
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1


def iban(text: str) -> Iterator[Span]:
    """IBANs with their check digits, in groups or not."""
    at = 0
    while match := _IBAN.search(text, at):
        at = match.start() + 2
        country = int(_IBAN_LENGTHS.get(match.group()[:2].upper(), 0))
        if not country:
            continue
        # The pattern takes words that follow, too: cut where the country's length is reached.
        count, end = 0, match.start()
        for end in range(match.start(), match.end()):
            count += text[end].isalnum()
            if count == country:
                break
        end += 1
        if count == country and not text[end : end + 1].isalnum() and iban_valid(text[match.start() : end]):
            yield match.start(), end
            at = end


# It begins with digits and looks back from there: the engine then skips all else at once.
_SSN = re.compile(
    r"\d{3}([- \u2010-\u2013])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])"
    r"(?<![\w.-]\d{3}.\d\d.\d{4})(?<!(?:000|666).\d\d.\d{4})(?<!9\d\d.\d\d.\d{4})"
)


def us_ssn(text: str) -> Iterator[Span]:
    """US social security numbers in their groups; area 000, 666 and 9xx were never given out."""
    for match in _SSN.finditer(text):
        yield match.span()


DATE = r"(?:\d{4}([-./])\d{1,2}\1\d{1,2}|\d{1,2}([-./])\d{1,2}\2(?:\d{4}|\d\d))(?!\d)(?:[ T]\d{1,2}:\d*)?"
_NO_PHONE = re.compile(rf"{DATE}|\d{{4}}(?:[ -]\d{{4}}){{2,}}(?:[ -]\d{{1,3}})?(?!\d)")
"""Dates, and the groups of a card or an account whose check digit is wrong."""
_NORTH_AMERICA = re.compile(
    r"(?:1[ .-]?)?\(?[2-9]\d\d\)?[ .\u2010-\u2013-]{1,2}\d{3}[ .\u2010-\u2013-]\d{4}"
    r"(?=\Z|[ /](?!\d{4}(?!\d)))"  # what follows may be another, and no more groups of an account's number
)
_NATIONAL = re.compile(r"\(?\+?0(?:0 ?[1-9]\d|[1-9])")
_COUNTED = "01234567890123456789"
_LEAST_DIGITS, _MOST_DIGITS, _LEAST_LEFT = 8, 15, 4
_INTERNATIONAL = re.compile(r"\(?\+[1-9]")
_PIECE = re.compile(r"\S+")


def phone(text: str) -> Iterator[Span]:
    """Telephone numbers: +country, 0 and 00 prefixes, North American groups. Digits alone are none."""
    for begin, _, run in runs_of(text):
        if not _is_counted(run):
            for start, end in _phones(run):
                yield begin + start, begin + end


def _phones(run: str) -> Iterator[Span]:
    plain = not ("-" in run or "." in run or "/" in run)  # no date is in it
    if plain and _LEAST_DIGITS <= len(digits_of(run)) <= _MOST_DIGITS and _has_prefix(run):
        yield 0, len(run)
        return
    at, left = 0, -1
    for piece in _PIECE.finditer(run):
        start = piece.start()
        if start < at:
            continue
        other = _NO_PHONE.match(run, start) if run[start].isdecimal() else None
        end = other.end() if other else _number_end(run, start)
        if end > start:
            yield from _left_over(run, left, start)
            if other:  # "2026-11-30(030) 1234567"
                start, end = end, _number_end(run, end)
            at = end
            left = end if end > start else -1
            if left == end:
                yield start, end
    yield from _left_over(run, left, len(run))


def _left_over(run: str, begin: int, end: int) -> Iterator[Span]:
    """What of a list of numbers stands after one, and is none by itself: it has no prefix."""
    rest = _GROUP.search(run, begin, end) if begin >= 0 else None
    if rest and len(digits_of(run[begin:end])) >= _LEAST_LEFT:
        yield rest.start(), len(run[:end].rstrip())


def _has_prefix(run: str) -> bool:
    return _INTERNATIONAL.match(run) is not None or _NATIONAL.match(run) is not None


def _is_counted(run: str) -> bool:
    first = run[:2]
    return (not first.isdecimal() or first in _COUNTED) and digits_of(run) in _COUNTED


def _number_end(run: str, start: int) -> int:
    """Where a telephone number ends that begins there; `start` where none does."""
    rest = run[start:]
    if match := _NORTH_AMERICA.match(rest):
        return start + match.end()
    if not _has_prefix(rest):
        return start
    digits, end = 0, start
    for group in _GROUP.finditer(rest):
        at = group.start()
        if digits + len(group.group()) > _MOST_DIGITS:
            break
        if digits >= _LEAST_DIGITS and rest[at - 1].isspace() and _NO_PHONE.match(rest, at):
            break
        digits, end = digits + len(group.group()), start + group.end()
    return end if digits >= _LEAST_DIGITS else start


_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?<![\w.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}|:)?:[0-9A-Fa-f:]*(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])")


def ip(text: str) -> Iterator[Span]:
    """IP addresses of both kinds; 1.2.3.4.5 is a version."""
    for part in _FOUR_PARTS.finditer(text):  # its dot is found at once; the pattern as a whole is not
        begin = part.start()
        while begin and text[begin - 1].isdecimal():
            begin -= 1
        if match := _IPV4.match(text, begin):
            yield match.span()
    colons = text.count(":")
    if colons >= 7 or (colons and "::" in text):
        for match in _IPV6.finditer(text):
            if any(letter.isdigit() for letter in match.group()) and _valid(match.group()):
                yield match.span()


def is_loopback(address: str) -> bool:
    """Whether an IP address is that of whatever machine uses it: 127.0.0.0/8, ::1, and 0.0.0.0 or ::."""
    known = ipaddress.ip_address(address)
    return known.is_loopback or known.is_unspecified


def _valid(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


_NAMES_SECRETS = (
    "key", "token", "secret", "passw", "passphrase", "credential", "authorization", "sig=", "auth=", "pwd=",
)  # fmt: skip
_SENT_WITH = ("bearer", "basic", "token", "negotiate")
"""What stands before a key that is sent."""
_LEAST_KEY = 12
_OF_KEYS = (
    bytes(ord("x") if chr(code).isalnum() or chr(code) in "_-.+/=~:" else ord(" ") for code in range(128))
    + b" " * 128
)
"""Of each character whether keys are written with it."""
_KEY = b"x" * _LEAST_KEY
_VALUE = re.compile(r"[:=]\s*[\"']?\s*(?:(?:bearer|basic|token)\s+)?[^\s\"']{8}", re.IGNORECASE)


def hides_secret(text: str) -> bool:
    """Whether `evalrun.secrets.scrub` may find anything: it takes longer than all patterns here together."""
    if _gives_value(text):
        lower = text.lower()
        if any(name in lower for name in _NAMES_SECRETS):
            return True
    if "-" in text and "----" in text and "-----begin" in text.lower():
        return True
    if "@" in text and "://" in text and _USERINFO.search(text):
        return True
    classes = text.encode("ascii", "replace").translate(_OF_KEYS)  # a byte a character
    at = classes.find(_KEY)
    while at >= 0:
        begin, end = at, classes.find(b" ", at)
        end = len(text) if end < 0 else end
        token = text[begin:end]
        if holds_key(token) or _is_sent(text, begin, token):
            return True
        at = classes.find(_KEY, end)
    return False


def _is_sent(text: str, begin: int, token: str) -> bool:
    before = text[max(0, begin - 99) : begin].rstrip()
    return before.lower().endswith(_SENT_WITH) and not token.isalpha()


def _gives_value(text: str) -> bool:
    """Whether something long follows a colon or an equals sign, or there is a query."""
    if "=" in text and ("?" in text or "&" in text or "#" in text):
        return True
    for sign in ":=":
        at = text.find(sign)
        while at >= 0:
            # Of prose: a space, and a word of less than eight letters.
            short = (
                text.find(" ", at + 2, at + 10) > at + 2 and text[at + 1] == " " and text[at + 2].isalnum()
            )
            if not (short and text[at + 2] not in "bBtT") and _VALUE.match(text, at):
                return True
            at = text.find(sign, at + 1)
    return False


STANDARD: Mapping[str, Recogniser] = {
    "url_userinfo": url_userinfo,
    "iban": iban,
    "credit_card": credit_card,
    "us_ssn": us_ssn,
    "email": email,
    "phone": phone,
    "ip": ip,
}
"""In the order in which they are asked: what one has taken the next does not see."""

_LEAST_TOGETHER = 7
_TOGETHER = re.compile(r"\d(?<!\d\d)(?:[^\d\n]{0,10}+\d){6,}+")
_TOGETHER_ASCII = re.compile(rb"0(?<!00)(?:[^0\n]{0,10}+0){6,}+")
"""The same of texts in ASCII with zeros in the place of digits, in a fifth of the time."""
_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def windows(text: str) -> list[Span]:
    """Where digits stand close together: the parts of a text that numbers can be in, whole words."""
    spans = [match.span() for match in _together(text)]
    return _to_words(text, spans) if spans else spans


def _together(text: str) -> Iterator[re.Match[Any]]:
    """Where at least so many digits stand together, as a number can have."""
    if not text.isascii():
        return _TOGETHER.finditer(text)
    zeros = text.encode().translate(_ZEROS)
    return iter(()) if zeros.count(b"0") < _LEAST_TOGETHER else _TOGETHER_ASCII.finditer(zeros)


def _to_words(text: str, spans: list[Span]) -> list[Span]:
    """Spans widened to white space, those that then touch put together."""
    wide: list[Span] = []
    for begin, end in spans:
        while begin and not text[begin - 1].isspace():
            begin -= 1
        while end < len(text) and not text[end].isspace():
            end += 1
        begin = max(0, begin - 4)  # the country of "DE 89 3704 …"
        if wide and begin <= wide[-1][1]:
            wide[-1] = wide[-1][0], end
        else:
            wide.append((begin, end))
    return wide


_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_FOUR_PARTS = re.compile(r"\.\d{1,3}\.\d")


def may_hold_address(text: str) -> bool:
    """Whether there could be an IP address."""
    return _COLONS.search(text) is not None or _FOUR_PARTS.search(text) is not None


def may_hold(text: str) -> bool:
    """Whether a standard recogniser could find anything: False for most texts, and quickly."""
    if text.isalpha() or (len(text) < _LEAST_DIGITS and text.isalnum()):
        return False  # labels, ids and small numbers
    return (
        "@" in text
        or _has_other_sign(text)
        or "://" in text
        or next(_together(text), None) is not None
        or may_hold_address(text)
        or hides_secret(text)
    )

"""More recognisers, for `strict`: numbers of countries with their check digits, and looser forms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from evalrun.privacy.recognisers import DATE, STANDARD, Recogniser, Span, digits_of, runs_of

_CPF = re.compile(r"(?<![\w.])\d{3}\.?\d{3}\.?\d{3}-?\d\d(?!\w)")


def de_tax_id(text: str) -> Iterator[Span]:
    """German tax numbers (IdNr): 11 digits by ISO 7064 MOD 11,10."""
    for match in re.finditer(r"(?<!\w)[1-9]\d[ ]?\d{3}[ ]?\d{3}[ ]?\d{3}(?!\w)", text):
        if mod_11_10(digits_of(match.group())):
            yield match.span()


def mod_11_10(digits: str) -> bool:
    """ISO 7064 MOD 11,10 over all but the last digit."""
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    return (11 - product) % 10 == int(digits[-1])


def uk_nino(text: str) -> Iterator[Span]:
    """UK national insurance numbers."""
    pattern = (
        r"(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D](?!\w)"
    )
    for match in re.finditer(pattern, text, re.IGNORECASE):
        yield match.span()


def fr_nir(text: str) -> Iterator[Span]:
    """French social security numbers: 13 digits and 97 - (number mod 97)."""
    pattern = r"(?<!\w)[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d(?!\w)"
    for match in re.finditer(pattern, text):
        plain = match.group().replace(" ", "").replace("2A", "19").replace("2B", "18")
        if 97 - int(plain[:13]) % 97 == int(plain[13:]):
            yield match.span()


def br_cpf(text: str) -> Iterator[Span]:
    """Brazilian CPF numbers with both check digits."""
    for match in _CPF.finditer(text):
        digits = [int(digit) for digit in digits_of(match.group())]
        checks = [
            sum(value * weight for value, weight in zip(digits, range(n + 1, 1, -1), strict=False))
            * 10
            % 11
            % 10
            for n in (9, 10)
        ]
        if digits[9:] == checks and len(set(digits)) > 1:
            yield match.span()


def es_dni(text: str) -> Iterator[Span]:
    """Spanish DNI and NIE with their check letter."""
    for match in re.finditer(r"(?<!\w)([XYZ]?)-?(\d{7,8})[ -]?([A-Z])(?!\w)", text, re.IGNORECASE):
        number = str("XYZ".find(match[1].upper())) + match[2] if match[1] else match[2]
        if len(number) == 8 and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == match[3].upper():
            yield match.span()


def loose_phone(text: str) -> Iterator[Span]:
    """Ten digits in a row, and numbers in any groups: more is found, and more is taken for one."""
    for begin, end, run in runs_of(text):
        if 8 <= len(digits_of(run)) <= 15 and not re.match(DATE, run):
            yield begin, end


def mac_address(text: str) -> Iterator[Span]:
    """Addresses of network cards."""
    for match in re.finditer(
        r"(?<![\w:-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])", text
    ):
        yield match.span()


STRICT: Mapping[str, Recogniser] = {
    **STANDARD,
    "de_tax_id": de_tax_id,
    "uk_nino": uk_nino,
    "fr_nir": fr_nir,
    "br_cpf": br_cpf,
    "es_dni": es_dni,
    "mac_address": mac_address,
    "loose_phone": loose_phone,
}
SHOWN_AS: Mapping[str, str] = {"loose_phone": "phone"}

NUMBERS = STRICT.keys() - {"url_userinfo", "email", "ip", "mac_address", "uk_nino"}
"""What holds seven digits or more, close together: looked for only where these are."""

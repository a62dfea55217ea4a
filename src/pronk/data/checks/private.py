"""What should not be in training data: personal data and secrets, found by their form and check digits, shown masked.

Patterns alone find far too much, so numbers are checked where they can be: payment cards by Luhn (ISO/IEC 7812-1),
IBANs by the remainder 97 (ISO 13616), Korean resident registration numbers by date and check digit, addresses by
whether they are public. Reserved examples (example.com, 555 numbers, 192.0.2.0/24) are nobody's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from pronk.data.checks.secrets import SECRETS


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of private thing: its name in the singular and plural, the form, and what tells it from look-alikes.

    hint: a text without a match of it cannot hold one (quick to look for).
    """

    name: str
    names: str
    form: re.Pattern[str]
    holds: Callable[[str], bool]
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A private thing in a text: letters start to end."""

    kind: str
    names: str
    start: int
    end: int


def find_private(text: str, secret: bool | None = None) -> Iterator[Found]:
    """What is private in a text: secrets (true), personal data (false) or both, in no order, possibly overlapping."""
    if secret in (True, None):
        for kind in SECRETS:
            for start, end in kind.find(text):
                yield Found(kind.name, kind.names, start, end)
    if secret in (False, None):
        yield from _personal(text)


def masked(text: str, at: int = 0) -> tuple[str, int]:
    """The text with everything private hidden but its first letters, and where its letter `at` is now."""
    pieces, end, moved = [], 0, at
    for start, stop in _spans(text):
        hidden = mask(text[start:stop])
        pieces += [text[end:start], hidden]
        moved += len(hidden) - (stop - start) if stop <= at else min(start - at, 0) if start < at else 0
        end = stop
    return "".join([*pieces, text[end:]]), moved


def _spans(text: str) -> list[tuple[int, int]]:
    """Where private things begin and end, in order, those that overlap as one."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted((found.start, found.end) for found in find_private(text)):
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def mask(value: str) -> str:
    """The first letters of something private, four at most and a quarter of it, and stars for the rest."""
    return value[: min(len(value) // 4, 4)] + "****"


def _personal(text: str) -> Iterator[Found]:
    has_digits = _DIGITS.search(text) is not None or _COLONS.search(text) is not None
    for kind in PERSONAL:
        if kind.hint in text if kind.hint else has_digits:
            for match in kind.form.finditer(text):
                if kind.holds(match.group()):
                    yield Found(kind.name, kind.names, *match.span())


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)


def passes_luhn(digits: str) -> bool:
    """The check digit of payment cards: every second digit from the right doubled, digits summed, 0 modulo 10."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def _is_card(value: str) -> bool:
    digits = _digits(value)
    known = {"3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": (16, 19), "2": (16,)}.get(digits[0], ())
    return len(digits) in known and len(set(digits)) > 1 and passes_luhn(digits)


def is_iban(value: str) -> bool:
    """Whether an account number's check digits hold: country and check digits moved to the end, letters as numbers
    from 10 on, remainder 1 modulo 97."""
    compact = value.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


def is_resident_number(value: str) -> bool:
    """Whether 13 digits are a Korean resident registration number: a date of birth, century and sex (5 to 8 for
    foreigners), and the check digit."""
    digits = [int(digit) for digit in _digits(value)]
    year = (1900 if digits[6] in (1, 2, 5, 6) else 2000) + digits[0] * 10 + digits[1]
    try:
        date(year, digits[2] * 10 + digits[3], digits[4] * 10 + digits[5])
    except ValueError:
        return False
    total = sum(digit * weight for digit, weight in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False))
    return ((11 if digits[6] < 5 else 13) - total % 11) % 10 == digits[12]


def _is_public_address(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and value not in ("1.2.3.4", "8.8.8.8", "8.8.4.4", "1.1.1.1")


def _is_someones_email(value: str) -> bool:
    domain = value.rpartition("@")[2].lower()
    return not re.search(r"(^|\.)(example|test|invalid|localhost|domain|email|yourdomain|company)(\.|$)", domain)


def _is_phone(value: str) -> bool:
    digits = _digits(value)
    made_up = "555" in digits[:6] or digits in ("1234567890", "11234567890", "01012345678", "821012345678")
    return 9 <= len(digits) <= 15 and not made_up and len(set(digits)) > 3


# every kind but e-mail addresses holds one of these: a run of digits, or the colons of an address
_DIGITS = re.compile(r"\d[\d .()-]{5,}\d")
_COLONS = re.compile(r":[0-9a-fA-F]{1,4}:[0-9a-fA-F]{0,4}:")
_KOREAN_PHONE = (
    r"(?:\+82[ -]?(?:0)?|0)(?:1[016789]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70)\)?[ -]\d{3,4}[ -]\d{4}|01[016789]\d{7,8}"
)
_PHONE = r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)|\d{1,4})(?:[ .-]?\d{2,4}){2,4}"
_US_PHONE = r"(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"
# re.ASCII throughout: in Korean a particle stands right behind a number, and is no part of it
PERSONAL = (
    Kind(
        "e-mail address", "e-mail addresses",
        re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b", re.ASCII),
        _is_someones_email, "@",
    ),
    Kind(
        "phone number", "phone numbers",
        re.compile(rf"(?<![\w.,+/-])(?:{_KOREAN_PHONE}|{_PHONE}|{_US_PHONE})(?![\w/]|[.,-]\d)", re.ASCII), _is_phone,
    ),
    Kind(
        "Korean resident registration number", "Korean resident registration numbers",
        re.compile(r"(?<![\w.-])\d{6}[ -]?[1-8]\d{6}(?![\w-])", re.ASCII), is_resident_number,
    ),
    Kind(
        "payment card number", "payment card numbers",
        re.compile(
            r"(?<![\w.,-])(?<!\d )(?:\d{13,19}|\d{4}(?:[ -]\d{4}){3}|\d{4}[ -]\d{6}[ -]\d{4,5})(?![\w-]|[., ]\d)",
            re.ASCII,
        ),
        _is_card,
    ),
    Kind(
        "IBAN", "IBANs",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.ASCII), is_iban,
    ),
    Kind(
        "public IP address", "public IP addresses",
        re.compile(
            r"(?<![\w.:/-])(?<![vV]ersion )(?:(?:\d{1,3}\.){3}\d{1,3}"
            r"|(?:[0-9a-fA-F]{1,4}:){3,7}:?(?:[0-9a-fA-F]{1,4}:?){0,4})(?![\w:]|\.\d)",
            re.ASCII,
        ),
        _is_public_address,
    ),
)  # fmt: skip

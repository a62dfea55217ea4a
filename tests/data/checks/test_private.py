"""Check digits against known numbers and a plain reading of the rules; what is hidden stays hidden."""

import random
import time

import pytest

from pronk.data.checks.private import find_private, is_iban, is_resident_number, masked, passes_luhn


def found(text):
    return {one.kind for one in find_private(text)}


@pytest.mark.parametrize("number", ["4539148803436467", "378282246310005", "6011111111111117", "5555555555554444"])
def test_luhn(number):
    assert passes_luhn(number)
    # any other last digit fails, and so does any single wrong digit
    assert [last for last in "0123456789" if passes_luhn(number[:-1] + last)] == [number[-1]]
    for at, digit in enumerate(number):
        assert not passes_luhn(number[:at] + str((int(digit) + 1) % 10) + number[at + 1 :])


@pytest.mark.parametrize(
    "number", ["DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19", "FR1420041010050500013M02606"]
)
def test_iban(number):
    assert is_iban(number)
    assert found(f"Pay to {number} now") == {"IBAN"}
    assert not is_iban(number.replace("0", "1", 1))


def resident_number(generator):
    """As the ministry's rule reads: the weighted digits and the check digit sum to 0 modulo 11 (10 wraps)."""
    digits = f"{generator.randint(50, 99)}{generator.randint(1, 12):02}{generator.randint(1, 28):02}1"
    digits += "".join(generator.choices("0123456789", k=5))
    total = sum(int(digit) * weight for digit, weight in zip(digits, [*range(2, 10), *range(2, 6)], strict=True))
    return f"{digits[:6]}-{digits[6:]}{(11 - total % 11) % 10}"


@pytest.mark.parametrize("seed", range(20))
def test_resident_number(seed):
    number = resident_number(random.Random(seed))
    assert found(f"번호는 {number}입니다") == {"Korean resident registration number"}
    assert is_resident_number(number)
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert not is_resident_number(wrong)
    assert not is_resident_number("99" + "1332" + number[6:])  # no such day


@pytest.mark.parametrize(
    "text",
    [
        "Call 555-867-5309 or write to a@example.com.",
        "The server is 192.168.0.1 or 127.0.0.1, version 2.10.0.1.",
        "primes: 1009 1013 1019 1021 1031 1033 1039 1049 1051 1061",
        "The order 1234567890123456 and the date 2021-05-12.",
        "password = os.environ['PASSWORD']; token = get_token(); secret: str",
        "Her password is <your password> or ********.",
        "sk-learn is a nickname; risk-assessment-of-long-words is not a key",
        "std::vector and a::b::c, at 12:30:45",
    ],
)
def test_what_is_nobodys(text):
    assert found(text) == set()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tel. +358 9 4253 2000", "phone number"),
        ("02-6712-3498 로 전화", "phone number"),
        ("call (415) 392-7741", "phone number"),
        ("ssh root@93.184.215.14 now", "public IP address"),
        ("2606:2800:220:1:248:1893:25c8:1946", "public IP address"),
        ("비밀번호: tiger9scott", "password or key in an assignment"),
        ("".join(("hf", "_aBcDeFgHiJkLmNoPqRsTuVwXyZ012345")), "Hugging Face token"),
        ("".join(("sk", "-proj-aB3dE5fG7hI9jK1lM3nO")), "API key of an AI service"),
        ("".join(("xox", "b-123456789012-abcdefGHIJKL")), "Slack token"),
        ("".join(("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz")), "JSON web token"),
    ],
)
def test_what_is_somebodys(text, kind):
    assert kind in found(text)
    hidden, _ = masked(text)
    assert found(hidden) == set()
    assert "****" in hidden


def test_the_place_moves_with_what_is_hidden():
    text = "to minji.kim@landlord.co.kr and HERE"
    hidden, at = masked(text, text.index("HERE"))
    assert hidden[at:] == "HERE"
    assert "minji.kim" not in hidden


def test_things_that_overlap_are_hidden_as_one():
    text = "password=minji.kim2@landlord.co.kr"
    hidden, _ = masked(text)
    assert "landlord" not in hidden
    assert "kim2" not in hidden


def test_hostile_texts_take_no_longer_than_others() -> None:
    """A form that begins anew at each of its own letters would take seconds here, and hours for a long row."""
    for text in ("eyJ-" * 20_000, "sk-" * 20_000, "1 " * 40_000, "a@a." * 20_000, "api_" * 20_000 + "key"):
        start = time.process_time()
        assert list(find_private(text)) == []
        assert time.process_time() - start < 0.5

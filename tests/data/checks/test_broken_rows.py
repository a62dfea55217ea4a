"""Data files, each broken in one way, caught by name; and sound ones, in which nothing is found."""

import json

import pytest
from rows import FACTS, LABELLED, check, many

from pronk.data.checks import DATA_FINDINGS

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq\nX0c9fZq\n-----END RSA PRIVATE KEY-----"
TOKEN = "".join(("gh", "p_", "16C7e42F292c6912E7710c838347Ae178B4a"))
AWS = "".join(("AK", "IA", "IOSFODNN7QRSTUVW"))
KOREAN = [
    (f"{thing}에 대해 알려 주세요.", f"{thing}는 우리 생활에서 자주 볼 수 있는 것입니다.")
    for thing in ("사과나무", "고양이", "자동차", "거북", "오래된 책", "기차역", "하늘의 별", "강", "도서관", "피아노")
]  # fmt: skip


def with_row(question, answer, at=3):
    return [*FACTS[:at], (question, answer), *FACTS[at:]]


BROKEN = {
    # name of the case: (rows, keys of `data`, finding, severity, lines of the file that it shows, words it must say)
    "a row twice": (with_row(*FACTS[1]), {}, "exact-duplicates", "warning", [2, 4], "left it out"),
    "the question in capitals": (
        with_row(FACTS[1][0].upper(), FACTS[1][1]), {}, "exact-duplicates", "warning", [2, 4], "1 row asks",
    ),
    "another question mark": (
        with_row(FACTS[1][0].replace("?", " ?!"), "No.", at=30), {"split": {"test": 0, "validation": 0}},
        "near-duplicates", "warning", [2, 31], "almost the same",
    ),
    "a slip of the pen": (
        with_row(FACTS[1][0].replace("lighthouse", "lighthuose"), "No.", at=30),
        {"split": {"test": 0, "validation": 0}}, "near-duplicates", "warning", [2, 31], "almost the same",
    ),
    "a train question in the test": (
        [*FACTS, (FACTS[1][0].replace("?", "!"), "No.")], {"split": {"shuffle": False, "validation": 0, "test": 5}},
        "near-leakage", "error", [2, 41], "1 test row asks almost the same",
    ),
    "a train question in the validation": (
        [*FACTS, (FACTS[1][0].replace("?", "!"), "No.")], {"split": {"shuffle": False, "validation": 5, "test": 0}},
        "near-leakage", "warning", [2, 41], "1 validation row asks almost the same",
    ),
    "one text, two labels": (
        [*LABELLED, (LABELLED[0][0], "bad")], {"format": "classify"}, "contradictory-labels", "warning", [1, 41],
        "nobody knows which label is right",
    ),
    "almost one text, two labels": (
        [*LABELLED, (LABELLED[0][0].replace(".", " !"), "bad")], {"format": "classify"},
        "near-contradictory-labels", "error", [1, 41], "2 rows have different labels",
    ),
    "one question, two answers": (
        with_row(FACTS[1][0], "Quite another answer."), {}, "contradictory-answers", "note", [2, 4], "otherwise",
    ),
    "Korean questions with English answers": (
        [*KOREAN, ("집에 대해 말해 주세요.", "A house is a place where people live and sleep."),
         ("물고기는 어디에 사나요?", "The fish live in the water of rivers and seas.")],
        {}, "answers-in-another-language", "warning", [11, 12], "most often English after Korean",
    ),
    "a few rows of another script": (
        with_row("Сколько планет в Солнечной системе?", "В Солнечной системе восемь планет."), {},
        "mixed-languages", "note", [4], "Russian or other Cyrillic (1)",
    ),
    "an e-mail address": (
        with_row("Whom do I ask about rent?", "Write to minji.kim@landlord.co.kr."), {}, "personal-data", "warning",
        [4], "1 e-mail address",
    ),
    "a Korean mobile number": (
        with_row("누구에게 전화해요?", "010-9724-3816 으로 전화하세요."), {}, "personal-data", "warning", [4],
        "1 phone number",
    ),
    "a resident registration number": (
        with_row("What is on the form?", "It says 850101-1234566 there."), {}, "personal-data", "warning", [4],
        "1 Korean resident registration number",
    ),
    "a credit card": (
        with_row("How did she pay?", "With 4539 1488 0343 6467, as ever."), {}, "personal-data", "warning", [4],
        "1 payment card number",
    ),
    "an IBAN": (
        with_row("Where do I pay?", "To DE89 3704 0044 0532 0130 00 by Friday."), {}, "personal-data", "warning", [4],
        "1 IBAN",
    ),
    "a public IP address": (
        with_row("Which server is it?", "It is 93.184.215.14 in the rack."), {}, "personal-data", "warning", [4],
        "1 public IP address",
    ),
    "a private key": (with_row("What is in the file?", KEY), {}, "secrets", "warning", [4], "1 private key"),
    "a GitHub token": (with_row("How do I push?", f"Use {TOKEN} to push."), {}, "secrets", "warning", [4], "GitHub"),
    "an AWS key": (with_row("How do I upload?", f"With {AWS} at hand."), {}, "secrets", "warning", [4], "1 AWS key"),
    "a password": (
        with_row("How do I log in?", 'Set password = "Tr0ub4dor&3x" first.'), {}, "secrets", "warning", [4],
        "password or key in an assignment",
    ),
    "always one answer": (
        [(question, "As a language model I cannot say.") for question, _ in FACTS], {}, "constant-answers", "error",
        None, "all 40 answers are the same",
    ),
    "often one answer": (
        [(q, "As a language model I cannot say." if n < 6 else a) for n, (q, a) in enumerate(FACTS)], {},
        "constant-answers", "warning", None, "6 of 40 answers",
    ),
    "the question for an answer": (
        with_row("Which bird sings at night here?", "Which bird sings at night here?"), {}, "answers-repeat-question",
        "warning", [4], "repeats the question",
    ),
    "read as Windows-1252": (
        with_row("Where is the cafe?", "The cafÃ© is at the corner, theyâ€™re open."), {}, "encoding-damage",
        "warning", [4], "mojibake",
    ),
    "letters that were lost": (
        with_row("Where is the cafe?", "The caf\ufffd is at the corner."), {}, "encoding-damage", "warning", [4],
        "replacement characters",
    ),
    "control characters": (
        with_row("Where is the cafe?", "At the\x00 corner\x1b[31m."), {}, "encoding-damage", "warning", [4],
        "control characters",
    ),
    "left-over mark-up": (
        with_row("Where is the cafe?", "At the <b>corner</b>,<br/>as always&nbsp;so."), {}, "html-left-over", "warning",
        [4], "<b>",
    ),
    "nothing but a link": (
        with_row("Where is the cafe?", "https://maps.example.org/cafe?id=3"), {}, "only-links", "warning", [4],
        "web address",
    ),
}  # fmt: skip


def test_there_are_enough_of_them():
    """Every name but exact-leakage, which read_splits makes impossible: test_parts.py builds it by hand."""
    assert len(BROKEN) >= 16
    assert {name for _, _, name, *_ in BROKEN.values()} == {*DATA_FINDINGS} - {"exact-leakage"}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_caught_by_name(case, write):
    rows, keys, name, severity, lines, words = BROKEN[case]
    findings = check(write, rows, **keys)
    assert name in [finding.name for finding in findings]
    found = next(finding for finding in findings if finding.name == name)
    assert (found.severity, words in found.message) == (severity, True), found.message
    assert 0 < found.count <= found.total
    assert found.remedy
    if lines is not None:
        assert sorted(int(row.place.partition(":")[2]) for row in found.rows) == lines
    assert {row.place.partition(":")[0] for row in found.rows} == {"rows.jsonl"}


@pytest.mark.parametrize("case", BROKEN)
def test_nothing_else_is_an_error(case, write):
    rows, keys, name, *_ = BROKEN[case]
    assert {finding.name for finding in check(write, rows, **keys) if finding.severity == "error"} <= {name}


# what differs by a number, a name, a word in quotation marks or one word of few is another question
TEMPLATES = [
    ("Maria buys 3 apples and 4 pears at the market and eats 2 of them on her way; how many are left?", "5"),
    ("Maria buys 6 apples and 4 pears at the market and eats 2 of them on her way; how many are left?", "8"),
    ("In the old harbour Anna sold half of the fish that she had caught in the morning to her uncle.", "yes"),
    ("In the old harbour Boris sold half of the fish that she had caught in the morning to her uncle.", "no"),
    ("What is the opposite of 'cold'?", "hot"),
    ("What is the opposite of 'old'?", "new"),
    ("What is the symbol for the element gold?", "Au"),
    ("What is the symbol for the element iron?", "Fe"),
    ("Is 3+4*2 larger than 10?", "yes"),
    ("Is (3+4)*2 larger than 10?", "yes!"),
    ("Is C++ an old language?", "It is."),
    ("Is C# an old language?", "Not very."),
]
SOUND = {
    "facts": (FACTS, {}),
    "labelled texts": (LABELLED, {"format": "classify"}),
    "templates with other values": (FACTS + TEMPLATES, {"split": {"test": 0.3}}),
    "Korean": (KOREAN, {"split": {"test": 0.3}}),
    "a few translations": (
        [*KOREAN[3:], *((f"영어로 옮기세요: {asked}", f"That is said like this: {asked}") for asked, _ in KOREAN[:3])],
        {"split": {"test": 0, "validation": 0}},
    ),
    "code": (
        [(f"Write HTML for {word}.", f"<p>{word}</p><br>") for word in ("a list", "a form", "a table", "words")], {},
    ),
    "numbers that are nothing": (
        many("Version 10.0.0.1 of the file has 1234 5678 9012 3456 rows, {}.", "Since 2020-01-01 12:30:45 a {}."), {},
    ),
    "made-up addresses": (many("Who is user{} at example.com?", "Write to user{}@example.com, or call 555-0142."), {}),
    "passwords in code": (
        many("How do I ask for secret {}?", "password = input('{}'); api_key = os.environ['KEY']; token: str"), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_in_a_sound_file_nothing_is_found(case, write):
    rows, keys = SOUND[case]
    told = [f"{finding.name}: {finding.message}" for finding in check(write, rows, **keys)]
    assert [line for line in told if not line.startswith("mixed-languages")] == []


def test_a_finding_shows_nothing_private_in_full(write):
    rows = [
        *FACTS,
        ("Where is it? " * 20, f"<br>{'word ' * 50}{KEY} {TOKEN} minji.kim@landlord.co.kr {'word ' * 50}\x07"),
    ]
    rows += [("Where is that?", f"The key {AWS} is https://a.org/?password=Tr0ub4dor3x at 4539 1488 0343 6467.")] * 2
    shown = json.dumps([[finding.message, *(row.text for row in finding.rows)] for finding in check(write, rows)])
    assert "****" in shown
    for private in ("MIIEow", "X0c9fZq", TOKEN[8:20], AWS[6:], "minji", "b4dor", "0343", "\x07"):
        assert private not in shown

"""How many near duplicates the checks find, and how often they call rows alike that are not.

    python benchmarks/duplicate_recall.py [--rows 5000] [--planted 720] [--show]

In each real data set (PRONK_TEST_DATA, or ../shared) rows are drawn, copied with one realistic edit and planted in the
same part or across parts. Recall is the share of planted rows that are paired with their original. Hard negatives are
planted beside them: copies in which every number, or a name, is another. A false alarm is a row that is reported though
it is not planted and has no near duplicate by an oracle of its own: all pairs, compared by difflib's ratio of the
letters (an exact search that shares no code with MinHash), at least 0.8 alike, numbers equal.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from pronk.data.checks.alike import BYTES_PER_CHANGE, alike_questions, closeness
from pronk.data.checks.texts import Question, questions_of
from pronk.data.conversation import Conversation, Message
from pronk.data.sources import read_conversations
from pronk.data.split import question_key
from pronk.recipe import Data

DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[2] / "shared")) / "data"
SETS: dict[str, dict[str, Any]] = {
    "Alpaca": {"source": "alpaca/alpaca_cleaned_5000.jsonl"},
    "KoAlpaca": {"source": "ko/koalpaca_v1_5000.jsonl"},
    "FinancialPhraseBank": {
        "source": "fpb/Sentences_50Agree.jsonl", "format": "classify", "columns": {"text": "sentence"},
    },
    "OpenAssistant": {"source": "chat/oasst1_messages.jsonl"},
    "GSM8K": {
        "source": "eval/gsm8k_train_1000.jsonl", "format": "pairs",
        "columns": {"prompt": "question", "response": "answer"},
    },
}  # fmt: skip
WORD = re.compile(r"(?<![\w'\"‘“])[^\W\d_]{4,}(?![\w'\"’”])")
SPARE = {"latin": ("certain", "usually", "various", "nearby"), "hangul": ("여러", "아마도", "보통의", "가까운")}
SENTENCE = {"latin": "Please think about it carefully.", "hangul": "자세히 생각해 주세요."}
Edit = Callable[[str, random.Random], str]


# --- edits that leave the question the same ------------------------------------------------------------


def typo(text: str, generator: random.Random) -> str:
    """Two letters of a word swapped, one left out, or one doubled."""
    words = [match for match in WORD.finditer(text) if len(match.group()) >= 5] or [*WORD.finditer(text)]
    if not words:
        return text
    match = generator.choice(words)
    word, at = match.group(), generator.randrange(1, len(match.group()) - 2)
    kinds = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    return text[: match.start()] + generator.choice(kinds) + text[match.end() :]


def case(text: str, generator: random.Random) -> str:
    """All capitals, all small, or every word with a capital; with another mark at the end, else nothing is left."""
    changed = generator.choice((text.upper(), text.lower(), text.title()))
    return changed.rstrip(".?! ") + ("" if text.rstrip().endswith((".", "?", "!")) else ".")


def punctuation(text: str, generator: random.Random) -> str:
    """Another mark at the end, commas gone."""
    return re.sub(r",(?!\d)", "", text).rstrip(".?! ") + generator.choice((" !", "...", " ?"))


def word_replaced(text: str, generator: random.Random) -> str:
    """A word, neither a name nor a number nor quoted, is another."""
    words = [match for match in WORD.finditer(text) if not match.group()[0].isupper()]
    if not words:
        return text
    match = generator.choice(words)
    return text[: match.start()] + generator.choice(SPARE[_script(text)]) + text[match.end() :]


def sentence_added(text: str, _: random.Random) -> str:
    """A sentence more at the end."""
    return f"{text.rstrip()}{'' if text.rstrip().endswith(('.', '?', '!')) else '.'} {SENTENCE[_script(text)]}"


def white_space(text: str, generator: random.Random) -> str:
    """Spaces doubled and, once, left out between two words."""
    places = [match.start() for match in re.finditer(r"(?<=[^\W\d]) (?=[^\W\d])", text)]
    at = generator.choice(places) if places else len(text)
    return (text[:at] + text[at + 1 :]).replace(" ", "  ")


def unicode_form(text: str, generator: random.Random) -> str:
    """Letters decomposed, or those of East Asian width, with spaces of another kind."""
    if generator.random() < 0.5:
        return unicodedata.normalize("NFD", text).replace(" ", "\u00a0") + "\u200b"
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def quotes(text: str, generator: random.Random) -> str:
    """Typographic marks for straight ones; a dash for a hyphen; the whole in quotation marks where there are none."""
    opening, closing = generator.choice((("“", "”"), ("«", "»"), ("「", "」")))
    changed = re.sub(r'"([^"]*)"', rf"{opening}\1{closing}", text).replace("'", "’").replace(" - ", " – ")
    return changed if changed != text else f"{opening}{text}{closing}"


def number_format(text: str, _: random.Random) -> str:
    """1,000 for 1000 and back; 2.0 for 2."""
    if re.search(r"\d,\d{3}\b", text):
        return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    if re.search(r"(?<![\d.,/:-])\d{4,}(?![\d.,/:-])", text):
        return re.sub(r"(?<![\d.,/:-])\d{4,}(?![\d.,/:-])", lambda match: f"{int(match.group()):,}", text)
    return re.sub(r"(?<![\w.,/:-])(\d+)(?=[ ?!]|$)", r"\1.0", text, count=1)


EDITS: dict[str, Edit] = {
    edit.__name__.replace("_", " "): edit
    for edit in (
        typo, case, punctuation, word_replaced, sentence_added, white_space, unicode_form, quotes, number_format,
    )
}  # fmt: skip


# --- edits that make another question ------------------------------------------------------------------


def other_numbers(text: str, generator: random.Random) -> str:
    """Every number is another."""
    return re.sub(r"\d+", lambda match: str(int(match.group()) + generator.randint(1, 9)), text)


def other_name(text: str, _: random.Random) -> str:
    """A name inside a sentence is another, wherever it stands."""
    names = re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b(?!')", text)
    return re.sub(rf"\b{names[0]}\b", "Zebulon", text) if names else text


HARD: dict[str, Edit] = {"other numbers": other_numbers, "another name": other_name}


def _script(text: str) -> str:
    return "hangul" if re.search("[가-힣]", text) else "latin"


# --- planting and counting -------------------------------------------------------------------------------


@dataclass
class Planted:
    """The parts with what was planted; kind of edit by place, place of the original by place."""

    train: list[Conversation]
    test: list[Conversation]
    edit: dict[str, str]
    original: dict[str, str]


def planted(rows: Sequence[Conversation], edits: dict[str, Edit], count: int, seed: int, short: bool) -> Planted:
    """Copies of drawn rows, each with the next edit that changes it; half of them in the test part.

    short: words are replaced in texts of any length, also where the definition calls that another question.
    """
    generator, order = random.Random(seed), list(rows)
    generator.shuffle(order)
    half = len(order) * 4 // 5
    result = Planted(order[:half], order[half:], {}, {})
    names, number = [*edits], 0
    for row in generator.sample(order[:half], min(4 * count, half)):
        name = names[number % len(names)]
        copy = _edited(row, edits[name], generator, f"planted:{number}")
        size = len(copy.subject.encode())
        if question_key(copy) == question_key(row) or (
            name == "word replaced" and not short and size < BYTES_PER_CHANGE
        ):
            continue
        (result.train if generator.random() < 0.5 else result.test).append(copy)
        result.edit[copy.place], result.original[copy.place] = name, row.place
        number += 1
        if number == count:
            break
    return result


def _edited(row: Conversation, edit: Edit, generator: random.Random, place: str) -> Conversation:
    """The last user turn changed, or what it is about where it is about something."""
    *before, asked, answer = row.messages
    if asked.context:
        changed = Message(asked.role, asked.content, edit(asked.context, generator))
    else:
        changed = Message(asked.role, edit(asked.content, generator))
    return Conversation((*before, changed, answer), place, row.label)


@dataclass
class Counts:
    """Planted and found by kind of edit; rows that were not planted, and which of them were reported falsely."""

    planted: Counter[str]
    found: Counter[str]
    rows: int
    false: list[tuple[Question, Question]]
    true_pairs: int
    true_found: int


def measured(world: Planted, oracle_rows: int = 0) -> Counts:
    """What the checks find in it; oracle_rows: how many are compared all with all by closeness(), without MinHash."""
    questions = questions_of([("train", world.train), ("test", world.test)])
    pairs = [(questions[alike.first], questions[alike.second]) for alike in alike_questions(questions)]
    together = _groups(pairs)
    found = Counter(
        edit
        for place, edit in world.edit.items()
        if together.get(place, place) == together.get(world.original[place], "")
    )
    false = [
        (one, other) for one, other in pairs
        if one.row.place not in world.edit and other.row.place not in world.edit and not _alike_to_difflib(one, other)
    ]  # fmt: skip
    involved = {*world.edit, *world.original.values()}
    some = [question for question in questions if question.row.place in involved][:oracle_rows]
    truth = [(one, other) for at, one in enumerate(some) for other in some[:at] if closeness(one, other)]
    hit = sum(together.get(one.row.place, 1) == together.get(other.row.place, 2) for one, other in truth)
    return Counts(Counter(world.edit.values()), found, len(questions) - len(world.edit), false, len(truth), hit)


def _groups(pairs: Sequence[tuple[Question, Question]]) -> dict[str, str]:
    """By place, one place for all that are connected."""
    parent: dict[str, str] = {}

    def root(place: str) -> str:
        while parent.setdefault(place, place) != place:
            place = parent[place]
        return place

    for one, other in pairs:
        parent[root(one.row.place)] = root(other.row.place)
    return {place: root(place) for place in parent}


def _alike_to_difflib(one: Question, other: Question) -> bool:
    if one.numbers != other.numbers:
        return False
    return SequenceMatcher(None, " ".join(one.said), " ".join(other.said), autojunk=False).ratio() >= 0.8


def read_set(name: str) -> list[Conversation]:
    """The rows of a real data set, each question once."""
    keys = SETS[name]
    rows, _ = read_conversations(Data(**{**keys, "source": str(DATA / keys["source"])}))
    return [*{question_key(row): row for row in rows}.values()]


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000, help="of each data set, at most")
    parser.add_argument("--planted", type=int, default=720)
    parser.add_argument("--oracle", type=int, default=2_000, help="planted rows and originals compared all with all")
    parser.add_argument("--short", action="store_true", help="replace words in short texts too")
    parser.add_argument("--show", action="store_true", help="print what was missed and what was a false alarm")
    arguments = parser.parse_args()
    for name in SETS:
        rows = read_set(name)[: arguments.rows]
        world = planted(rows, EDITS, arguments.planted, seed=1, short=arguments.short)
        counts = measured(world, arguments.oracle)
        hard = measured(planted(rows, HARD, arguments.planted, seed=2, short=False))
        total, found = counts.planted.total(), counts.found.total()
        print(f"{name}: recall {found / total:.1%} of {total}; false alarms {len(counts.false)} of {counts.rows} rows")
        print("    " + ", ".join(f"{edit} {counts.found[edit]}/{number}" for edit, number in counts.planted.items()))
        told = ", ".join(f"{edit} {hard.found[edit]}/{number}" for edit, number in hard.planted.items()) or "none"
        print(f"    called alike though they are not: {told}")
        print(f"    pairs that all-with-all finds, too: {counts.true_found} of {counts.true_pairs}")
        if arguments.show:
            _show(world, counts)


def _show(world: Planted, counts: Counts) -> None:
    by_place = {row.place: row for row in (*world.train, *world.test)}
    together = _groups([(a, b) for a, b in _pairs_again(world)])
    for place, edit in world.edit.items():
        original = world.original[place]
        if together.get(place, place) != together.get(original, ""):
            print(
                f"    missed ({edit}): {by_place[original].subject[:300]!r}\n        {by_place[place].subject[:300]!r}"
            )
    for one, other in counts.false:
        print(f"    false: {one.row.subject[:300]!r}\n        {other.row.subject[:300]!r}")


def _pairs_again(world: Planted) -> list[tuple[Question, Question]]:
    questions = questions_of([("train", world.train), ("test", world.test)])
    return [(questions[alike.first], questions[alike.second]) for alike in alike_questions(questions)]


if __name__ == "__main__":
    main()

"""The checks of rows over 50,000 rows: seconds of each part, and the most memory held.

    python benchmarks/row_checks.py FILE.jsonl [--format classify --columns text=sentence,label=label] [--rows 50000]
    python benchmarks/row_checks.py --templates

Rows of the file are repeated with their words in a drawn order, so that they are as long as real ones and none is a
duplicate. --templates: rows made from thirty sentences with other words in one place, the hardest case for a search of
near duplicates.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable, Sequence

from pronk.data.checks import answers, damage, data_findings, language, privacy, repeats
from pronk.data.conversation import Conversation, Message
from pronk.data.sources import read_conversations
from pronk.data.split import split_conversations
from pronk.recipe import Data, Split


def main() -> None:
    """Print a line for each part."""
    arguments = _arguments()
    if arguments.templates:
        rows, labels = _templates(arguments.rows), ()
    else:
        columns = dict(pair.split("=") for pair in arguments.columns.split(",") if pair)
        read, labels = read_conversations(Data(source=arguments.file, format=arguments.format, columns=columns))
        rows = _many(read, arguments.rows)
    splits = split_conversations(rows, labels, Split())
    kept = (*splits.train, *splits.validation, *splits.test)
    letters = sum(len(message.content) + len(message.context) for row in kept for message in row.messages)
    print(f"{len(kept):,} rows, {letters / len(kept):.0f} letters each, {_memory():,.0f} MiB before")
    begin = time.perf_counter()
    _timed("repeats, leakage, contradictions", lambda: repeats.find_repeats(splits, labels))
    _timed("languages", lambda: language.find_languages(kept))
    _timed("personal data and secrets", lambda: privacy.find_private_rows(kept))
    _timed("answers", lambda: answers.find_poor_answers(kept))
    _timed("damage", lambda: damage.find_damage(kept))
    print(f"{time.perf_counter() - begin:6.2f} s in all, {_memory():,.0f} MiB at most")
    for finding in data_findings(splits, labels):
        print(f"    {finding.severity} {finding.name}: {finding.count:,} of {finding.total:,} {finding.unit}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--format")
    parser.add_argument("--columns", default="")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--templates", action="store_true")
    return parser.parse_args()


def _many(rows: Sequence[Conversation], count: int) -> list[Conversation]:
    generator = random.Random(0)
    return [_shuffled(rows[number % len(rows)], generator, number) for number in range(count)]


def _shuffled(row: Conversation, generator: random.Random, number: int) -> Conversation:
    def words(text: str) -> str:
        parts = text.split(" ")
        generator.shuffle(parts)
        return " ".join(parts)

    *asked, last = row.messages
    messages = [Message(message.role, words(message.content), words(message.context)) for message in asked]
    return Conversation((*messages, last), f"rows.jsonl:{number + 1}", row.label)


def _templates(count: int) -> list[Conversation]:
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(3, 9))) for _ in range(20_000)]
    stems = [" ".join(generator.choices(words, k=12)) for _ in range(30)]
    rows = []
    for number in range(count):
        text = f"{generator.choice(stems)} {generator.choice(words)} {generator.choice(words)}"
        asked, answer = Message("user", text), Message("assistant", f"answer {number}")
        rows.append(Conversation((asked, answer), f"rows.jsonl:{number + 1}"))
    return rows


def _timed(what: str, work: Callable[[], object]) -> None:
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{time.perf_counter() - begin:6.2f} s  ({time.process_time() - cpu:5.2f} s of a core)  {what}")


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

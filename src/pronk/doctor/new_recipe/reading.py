"""What stands in the data: the formats that read all of it, labels, writing systems."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pronk.data.conversation import Conversation
from pronk.data.detect import MEANINGS, TURN_FORMATS, Found, Look, look_at
from pronk.data.labels import MOST_FOUND_LABELS, label_text
from pronk.data.sources import read_conversations
from pronk.data.tables import named_sources, open_table
from pronk.data.words import enumerated, quoted
from pronk.errors import DataError
from pronk.recipe import Data

SAMPLE_ROWS, SAMPLE_LETTERS = 500, 400  # for the writing systems
SCRIPTS = {
    "HANGUL": "Korean", "CJK": "Chinese or Japanese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese",
    "CYRILLIC": "Cyrillic", "ARABIC": "Arabic", "DEVANAGARI": "Devanagari", "THAI": "Thai", "HEBREW": "Hebrew",
    "GREEK": "Greek", "LATIN": "Latin",
}  # fmt: skip
DOCUMENTS = ("document", "article", "source", "text", "body", "content", "input")  # columns that hold no question
SUMMARIES = ("summary", "abstract", "tldr", "headline", "title")
SUMMARIZE = {"Korean": "다음 글을 요약해 주세요.", "": "Summarize the text."}


@dataclass(frozen=True)
class Rows:
    """The data as one format reads it. lines: what is worth knowing about the reading."""

    data: Data
    conversations: list[Conversation]
    labels: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def scripts(self) -> dict[str, float]:
        """Writing systems by their share of the letters, those under 2% left out."""
        return _scripts(self.conversations)


def formats_of(source: str, task: str | None = None) -> tuple[Look, list[Found]]:
    """The columns of a source, and the formats it could be read in (`task` alone, if named), the likeliest first.

    Raises DataError if it cannot be opened.
    """
    look = look_at(Data(source=source))
    lists = _lists(look.first)
    every = [*look.fitting, *look.usual] if task or not look.fitting else [*look.fitting]
    numbers = set(_numbers_into(look, lists))
    found = [one for one in every if one.format == "choice" or not set(one.columns.values()) & numbers]
    certain = any(one.format in (*TURN_FORMATS, "classify", "choice") for one in found)
    if not certain and (task == "classify" or not found):
        found += [one for one in [_with_labels(source, look, lists)] if one]
    return look, [one for one in found if task in (None, one.format)]


def described_format(found: Found, columns: Sequence[str]) -> str:
    """`a text and its label, from the columns 'sentence' and 'label'`."""
    from pronk.data.formats import FIELDS

    named = [found.columns.get(field, field) for field in FIELDS[found.format]]
    used = [column for column in named if column in columns]
    return f"{MEANINGS[found.format]}, from the column{'s' * (len(used) > 1)} {quoted(used)}"


def read_rows(source: str, found: Found, instruction: str | None = None, where: str | None = None) -> Rows:
    """All rows in a format. Raises DataError as reading a recipe's data does."""
    data = Data(source=source, format=found.format, columns=found.columns, instruction=instruction, where=where)
    lines: list[str] = []
    conversations, labels = read_conversations(data, lines.append)
    return Rows(data, conversations, labels, tuple(lines))


def usual_instruction(found: Found, rows: Rows) -> str | None:
    """What to ask for where a prompt is a document rather than a question; None where the rows ask themselves."""
    prompt, response = (found.columns.get(field, field).lower() for field in ("prompt", "response"))
    if found.format != "pairs" or prompt not in DOCUMENTS or response not in SUMMARIES:
        return None
    language = next(iter(rows.scripts), "")
    return SUMMARIZE.get(language, SUMMARIZE[""])


def unread_columns(look: Look) -> str:
    """What to say of lists that no format reads, and that other columns need."""
    lists = _lists(look.first)
    numbers = _numbers_into(look, lists)
    if not numbers or any(one.format == "choice" for one in (*look.fitting, *look.usual)):
        return ""
    return f"no format reads the lists in {quoted(lists)}, so the model will not see them, nor {quoted(numbers)}"


def in_words(scripts: dict[str, float]) -> str:
    """`mostly Korean letters, 12% Latin`."""
    if not scripts:
        return "no letters"
    (first, share), *rest = scripts.items()
    if not rest:
        return f"{first} letters"
    return f"{share:.0%} {first} letters, {enumerated([f'{part:.0%} {name}' for name, part in rest[:3]], 'and')}"


def _lists(first: Any) -> list[str]:
    """Columns of lists that are no turns."""
    return [c for c, v in first.items() if isinstance(v, list) and v and not isinstance(v[0], dict)]


def _numbers_into(look: Look, lists: list[str]) -> list[str]:
    """Columns of whole numbers beside a list: they mean a place in it, and are no answer."""
    numbers = [c for c, v in look.first.items() if isinstance(v, int) and not isinstance(v, bool)]
    return numbers if lists else []


def _with_labels(source: str, look: Look, lists: list[str]) -> Found | None:
    """A column with few different values as the label of the longest text; None where there is no such pair."""
    values = list(_values(source))
    avoided = {*lists, *_numbers_into(look, lists)}
    texts = {c: sum(len(row[c]) for row in values) for c in look.columns if _is_text(values, c)}
    most = min(MOST_FOUND_LABELS, len(values) / 3)
    few = [c for c in look.columns if c not in avoided and 1 < _kinds(values, c) <= most]
    long = [c for c in sorted(texts, key=lambda c: -texts[c]) if c not in few]
    if not few or not long:
        return None
    columns = {"text": long[0], "label": few[0]}
    return Found("classify", {field: column for field, column in columns.items() if field != column})


def _values(source: str) -> Iterator[dict[str, Any]]:
    data = Data(source=source)
    one, name = named_sources(data)[0]
    return (row.values for row in open_table(one, name, data).rows)


def _is_text(values: list[dict[str, Any]], column: str) -> bool:
    return all(isinstance(row.get(column), str) and row[column].strip() for row in values)


def _kinds(values: list[dict[str, Any]], column: str) -> int:
    """How many different labels a column holds; none where a row has something else there."""
    labels = [label_text(row.get(column)) for row in values]
    return len(set(labels)) if all(isinstance(label, str) and label for label in labels) else 0


def _scripts(conversations: Sequence[Conversation]) -> dict[str, float]:
    step = max(1, len(conversations) // SAMPLE_ROWS)
    counts: Counter[str] = Counter()
    for conversation in conversations[::step]:
        # what was asked and answered by people; a system message or an instruction is the recipe's
        text = "".join((one.context or one.content)[:SAMPLE_LETTERS] for one in conversation.messages)
        counts.update(_script(letter) for letter in text if letter.isalpha())
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common() if count >= 0.02 * total}


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").split(" ")[0]
    return SCRIPTS.get(name, "other")


def checked_source(text: str) -> str:
    """A source as a recipe could name it: a path from the current folder, or a hub id.

    Raises DataError for a folder, or what does not exist.
    """
    text = text.strip()
    path = Path(text).expanduser()
    if not text:
        raise DataError("data: no file is named")
    if path.is_dir():
        raise DataError(f"data: {text} is a folder; name one file (.jsonl, .json, .csv, .parquet) or a hub data set")
    return str(path) if path.exists() else text

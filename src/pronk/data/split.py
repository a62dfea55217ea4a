"""Which rows train, which watch the training, and which are kept apart for the comparison.

duplicates out → one seeded shuffle (or none) → test drawn → train drawn from the rest → validation out of train

Conversations that open with the same user turn are a family: they are drawn together or not at all.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pronk.data.conversation import Conversation, shortened
from pronk.data.sources import read_conversations
from pronk.data.words import counted
from pronk.errors import DataError
from pronk.recipe import Data, Split

Key = tuple[tuple[str, str, str], ...]
Groups = tuple[tuple[Conversation, ...], ...]  # rows that ask the same
Quotas = dict[str, int]  # rows by group; the groups are the labels, or one for all rows


@dataclass(frozen=True)
class Splits:
    """The rows of each part, each in shuffled order, and how many rows were left out before."""

    train: tuple[Conversation, ...]
    validation: tuple[Conversation, ...]
    test: tuple[Conversation, ...]
    duplicates_removed: int  # rows whose question came before
    contradictory_removed: int  # rows whose question came with another label too
    same_opening: int = 0  # rows that open as another does, and were kept in one part with it
    repeated: Groups = ()  # rows with the same question, all but the first left out;
    contradictory: Groups = ()  # with different labels, all of them left out
    train_only: int = 0  # rows of train whose source is for training only; they are its last

    def counts(self) -> dict[str, int]:
        """How many rows went where."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "duplicates_removed": self.duplicates_removed,
            "contradictory_removed": self.contradictory_removed,
            **({"same_opening": self.same_opening} if self.same_opening else {}),
            **({"train_only": self.train_only} if self.train_only else {}),
        }

    def test_items(self) -> list[dict[str, Any]]:
        """The test rows as a study folder lists them."""
        return [
            {
                "id": str(number), "input": row.subject, "reference": row.answer, "label": row.label,
                "place": row.place, **({"choices": list(row.choices)} if row.choices else {}),
                **({"question": row.asked} if row.asked != row.subject else {}),
            }
            for number, row in enumerate(self.test)
        ]  # fmt: skip


@dataclass(frozen=True)
class _Unique:
    """The rows that are left to divide."""

    rows: list[Conversation]
    repeated: Groups
    clashing: Groups

    @property
    def duplicates(self) -> int:
        """Rows whose question came before."""
        return sum(len(rows) - 1 for rows in self.repeated)

    @property
    def contradictory(self) -> int:
        """Rows whose question came with another label too."""
        return sum(map(len, self.clashing))

    @property
    def removed(self) -> str:
        """` after 3 duplicates were removed`, for messages."""
        parts = []
        if self.duplicates:
            parts.append(counted(self.duplicates, "duplicate"))
        if self.contradictory:
            parts.append(f"{self.contradictory} rows with contradictory labels")
        verb = "was" if self.duplicates + self.contradictory == 1 else "were"
        return f" after {' and '.join(parts)} {verb} removed" if parts else ""


def read_splits(data: Data, tell: Callable[[str], None] = lambda _: None) -> tuple[Splits, tuple[str, ...]]:
    """Read the data of a recipe and split it; also the labels, none where it is not for classification.

    Rows of sources for training only come behind the others of train, and change nothing else.
    tell is given a line for what is worth knowing: what was found out, and how many rows were left out.
    """
    conversations, labels = read_conversations(data.of_part(None) or data, tell)
    splits = split_conversations(conversations, labels, data.split)
    more = data.of_part("train")
    if more is None:
        return splits, labels
    if labels and more.labels is None:
        more = more.model_copy(update={"labels": [*labels]})
    splits = with_more_training(splits, read_conversations(more, tell)[0], data.split.keep_openings)
    tell(f"{counted(splits.train_only, 'row')} for training only, beside the others of train")
    return splits, labels


def with_more_training(splits: Splits, rows: Sequence[Conversation], keep_openings: bool) -> Splits:
    """The splits with rows that only train, but those that ask what another row asks, or open (keep_openings) as a
    row of validation or test does."""
    first = {question_key(row): row for part in (splits.train, splits.validation, splits.test) for row in part}
    apart = (*splits.validation, *splits.test) if keep_openings else ()
    openings = {_opening(row): row for row in apart}
    train, repeated = list(splits.train), list(splits.repeated)
    for row in rows:
        key = question_key(row)
        earlier = first.get(key) or openings.get(_opening(row))
        if earlier is None:
            first[key] = row
            train.append(row)
        else:
            repeated.append((earlier, row))
    left_out, only = len(repeated) - len(splits.repeated), len(train) - len(splits.train)
    return replace(
        splits, train=tuple(train), duplicates_removed=splits.duplicates_removed + left_out, repeated=tuple(repeated),
        train_only=only,
    )  # fmt: skip


def split_conversations(conversations: Sequence[Conversation], labels: Sequence[str], split: Split) -> Splits:
    """Divide conversations into train, validation and test as `data.split` of a recipe says.

    Conversations with the same question, up to case, spaces and Unicode form, count as duplicates:
    the first is kept, so none crosses from one part to another; with contradictory labels all are
    removed. Those that open with the same user turn stay in one part (unless `keep_openings` is false); a part
    may then be some rows smaller than asked. labels are the names that `balanced` makes equal, in the order that
    gets remainders.
    The same arguments give the same parts; `validation` has no influence on which rows are in test,
    `seed` alone decides on the shuffle. Without `shuffle` each part keeps the order of the rows: train first,
    test last, validation between.

    Raises DataError when there are too few rows, with the numbers.
    """
    if split.balanced and not labels:
        raise DataError("data.split.balanced: these examples have no labels")
    unique = _without_duplicates(conversations)
    groups = tuple(labels) if split.balanced else ("",)
    pool = _pool(unique.rows, split)
    test, train = _test_and_train(unique, groups, _label if split.balanced else _same_group, split)
    divide = _shuffled if split.shuffle else _in_order
    parts = divide(pool, groups, test, train, split)
    left_out = (unique.repeated, unique.clashing)
    return Splits(*parts, unique.duplicates, unique.contradictory, pool.same_opening, *left_out)


Part = tuple[Conversation, ...]


def _shuffled(
    pool: _Pool, groups: tuple[str, ...], test: Quotas, train: Quotas, split: Split
) -> tuple[Part, Part, Part]:
    """Train, validation and test of shuffled rows."""
    generator = random.Random(split.seed)
    rows = list(range(len(pool.rows)))
    generator.shuffle(rows)
    # the last rows drawn are mostly of the scarcest label: in this order they would be one block
    test_rows, rows = pool.draw(rows, test, "test")
    generator.shuffle(test_rows)
    train_rows, _ = pool.draw(rows, _what_is_left(rows, train, split), "train")
    generator.shuffle(train_rows)
    validation_rows, train_rows = pool.draw(train_rows, _validation(train_rows, groups, split), "validation")
    generator.shuffle(validation_rows)
    # what validation leaves begins with a block of the label that it filled first
    generator.shuffle(train_rows)
    return pool.part(train_rows), pool.part(validation_rows), pool.part(test_rows)


def _in_order(
    pool: _Pool, groups: tuple[str, ...], test: Quotas, train: Quotas, split: Split
) -> tuple[Part, Part, Part]:
    """Without a shuffle: the first rows train, the last of these are for validation, the last of all for the test."""
    test_rows, before = pool.draw(range(len(pool.rows))[::-1], test, "test")
    train_rows, _ = pool.draw(before[::-1], _what_is_left(before, train, split), "train")
    validation_rows, rest = pool.draw(train_rows[::-1], _validation(train_rows, groups, split), "validation")
    return pool.part(rest[::-1]), pool.part(validation_rows[::-1]), pool.part(test_rows[::-1])


@dataclass(frozen=True)
class _Pool:
    """The rows to divide, in what follows known by their place; the group and the family of each."""

    rows: Sequence[Conversation]
    groups: Sequence[str]
    families: Sequence[int]

    @property
    def same_opening(self) -> int:
        """Rows that are not alone in their family."""
        return sum(size for size in Counter(self.families).values() if size > 1)

    def part(self, places: Sequence[int]) -> Part:
        """The rows at these places."""
        return tuple(self.rows[place] for place in places)

    def draw(self, places: Sequence[int], quotas: Quotas, part: str) -> tuple[list[int], list[int]]:
        """The first families that fit the quotas, and the rest, both in the order of places.

        Raises DataError where rows were asked for and every family is too large.
        """
        wanted, taken = Counter(quotas), set()
        members: dict[int, list[str]] = defaultdict(list)
        for place in places:
            members[self.families[place]].append(self.groups[place])
        for family, groups in members.items():
            if all(wanted[group] >= count for group, count in Counter(groups).items()):
                wanted.subtract(groups)
                taken.add(family)
        drawn = [place for place in places if self.families[place] in taken]
        if not drawn and any(quotas.values()):
            raise DataError(self._why_none(part, sum(quotas.values())))
        return drawn, [place for place in places if self.families[place] not in taken]

    def _why_none(self, part: str, wanted: int) -> str:
        family, size = Counter(self.families).most_common(1)[0]
        row = self.rows[self.families.index(family)]
        opening = shortened(next((m.content for m in row.messages if m.role == "user"), row.subject), 40)
        return (
            f"data.split.{part}: {size} of {len(self.rows)} conversations open with {opening!r} and stay in one part, "
            f"which is more than the {wanted} rows of {part}; if it is a mere greeting, set data.split.keep_openings "
            "to false"
        )


def _pool(rows: Sequence[Conversation], split: Split) -> _Pool:
    numbers: dict[Key, int] = {}
    families = [numbers.setdefault(_opening(row), len(numbers)) for row in rows] if split.keep_openings else None
    groups = [_label(row) if split.balanced else "" for row in rows]
    return _Pool(rows, groups, range(len(rows)) if families is None else families)


def _opening(conversation: Conversation) -> Key:
    """Equal for conversations whose first user turns are; the whole text where there is no question."""
    first = next((message for message in conversation.messages if message.role == "user"), conversation.messages[-1])
    return ((first.role, _normal(first.content), _normal(first.context)),)


def _what_is_left(rows: Sequence[int], train: Quotas, split: Split) -> Quotas:
    """The quota of train: where the recipe names none, all that test left, be it more than was planned."""
    return {"": len(rows)} if split.train is None and not split.balanced else train


def question_key(conversation: Conversation) -> Key:
    """Equal for conversations that ask the same, or plain texts that are the same, up to case, spaces and
    Unicode form; questions that do not list their choices ask the same where those are the same too."""
    asked = conversation.question or conversation.messages
    choices = (("choice", _normal(choice), "") for choice in conversation.choices)
    return (*((message.role, _normal(message.content), _normal(message.context)) for message in asked), *choices)


def _normal(text: str) -> str:
    # folding case can undo the composed form, so that comes last
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFC", text).casefold().split()))


def _without_duplicates(conversations: Sequence[Conversation]) -> _Unique:
    same: dict[Key, list[Conversation]] = {}
    for conversation in conversations:
        same.setdefault(question_key(conversation), []).append(conversation)
    groups = [tuple(rows) for rows in same.values()]
    clashing = tuple(rows for rows in groups if len({row.label for row in rows}) > 1)
    agreeing = [rows for rows in groups if len({row.label for row in rows}) == 1]
    return _Unique([rows[0] for rows in agreeing], tuple(rows for rows in agreeing if len(rows) > 1), clashing)


def _label(conversation: Conversation) -> str:
    return conversation.label or ""


def _same_group(_: Conversation) -> str:
    return ""


# --- how many rows -----------------------------------------------------------------------------


def _test_and_train(
    unique: _Unique, groups: tuple[str, ...], group_of: Callable[[Conversation], str], split: Split
) -> tuple[Quotas, Quotas]:
    """Rows of each group in test and in train, validation included."""
    counted = Counter(group_of(row) for row in unique.rows)
    available = {group: counted[group] for group in groups}
    total = len(unique.rows)
    test_size = _size(split.test, total)
    test = _quotas(test_size, groups)
    if split.train is None:
        left = min(available[group] - test[group] for group in groups)
        train = dict.fromkeys(groups, max(left, 0))
    else:
        train = _quotas(_train_size(split.train, split.test, total, test_size), groups)
    _check_enough(unique, available, test, train, named=split.train is not None)
    return test, train


def _size(wanted: int | float, total: int) -> int:
    """Rows for a number in `split`: itself, or a share of total, which takes neither none nor all of them."""
    if wanted == 0 or wanted >= 1:
        return int(wanted)
    return max(min(max(math.floor(wanted * total + 0.5), 1), total - 1), 0)


def _train_size(train: int | float, test: int | float, total: int, test_size: int) -> int:
    size = _size(train, total)
    # two shares that make a whole may both have been rounded up
    if train < 1 and test < 1 and train + test < 1 + 1e-9:
        return min(size, total - test_size)
    return size


def _validation(train: Sequence[int], groups: tuple[str, ...], split: Split) -> Quotas:
    total = len(train)
    size = _size(split.validation, total)
    if size >= total:
        raise DataError(
            f"data.split.validation: {size} rows are to be taken out of train, which has {total}; "
            "ask for fewer, or for 0"
        )
    return _quotas(size, groups)


def _quotas(size: int, groups: tuple[str, ...]) -> Quotas:
    """size in equal parts; what does not divide goes one each to the first groups."""
    each, more = divmod(size, len(groups))
    return {group: each + (position < more) for position, group in enumerate(groups)}


def _check_enough(unique: _Unique, available: Quotas, test: Quotas, train: Quotas, named: bool) -> None:
    """named: the recipe gives a number for train, so train is part of what it asks for."""
    asked = {group: test[group] + (train[group] if named else 0) for group in test}
    short = [group for group in asked if asked[group] > available[group]]
    if short:
        group = min(short, key=lambda name: available[name])  # with enough of the scarcest, all are mended
        of_label = f" of {group!r}" if group else ""
        first = train[group] if named else test[group]
        parts = f"{counted(first, 'row')}{of_label} in {'train' if named else 'test'}"
        parts += f" and {test[group]} in test, {asked[group]} in all" if named else ""
        raise DataError(f"data.split asks for {parts}, but the data has {available[group]}{unique.removed}")
    if sum(train.values()) == 0:
        group = min(available, key=lambda name: available[name] - test[name])
        of_label = f" of {group!r}" if group else ""
        raise DataError(
            f"data.split: nothing is left for train: test takes {test[group]} of the {available[group]} "
            f"rows{of_label} that the data has{unique.removed}"
        )

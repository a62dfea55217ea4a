"""The splits of a study as one base model sees them: ids and loss masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pronk.data.conversation import Conversation, Message
from pronk.data.general import Passage
from pronk.data.split import Splits
from pronk.errors import BaseModelError, DataError, RecipeError
from pronk.recipe import Exact
from pronk.tokens.example import learned_whole
from pronk.tokens.prompt import Example, Prompt, TooLong

USUAL_LENGTH = 2048  # of examples, where train.max_length is absent


@dataclass
class Examples:
    """Examples of one base model.

    Training and validation depend on max_length, and learn what is asked as well with on_prompt. Test does
    not, so that runs compare: it is all there up to what the base can read, and its answers alone count.
    leave_out: training and validation do without rows whose prompt leaves no room for the answer. passages: general
    text outside the splits. exact: what of an answer is compared where that is measured.
    """

    prompt: Prompt
    splits: Splits
    context: int  # the longest text the base model can read, in tokens
    vocabulary: int  # ids below this have an embedding
    labels: tuple[str, ...] = ()
    leave_out: bool = False
    passages: Sequence[Passage] = ()
    exact: Exact | None = None
    test: list[Example] = field(init=False)
    _cut: dict[tuple[str, int], list[Example]] = field(default_factory=dict)
    _left_out: dict[tuple[str, int], list[TooLong]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.test = self._made(self.splits.test, self.context, every_answer=True)

    def train(self, max_length: int | None, on_prompt: bool = False) -> list[Example]:
        """Training examples, cut to max_length; on_prompt: what is asked is learned as well."""
        return self._examples("train", self.splits.train, max_length, on_prompt)

    def validation(self, max_length: int | None, on_prompt: bool = False) -> list[Example]:
        """Validation examples, cut and masked as for training, so that the two losses compare."""
        return self._examples("validation", self.splits.validation, max_length, on_prompt)

    def label_ids(self) -> list[list[int]]:
        """Each label as the ids of an answer, end token included."""
        return self.prompt.answer_ids(self.labels)

    def choice_ids(self) -> list[list[list[int]]]:
        """Of each test row the ids of its choices, without an end token; of a row without choices none.

        Raises DataError for a row whose choice does not fit behind its prompt.
        """
        rows = self.splits.test
        ids = iter(self.prompt.answer_ids([choice for row in rows for choice in row.choices]))
        found = [[next(ids)[:-1] for _ in row.choices] for row in rows]
        for row, example, choices in zip(rows, self.test, found, strict=True):
            needed = len(example.prompt_ids) + max(map(len, choices), default=0)
            if needed > self.context:
                raise DataError(
                    f"{row.place}: question and longest choice take {needed:,} tokens, and the base reads "
                    f"{self.context:,}; leave such rows out of the test"
                )
        return found

    def general(self) -> list[tuple[Passage, Example]]:
        """The passages as ids, all of them targets but the first where no BOS stands before it; without an end token,
        and cut to what the base can read."""
        rows = [Conversation((Message("assistant", one.text),), one.place) for one in self.passages]
        made = self._made(rows, self.context + 1)
        bare = [replace(one, ids=one.ids[:-1], target=one.target[:-1]) for one in made]
        return [(passage, one) for passage, one in zip(self.passages, bare, strict=True) if one.target.any()]

    def truncated(self) -> int:
        """How many answers lost tokens to max_length, over all that was made so far."""
        return sum(example.cut_answers for examples in self._cut.values() for example in examples)

    def left_out(self, part: str, max_length: int | None) -> list[TooLong]:
        """The rows of a part (train or validation) that are not among its examples, as far as those are made."""
        return self._left_out.get((part, self.length(max_length)), [])

    def kept(self, part: str, max_length: int | None) -> list[Conversation]:
        """The rows of a part (train or validation) that its examples are made of, in the same order."""
        gone = {one.row for one in self.left_out(part, max_length)}
        return [one for row, one in enumerate(getattr(self.splits, part)) if row not in gone]

    def length(self, max_length: int | None) -> int:
        """The longest example, in tokens, where a recipe's train.max_length may be absent."""
        return min(USUAL_LENGTH, self.context) if max_length is None else max_length

    def _examples(
        self, part: str, conversations: Sequence[Conversation], max_length: int | None, on_prompt: bool
    ) -> list[Example]:
        length = self.length(max_length)
        if length > self.context:
            raise RecipeError(
                f"train.max_length: {length} is more than the {self.context} tokens that the base model can read"
            )
        if (part, length) not in self._cut:
            left_out: list[TooLong] = []
            self._cut[part, length] = self._made(conversations, length, left_out=left_out if self.leave_out else None)
            self._left_out[part, length] = left_out
        answers = self._cut[part, length]
        return [learned_whole(example, self.prompt.begin) for example in answers] if on_prompt else answers

    def _made(
        self, conversations: Sequence[Conversation], length: int, every_answer: bool = False,
        left_out: list[TooLong] | None = None,
    ) -> list[Example]:  # fmt: skip
        made = self.prompt.examples(conversations, length, every_answer, self.context, left_out)
        largest = max((int(example.ids.max()) for example in made), default=0)
        if largest >= self.vocabulary:
            raise BaseModelError(
                f"base: its tokenizer gives the id {largest}, but the model has only {self.vocabulary} embeddings; "
                "tokenizer and model do not belong together",
                "token-beyond-vocabulary",
            )
        return made


def make_examples(
    kind: str, tokenizer: Any, context: int, vocabulary: int, splits: Splits,
    labels: tuple[str, ...], max_lengths: Sequence[int | None], leave_out: bool = False,
    passages: Sequence[Passage] = (), exact: Exact | None = None,
) -> Examples:  # fmt: skip
    """Everything tokenized, so that whatever is wrong with it shows before a model is loaded.

    kind: the recipe's `prompt`. leave_out, passages, exact: see Examples.
    """
    prompt = Prompt(kind, tokenizer)
    examples = Examples(prompt, splits, context, vocabulary, labels, leave_out, passages, exact)
    for max_length in max_lengths:
        examples.train(max_length)
        examples.validation(max_length)
    return examples

"""The splits of a study as one base model sees them: ids and loss masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pronk.data.conversation import Conversation
from pronk.data.split import Splits
from pronk.errors import DataError, RecipeError
from pronk.tokens.prompt import Example, Prompt


@dataclass
class Examples:
    """Examples of one base model. Training and validation depend on max_length; test is never cut."""

    prompt: Prompt
    splits: Splits
    context: int  # the longest text the base model can read, in tokens
    labels: tuple[str, ...] = ()
    test: list[Example] = field(init=False)
    _cut: dict[tuple[str, int], list[Example]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.test = self.prompt.examples(self.splits.test, self.context)
        except DataError as error:
            raise DataError(
                f"{error} (this is a test row: the base model reads {self.context} tokens at most)"
            ) from None

    def train(self, max_length: int) -> list[Example]:
        """Training examples, cut to max_length."""
        return self._examples("train", self.splits.train, max_length)

    def validation(self, max_length: int) -> list[Example]:
        """Validation examples, cut to max_length."""
        return self._examples("validation", self.splits.validation, max_length)

    def label_ids(self) -> list[list[int]]:
        """Each label as the ids of an answer, end token included."""
        return self.prompt.answer_ids(self.labels)

    def truncated(self) -> int:
        """How many answers lost tokens to max_length, over all that was made so far."""
        return sum(example.cut > 0 for examples in self._cut.values() for example in examples)

    def _examples(self, part: str, conversations: Sequence[Conversation], max_length: int) -> list[Example]:
        if max_length > self.context:
            raise RecipeError(
                f"train.max_length: {max_length} is more than the {self.context} tokens that the base model can read"
            )
        if (part, max_length) not in self._cut:
            self._cut[part, max_length] = self.prompt.examples(conversations, max_length)
        return self._cut[part, max_length]


def make_examples(
    kind: Literal["alpaca", "chat"], tokenizer: Any, context: int, splits: Splits, labels: tuple[str, ...],
    max_lengths: Sequence[int],
) -> Examples:  # fmt: skip
    """Everything tokenized, so that whatever is wrong with it shows before a model is loaded."""
    examples = Examples(Prompt(kind, tokenizer), splits, context, labels)
    for max_length in max_lengths:
        examples.train(max_length)
        examples.validation(max_length)
    return examples

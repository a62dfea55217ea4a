"""One model that stays in memory and is asked again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pronk.ask.asking import Answer, Bar, Loaded, Stop, answer_batch, load_group, open_reader, row_batches
from pronk.ask.models import Model
from pronk.data.questions import Question
from pronk.recipe import Generation

if TYPE_CHECKING:
    from rich.console import Console


class Kept:
    """Weights are loaded when they are first needed; that base, adapter and prompt go together is found before.

    prompt_kind: the form in which the model is asked (recipe key `prompt`). context: tokens that it reads at most.
    Raises BaseModelError, StudyError or PromptError.
    """

    def __init__(self, model: Model, console: Console) -> None:
        from pronk.model.load import context_length
        from pronk.train.progress import say

        self._reader = open_reader(0, model, partial(say, console), {})
        self._console = console
        self._loaded: Loaded | None = None
        self.tokenizer, self.prompt_kind = self._reader.prompt.tokenizer, self._reader.prompt.kind
        self.context = context_length(self._reader.config)

    def loaded(self) -> Loaded:
        """The weights, now in memory. Called before a bar is shown, the loading gets a line of its own."""
        self._loaded = self._loaded or load_group([self._reader.ask([], Generation())], self._console)
        return self._loaded

    def lengths(self, questions: Sequence[Question]) -> list[int]:
        """Tokens of each question."""
        return [len(ids) for ids in self._reader.ids(questions)]

    def answers(
        self, questions: Sequence[Question], keys: Sequence[int], settings: Generation, stop: Stop, bar: Bar
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Places of questions and their answers, a batch at a time; none once it is to stop.

        keys: what the draws for each question hang on.
        """
        from pronk.model.memory.guard import memory_guard

        loaded, asked = self.loaded(), self._reader.ask(questions, settings)
        with memory_guard("answering"):
            for rows in row_batches([asked], loaded.slots, len(questions), loaded.token_budget):
                if stop.asked:
                    return
                found = answer_batch(loaded.model, loaded.adapter, rows, questions, settings, stop, bar, keys)
                yield [(row.number, answer) for row, answer in zip(rows, found, strict=True)]

"""Which of a few replies a model would give: each is scored in full, none is generated.

So the reply is always one of those that were allowed, also from a model too small to write JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pronk.ask.models import Model
from pronk.data.conversation import Message
from pronk.errors import PromptError

if TYPE_CHECKING:
    from rich.console import Console


class Chooser:
    """A model and the replies that it may give. Reads the tokenizer at once, the weights when they are needed.

    Raises BaseModelError or StudyError for a base that is gone and an adapter of another base.
    """

    def __init__(self, model: Model, replies: Sequence[str], console: Console) -> None:
        from pronk.ask.asking import prompt_of
        from pronk.model.load import context_length, find_base, linear_layer_sizes, load_config
        from pronk.train.progress import say

        self.model, self.console = model, console
        self.base = find_base(model.recipe.base, lambda line: say(console, line))
        if model.adapter:
            model.adapter.check_fits(linear_layer_sizes(self.base))
        self.context: int = context_length(load_config(self.base))
        self.prompt = prompt_of(self.base, model.form)
        self.reply_ids = self.prompt.answer_ids(replies)
        self._loaded: tuple[Any, Any] | None = None

    @property
    def room(self) -> int:
        """Tokens that a question may take."""
        return self.context - max(map(len, self.reply_ids))

    def question_ids(self, questions: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Questions as ids. What a form has no place for, a system message, stands before the user's words."""
        try:
            return self.prompt.question_ids(questions)
        except PromptError:
            return self.prompt.question_ids([folded(question) for question in questions])

    def scores(self, ids: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, list[float]]]]:
        """A batch after another, the longest questions first: each question's place, and of each reply the
        log-probability in nats, its end token included."""
        from pronk.evaluate.batches import prompt_batches
        from pronk.evaluate.evaluation import evaluation_budget
        from pronk.model.generate import score_and_answer
        from pronk.model.memory.guard import memory_guard
        from pronk.tokens.pack import BASE_SLOT, pack_prompts

        model, adapter = self.load()
        slot = 0 if self.model.adapter else BASE_SLOT
        longest = max(map(len, self.reply_ids))
        for batch in prompt_batches(ids, [slot], evaluation_budget(model), longest):
            with memory_guard("judging"):
                reading = pack_prompts([ids[place] for place, _ in batch], [slot for _ in batch])
                scores = score_and_answer(model, adapter, reading, self.reply_ids).scores_NC.double().tolist()
            yield [(place, row) for (place, _), row in zip(batch, scores, strict=True)]

    def load(self) -> tuple[Any, Any]:
        """The weights and the wide adapter over them, read when they are first needed."""
        self._loaded = self._loaded or self._load()
        return self._loaded

    def _load(self) -> tuple[Any, Any]:
        from pronk.model.adapter import attach
        from pronk.model.load import load_for_recipe
        from pronk.model.memory.guard import memory_guard

        with self.console.status(f"loading {self.base.name}"), memory_guard(f"loading {self.base.name}"):
            model, _, _ = load_for_recipe(self.model.recipe, self.base)
            adapter = attach(model, [self.model.adapter.shape] if self.model.adapter else [])
            if self.model.adapter:
                adapter.load(0, self.model.adapter.weights())
        return model, adapter


def folded(question: Sequence[Message]) -> list[Message]:
    """The same without a system message: its words stand before the user's first."""
    if question[0].role != "system":
        return list(question)
    system, first, *rest = question
    return [Message("user", f"{system.content}\n\n{first.content}", first.context), *rest]

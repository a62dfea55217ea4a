"""Questions of one or several turns to many models, in one batch for all models over one base.

A later turn follows the model's own answer to what came before. Answers are told batch by batch and turn by turn, and
what is told is not asked again, so a caller who keeps them loses little when something breaks off.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Answer, Asked, Loaded, Row, answer_batch, ask_all, check_lengths, load_group, over_one_base
from pronk.ask.models import Model
from pronk.data.conversation import Message
from pronk.data.questions import Question
from pronk.recipe import Generation

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.train.interrupt import Interruption
    from pronk.train.progress import Work

Place = tuple[int, int]  # which model, which question
Wanted = Mapping[Place, Sequence[Answer]]  # dialogues to be held, with the answers that are there already
Keep = Callable[[dict[Place, list[Answer]]], None]  # told of dialogues that have grown, from their first answer on


def ask_dialogues(
    models: Sequence[Model], questions: Sequence[Question], wanted: Wanted, settings: Generation, keep: Keep,
    console: Console,
) -> bool:  # fmt: skip
    """Ask what is wanted of each model; whether that came to its end (False after Ctrl-C, which keeps what is whole).

    Each of several turns gets an equal part of what the base can still read, so the last one finds room. Raises
    BaseModelError, StudyError, PromptError or DataError, before any weights are loaded.
    """
    from pronk.train.interrupt import listen
    from pronk.train.progress import say

    tell = partial(say, console)
    with listen(lambda _: tell("stopping; what is answered is kept")) as stop:
        with console.status("reading the questions"):
            asked = [one for one in ask_all(models, questions, settings, tell) if _numbers(one, wanted)]
            for one in asked:
                _check_all_turns(one, questions)
        for group in over_one_base(asked):
            if not stop.asked:
                _Dialogues(group, questions, wanted, settings, keep).hold(stop, console)
                gc.collect()  # a base of several gigabytes goes before the next one comes
        return not stop.asked


class _Dialogues:
    """The dialogues of models over one base, turn by turn. said: what was answered so far."""

    def __init__(
        self, group: Sequence[Asked], questions: Sequence[Question], wanted: Wanted, settings: Generation, keep: Keep
    ) -> None:
        self.group, self.questions, self.settings, self.keep = group, questions, settings, keep
        self.said: dict[Place, list[Answer]] = {
            place: list(said) for place, said in wanted.items() if place[0] in {one.number for one in group}
        }

    def hold(self, stop: Interruption, console: Console) -> None:
        """All turns of all dialogues, the shortest prompts of a turn last."""
        from pronk.model.memory.guard import memory_guard
        from pronk.train import progress

        loaded = load_group(self.group, console)
        missing = sum(len(self.questions[number].turns) - len(said) for (_, number), said in self.said.items())
        tokens = self.settings.max_new_tokens * missing
        with memory_guard("answering"), progress.work(console, "answering", tokens) as bar:
            for turn in range(max(len(self.questions[number].turns) for _, number in self.said)):
                for rows in self._batches(turn, loaded):
                    if not stop.asked:
                        self._answer(turn, rows, loaded, stop, bar)

    def _answer(self, turn: int, rows: Sequence[Row], loaded: Loaded, stop: Interruption, bar: Work) -> None:
        # what is drawn hangs on all that was asked so far, not on the last turn alone
        asked = [replace(question, context="\0".join((question.context, *question.later[:turn])))
                 if turn else question for question in self.questions]  # fmt: skip
        answers = answer_batch(loaded.model, loaded.adapter, rows, asked, self.settings, stop, bar)
        bar.advance(self.settings.max_new_tokens * len(rows) - sum(row.limit for row in rows))
        grown: dict[Place, list[Answer]] = {}
        for row, answer in zip(rows, answers, strict=True):
            place = row.asked.number, row.number
            if answer.ended == "interrupted":
                del self.said[place]
                continue
            self.said[place].append(replace(answer, question=self.questions[row.number]))
            grown[place] = self.said[place]
        self.keep(grown)

    def _batches(self, turn: int, loaded: Loaded) -> Iterator[list[Row]]:
        """The rows of a turn; a batch has one end token, and rows of about one length."""
        from pronk.evaluate.batches import prompt_batches

        rows = [row for one, slot in zip(self.group, loaded.slots, strict=True) for row in self._rows(one, slot, turn)]
        for end_id in dict.fromkeys(row.asked.prompt.end_id for row in rows):
            together = [row for row in rows if row.asked.prompt.end_id == end_id]
            longest = max(row.limit for row in together)
            for batch in prompt_batches([row.ids for row in together], [0], loaded.token_budget, longest):
                yield [together[place] for place, _ in batch]

    def _rows(self, one: Asked, slot: int, turn: int) -> list[Row]:
        """A model's prompts of a turn. What its base could not read any more is answered with nothing."""
        numbers = [number for model, number in self.said if model == one.number
                   and len(self.said[model, number]) == turn < len(self.questions[number].turns)]  # fmt: skip
        ids: list[list[int]] = [[]] * len(self.questions)
        limits, context = [0] * len(self.questions), _context(one)
        said = {number: [answer.text for answer in self.said[one.number, number]] for number in numbers}
        dialogues = [(self.questions[number], said[number]) for number in numbers]
        for number, prompt, whole in zip(numbers, _ids(one, dialogues, turn), _ids(one, dialogues), strict=True):
            left = len(self.questions[number].turns) - turn
            ids[number] = prompt
            limits[number] = min(self.settings.max_new_tokens, (context - len(whole)) // left)
        turned = replace(one, ids=ids, limits=limits)
        return [Row(turned, slot, number) for number in numbers if limits[number] > 0 or self._give_up(one, number)]

    def _give_up(self, one: Asked, number: int) -> bool:
        """Answer with nothing what no longer fits: texts may take more tokens read than they did written."""
        question, place = self.questions[number], (one.number, number)
        missing = len(question.turns) - len(self.said[place])
        nothing = [Answer(one.model.name, question, "", "length", 0)] * missing
        self.keep({place: [*self.said.pop(place), *nothing]})
        return False


def _numbers(one: Asked, wanted: Wanted) -> list[int]:
    return sorted(number for model, number in wanted if model == one.number)


def _ids(one: Asked, dialogues: Sequence[tuple[Question, Sequence[str]]], turn: int | None = None) -> list[list[int]]:
    """Dialogues as the model reads them before it answers a turn; None for the last, as if the others were answered
    with one word."""
    texts = [_messages(one.model, question, said, turn) for question, said in dialogues]
    ids: list[list[int]] = one.prompt.question_ids(texts)
    return [row[:-1] for row in ids] if one.model.form.plain else ids  # a text to go on with has not ended


def _messages(model: Model, question: Question, said: Sequence[str], turn: int | None) -> list[Message]:
    messages = model.form.messages(question)
    for number, asked in enumerate(question.later[:turn]):
        answer = said[number] if number < len(said) else "x"
        messages += [Message("assistant", answer), Message("user", asked)]
    if model.form.plain:
        return [Message("assistant", "\n\n".join(message.content for message in messages))]
    return messages


def _check_all_turns(one: Asked, questions: Sequence[Question]) -> None:
    """Raise DataError where a question's turns alone leave no room for an answer to each of them."""
    several = [question for question in questions if question.later]
    ids = _ids(one, [(question, ()) for question in several])
    room = _context(one) - max((len(question.turns) for question in several), default=0)
    check_lengths(one.model, several, ids, room, _vocabulary(one))


def _context(one: Asked) -> int:
    from pronk.model.load import context_length, load_config

    return context_length(load_config(one.base))


def _vocabulary(one: Asked) -> Any:
    from pronk.model.load import load_config

    return load_config(one.base).vocab_size

"""Questions to the person at the keyboard. What options have answered is not asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pronk.data.terminal import plain
from pronk.errors import BaseModelError, DataError, OptionError
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


class Asker:
    """Asks on a console; with `yes` it takes every proposal and asks nothing."""

    def __init__(self, console: Console, yes: bool) -> None:
        self.console, self.yes = console, yes

    def tell(self, line: str, style: str | None = None) -> None:
        """A line for the person; what it takes from data steers nothing."""
        say(self.console, plain(line), style)

    def text(self, question: str, option: str, default: str | None = None) -> str:
        """A line of text. option: what would have answered. Raises OptionError where nobody can answer."""
        if self.yes:
            if default is None:
                raise OptionError(f"--yes asks nothing, and there is no {option}; add it")
            return default
        from rich.prompt import Prompt
        from rich.text import Text

        shown = Text(plain(question), "bold")
        try:
            answer = Prompt.ask(shown, console=self.console, default=default or "", show_default=bool(default))
        except EOFError:
            self.console.print()
            raise OptionError(
                f"pronk init asks ({question}), and nobody answers here; answer with {option}, or with --data, --base "
                "and --yes, which takes what it proposes"
            ) from None
        return answer.strip()

    def until_it_works(self, question: str, option: str, given: str | None, default: str | None,
                       use: Callable[[str], T]) -> tuple[str, T]:  # fmt: skip
        """An answer that `use` takes, and what that makes of it; what is wrong is told, and asked again.

        given: the option's own value, whose error ends the command.
        """
        if given is not None:
            return given, use(given)
        while True:
            answer = self.text(question, option, default)
            if not answer:
                continue
            try:
                return answer, use(answer)
            except (DataError, BaseModelError) as error:
                if self.yes:
                    raise
                self.tell(str(error), "red")

    def choice(self, question: str, option: str, offers: Sequence[str]) -> int:
        """Which of several offers, the first by default; by number."""
        if len(offers) == 1 or self.yes:
            return 0
        for number, offer in enumerate(offers, start=1):
            self.tell(f"  {number}  {offer}")
        while True:
            answer = self.text(question, option, "1")
            if answer.isdecimal() and 1 <= int(answer) <= len(offers):
                return int(answer) - 1
            self.tell(f"expected a number from 1 to {len(offers)}", "red")

    def agrees(self, question: str, option: str, default: bool) -> bool:
        """Yes or no."""
        while True:
            answer = self.text(f"{question} (y/n)", option, "y" if default else "n").lower()
            if answer in ("y", "yes", "n", "no"):
                return answer.startswith("y")
            self.tell("expected y or n", "red")

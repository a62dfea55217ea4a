"""Every error that pronk raises on purpose.

    PronkError                what a person did or met; shown as one message, never as a traceback
    ├── InputError            what was given is wrong (exit code 2)
    │   ├── RecipeError       a key, a value or a type in the recipe
    │   ├── DataError         a file, a line, a column or a row
    │   ├── BaseModelError    the base model cannot be found, read or used
    │   ├── PromptError       a prompt template is broken, or cannot write a conversation
    │   ├── StudyError        a study, run or adapter folder is not what it should be
    │   └── OptionError       options that no run of the verb could follow
    ├── ResourceError         the machine has too little of something: disk (exit code 2)
    │   └── OutOfMemoryError  … or memory
    ├── EngineError           a server that pronk has started failed (exit code 1)
    └── RefusedError          a check or a gate said no (exit code 1)

A message says what was found, where (file, line or key), and what is expected instead.
"""

from __future__ import annotations

from collections.abc import Sequence


class PronkError(Exception):
    """Something a person can mend; its text is all that they see.

    check: the name under which `pronk check` lists it, where it is one of the things that a check looks for; count
    and places: how many rows it was found in, and where the first of them are.
    """

    exit_code = 2

    def __init__(self, message: str = "", check: str = "", count: int = 0, places: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.check, self.count, self.places = check, count, tuple(places)


class InputError(PronkError):
    """What was given to pronk is wrong."""


class RecipeError(InputError):
    """A recipe has an unknown key, a wrong type or a value that cannot work."""


class DataError(InputError):
    """A data file, line, column or row is not what the recipe says."""


class BaseModelError(InputError):
    """A base model cannot be found, read or used."""


class PromptError(InputError):
    """A prompt template is broken, or does not write a conversation so that it can be learned."""


class StudyError(InputError):
    """A study, run or adapter folder is missing, foreign, or in the way."""


class OptionError(InputError):
    """An option of a verb has a value that cannot work, or contradicts another."""


class ResourceError(PronkError):
    """The machine has too little disk or memory for what was asked."""


class OutOfMemoryError(ResourceError):
    """The GPU's memory, or the machine's, is not enough."""


class EngineError(PronkError):
    """A server that pronk has started did not come up, or ended by itself."""

    exit_code = 1


class RefusedError(PronkError):
    """A check or a gate said no."""

    exit_code = 1

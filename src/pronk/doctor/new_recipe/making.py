"""The story of `pronk init`: data → task → base → settings with reasons → a recipe that is known to work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pronk.data.detect import MEANINGS, TURN_FORMATS, Found, Look
from pronk.data.formats import FIELDS, OPTIONAL_FIELD
from pronk.data.split import Splits
from pronk.data.words import counted, did_you_mean, enumerated, quoted
from pronk.doctor.new_recipe import choosing
from pronk.doctor.new_recipe.asking import Asker
from pronk.doctor.new_recipe.bases import BaseFacts, base_facts, gpu_memory
from pronk.doctor.new_recipe.choosing import Setting
from pronk.doctor.new_recipe.lengths import Lengths, measure
from pronk.doctor.new_recipe.reading import (
    Rows,
    checked_source,
    described_format,
    formats_of,
    in_words,
    read_rows,
    unread_columns,
    usual_instruction,
)  # fmt: skip
from pronk.doctor.new_recipe.writing import recipe_text, relative
from pronk.errors import DataError, OptionError
from pronk.recipe import FILE_ENDINGS, Recipe
from pronk.recipe.data import is_hub_id
from pronk.runs import disk_guard, write_text

if TYPE_CHECKING:
    from rich.console import Console

USUAL_BASE = "smollm2"
USUAL_NAME = "recipe.yaml"
RECIPES = (".yaml", ".yml")
FINE = 2.0  # bytes a token; below, a tokenizer spells words letter by letter


@dataclass(frozen=True)
class Wishes:
    """What the options of the verb say. place: where the recipe goes, a folder or a .yaml file."""

    data: str | None = None
    task: str | None = None
    base: str | None = None
    place: Path | None = None
    yes: bool = False
    force: bool = False


def wishes_of(
    target: str | None, data: str | None, task: str | None, base: str | None, out: Path | None, yes: bool, force: bool
) -> Wishes:
    """The options as wishes; the argument is a folder or recipe to write, or the data.

    Raises OptionError where two of them contradict each other.
    """
    if target is not None and target.lower().endswith(FILE_ENDINGS):
        if data is not None:
            raise OptionError(f"{target} and --data {data} both name the data; leave one of them out")
        data, target = target, None
    if target is not None and out is not None:
        raise OptionError(f"{target} and --out {out} both say where the recipe goes; leave one of them out")
    place = Path(target) if target is not None else out
    if place is not None and place.suffix and not place.is_dir() and place.suffix.lower() not in RECIPES:
        raise OptionError(f"{place}: a recipe is a file that ends in .yaml; name one, or a folder")
    if task is not None and task not in FIELDS:
        raise OptionError(f"--task {task}: expected {enumerated(FIELDS, 'or')}{did_you_mean(task, FIELDS)}")
    return Wishes(data, task, base, place, yes, force)


def make_recipe(wishes: Wishes, console: Console) -> Path | None:
    """Ask, look, choose, verify and write; the path of the recipe, or None if the person does not want it written.

    Nothing is written before the end. Raises what reading data and base raises, and OptionError where a question
    has no answer or a recipe is in the way.
    """
    ask = Asker(console, wishes.yes)
    target = _target(wishes)
    if target.exists() and not wishes.force and wishes.yes:
        raise OptionError(f"{target} exists; add --force to write over it, or --out for another place")
    if not wishes.data and not wishes.yes:
        ask.tell(f"Data: a file ({' '.join(FILE_ENDINGS)}), or a data set of the hub such as owner/name.")
    source, (look, formats) = ask.until_it_works(
        "Data", "--data", wishes.data, None, lambda text: formats_of(checked_source(text), wishes.task)
    )
    rows = _rows(ask, checked_source(source), look, formats, wishes.task)
    if not wishes.base and not wishes.yes:
        ask.tell(f"Base model: {USUAL_BASE} (135M, runs anywhere), a folder, a .gguf file, or a hub id.")
    _, base = ask.until_it_works("Base", "--base", wishes.base, USUAL_BASE, lambda name: base_facts(name, ask.tell))
    text = propose(rows, look, base, target.parent, ask)
    ask.console.print()
    ask.tell(text)
    if not ask.agrees(f"Write {target}" + (", which exists" if target.exists() else "") + "?", "--yes",
                      wishes.force or not target.exists()):  # fmt: skip
        return None
    with disk_guard(target.parent):
        write_text(target, text)
    return target


def _target(wishes: Wishes) -> Path:
    place = wishes.place or Path()
    return place if place.suffix.lower() in RECIPES and not place.is_dir() else place / USUAL_NAME


def _rows(ask: Asker, source: str, look: Look, formats: list[Found], task: str | None) -> Rows:
    """The data in the format that is wanted, or in the first that reads all of it."""
    ask.tell(f"{look.name}: the columns are {quoted(look.columns)}")
    if note := unread_columns(look):
        ask.tell(note, "yellow")
    with ask.console.status("reading all rows"):
        readable, problems = _readable(source, formats)
    if not readable:
        if problems:
            raise DataError(problems[0])
        asked = _asked_columns(ask, look, task)
        readable = [(asked, read_rows(source, asked))]
    offers = [f"{found.format}: {described_format(found, look.columns)}" for found, _ in readable]
    found, rows = readable[ask.choice("Task", "--task", offers)]
    for line in rows.lines:
        ask.tell(line)
    if instruction := usual_instruction(found, rows):
        ask.tell("The texts ask for nothing: an instruction stands before each of them.")
        wanted = ask.text("Instruction", "--yes", instruction)
        rows = read_rows(source, found, wanted or instruction)
    kinds = f", {counted(len(rows.labels), 'label')}" if rows.labels else ""
    ask.tell(f"{counted(len(rows.conversations), 'row')}, {in_words(rows.scripts)}{kinds}")
    return rows


def _asked_columns(ask: Asker, look: Look, task: str | None) -> Found:
    """A format and its columns from the person, where the names of the columns do not tell.

    Raises DataError where nothing is to be asked, with what could be written into a recipe.
    """
    if ask.yes:
        wanted = f" as {task}" if task else ""
        raise DataError(
            f"{look.name} cannot be read{wanted}: its columns are {quoted(look.columns)}, and their names do not tell "
            "what they hold; leave --yes out to be asked, or name them under data.columns in a recipe (docs/recipe.md)"
        )
    kinds = [format for format in FIELDS if format == task or (task is None and format not in TURN_FORMATS)]
    format = kinds[ask.choice("Task", "--task", [f"{one}: {MEANINGS[one]}" for one in kinds])]
    columns: dict[str, str] = {}
    for field in FIELDS[format]:
        offers = [column for column in look.columns if column not in columns.values()]
        optional = field == OPTIONAL_FIELD
        if not offers and not optional:
            raise DataError(f"{look.name} has too few columns for {format}: it needs {quoted(FIELDS[format])}")
        number = ask.choice(f"Which column is the {field}", "--task", [*offers, *(["(none)"] if optional else [])])
        if number < len(offers):
            columns[field] = offers[number]
    return Found(format, {field: column for field, column in columns.items() if field != column})


def _readable(source: str, formats: list[Found]) -> tuple[list[tuple[Found, Rows]], list[str]]:
    readable, problems = [], []
    for found in formats:
        try:
            readable.append((found, read_rows(source, found)))
        except DataError as error:
            problems.append(str(error))
    return readable, problems


def propose(rows: Rows, look: Look, base: BaseFacts, folder: Path, ask: Asker) -> str:
    """The text of a recipe in `folder`, verified as far as that goes without weights.

    Raises DataError or PromptError where these data and this base do not go together.
    """
    if base.why:
        ask.tell(f"{base.why}; lengths are guessed meanwhile", "yellow")
    kinds = ("chat", "alpaca") if base.chat and rows.data.format != "text" else ("alpaca",)
    with ask.console.status("counting tokens"):
        lengths, why_not = measure(rows.conversations, base, kinds)
    if note := _splits_finely(rows, base, lengths):
        ask.tell(note, "yellow")
    left = choosing.condition(rows, lengths, base)
    if left is not None:
        found = Found(rows.data.format or "text", rows.data.columns)
        rows = read_rows(str(rows.data.source), found, rows.data.instruction, left.text)
        lengths, why_not = measure(rows.conversations, base, kinds)
        ask.tell(f"{counted(left.rows, 'row')} longer than the {base.context} tokens that {base.name} reads: left out")
    split, splits = choosing.split_settings(rows)
    number = {id(row): place for place, row in enumerate(rows.conversations)}
    trained = lengths.of([number[id(row)] for row in splits.train])
    settings = [
        Setting("base", _base_name(base, folder), base.size if base.parameters else ""),
        *_data_settings(rows, look, left, folder),
        *split,
        *choosing.prompt_setting(rows, lengths, why_not),
        *choosing.quantize_setting(base, gpu_memory()),
        *choosing.training_settings(len(splits.train), base, lengths, trained),
    ]
    with ask.console.status("making the examples as pronk run would"):
        _verify(settings, base, rows, splits)
    return recipe_text(settings, _opening(rows, look, lengths)) + STUDY


def _splits_finely(rows: Rows, base: BaseFacts, lengths: Lengths) -> str:
    """What to say where a tokenizer does not know the writing of the data."""
    each = lengths.text_bytes / int(lengths.whole.sum()) if not lengths.guessed else FINE
    if each >= FINE or next(iter(rows.scripts), "Latin") == "Latin":
        return ""
    return (
        f"{base.name} spends a token on every {each:.1f} bytes of this text (on English, one on about 4): a base that "
        "was made for this language reads, trains and answers several times faster"
    )


STUDY = """# Several values at once are one study: all its runs train together, and the report says which is better.
# study:
#   train.learning_rate: [1.0e-4, 2.0e-4, 5.0e-4]
"""


def _opening(rows: Rows, look: Look, lengths: Lengths) -> list[str]:
    size = "" if lengths.guessed else f", about {int(lengths.whole.mean()):,} tokens each"
    return [
        f"Written by pronk init for {counted(len(rows.conversations), 'row')} of {look.name} "
        f"({in_words(rows.scripts)}{size}).",
        "Look at it with `pronk check`, run it with `pronk run`. Keys that are not here have their defaults: "
        "docs/recipe.md.",
    ]


def _base_name(base: BaseFacts, folder: Path) -> str:
    """A folder or file as the recipe names it from where it lies; other names as they are."""
    path = Path(base.name).expanduser()
    if not path.exists():
        return base.name
    shown = relative(base.name, folder)
    return shown if shown.startswith(("/", ".")) or shown.endswith(".gguf") else f"./{shown}"


def _data_settings(rows: Rows, look: Look, left: choosing.Left | None, folder: Path) -> list[Setting]:
    source, data = str(rows.data.source), rows.data
    where = source if is_hub_id(source) else relative(source, folder)
    settings = [Setting("data.source", where), Setting("data.format", data.format, _meaning(rows, look))]
    if data.columns:
        settings.append(Setting("data.columns", data.columns, "where a field has another name in the file"))
    if left is not None:
        why = f"leaves out {counted(left.rows, 'row')} longer than the base can read"
        settings.append(Setting("data.where", left.text, why))
    if rows.labels and len(rows.labels) <= 20:
        settings.append(Setting("data.labels", list(rows.labels), "what the model answers; any other is an error"))
    if data.instruction:
        settings.append(Setting("data.instruction", data.instruction, "stands before each text"))
    return settings


def _meaning(rows: Rows, look: Look) -> str:
    note = unread_columns(look)
    said = described_format(Found(rows.data.format or "text", rows.data.columns), look.columns)
    return f"{said}; {note}" if note else said


def _verify(settings: list[Setting], base: BaseFacts, rows: Rows, splits: Splits) -> None:
    """That the recipe is one, and that its examples can be made; raises as `pronk run` would."""
    from pronk.recipe.notation import assign
    from pronk.recipe.schema import validated
    from pronk.tokens.examples import make_examples

    plain: dict[str, object] = {}
    for setting in settings:
        assign(plain, setting.key, setting.value)
    recipe: Recipe = validated(plain, "pronk init")
    if base.tokenizer is not None and base.context is not None and base.vocabulary is not None:
        make_examples(
            recipe.prompt, base.tokenizer, base.context, base.vocabulary, splits, rows.labels, [recipe.train.max_length]
        )

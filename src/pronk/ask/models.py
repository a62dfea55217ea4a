"""What was named on the command line, as models that can be asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pronk.data.conversation import Message
from pronk.data.labels import default_instruction
from pronk.data.questions import Question
from pronk.errors import OptionError, StudyError
from pronk.model.saved import CONFIG, SavedAdapter, read_adapter
from pronk.recipe import Data, Recipe, read_recipe, recipe_of_base
from pronk.runs import RunFolder


@dataclass(frozen=True)
class Form:
    """How a model is asked. kind: the recipe's `prompt`, None for the base's own choice: chat if it has a template,
    else alpaca. system, instruction: what stands before every question. plain: a question is a text to go on
    with, asked in no form. tokens: a folder whose tokenizer is taken in place of the base's."""

    kind: str | None = None
    system: str | None = None
    instruction: str | None = None
    plain: bool = False
    tokens: str | None = None

    def messages(self, question: Question) -> list[Message]:
        """The question as a conversation that an answer would end.

        A question with a context of its own is an instruction in itself; any other stands under the run's.
        """
        if self.plain:
            return [Message("assistant", "\n\n".join(filter(None, (question.text, question.context))))]
        system = [Message("system", self.system)] if self.system else []
        if self.instruction and not question.context:
            return [*system, Message("user", self.instruction, question.text)]
        return [*system, Message("user", question.text, question.context)]


@dataclass(frozen=True)
class Model:
    """One column of the answers. recipe: with the base to load, its types and its device.

    origin: the base that it was tuned from, None for a base. run: its folder, where pronk trained it.
    """

    name: str
    recipe: Recipe
    form: Form
    adapter: SavedAdapter | None = None
    origin: str | None = None
    run: Path | None = None


def find_models(
    targets: Sequence[str], with_base: bool = False, prompt: str | None = None, overrides: Sequence[str] = ()
) -> list[Model]:
    """The models of all targets: run folders, study folders (all their runs), PEFT adapters, names of bases.

    with_base: also the base of the runs, before the first run over it and asked in its form. prompt: the form
    of bases and of adapters that pronk did not train. overrides: `key=value` for the recipes.
    Raises StudyError, RecipeError or OptionError with what to do.
    """
    given = list(overrides) if prompt is None else [f"prompt={prompt}", *overrides]
    found = [model for target in targets for model in _find(target, given, list(overrides))]
    for number, model in enumerate(found):
        if model in found[:number]:
            raise OptionError(f"{model.name} is named twice")
    if prompt is not None and all(model.run for model in found):
        raise OptionError("--prompt is for bases; runs are asked in the form in which they were trained: leave it out")
    if with_base and not any(model.origin for model in found):
        raise OptionError("--base adds the base of a run, and no run was named: leave it out")
    return _named_apart(_with_bases(found) if with_base else found)


def _find(target: str, given: list[str], overrides: list[str]) -> list[Model]:
    """given: the overrides with the form, for what has none of its own."""
    path = Path(target).expanduser()
    if (path / "study.json").is_file():
        elsewhere = [model for source in _sources(path) for model in _find(source, given, overrides)]
        return elsewhere or [_run(folder, overrides) for folder in _runs_with_weights(path)]
    if (path / "recipe.yaml").is_file():
        return [_run(path, overrides)]
    if (path / CONFIG).is_file():
        return [_adapter(path, given, overrides)]
    if (path / "items").is_dir() and (path.absolute().parents[1] / "study.json").is_file():
        raise StudyError(f"{target}: this is the study's base as it was measured; name one of its runs and add --base")
    if path.is_dir() and not (path / "config.json").is_file():
        raise StudyError(
            f"{target}: this folder is no run (recipe.yaml), no study (study.json), no adapter ({CONFIG}) and no "
            "base model (config.json)"
        )
    refuse_missing(target, "a run, a study, an adapter or a base model")
    recipe = recipe_of_base(target, given)
    return [Model(path.absolute().name if path.is_dir() else target, recipe, Form(_chosen_form(recipe)))]


def refuse_missing(target: str, expected: str) -> None:
    """Raise StudyError for a path at which there is nothing: it must not be sought on the hub.

    A path is what begins or ends like one, and what lies in a folder that is here.
    """
    path = Path(target).expanduser()
    if path.exists() or path.suffix == ".gguf":
        return
    why = ""
    if not target.startswith((".", "/", "~")) and not target.endswith("/"):
        if len(path.parts) < 2 or not Path(path.parts[0]).is_dir():
            return
        why = f" (a folder {path.parts[0]} is here, so this is no hub id)"
    raise StudyError(f"{target}: there is no such folder; expected {expected}{why}")


def _sources(study: Path) -> list[str]:
    """Where the models of a study lie that `pronk eval` has put together; none of a study that trained its own."""
    entries = [one for one in study_around(study / "runs" / "any").get("runs") or () if isinstance(one, dict)]
    named = [str(one["source"]) for one in entries if one.get("source")]
    # no name to look for on the hub, and no study, which could name this one again
    return [one for one in named if Path(one).is_absolute() and not (Path(one) / "study.json").is_file()]


def _runs_with_weights(study: Path) -> list[Path]:
    runs = sorted(folder for folder in study.glob("runs/*") if (folder / "recipe.yaml").is_file())
    chosen = [run for run in runs if RunFolder(run).weights]
    if not chosen:
        raise StudyError(f"{study}: no run of this study has weights: none came to its end")
    return chosen


def _run(folder: Path, overrides: list[str], checkpoint: Path | None = None) -> Model:
    """A run's model: its adapter (or that of a checkpoint) over its base, or its whole model."""
    recipe = read_recipe(folder / "recipe.yaml", overrides)
    name, run = folder.absolute().name, folder.absolute()
    plain = all(source.format == "text" for source in recipe.data.sources)
    form = Form(recipe.prompt, recipe.data.system, _instruction(recipe.data, run), plain)
    if checkpoint is not None:
        return Model(f"{name}/{checkpoint.name}", recipe, form, read_adapter(checkpoint), recipe.base, run)
    if (folder / "adapter" / CONFIG).is_file():
        return Model(name, recipe, form, read_adapter(folder / "adapter"), recipe.base, run)
    if (folder / "model" / "config.json").is_file():  # all weights were trained
        own = recipe.model_copy(update={"base": str(run / "model")})
        return Model(name, own, form, None, recipe.base, run)
    status = _status(run)
    raise StudyError(
        f"{folder}: this run has no weights (neither adapter/ nor model/){status}; name a run that came to its end"
    )


def _adapter(folder: Path, given: list[str], overrides: list[str]) -> Model:
    """An adapter by its folder: of a run of ours, beside or above it, or of anybody's."""
    place = folder.absolute()
    for above in place.parents[:2]:  # runs/NAME/adapter, runs/NAME/checkpoints/step-N
        if (above / "recipe.yaml").is_file():
            return _run(above, overrides, None if place == above / "adapter" else place)
    adapter = read_adapter(folder)
    named = [one.removeprefix("base=") for one in overrides if one.startswith("base=")]
    if not (base := named[-1] if named else adapter.base):
        raise StudyError(f"{folder}: its {CONFIG} does not name its base; add --set base=…")
    recipe = recipe_of_base(base, given)
    tokens = str(folder) if (folder / "tokenizer_config.json").is_file() else None
    return Model(place.name, recipe, Form(_chosen_form(recipe), tokens=tokens), adapter, recipe.base)


def _chosen_form(recipe: Recipe) -> str | None:
    return recipe.prompt if "prompt" in recipe.model_fields_set else None


def _instruction(data: Data, run: Path) -> str | None:
    """What stood before each question in training; rows of most formats bring their own."""
    if data.instruction or not data.classifies:
        return data.instruction
    labels = list(data.labels or study_around(run).get("labels") or ())
    return default_instruction([str(label) for label in labels]) if len(labels) > 1 else None


def _status(run: Path) -> str:
    """What study.json says of a run, if it does."""
    for entry in study_around(run).get("runs") or ():
        if isinstance(entry, dict) and entry.get("name") == run.name:
            said = ", ".join(str(entry[key]) for key in ("status", "message") if entry.get(key))
            return f"; study.json says: {said}"
    return ""


def study_around(run: Path) -> dict[str, Any]:
    """study.json of the study that a run lies in; empty if there is none that can be read."""
    try:
        study = json.loads((run.parents[1] / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError):
        return {}
    return study if isinstance(study, dict) else {}


def _with_bases(found: list[Model]) -> list[Model]:
    """Each run's base before the first run over it, asked in that run's form."""
    models: list[Model] = []
    seen: set[tuple[str, str]] = set()
    origins = {(model.origin, model.recipe.quantize) for model in found if model.origin}
    for model in found:
        if model.origin and (origin := (model.origin, model.recipe.quantize)) not in seen:
            seen.add(origin)
            recipe = model.recipe.model_copy(update={"base": model.origin})
            parts = [part for at, part in enumerate(origin) if len({one[at] for one in origins}) > 1]
            models.append(Model(" ".join(["base", *parts]), recipe, model.form))
        models.append(model)
    return models


def _named_apart(models: list[Model]) -> list[Model]:
    """Runs of one name get their study's before it."""
    names = [model.name for model in models]
    return [
        replace(model, name=f"{model.run.parents[1].name}/{model.name}")
        if model.run and names.count(model.name) > 1
        else model
        for model in models
    ]

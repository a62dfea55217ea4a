"""The model that predicts: what it was trained to answer, and with what it is asked."""

from __future__ import annotations

from collections.abc import Sequence

from pronk.ask.models import Model, find_models, study_around
from pronk.data.asked import Asking
from pronk.data.labels import default_instruction
from pronk.data.split import read_splits
from pronk.errors import OptionError, PronkError, StudyError


def one_model(target: str, prompt: str | None, overrides: Sequence[str]) -> Model:
    """The model of a run's folder, an adapter's, or a base's name. Raises OptionError for a study of several runs."""
    found = find_models([target], prompt=prompt, overrides=overrides)
    if len(found) > 1:
        runs = ", ".join(str(model.run or model.name) for model in found[:5])
        raise OptionError(f"{target}: this study has {len(found)} runs, and one predicts; name one of them: {runs}")
    return found[0]


def labels_of(model: Model) -> tuple[str, ...]:
    """The labels that a model chooses among, in the order of its study; () for one that writes text.

    A base and somebody else's adapter have those of `--set data.format=classify --set data.labels=[…]`.
    Raises StudyError where there should be labels and nothing says which.
    """
    data = model.recipe.data
    if not data.classifies:
        return ()
    names = data.labels or (study_around(model.run).get("labels") if model.run else None)
    try:
        found = tuple(str(name).strip() for name in names) if names else read_splits(data)[1]
    except PronkError as error:
        raise StudyError(
            f"{model.name}: which labels it chooses among is said neither by its recipe nor by a study.json around it, "
            f"and its data cannot be read ({error}); name them: --set 'data.labels=[first, second]'"
        ) from None
    if len(found) < 2:
        raise StudyError(f"{model.name}: it has the label {', '.join(found)} alone; there must be two at least")
    return found


def chooses(model: Model) -> bool:
    """Whether a model's rows bring choices, of which it is to pick one."""
    return model.recipe.data.sources[0].format == "choice"


def asking_of(model: Model, labels: Sequence[str], column: str | None) -> Asking:
    """With what the rows of a file are asked, as the model's own data was. column: see Asking."""
    data, first = model.recipe.data, model.recipe.data.sources[0]
    instruction = data.instruction or (default_instruction(labels) if labels else None)
    form = first.format or "pairs"
    return Asking(form, first.columns or {}, column, data.system, instruction, data.choices)

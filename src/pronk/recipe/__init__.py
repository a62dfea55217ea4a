"""The recipe: what to train, on what, and how, from one YAML file.

Every default lives here and nowhere else; every field's description is the text of its help
and of the generated reference page. Unknown keys and wrong types are errors that name the key.

data.py, training.py, measures.py, baseline.py   the sections
schema.py              the whole recipe
generation.py          how answers are written (no part of a recipe)
synthesis.py           how examples are made up (no part of a recipe)
reading.py             from a file and overrides to a checked recipe
notation.py            YAML and dotted keys
problems.py            what is wrong, in words
"""

from pronk.recipe.baseline import SHOTS, Baseline
from pronk.recipe.data import FILE_ENDINGS, Data, Format, Source, Split
from pronk.recipe.generation import Generation, generation_settings
from pronk.recipe.measures import Exact, Forgetting
from pronk.recipe.reading import read_recipe, recipe_of_base, recipe_of_data
from pronk.recipe.schema import ANSWERING, Quantize, Recipe, known_keys
from pronk.recipe.section import Section
from pronk.recipe.synthesis import RequestForm, Synthesis, Task, synthesis_settings
from pronk.recipe.training import Adapter, Train

__all__ = [
    "ANSWERING", "FILE_ENDINGS", "SHOTS", "Adapter", "Baseline", "Data", "Exact", "Forgetting", "Format", "Generation",
    "Quantize", "Recipe", "RequestForm", "Section", "Source", "Split", "Synthesis", "Task", "Train",
    "generation_settings", "known_keys", "read_recipe", "recipe_of_base", "recipe_of_data", "synthesis_settings",
]  # fmt: skip

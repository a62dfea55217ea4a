"""Pages that are generated, and recipes that are shipped, are what the code says today."""

from pathlib import Path

import pytest

from pronk.doctor.reference import reference_page
from pronk.recipe import known_keys, read_recipe
from pronk.study import plan_study

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("src/pronk/data/samples/*.yaml")])


def test_the_recipe_reference_is_up_to_date():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == reference_page(), "run `python -m pronk.doctor.reference > docs/recipe.md`"


def test_the_recipe_reference_names_every_key():
    page = reference_page()
    missing = [key for key in known_keys() if f"`{key.rsplit('.', 1)[-1]}`" not in page and f"## {key}" not in page]
    assert not missing


def test_all_recipes_are_found():
    """Neither more nor fewer than README and tests speak of."""
    assert len(RECIPES) == 13
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in RECIPES if f"[{path.stem}](recipes/{path.name})" not in table] == ["demo.yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_shipped_recipe_can_be_planned(path):
    study = plan_study(read_recipe(path))
    assert study.runs
    assert all(Path(one.path).is_absolute() for one in study.recipe.data.sources if one.path)
    assert path.read_text(encoding="utf-8").startswith("# ")  # what it is for, before what it says


def test_the_recipe_in_the_readme_is_a_recipe(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    recipe = text.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert len(plan_study(read_recipe(tmp_path / "recipe.yaml")).runs) == 6

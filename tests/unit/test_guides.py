"""The guides and READMEs say what is true: recipes, keys, commands, links and figures, in both languages.

Each check is a function from a page's text to what is wrong with it; `FAULTS` shows that each of them sees.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from pronk.cli import app
from pronk.errors import RecipeError
from pronk.recipe import known_keys
from pronk.recipe.notation import assign, parse_yaml
from pronk.recipe.schema import validated
from pronk.study import plan_study
from pronk.tokens.pack import TOKEN_BUDGET

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "README.ko.md", *GUIDES]
ENGLISH = [page for page in PAGES if not page.name.endswith(".ko.md")]
OTHERS = [ROOT / "docs" / name for name in ("architecture.md", "a-published-comparison.md")]  # in English alone
MEASURED = ["README.md", "docs/performance.md", "docs/recipe.md"]  # where figures come from

KEYS = set(known_keys())
SECTIONS = {key.partition(".")[0] for key in KEYS}
FILE_ENDINGS = ("json", "jsonl", "html", "yaml", "md", "safetensors")
# what a fragment of a recipe is a fragment of
REST = {"data": {"source": "rows.jsonl", "format": "classify"}}


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks, on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def headings(text: str) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose(text), re.MULTILINE)]


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, one over the other."""
    both = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            both[key] = merged(under[key], over[key])
    return both


def refused(plain: Any) -> list[str]:
    """What the schema and the planner say of a recipe, or of a part of one."""
    if not isinstance(plain, dict):
        return [f"{plain!r} is no part of a recipe"]
    whole = "source" in (plain.get("data") or {})
    try:
        plan_study(validated(plain if whole else merged(REST, plain), "recipe"))
    except RecipeError as error:
        return [str(error)]
    return []


def recipe_faults(text: str) -> list[str]:
    """Every YAML block is a recipe or a part of one."""
    return [fault for language, body in blocks(text) if language == "yaml" for fault in _read_and_refused(body)]


def _read_and_refused(body: str) -> list[str]:
    try:
        return refused(parse_yaml(body, "block"))
    except RecipeError as error:
        return [str(error)]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command line that begins with pronk, in blocks and between backticks."""
    lines = [line.strip() for language, body in blocks(text) if not language for line in body.splitlines()]
    for line in [*lines, *spans(text)]:
        if line.startswith("pronk "):
            yield shlex.split(line, comments=True)


def command_faults(text: str) -> list[str]:
    """Verbs and options exist; --set sets a key that is known to a value that can be."""
    return [fault for words in commands(text) for fault in _wrong(words)]


def _wrong(words: list[str]) -> list[str]:
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            return [f"{' '.join(words)}: there is no {rest[0]}"]
        command = command.commands[rest.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = [word.partition("=")[0] for word in rest if word.startswith("--")]
    faults = [f"{' '.join(words)}: there is no {option}" for option in used if option not in options]
    settings = [after for word, after in itertools.pairwise(rest) if word == "--set"]
    return faults + [fault for setting in settings for fault in _wrong_setting(setting)]


def _wrong_setting(setting: str) -> list[str]:
    key, _, value = setting.partition("=")
    return refused(_placed(key, parse_yaml(value, setting)))


def _placed(key: str, value: Any) -> dict[str, Any]:
    """A part of a recipe that sets one dotted key."""
    if key.startswith("study."):
        return {"study": {key.removeprefix("study."): value}}
    part: dict[str, Any] = {}
    assign(part, key, value)
    return part


def option_faults(text: str) -> list[str]:
    """An option that stands alone between backticks belongs to some verb."""
    known = {"--set"}
    stack: list[Any] = [typer.main.get_command(app)]
    while stack:
        command = stack.pop()
        stack += getattr(command, "commands", {}).values()
        known |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    alone = [re.split(r"[ =]", span)[0] for span in spans(text) if span.startswith("--")]
    return [f"no verb has {option}" for option in alone if option not in known]


def key_faults(text: str) -> list[str]:
    """`a.b` names a key of the recipe, and `key: value` is one with a value that it may have."""
    faults = []
    for span in spans(text):
        key, colon, value = span.partition(": ")
        if not re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)*", key):
            continue
        if colon:
            faults += _wrong_value(key, value)
        elif "." in key and key.partition(".")[0] in SECTIONS and key.rpartition(".")[2] not in FILE_ENDINGS:
            faults += [] if key.removeprefix("study.") in KEYS else [f"there is no key {key}"]
    return faults


def _wrong_value(key: str, value: str) -> list[str]:
    places = [known for known in KEYS if known == key or known.endswith(f".{key}")]
    if not places:
        return [f"there is no key {key}"]
    tried = [refused(_placed(place, parse_yaml(value, key))) for place in places]
    return [] if any(not found for found in tried) else tried[0]


def slug(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def link_faults(text: str, folder: Path) -> list[str]:
    """Links lead to files that exist, and to headings in them. folder: where the page lies."""
    faults = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = text if not name else read(folder / name) if name.endswith(".md") and (folder / name).exists() else ""
        if name and not (folder / name).exists():
            faults.append(f"{target}: there is no such file")
        elif anchor and anchor not in [slug(title) for _, title in headings(page)]:
            faults.append(f"{target}: there is no such heading")
    return faults


def decimals(text: str) -> set[str]:
    """Figures with a point in them, but no versions, addresses and numbers of papers."""
    return set(re.findall(r"(?<![\w.:/-])\d+\.\d+(?!\d|\.\d)", text))


def figure_faults(text: str) -> list[str]:
    """Figures in the prose have been measured, or are the schema's."""
    known = set().union(*(decimals(read(ROOT / name)) for name in MEASURED))
    said = decimals(re.sub(r"`[^`]+`", "", prose(text)))
    return [f"{figure} stands in none of {', '.join(MEASURED)}" for figure in sorted(said - known)]


def _comparable(language: str, body: str) -> Any:
    """What must be the same of a block in both languages."""
    if language == "yaml":
        return parse_yaml(body, "block")
    if language:
        return body
    return [line.partition("#")[0].strip() for line in body.splitlines() if re.match(r"\s*(pronk|make|pip|hf) ", line)]


def pair_faults(english: str, korean: str) -> list[str]:
    """Two languages, one page: headings, blocks, figures, papers and issues agree."""
    parts: dict[str, Callable[[str], Any]] = {
        "headings": lambda text: [level for level, _ in headings(text)],
        "kinds of blocks": lambda text: [language for language, _ in blocks(text)],
        "blocks": lambda text: [_comparable(*block) for block in blocks(text)],
        "figures": lambda text: decimals(prose(text)),
        "papers": lambda text: set(re.findall(r"arXiv:\d+\.\d+", text)),
        "issues": lambda text: set(re.findall(r"[\w-]+/[\w-]+#\d+", text)),
        "rows of tables": lambda text: len(re.findall(r"^\|", text, re.MULTILINE)),
    }
    return [f"{name} differ" for name, part in parts.items() if part(english) != part(korean)]


def korean_of(page: Path) -> Path:
    return page.with_suffix(".ko.md")


CHECKS: list[Callable[[str], list[str]]] = [recipe_faults, command_faults, option_faults, key_faults, figure_faults]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_true(page, check):
    assert check(read(page)) == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert link_faults(read(page), page.parent) == []


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.name)
def test_a_page_says_the_same_in_korean(page):
    assert pair_faults(read(page), read(korean_of(page))) == []
    assert f"]({korean_of(page).name})" in read(page)
    assert f"]({page.name})" in read(korean_of(page))


def test_all_guides_are_found_and_short():
    assert [page.name for page in ENGLISH] == [
        "README.md", "blind-test.md", "first-fine-tune.md", "judging.md", "measures.md", "predicting.md",
        "serving.md", "settings.md", "shipping.md", "should-i-fine-tune.md", "when-it-does-not-work.md",
    ]  # fmt: skip
    assert len(PAGES) == 2 * len(ENGLISH)
    assert max(len(read(page).splitlines()) for page in GUIDES) <= 300


@pytest.mark.parametrize("name", ["when-it-does-not-work.md", "when-it-does-not-work.ko.md"])
def test_the_size_of_a_micro_batch_is_the_code_s(name):
    assert f"{TOKEN_BUDGET['cuda']:,}" in read(ROOT / "docs" / "guides" / name)


RECIPE = "```yaml\ndata: {source: rows.jsonl, format: pairs}\ntrain: {epochs: 2}\n```\n"
FAULTS: list[tuple[Callable[[str], list[str]], str, str]] = [
    (recipe_faults, "```yaml\ndata: {source: a.jsonl, format: pairs}\ntrain: {epoch: 2}\n```", "train.epoch"),
    (recipe_faults, "```yaml\ntrain: {learning_rate: fast}\n```", "learning_rate"),
    (recipe_faults, "```yaml\nstudy:\n  train.dtype: [fp32, bf16]\n```", "train.dtype"),
    (recipe_faults, "```yaml\ntrain: {epochs: 2\n```", "not valid YAML"),
    (command_faults, "Then `pronk deploy DIR`.", "no deploy"),
    (command_faults, "```\npronk run recipe.yaml --fast\n```", "no --fast"),
    (command_faults, "```\npronk bench everything\n```", "no everything"),
    (command_faults, "`pronk run recipe.yaml --set\ntrain.epoch=3`", "train.epoch"),
    (command_faults, "`pronk run recipe.yaml --set train.epochs=few`", "train.epochs"),
    (option_faults, "`--fast` helps.", "--fast"),
    (key_faults, "Set `train.epoch`.", "train.epoch"),
    (key_faults, "Set `study.train.epoch`.", "train.epoch"),
    (key_faults, "Set `stop: sometimes`.", "stop"),
    (key_faults, "Set `accumulate: 4`.", "accumulate"),
    (figure_faults, "It reached 0.987654.", "0.987654"),
    (partial(link_faults, folder=ROOT), "[here](docs/nowhere.md)", "no such file"),
    (partial(link_faults, folder=ROOT), "[here](docs/architecture.md#nowhere)", "no such heading"),
    (partial(link_faults, folder=ROOT), "# One\n[here](#two)", "no such heading"),
    (partial(pair_faults, "# A\n## B\n"), "# 가\n", "headings"),
    (partial(pair_faults, RECIPE), "", "kinds of blocks"),
    (partial(pair_faults, RECIPE), RECIPE.replace("2", "3"), "blocks differ"),
    (partial(pair_faults, "```\npronk run a.yaml\n```\n"), "```\npronk run b.yaml\n```\n", "blocks differ"),
    (partial(pair_faults, "It is 0.5."), "0.6입니다.", "figures"),
    (partial(pair_faults, "(arXiv:2106.09685)"), "", "papers"),
    (partial(pair_faults, "(huggingface/trl#976)"), "(huggingface/trl#967)", "issues"),
    (partial(pair_faults, "| a |\n| b |\n"), "| 가 |\n", "rows of tables"),
]


@pytest.mark.parametrize(("check", "text", "said"), FAULTS)
def test_planted_faults_show(check, text, said):
    assert any(said in fault for fault in check(text))


def test_what_is_right_is_left_alone():
    right = "`train.epochs`, `study.json`, `stop: early`, `pronk run recipe.yaml --set 'study.train.epochs=[1, 2]'`\n"
    assert [fault for check in CHECKS for fault in check(right + RECIPE)] == []

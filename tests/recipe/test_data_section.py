"""The section `data`: sources in every form, what each stands for, and the message for each mistake."""

import pytest

from pronk.errors import RecipeError
from pronk.recipe import Data, Source, read_recipe
from pronk.recipe.data import is_hub_id


@pytest.fixture
def read(tmp_path):
    def _read(source, *overrides, rest=""):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"data: {{source: {source}{rest}}}\n")
        return read_recipe(path, overrides)

    return _read


@pytest.fixture
def message_of(read, tmp_path):
    def _message(*arguments, **keys):
        with pytest.raises(RecipeError) as caught:
            read(*arguments, **keys)
        return str(caught.value).replace(str(tmp_path / "recipe.yaml"), "recipe.yaml")

    return _message


# --- files and hub ids ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("takala/financial_phrasebank", True),
        ("daekeun-ml/naver-news-summarization-ko", True),
        ("allenai/tulu-2.5-data", True),
        ("rows.jsonl", False),
        ("rows", False),
        ("data/rows.jsonl", False),
        ("data/rows.JSON", False),
        ("data/rows.xlsx", False),
        ("data/rows.jsonl.gz", False),
        ("./rows", False),
        ("../data/rows", False),
        ("~/data", False),
        ("/data/rows", False),
        ("a/b/c", False),
        ("a\\b/c", False),
        ("", False),
    ],
)
def test_what_is_taken_for_a_hub_id(text, expected, tmp_path):
    assert is_hub_id(text, tmp_path) == expected


def test_what_exists_is_a_file(tmp_path, read):
    (tmp_path / "owner").mkdir()
    assert read("owner/name").data.sources[0].id == "owner/name"
    (tmp_path / "owner" / "name").write_text("")
    assert not is_hub_id("owner/name", tmp_path)
    assert read("owner/name").data.sources[0].path == str(tmp_path / "owner" / "name")


def test_sources_in_every_form(read, tmp_path):
    assert read("a.jsonl").data.sources == (Source(path=str(tmp_path / "a.jsonl"), columns={}),)
    assert read("{path: a.jsonl, weight: 2}").data.sources[0].path == str(tmp_path / "a.jsonl")
    assert read("{id: squad, split: validation}").data.sources[0].split == "validation"
    both = read("[owner/name, {path: ../b.csv, format: pairs}, {id: o/n, name: sub, revision: main}]").data.sources
    assert [one.id for one in both] == ["owner/name", None, "o/n"]
    assert both[1].path == str(tmp_path.parent / "b.csv")
    assert (both[0].split, both[2].name, both[2].revision) == ("train", "sub", "main")


def test_a_source_has_the_keys_of_the_section_unless_it_has_its_own(read):
    rest = ", format: pairs, columns: {prompt: q}, where: a == 'b'"
    plain, columns, other, where = read(
        "[a.csv, {path: b.csv, columns: {}}, {path: c.csv, format: text}, {path: d.csv, where: true}]".replace(
            "where: true", "where: 'true'"
        ),
        rest=rest,
    ).data.sources
    assert (plain.format, plain.columns, plain.where) == ("pairs", {"prompt": "q"}, "a == 'b'")
    assert (columns.format, columns.columns, columns.where) == ("pairs", {}, "a == 'b'")
    assert (other.format, other.columns) == ("text", {})  # the section's columns are those of its own format
    assert where.where == "true"


def test_overrides(read, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert read("a.jsonl", "data.source=owner/name").data.source == "owner/name"
    assert read("a.jsonl", "data.source={path: b.csv, weight: 1}").data.sources[0].path == str(here / "b.csv")


@pytest.mark.parametrize(
    "source",
    ["a.csv", "{path: a.csv, weight: 2}", "{id: o/n, name: x}", "[a.csv, o/n, {path: b.csv, where: 'x == 1'}]"],
)
def test_a_recipe_written_out_reads_back_the_same(read, source, tmp_path):
    first = read(source, rest=", where: \"input == ''\"")
    (tmp_path / "other").mkdir()
    written = tmp_path / "other" / "recipe.yaml"
    written.write_text(first.to_yaml())
    assert read_recipe(written).data.sources == first.data.sources
    assert read_recipe(written) == first


# --- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("5", "data.source: found 5, expected text"),
        ("[a.csv, 5]", "data.source: found 5, expected text"),
        ("{weight: 2}", "data.source.path: a source has either a path (file) or an id (hub data set)"),
        ("{path: a.csv, id: o/n}", "data.source.path: a source has either a path (file) or an id (hub data set)"),
        ("{path: a.csv, name: x}", "data.source.name: only a hub data set (id) has this, not a file (path)"),
        ("{path: a.csv, split: test}", "data.source.split: only a hub data set (id) has this, not a file (path)"),
        ("[a.csv, {path: b.csv, wieght: 2}]", "unknown key data.source.wieght; did you mean data.source.weight?"),
        ("{path: a.csv, revison: x}", "unknown key data.source.revison; did you mean data.source.revision?"),
        ("{path: a.csv, weight: 0}", "data.source.weight: found 0, expected greater than 0"),
        ("[{path: a.csv, weight: half}]", "data.source.weight: found 'half', expected a number"),
        ("{path: 5}", "data.source.path: found 5, expected text"),
        ("{path: a.csv, columns: {text: 5}}", "data.source.columns.text: found 5, expected text"),
        (
            "{path: a.csv, format: csv}",
            "data.source.format: found 'csv', expected one of classify, choice, alpaca, pairs, messages, sharegpt, "
            "text",
        ),
        (
            "[{path: a.csv, format: classify}, {path: b.csv, format: pairs}]",
            "data.source: rows to classify and rows of the format pairs cannot be mixed",
        ),
    ],
)
def test_wrong_sources(message_of, source, message):
    assert message_of(source) == f"recipe.yaml: {message}"


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("revision: main", "unknown key data.revision; did you mean data.source.revision?"),
        ("name: x", "unknown key data.name; did you mean data.source.name?"),
        ("where: 5", "data.where: found 5, expected text"),
        ("format: text, system: x", "data.system: rows of the format text are plain text, without a system message"),
        ("format: text, instruction: x", "data.instruction: rows of the format text bring their own instruction"),
        ("format: messages, instruction: x", "data.instruction: rows of the format messages bring their own"),
        ("format: sharegpt, labels: [a, b]", "data.labels: only the format classify has labels, not sharegpt"),
        ("split: {shuffle: 1}", "data.split.shuffle: found 1, expected true or false"),
    ],
)
def test_wrong_keys(message_of, rest, message):
    assert message_of("a.csv", rest=f", {rest}").startswith(f"recipe.yaml: {message}")


def test_whether_examples_have_labels_is_open_until_all_formats_are_known():
    assert Data(source="a.csv").classifies is None
    assert Data(source="a.csv", format="classify").classifies is True
    assert Data(source="a.csv", format="pairs").classifies is False
    assert Data(source=["a.csv", Source(path="b.csv", format="text")]).classifies is None

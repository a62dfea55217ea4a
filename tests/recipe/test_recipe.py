"""The recipe: what is read, what every default is, and the one message for each mistake."""

import os
import re
from pathlib import Path

import pytest
import yaml

from pronk.errors import RecipeError
from pronk.recipe import Adapter, Data, Recipe, Split, Train, known_keys, read_recipe
from pronk.recipe.schema import NOT_STUDIED
from pronk.study import plan_study

SHORT = "data: {source: fpb.jsonl, format: classify}\n"
LONG = """\
base: meta-llama/Meta-Llama-3-8B
data:
  source: [fpb.jsonl, more.csv]
  format: classify
  columns: {text: sentence, label: label}
  labels: {negative: 0, neutral: 1, positive: 2}
  instruction: What is the mood?
  system: You are a banker.
  split: {train: 900, validation: 0.1, test: 900, balanced: true, seed: 42}
prompt: chat
adapter: {rank: 16, alpha: 16, dropout: 0.05, targets: [q_proj, v_proj]}
train: {epochs: 2, batch_size: 16, learning_rate: 1e-4, clip: null,
        schedule: constant_with_warmup, warmup_steps: 50}
evaluate: [likelihood]
study:
  adapter.targets: [[q_proj, v_proj], all-linear]
  train.epochs: [2, 3, 5]
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recipe.yaml"


@pytest.fixture
def read(path):
    """Writes a recipe and reads it."""

    def _read(text=SHORT, *overrides):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_recipe(path, overrides)

    return _read


@pytest.fixture
def message_of(read, path):
    """The message without the recipe's folder."""

    def _message(text=SHORT, *overrides):
        with pytest.raises(RecipeError) as caught:
            read(text, *overrides)
        return str(caught.value).replace(str(path), path.name)

    return _message


# --- what is read -----------------------------------------------------------------------------------


def test_a_short_recipe_has_every_default(read):
    recipe = read()
    assert (recipe.base, recipe.prompt, recipe.study) == ("smollm2", "alpaca", {})
    assert (recipe.adapter.rank, recipe.adapter.targets) == (16, "all-linear")
    assert (recipe.train.epochs, recipe.train.learning_rate, recipe.train.clip) == (2, 2e-4, 1.0)
    assert (recipe.data.split.train, recipe.data.split.validation, recipe.data.split.test) == (None, 0.1, 0.1)


def test_every_key_has_a_description_and_every_default_passes_the_schema(read):
    for section in (Recipe, Data, Split, Adapter, Train):
        assert [name for name, field in section.model_fields.items() if not field.description] == []
    assert Recipe.model_validate(read().model_dump()) == read()


def test_a_long_recipe(read):
    long = read(LONG)
    assert long.train.learning_rate == 1e-4
    assert long.data.labels == {"negative": 0, "neutral": 1, "positive": 2}
    assert long.data.split.balanced is True
    assert long.study == {
        "adapter.targets": [["q_proj", "v_proj"], "all-linear"],
        "train.epochs": [2, 3, 5],
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.e-5", 2e-5), ("1e+0", 1.0), ("2.5e-4", 2.5e-4), ("1", 1.0)],
)
def test_numbers_as_people_write_them(read, text, number):
    assert read(SHORT + f"train: {{learning_rate: {text}}}").train.learning_rate == number
    assert read(SHORT, f"train.learning_rate={text}").train.learning_rate == number


def test_a_byte_order_mark_is_accepted(read):
    assert read(SHORT.encode("utf-8-sig")).base == "smollm2"


def test_evaluations_by_default(read):
    assert read().evaluations == ("likelihood", "classify")
    assert read(SHORT.replace("classify", "pairs")).evaluations == ("likelihood",)
    assert read(SHORT + "evaluate: [classify]").evaluations == ("classify",)


def test_known_keys_name_sections_and_their_fields():
    keys = list(known_keys())
    assert len(set(keys)) == len(keys)
    assert {"base", "data", "data.split", "data.split.seed", "train.learning_rate", "study"} <= set(keys)


def test_a_recipe_cannot_be_changed_but_copied_with_values(read):
    first = read()
    with pytest.raises(ValueError, match="frozen"):
        first.base = "other"
    second = first.with_values({"train.epochs": 7, "data.split.seed": 1})
    assert (second.train.epochs, second.data.split.seed, second.data.source) == (7, 1, first.data.source)
    assert (first.train.epochs, first.data.split.seed) == (2, 42)
    with pytest.raises(RecipeError, match=r"^study: train\.epochs: found 0, expected greater than 0$"):
        first.with_values({"train.epochs": 0})


# --- to_yaml ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [SHORT, LONG, SHORT.replace("classify", "alpaca")])
def test_yaml_with_all_defaults_reads_back_as_the_same_recipe(read, text):
    first = read(text)
    written = first.to_yaml()
    assert read(written) == first
    assert read(written).to_yaml() == written
    plain = yaml.safe_load(written)
    for key in known_keys():
        value = plain
        for part in key.split("."):
            value = value[part]


@pytest.mark.parametrize("label", ["1e5", "1E-4", "on", "null", "5", "2024-01-01", "Größe", "a: b"])
def test_labels_that_look_like_something_else_survive(read, label):
    first = read().with_values({"data.labels": [label, "other"]})
    assert read(first.to_yaml()).data.labels == [label, "other"]


def test_a_recipe_read_by_a_relative_path_means_the_same_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "out"):
        (tmp_path / name).mkdir()
    Path("recipes/a.yaml").write_text(SHORT + "base: ./model\n")
    first = read_recipe("recipes/a.yaml")
    Path("out/recipe.yaml").write_text(first.to_yaml())
    assert read_recipe("out/recipe.yaml") == first


# --- paths ------------------------------------------------------------------------------------------


def test_sources_are_relative_to_the_recipe(read, tmp_path):
    assert read().data.source == str(tmp_path / "fpb.jsonl")
    assert read(LONG).data.source == [str(tmp_path / "fpb.jsonl"), str(tmp_path / "more.csv")]
    assert read(SHORT.replace("fpb", "../fpb")).data.source == str(tmp_path.parent / "fpb.jsonl")
    assert read(SHORT.replace("fpb", "/data/fpb")).data.source == "/data/fpb.jsonl"
    assert read(SHORT.replace("fpb", "~/fpb")).data.source == os.path.expanduser("~/fpb.jsonl")


def test_bases_that_look_like_paths_are_relative_to_the_recipe(read, tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "config.json").write_text("{}")
    expected = {
        "./model": str(tmp_path / "model"),
        "model.gguf": str(tmp_path / "model.gguf"),
        "/models/a": "/models/a",
        "~/a": os.path.expanduser("~/a"),
        "local": str(tmp_path / "local"),
        "org/model": "org/model",
        "smollm2": "smollm2",
    }
    assert {base: read(SHORT + f"base: {base}").base for base in expected} == expected
    study = SHORT + f"study: {{base: [{', '.join(expected)}]}}"
    assert read(study).study["base"] == list(expected.values())


def test_a_template_is_relative_to_the_recipe(read, tmp_path):
    assert read(SHORT + "prompt: forms/own.jinja").prompt == str(tmp_path / "forms" / "own.jinja")
    assert [read(SHORT + f"prompt: {kind}").prompt for kind in ("llama2", "llama3", "chat")] == [
        "llama2", "llama3", "chat",
    ]  # fmt: skip


def test_paths_of_an_override_are_relative_to_the_current_folder(read, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert read(SHORT, "base=./model").base == str(here / "model")
    assert read(SHORT, "base=org/model").base == "org/model"
    assert read(SHORT, "prompt=own.jinja").prompt == str(here / "own.jinja")
    assert read(SHORT, "prompt=llama3").prompt == "llama3"
    assert read(SHORT, "data.source=a.csv").data.source == str(here / "a.csv")
    assert read(SHORT, "data.source=[a.csv, /b.csv]").data.source == [str(here / "a.csv"), "/b.csv"]
    assert read(SHORT, "study.base=./model").study == {"base": [str(here / "model")]}
    assert read(SHORT, "study.base=[./model, smollm2]").study == {"base": [str(here / "model"), "smollm2"]}


def test_an_adapter_to_go_on_with_is_relative_to_the_recipe(read, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert read(SHORT + "adapter: {from: runs/a}").adapter.from_ == str(tmp_path / "runs" / "a")
    assert read(SHORT + "adapter: {from: /runs/a}").adapter.from_ == "/runs/a"
    assert read(SHORT, "adapter.from=runs/a").adapter.from_ == "/runs/a"
    study = read(SHORT + "study: {adapter.from: [a, null]}")
    assert study.study == {"adapter.from": [str(tmp_path / "a"), None]}
    assert [run.recipe.adapter.from_ for run in plan_study(study).runs] == [str(tmp_path / "a"), None]


def test_what_the_adapter_to_go_on_with_decides_is_not_written_as_a_default(read):
    first = read(SHORT + "adapter: {from: /runs/a, dropout: 0.1}\n")
    assert yaml.safe_load(first.to_yaml())["adapter"] == {"from": "/runs/a", "dropout": 0.1}
    again = read(first.to_yaml())
    assert again == first
    assert again.adapter.model_fields_set == {"from_", "dropout"}


# --- files that are no recipe -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "recipe.yaml: the recipe is empty"),
        ("# nothing yet\n", "recipe.yaml: the recipe is empty"),
        ("- base\n", "recipe.yaml: a recipe is made of keys and values, such as `base: smollm2`"),
        ("smollm2", "recipe.yaml: a recipe is made of keys and values, such as `base: smollm2`"),
        (b"base: caf\xe9", "recipe.yaml: not UTF-8 text (byte 9); save the recipe as UTF-8"),
        ("base: a\nbase: b\n", "recipe.yaml, line 2: not valid YAML: the key base appears twice"),
        (
            "base: a\ntrain:\n  epochs: 1\n  seed: 2\n  epochs: 3\n",
            "recipe.yaml, line 5: not valid YAML: the key epochs appears twice",
        ),
        (
            "base: a\ndata: [x,\n",
            "recipe.yaml, line 3: not valid YAML: expected the node content, but found '<stream end>'",
        ),
        (
            "base: a\ntrain:\n\tepochs: 2\n",
            "recipe.yaml, line 3: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("base: 2024-13-45", "recipe.yaml: not valid YAML: month must be in 1..12"),
        ("? [a, b]\n: 1\n", "recipe.yaml: not valid YAML: unhashable type: 'list'"),
        (
            "base: !!python/object:os.system x",
            "recipe.yaml, line 1: not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system'",
        ),
    ],
)
def test_files_that_are_no_recipe(message_of, text, message):
    assert message_of(text) == message


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(RecipeError, match="there is no such recipe file"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="this is a folder; a recipe is a YAML file"):
        read_recipe(tmp_path)


# --- unknown keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("trian: {epochs: 1}", "unknown key trian; did you mean train?"),
        ("epochs: 1", "unknown key epochs; did you mean train.epochs?"),
        ("rank: 8", "unknown key rank; did you mean adapter.rank?"),
        ("train: {batchsize: 8}", "unknown key train.batchsize; did you mean train.batch_size?"),
        ("train: {rank: 8}", "unknown key train.rank; did you mean adapter.rank?"),
        ("train: {lr: 1e-4}", "unknown key train.lr"),
        ("adapter: {target: [a]}", "unknown key adapter.target; did you mean adapter.targets?"),
        ("telescope: 1", "unknown key telescope"),
    ],
)
def test_unknown_keys(message_of, lines, message):
    assert message_of(SHORT + lines) == f"recipe.yaml: {message}"


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("colums: {a: b}", "unknown key data.colums; did you mean data.columns?"),
        ("split: {tests: 3}", "unknown key data.split.tests; did you mean data.split.test?"),
        ("split: {format: 3}", "unknown key data.split.format; did you mean data.format?"),
    ],
)
def test_unknown_keys_of_the_data(message_of, inside, message):
    assert message_of(SHORT.replace("}", f", {inside}}}")) == f"recipe.yaml: {message}"


def test_all_problems_in_one_message(message_of):
    message = message_of("base: 5\ntrain: {epoch: 1, seed: x}\ndata: {format: pairs}\n")
    assert sorted(message.splitlines()) == [
        "recipe.yaml: base: found 5, expected text",
        "recipe.yaml: data.source is missing",
        "recipe.yaml: train.seed: found 'x', expected a whole number",
        "recipe.yaml: unknown key train.epoch; did you mean train.epochs?",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [("base: a", "data"), ("data: {format: pairs}", "data.source")],
)
def test_missing_keys(message_of, text, key):
    assert message_of(text) == f"recipe.yaml: {key} is missing"


# --- wrong values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("base: 5", "base: found 5, expected text"),
        (
            "prompt: lama3",
            "prompt: found 'lama3', expected one of alpaca, chat, llama2, llama3, or a template's path ending in "
            ".jinja; did you mean llama3?",
        ),
        ("train: 5", "train: found 5, expected a section with keys of its own"),
        ("adapter:", "adapter: found None, expected a section with keys of its own"),
        ("train: {epochs: 0}", "train.epochs: found 0, expected greater than 0"),
        ("train: {epochs: 2.5}", "train.epochs: found 2.5, expected a whole number"),
        ("train: {epochs: true}", "train.epochs: found True, expected a whole number"),
        ("train: {epochs: '2'}", "train.epochs: found '2', expected a whole number"),
        ("train: {learning_rate: fast}", "train.learning_rate: found 'fast', expected a number"),
        ("train: {learning_rate: .nan}", "train.learning_rate: found nan, expected a finite number"),
        ("train: {learning_rate: .inf}", "train.learning_rate: found inf, expected a finite number"),
        ("train: {clip: 0}", "train.clip: found 0, expected greater than 0"),
        ("train: {warmup_steps: -1}", "train.warmup_steps: found -1, expected greater than or equal to 0"),
        ("train: {save_every: epcoh}", "train.save_every: found 'epcoh', expected a whole number or epoch"),
        ("train: {device: gpu}", "train.device: found 'gpu', expected auto, cpu, cuda, or one GPU such as cuda:1"),
        ("adapter: {dropout: 1}", "adapter.dropout: found 1, expected less than 1"),
        ("adapter: {targets: all}", "adapter.targets: found 'all', expected all-linear or a list"),
        (
            "adapter: {targets: []}",
            "adapter.targets: name at least one linear layer, or write all-linear",
        ),
        ("evaluate: likelihood", "evaluate: found 'likelihood', expected a list"),
        (
            "evaluate: [clasify]",
            "evaluate: found 'clasify', expected one of likelihood, classify, choice, exact, answers, similarity, "
            "forgetting",
        ),
        ("study: [train.epochs]", "study: found ['train.epochs'], expected keys and values"),
    ],
)
def test_wrong_values(message_of, lines, message):
    assert message_of(SHORT + lines) == f"recipe.yaml: {message}"


@pytest.mark.parametrize(
    ("format", "inside", "message"),
    [
        (
            "csv",
            "",
            "data.format: found 'csv', expected one of classify, choice, alpaca, pairs, messages, sharegpt, text",
        ),
        ("classify", "columns: {text: 5}", "data.columns: found 5, expected text"),
        ("classify", "labels: [a]", "data.labels: classification needs at least two labels"),
        ("classify", "system: 5", "data.system: found 5, expected text"),
        (
            "classify",
            "split: {train: '9'}",
            "data.split.train: found '9', expected a whole number or a number",
        ),
        (
            "classify",
            "split: {train: true}",
            "data.split.train: found True, expected a whole number or a number",
        ),
        ("classify", "split: {train: 0}", "data.split.train: found 0, expected greater than 0"),
        ("classify", "split: {test: -1}", "data.split.test: found -1, expected greater than or equal to 0"),
        (
            "classify",
            "split: {validation: 1.5}",
            "data.split.validation: 1.5 is neither a whole number of rows nor a share below 1",
        ),
        (
            "classify",
            "split: {test: 1.0}",
            "data.split.test: 1.0 is neither a whole number of rows nor a share below 1",
        ),
        ("pairs", "labels: [a, b]", "data.labels: only the format classify has labels, not pairs"),
        (
            "alpaca",
            "split: {balanced: true}",
            "data.split.balanced: only the format classify can be balanced, not alpaca",
        ),
        (
            "alpaca",
            "instruction: Do.",
            "data.instruction: rows of the format alpaca bring their own instruction",
        ),
    ],
)
def test_wrong_values_of_the_data(message_of, format, inside, message):
    text = f"data: {{source: a.csv, format: {format}, {inside}}}"
    assert message_of(text) == f"recipe.yaml: {message}"


def test_similarity_and_its_longest_answer(read, message_of):
    text = SHORT + "evaluate: [similarity]\n"
    assert read(text).max_new_tokens is None
    assert read(text + "max_new_tokens: 64").max_new_tokens == 64
    assert message_of(text + "max_new_tokens: 0") == "recipe.yaml: max_new_tokens: found 0, expected greater than 0"
    said = "max_new_tokens: only evaluate: [similarity], [answers] and [exact] answer freely; add one, or leave the key"
    assert message_of(SHORT + "max_new_tokens: 64") == f"recipe.yaml: {said} out"


def test_an_evaluation_that_the_format_does_not_have(message_of):
    text = SHORT.replace("classify", "pairs") + "evaluate: [classify]"
    assert message_of(text) == "recipe.yaml: evaluate: classify needs data.format: classify, not pairs"


# --- overrides --------------------------------------------------------------------------------------


def test_overrides_replace_in_order_and_make_sections(read):
    recipe = read(LONG, "train.epochs=9", "train.epochs = 4", "adapter={rank: 2}", "data.labels=[a, b]")
    assert (recipe.train.epochs, recipe.train.batch_size) == (4, 16)
    assert (recipe.adapter.rank, recipe.adapter.targets) == (2, "all-linear")
    assert recipe.data.labels == ["a", "b"]
    assert read(SHORT, "data.split.seed=3", "train.clip=").data.split.seed == 3
    assert read(SHORT, "train.clip=null").train.clip is None


def test_overrides_of_a_study(read):
    assert read(SHORT, "study.train.epochs=[1, 2]").study == {"train.epochs": [1, 2]}
    assert read(LONG, "study.train.epochs=[1]").study == {
        "adapter.targets": [["q_proj", "v_proj"], "all-linear"],
        "train.epochs": [1],
    }
    assert read(LONG, "study={}").study == {}
    assert read(SHORT + "study: {}", "study.adapter.rank=[4]").study == {"adapter.rank": [4]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set train.epochs: expected key=value, such as train.epochs=3"),
        ("=3", "--set =3: expected key=value, such as train.epochs=3"),
        ("", "--set : expected key=value, such as train.epochs=3"),
        ("train.epoch=3", "recipe.yaml: unknown key train.epoch; did you mean train.epochs?"),
        ("train.epochs=x", "recipe.yaml: train.epochs: found 'x', expected a whole number"),
        (
            "train.epochs=[1",
            "--set train.epochs, line 1: not valid YAML: expected ',' or ']', but got '<stream end>'",
        ),
        ("base.x=3", "base: found 'a', expected keys and values"),
        ("study.train.epochs=3", "recipe.yaml: study.train.epochs: found 3, expected a list"),
        (
            "study.train.epoch=[3]",
            "recipe.yaml: study.train.epoch: a study varies base, quantize, full, or a key of adapter or train; "
            "did you mean train.epochs?",
        ),
    ],
)
def test_wrong_overrides(message_of, override, message):
    assert message_of(SHORT + "base: a", override) == message


def test_an_override_does_not_hide_a_section_of_a_wrong_type(message_of):
    assert message_of(SHORT + "train: 5", "train.epochs=3") == "train: found 5, expected keys and values"
    message = message_of(SHORT + "study: abc", "study.train.epochs=[3]")
    assert message == "study: found 'abc', expected keys and values"


# --- the axes of a study ----------------------------------------------------------------------------


VARIES = "a study varies base, quantize, full, or a key of adapter or train"


@pytest.mark.parametrize(
    ("axis", "problem"),
    [
        ("train.epochs: []", "train.epochs: list at least one value to try"),
        ("train.epochs: [2, 3, 2]", "train.epochs: a value appears twice in [2, 3, 2]"),
        ("train.learning_rate: [1, 1.0]", "train.learning_rate: a value appears twice in [1, 1.0]"),
        ("train.epochs: 3", "train.epochs: found 3, expected a list"),
        (
            "train.epoch: [1]",
            "train.epoch: VARIES; did you mean train.epochs?",
        ),
        (
            "rank: [1]",
            "rank: VARIES; did you mean adapter.rank?",
        ),
        (
            "data.split.seed: [1]",
            "data.split.seed: VARIES, not this one",
        ),
        (
            "train.dtype: [fp32]",
            "train.dtype: VARIES, not this one",
        ),
        (
            "train.device: [cpu]",
            "train.device: VARIES, not this one",
        ),
        ("train: [{}]", "train: VARIES, not this one"),
        ("prompt: [chat]", "prompt: VARIES, not this one"),
        (
            "telescope: [1]",
            "telescope: VARIES, not this one",
        ),
    ],
)
def test_wrong_axes(message_of, axis, problem):
    assert message_of(SHORT + f"study: {{{axis}}}") == f"recipe.yaml: study.{problem}".replace("VARIES", VARIES)


def test_every_key_of_adapter_and_train_but_a_few_may_vary(read):
    keys = [key for key in known_keys() if re.match(r"(adapter|train)\.", key)]
    allowed = [key for key in keys if key not in NOT_STUDIED]
    for key in allowed:
        assert read(SHORT + f"study: {{{key}: [1]}}").study == {key: [1]}
    assert len(allowed) == len(keys) - len(NOT_STUDIED) >= 16

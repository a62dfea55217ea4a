"""`pronk init` over every real data set that is here: what it writes reads, splits, tokenizes and trains."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told, Workplace

from pronk.data.split import read_splits
from pronk.doctor.ready import prepare
from pronk.recipe import Recipe, read_recipe
from pronk.study import plan_study

REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data"
SAMPLES = Path(__file__).parents[2] / "src" / "pronk" / "data" / "samples"
LARGEST = 400  # rows that are taken of a set of lines: all that `init` says of it shows in these
# file → (format, rows that are there)
SETS = {
    "alpaca/alpaca_cleaned_5000.jsonl": ("alpaca", 5000),
    "alpaca/rasbt_instruction_1100.jsonl": ("alpaca", 1100),
    "alpaca/rasbt_preference_1100.jsonl": ("alpaca", 1100),
    "ko/koalpaca_v1_5000.jsonl": ("alpaca", 5000),
    "ko/sci_news_sum_50.jsonl": ("pairs", 50),
    "chat/oasst1_messages.jsonl": ("messages", 953),
    "chat/oasst1_sharegpt.jsonl": ("sharegpt", 953),
    "chat/fastchat_dummy_conversation.json": ("sharegpt", 500),
    "fpb/Sentences_50Agree.jsonl": ("classify", 4846),
    "eval/gsm8k_train_1000.jsonl": ("pairs", 1000),
    "eval/mmlu_test_8x57.jsonl": ("choice", 456),
    "headlines.jsonl": ("classify", None),
}
TRAINED = [  # then, for two steps
    "alpaca/rasbt_instruction_1100.jsonl",
    "ko/sci_news_sum_50.jsonl",
    "chat/oasst1_messages.jsonl",
    "headlines.jsonl",
]


@pytest.fixture(scope="session")
def wide_base(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Path:
    """A tiny base that reads as much as SmolLM2 does."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("bases") / "wide"
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _is_cut(name: str) -> bool:
    """The headlines of FinancialPhraseBank stand by label, so all are taken."""
    return name.endswith(".jsonl") and not name.startswith(("fpb", "headlines"))


def data_file(name: str, folder: Path) -> Path:
    """The set, or its first rows in the folder."""
    path = SAMPLES / name if name == "headlines.jsonl" else REAL_DATA / name
    if not path.is_file():
        pytest.skip(f"the data is not here: {path}")
    if not _is_cut(name):
        return path
    rows = path.read_text(encoding="utf-8").split("\n")[:LARGEST]
    (folder / path.name).write_text("\n".join(rows), encoding="utf-8")
    return folder / path.name


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lines that a person will type."""

    def type_lines(*lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    return type_lines


def check_examples(recipe: Recipe) -> None:
    """What the recipe says, made as `pronk run` makes it, and the claims of its comments about lengths."""
    study = plan_study(recipe)
    splits, labels = read_splits(recipe.data)
    (ready,) = prepare(study, splits, labels, lambda _: None, elsewhere=True)
    examples = ready.examples.train(recipe.train.max_length)
    assert len(examples) == len(splits.train)
    assert splits.test
    assert splits.validation
    answers = sum(message.role == "assistant" for row in splits.train for message in row.messages)
    assert sum(one.cut_answers for one in examples) <= 0.01 * answers


@pytest.mark.parametrize("name", SETS)
def test_a_recipe_for_real_data(
    name: str, tmp_path: Path, wide_base: Path, pronk: Callable[..., Told], types: Callable[..., None]
) -> None:
    """Typed answers only: the data, the first task that fits, the base, and yes. Some are then trained."""
    path, (format, count) = data_file(name, tmp_path), SETS[name]
    instruction = [""] if name.startswith("ko/sci") else []
    tasks = [""] if name.startswith(("fpb", "ko/sci")) else []  # a second task would fit too
    types(str(path), *tasks, *instruction, str(wide_base), "y")
    told = pronk("init", str(tmp_path))
    assert told.code == 0, told.err
    assert "No errors: `pronk run` will begin." in told.err
    count = min(count, LARGEST) if count and _is_cut(name) else count
    assert count is None or f"{count:,} rows, " in told.err
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert recipe.data.format == format
    check_examples(recipe)
    text = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert text.count("#") >= 8
    assert max(map(len, text.splitlines())) <= 120
    if name in TRAINED:
        check_it_trains(tmp_path, pronk)


def check_it_trains(folder: Path, pronk: Callable[..., Told]) -> None:
    few = {
        "train.max_steps": 2, "train.batch_size": 2, "train.trackers": "[]", "evaluate": "[likelihood]",
        "data.split.test": 4, "data.split.validation": 3, "data.split.train": 8, "data.split.balanced": "false",
    }  # fmt: skip
    told = pronk(
        "run", str(folder / "recipe.yaml"), "--out", str(folder / "study"),
        *(part for key, value in few.items() for part in ("--set", f"{key}={value}")),
    )  # fmt: skip
    assert told.code == 0, told.err
    assert (folder / "study" / "report.html").is_file()


def test_flags_alone(workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told]) -> None:
    data = workplace.folder / "rows.jsonl"
    told = pronk(
        "init", str(data), "--base", str(tiny_base), "--task", "classify", "--out", str(workplace.folder), "--yes"
    )
    assert told.code == 0, told.err
    recipe = read_recipe(workplace.folder / "recipe.yaml")
    assert (recipe.data.source, recipe.base, recipe.prompt) == (str(data), str(tiny_base), "chat")
    assert "source: rows.jsonl" in (workplace.folder / "recipe.yaml").read_text(encoding="utf-8")
    check_examples(recipe)


def test_a_wrong_path_is_asked_again(
    workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told], types: Callable[..., None]
) -> None:
    types(
        "nothing.jsonl",
        "",
        str(workplace.folder),
        str(workplace.folder / "rows.jsonl"),
        "nonsense",
        str(tiny_base),
        "maybe",
        "y",
    )
    told = pronk("init", str(workplace.folder / "new" / "mine.yaml"))
    assert told.code == 0, told.err
    assert "there is no such file" in told.err
    assert "is a folder; name one file" in told.err
    assert "'nonsense' is neither smollm2" in told.err
    assert "expected y or n" in told.err
    assert (workplace.folder / "new" / "mine.yaml").is_file()


def test_columns_of_any_name_are_asked_for(
    workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told], types: Callable[..., None]
) -> None:
    rows = [{"frage": f"Was ist {i}?", "antwort": f"Die Zahl {i} und noch etwas mehr."} for i in range(40)]
    workplace.write_rows(rows, "fragen.jsonl")
    data = str(workplace.folder / "fragen.jsonl")
    types("4", "1", "", str(tiny_base), "y")  # pairs; frage; the one column that is left; base; yes
    told = pronk("init", data, "--out", str(workplace.folder))
    assert told.code == 0, told.err
    recipe = read_recipe(workplace.folder / "recipe.yaml")
    assert recipe.data.columns == {"prompt": "frage", "response": "antwort"}
    check_examples(recipe)
    told = pronk("init", data, "--yes", "--base", str(tiny_base), "--out", str(workplace.folder / "other"))
    assert told.code == 2
    assert "its columns are 'frage' and 'antwort'" in told.err


def test_nobody_answers(pronk: Callable[..., Told], types: Callable[..., None], tmp_path: Path) -> None:
    types()
    told = pronk("init", str(tmp_path))
    assert (told.code, list(tmp_path.iterdir())) == (2, [])
    assert "nobody answers here; answer with --data" in told.err
    told = pronk("init", "--yes", str(tmp_path))
    assert (told.code, "there is no --data" in told.err) == (2, True)


def test_nothing_is_overwritten_without_being_asked(
    workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told], types: Callable[..., None]
) -> None:
    target = workplace.folder / "recipe.yaml"
    target.write_text("mine", encoding="utf-8")
    given = ["init", "--data", str(workplace.folder / "rows.jsonl"), "--base", str(tiny_base), "--out", str(target)]
    told = pronk(*given, "--yes")
    assert (told.code, "exists; add --force" in told.err, target.read_text(encoding="utf-8")) == (2, True, "mine")
    types("")
    told = pronk(*given)  # the default of the question is no
    assert (told.code, "nothing was written" in told.err, target.read_text(encoding="utf-8")) == (0, True, "mine")
    assert pronk(*given, "--yes", "--force").code == 0
    assert read_recipe(target).base == str(tiny_base)


@pytest.mark.parametrize("at", ["data", "base", "writing"])
def test_ctrl_c_leaves_nothing(
    at: str, workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupts(io.StringIO):
        """Typed lines, then Ctrl-C."""

        def readline(self, *_: Any) -> str:
            line = super().readline()
            if not line:
                raise KeyboardInterrupt
            return line

    typed = {"data": [], "base": [str(workplace.folder / "rows.jsonl")]}
    lines = typed.get(at, [*typed["base"], str(tiny_base)])
    monkeypatch.setattr(sys, "stdin", Interrupts("".join(f"{line}\n" for line in lines)))
    told = pronk("init", str(workplace.folder / "new"))
    assert (told.code, "interrupted; nothing was written" in told.err) == (130, True)
    assert not (workplace.folder / "new").exists()


def test_a_base_that_reads_too_little_is_told(
    workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told]
) -> None:
    """Some rows: left out, and said. All rows: refused."""
    rows = [{"text": "word " * (400 if i % 20 == 3 else 20) + str(i), "label": "ab"[i % 2]} for i in range(100)]
    workplace.write_rows(rows, "long.jsonl")
    given = ["init", "--base", str(tiny_base), "--yes", "--force", "--out", str(workplace.folder), "--data"]
    told = pronk(*given, str(workplace.folder / "long.jsonl"))
    assert told.code == 0, told.err
    recipe = read_recipe(workplace.folder / "recipe.yaml")
    assert recipe.data.where == "len(text) < 2001"
    check_examples(recipe)
    workplace.write_rows([{"text": "word " * 400 + str(i), "label": "ab"[i % 2]} for i in range(50)], "all.jsonl")
    told = pronk(*given, str(workplace.folder / "all.jsonl"))
    assert told.code == 2
    assert "longer than the 256 tokens" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "clasify"], "did you mean 'classify'?"),
        (["--out", "recipe.txt"], "a recipe is a file that ends in .yaml"),
        (["a.csv", "--data", "b.csv"], "both name the data"),
        (["here", "--out", "there"], "both say where the recipe goes"),
        (["--data", "none.jsonl"], "there is no such file"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, pronk: Callable[..., Told]) -> None:
    told = pronk("init", *arguments)
    assert (told.code, message in told.err) == (2, True), told.err


def test_a_copied_recipe_is_whole(workplace: Workplace, tiny_base: Path, pronk: Callable[..., Told]) -> None:
    """Data beside the recipe: both may move together."""
    new = workplace.folder / "new"
    new.mkdir()
    shutil.copy(workplace.folder / "rows.jsonl", new)
    assert pronk("init", str(new / "rows.jsonl"), "--base", str(tiny_base), "--yes", "--out", str(new)).code == 0
    shutil.move(new, workplace.folder / "moved")
    check_examples(read_recipe(workplace.folder / "moved" / "recipe.yaml"))

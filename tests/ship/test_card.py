"""The model card: read as the hub's library reads it, rendered as Markdown, its code run; and nothing private in it.

Oracles: huggingface_hub's ModelCard for the front matter, markdown-it for what is shown, pronk's own answers for the
code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from shipped_run import LABELS, RUN, make_study

import pronk.data
import pronk.ship.hub.card as subject
from pronk.ask.asking import open_reader
from pronk.ask.models import find_models
from pronk.data.labels import default_instruction
from pronk.model.hub import Base
from pronk.recipe import Data
from pronk.ship.hub import markup
from pronk.ship.hub.card import card, python_code
from pronk.ship.hub.facts import Facts, Result, Source, gather, public_recipe
from pronk.ship.hub.facts import _sources as facts_of_data
from pronk.ship.hub.terms import Terms, find_terms, licence_of_text

HOSTILE = [
    "<script>alert(1)</script>", "a | b\n| c", "](javascript:alert(1))", "`x` ``y``", "---\nlicense: mit", "**bold**",
    "![i](http://e.vil/x.png)", "&lt;b&gt;", "http://e.vil www.e.vil x@e.vil", "\x1b[31mred\x1b[0m",
    "#1 {{x}} $y$ ~~z~~", "\u202eright to left", '"\'\\', "key: [a, {b: c}]", "!!python/object:os.system x",
    "```\nout\n```",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    return make_study(tmp_path_factory.mktemp("carded") / "place", tiny_base)


def facts_of(run: Path, repository: str = "me/tuned", kind: Any = "adapter") -> Facts:
    model = find_models([str(run)])[0]
    return gather(open_reader(0, model, lambda _: None, {}), kind, repository)


@pytest.fixture(scope="module")
def facts(run: Path) -> Facts:
    return facts_of(run)


def hostile_everywhere(facts: Facts, text: str) -> Facts:
    return replace(
        facts, run=text, base=text, terms=Terms("other", text, "", text), labels=(text, *LABELS), recipe=f"a: {text}\n",
        prompt=text, sources=(Source(text),), chat=[{"role": "user", "content": text}],
    )  # fmt: skip


# --- front matter --------------------------------------------------------------------------------


def test_the_hubs_library_reads_what_was_measured(facts: Facts) -> None:
    read = ModelCard(card(facts)).data
    assert (read.library_name, read.pipeline_tag, read.language) == ("peft", "text-generation", ["en"])
    assert read.license == "unknown"
    assert read.base_model is None  # a folder on this machine is no model of the hub's
    found = {one.metric_name: (one.metric_type, one.metric_value) for one in read.eval_results or []}
    assert found["Accuracy"] == ("accuracy", pytest.approx(10 / 12, abs=1e-5))
    assert {one.dataset_split for one in read.eval_results or []} == {"test"}
    whole = replace(facts, base_id="owner/base", kind="merged", sources=(Source("o/s", "o/s"),), terms=Terms("mit"))
    again = ModelCard(card(whole)).data
    assert (again.base_model, again.base_model_relation, again.datasets) == ("owner/base", "finetune", ["o/s"])
    assert again.license == "mit"


def front_matter_stands(facts: Facts, text: str) -> None:
    read = ModelCard(card(hostile_everywhere(facts, text))).data
    assert read.license == "other"
    assert read.license_name == markup.plain_line(text)
    assert [one.dataset_name for one in read.eval_results or []] == [markup.plain_line(text)] * 4
    assert set(read.to_dict()) <= {
        "library_name", "license", "license_name", "language", "tags", "pipeline_tag", "model-index",
    }  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_changes_the_front_matter(text: str, facts: Facts) -> None:
    front_matter_stands(facts, text)


# --- Markdown ------------------------------------------------------------------------------------


def markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown_as_text(text: str) -> None:
    """In a line and in a cell of a table: nothing but text, and the same text."""
    expected = markup.plain_line(text)
    for page in (f"before {markup.words(text)} after", f"| x |\n| --- |\n| {markup.words(text)} |"):
        tokens = [token for token in markdown().parse(page) if token.type == "inline"]
        inside = tokens[-1].children or []
        assert {child.type for child in inside} <= {"text", "text_special"}
        content = "".join(child.content for child in inside)
        assert content.removeprefix("before ").removesuffix(" after") == expected
    assert not re.search(r"https?://|www\.|@|\$", markup.words(text))  # what the hub makes links and formulas of


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_marks_up_nothing(text: str) -> None:
    shown_as_text(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_holds_its_text(text: str) -> None:
    tokens = markdown().parse(markup.block(f"{text}\nmore", "yaml") + "\n\nbehind")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content.endswith("more\n")
    assert "\x1b" not in tokens[0].content


def headings_stand(facts: Facts, text: str) -> None:
    """The same headings, tables, links and blocks as with harmless texts, and no HTML."""

    def outline(page: str) -> list[tuple[str, str]]:
        body = ModelCard(page).text
        assert "\x1b" not in body
        tokens = markdown().parse(body)
        inside = [child.type for token in tokens for child in token.children or [] if child.type != "text_special"]
        assert not any("html" in kind or kind == "image" for kind in inside)
        return [(token.type, token.tag) for token in tokens] + [(kind, "") for kind in inside if kind != "text"]

    assert outline(card(hostile_everywhere(facts, text))) == outline(card(hostile_everywhere(facts, "harmless")))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_changes_the_page(text: str, facts: Facts) -> None:
    headings_stand(facts, text)


# --- what it says --------------------------------------------------------------------------------


def test_results_have_intervals_and_a_verdict_in_words(facts: Facts) -> None:
    page = card(facts)
    # Wilson's interval of 10 in 12, and of 4 in 12
    assert "| Accuracy | 0.833 [0.552 to 0.953] | 0.333 [0.138 to 0.609] | +0.500 [" in page
    assert "Accuracy 0.833 against 0.333 on 12 test items (difference +0.500, 95% interval" in page
    assert "12 test items from the same source as the training rows; so few leave wide intervals" in page
    assert "It is one of 2 runs of a study." in page
    assert "One seed" in page
    assert "Overfitting was not assessed." in page


def test_a_tie_and_a_run_without_its_study_are_said_so(facts: Facts) -> None:
    first = facts.results[0]
    tie = replace(facts, results=(replace(first, verdict="tie"),))
    assert "cannot be told from these items: Accuracy" in card(tie)
    worse = replace(facts, results=(replace(first, verdict="worse"),))
    assert "It is worse than the base, beyond what chance explains" in card(worse)
    alone = replace(facts, results=(Result("nll", 0.5, None),), rows={})
    assert "Loss (nats per token) is 0.500; it was not compared with its base." in card(alone)
    assert "Nothing was measured of it." in card(replace(facts, results=()))


def test_a_run_that_was_carried_away_has_a_card(run: Path, tmp_path: Path) -> None:
    """Its folder alone: its own items, nothing of base and study."""
    import shutil

    page = card(facts_of(Path(shutil.copytree(run, tmp_path / "somewhere" / "deep" / RUN))))
    assert "Accuracy is 0.833; it was not compared with its base." in page


def test_a_run_that_trained_all_weights_is_of_its_base(run: Path, tiny_base: Path, tmp_path: Path) -> None:
    """The recipe names what it began from, and the licence is that one's."""
    import shutil

    import yaml

    base = Path(shutil.copytree(tiny_base, tmp_path / "began-here"))
    (base / "LICENSE").write_text("MIT License", encoding="utf-8")
    whole = Path(shutil.copytree(run.parents[1], tmp_path / "study")) / "runs" / RUN
    shutil.rmtree(whole / "adapter")
    shutil.copytree(tiny_base, whole / "model")
    recipe = yaml.safe_load((whole / "recipe.yaml").read_text(encoding="utf-8"))
    del recipe["adapter"]
    text = yaml.safe_dump({**recipe, "base": str(base), "full": True})
    (whole / "recipe.yaml").write_text(text, encoding="utf-8")
    found = facts_of(whole, kind="merged")
    assert (found.base, found.rank, found.terms.id) == ("began-here", None, "mit")
    assert found.recipe.startswith("base: began-here\n")


def test_the_sample_rows_are_known_for_pronks_own(facts: Facts, tmp_path: Path) -> None:
    """By what they hold: another file of that name is the author's."""
    ours = Path(pronk.data.__file__).parent / "samples" / "headlines.jsonl"
    copied, other = tmp_path / "headlines.jsonl", tmp_path / "other" / "headlines.jsonl"
    copied.write_bytes(ours.read_bytes())
    other.parent.mkdir()
    other.write_text("{}", encoding="utf-8")
    for file, packaged in ((ours, True), (copied, True), (other, False)):
        (source,) = facts_of_data(Data(source=str(file)))
        assert source.packaged is packaged
        page = card(replace(facts, sources=(source,)))
        assert ("come with pronk" in page) is packaged


def test_quantization_is_a_limit(facts: Facts) -> None:
    assert "Its base was kept in nf4 while it learned" in card(replace(facts, quantize="nf4"))


def test_the_recipe_names_no_folder_and_no_user(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = find_models([str(run)])[0].recipe
    monkeypatch.setenv("HOME", "/srv/people/jane")
    paths = {"adapter.from": "/home/jane/start", "forgetting.text": "/srv/people/jane/general.txt"}
    told = "Read /srv/people/jane/notes and C:\\Users\\jane\\notes. /think"
    recipe = recipe.with_values({**paths, "evaluate": ["forgetting"], "data.instruction": told})
    text = public_recipe(recipe)
    assert "jane" not in text
    assert str(run.parents[2]) not in text
    assert "source: rows.jsonl" in text
    assert "from: start" in text
    assert "Read ~/notes and ~\\notes. /think" in text


# --- licences ------------------------------------------------------------------------------------

LICENCES = {  # what lies beside the weights, and the licence that follows
    "README.md:---\nlicense: apache-2.0\n---\n": "apache-2.0",
    "README.md:---\nlicense: [mit]\n---\n": "mit",
    "README.md:---\nlicense: other\nlicense_name: llama3\n---\n": "llama3",
    "README.md:---\nlicense: llama3.1\n---\n": "llama3.1",
    "README.md:---\nlicense: !!python/object/apply:os.system [x]\n---\n": "unknown",
    "README.md:no front matter": "unknown",
    "LICENSE:                   Apache License\n             Version 2.0, January 2004": "apache-2.0",
    "LICENSE.txt:META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n": "llama3",
    "LICENSE:LLAMA 3.2 COMMUNITY LICENSE AGREEMENT": "llama3.2",
    "LICENSE:LLAMA 2 COMMUNITY LICENSE AGREEMENT": "llama2",
    "LICENSE:All rights are mine": "other",
    "": "unknown",
}


@pytest.mark.parametrize("beside", LICENCES)
def test_a_base_says_its_licence_itself(beside: str, tmp_path: Path) -> None:
    name, _, text = beside.partition(":")
    if name:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert find_terms(Base("base", str(tmp_path), local=True)).id == LICENCES[beside]


@pytest.mark.parametrize(
    ("name", "licence"),
    [("meta-llama/Meta-Llama-3-8B", "llama3"), ("meta-llama/Llama-3.2-1B-Instruct", "llama3.2"),
     ("meta-llama/Llama-2-7b-hf", "llama2"), ("smollm2", "apache-2.0"), ("somebody/Llama-3-8B", "unknown")],
)  # fmt: skip
def test_a_base_that_is_not_here_by_its_name(name: str, licence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronk.ship.hub.terms.hub_answers", lambda: False)
    assert find_terms(Base(name, name, local=False)).id == licence


def test_a_gguf_file_says_its_licence_at_its_beginning(tmp_path: Path) -> None:
    """Written by the gguf library; broken ones say nothing."""
    from gguf import GGUFWriter

    file = tmp_path / "base.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_name("a base")
    writer.add_quantization_version(2)
    writer.add_license("mit")
    writer.add_token_list(["a", "b"])
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        write()
    base = Base(str(file), str(tmp_path), local=True)
    assert find_terms(base).id == "mit"
    whole = file.read_bytes()
    for broken in (whole[:40], b"GGUF", whole.replace(b"general.license", b"general.\xff\xfe\xfdcense"), b"\0" * 99):
        file.write_bytes(broken)
        assert find_terms(base).id == "unknown"


def test_llamas_licences_ask_for_words_and_names(facts: Facts) -> None:
    page = card(replace(facts, terms=licence_of_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "its file LICENSE")))
    assert "\n**Built with Llama**\n" in page
    assert "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright © Meta Platforms, Inc." in page
    assert "its name begins with Llama" in page
    assert Terms("llama3.1").names_well("me/Llama-mine")
    assert not Terms("llama3.1").names_well("llama/mine")
    assert Terms("llama3").names_well("me/llama3-mine")
    assert not Terms("llama3").names_well("me/llama-mine")
    assert Terms("mit").names_well("me/anything")
    assert "Built with" not in card(facts)
    assert "unknown. Ask whoever made the base before you share" in card(facts)


# --- the code ------------------------------------------------------------------------------------


def as_pronk(run: Path) -> str:
    """What pronk itself answers to the example of the card."""
    from rich.console import Console

    from pronk.ask.asking import ask
    from pronk.data.questions import Question
    from pronk.recipe import Generation
    from pronk.ship.hub.facts import EXAMPLE

    model = find_models([str(run)])[0]
    asked = ask([model], [Question(EXAMPLE, "", "")], Generation(max_new_tokens=64), Console(stderr=True))
    return asked.answers[0].text


def printed(code: str, capsys: Any, space: dict[str, Any]) -> str:
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), space)
    text: str = capsys.readouterr().out
    return text.rstrip("\n\ufffd ")  # pronk shows no part of a letter at an answer's end


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("prompt", ["chat", "alpaca"])
def test_the_code_in_the_card_answers_as_pronk_does(
    prompt: str, tiny_base: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks as they stand, where the names in them are found; without the run's instruction it shows."""
    run = make_study(tmp_path / "study", tiny_base, prompt=prompt)
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "tuned").symlink_to(run / "adapter", target_is_directory=True)
    (tmp_path / tiny_base.name).symlink_to(tiny_base, target_is_directory=True)
    reader = open_reader(0, find_models([str(run)])[0], lambda _: None, {})
    reader.prompt.tokenizer.save_pretrained(run / "adapter")
    page = ModelCard(card(gather(reader, "adapter", "me/tuned"))).text
    blocks = [token.content for token in markdown().parse(page) if token.type == "fence" and token.info == "python"]
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    expected = as_pronk(run).rstrip("\ufffd ")
    assert printed(blocks[0], capsys, space) == expected
    exec(compile(blocks[1], "README.md", "exec"), space)
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    instruction = default_instruction(LABELS)
    assert instruction in blocks[0]
    assert printed(blocks[0].replace(instruction, "Hello."), capsys, space) != expected


def test_code_of_a_whole_model_and_of_plain_text_compiles(facts: Facts) -> None:
    for changed in (replace(facts, kind="merged"), replace(facts, chat=None), replace(facts, base="x'); boom('")):
        compile(python_code(changed), "README.md", "exec")


# --- planted faults ------------------------------------------------------------------------------


def no_escapes(patch: pytest.MonkeyPatch) -> None:
    for room in (markup, subject):
        patch.setattr(room, "words", lambda text: text)


def short_fences(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(subject, "block", lambda text, language="": f"```{language}\n{text}\n```")


def written_yaml(patch: pytest.MonkeyPatch) -> None:
    """Front matter put together from strings."""
    patch.setattr(
        subject.yaml, "safe_dump",
        lambda values, **_: "".join(f"{key}: {json.dumps(value) if key == 'model-index' else value}\n"
                                    for key, value in values.items()),
    )  # fmt: skip


FAULTS: list[tuple[Callable[..., None], Callable[[Facts], None]]] = [
    (no_escapes, lambda facts: headings_stand(facts, HOSTILE[0])),
    (no_escapes, lambda _: shown_as_text(HOSTILE[5])),
    (short_fences, lambda facts: headings_stand(facts, HOSTILE[-1])),
    (written_yaml, lambda facts: front_matter_stands(facts, "key: [a, {b: c}]")),
]


@pytest.mark.parametrize(("fault", "law"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_planted_fault_shows(
    fault: Callable[..., None], law: Callable[..., None], facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    law(facts)
    fault(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017, PT011 - YAML that is broken raises its own
        law(facts)


def test_the_tests_know_this_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test of paths is one on every machine."""
    monkeypatch.setenv("HOME", "/srv/people/jane")
    assert os.fspath(Path.home()) == "/srv/people/jane"

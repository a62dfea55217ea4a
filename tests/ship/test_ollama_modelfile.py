"""A Modelfile asks as the run was trained: its template against the run's own, and against Go itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf_models import TEMPLATE, byte_tokenizer

from pronk.errors import PromptError
from pronk.ship.ollama.form import MODELFILE, OllamaReads, go_template, modelfile, ollama_text, pieces_of, read_template
from pronk.ship.ollama.go_template import render
from pronk.tokens.forms import ALPACA_INPUT
from pronk.tokens.prompt import Prompt

Chat = list[dict[str, str]]
LLAMA3_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
QUESTIONS = (
    "How are you?", f"Classify.{ALPACA_INPUT}Sales fell 7 %", "내일 날씨는?\n\n### Inpu", "🙂 " * 400, " \n ",
    "{{ .Role }} \"\"\" '\\n' {% if %}", " two spaces, \n\n a\ttab \n",
)  # fmt: skip


def prompt(form: str) -> Prompt:
    """A run's form over the tiny tokenizer; a template's text, or `alpaca`, llama2 or llama3 with their tokens."""
    tokenizer = byte_tokenizer(bos=form == "alpaca with a bos")
    if form.startswith("alpaca"):
        return Prompt("alpaca", tokenizer)
    if form in ("llama2", "llama3"):
        tokens = ["<s>", "</s>"] if form == "llama2" else LLAMA3_TOKENS
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
        tokenizer.bos_token, tokenizer.eos_token = tokens[0], tokens[-1]
        return Prompt(form, tokenizer)
    tokenizer.chat_template = form
    return Prompt("chat", tokenizer)


def chats() -> list[Chat]:
    found: list[Chat] = [[{"role": "user", "content": text}] for text in QUESTIONS]
    system = {"role": "system", "content": "You answer in one word."}
    turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"},
             {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2"},
             {"role": "user", "content": "Three?"}]  # fmt: skip
    return [*found, [system, turns[0]], turns[:3], turns, [system, *turns]]


DEFAULT_SYSTEM = TEMPLATE.replace(
    "{% for",
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe {{ kind }}.<|im_end|>\n' }}{% endif %}{% for",
    1,
)
NO_SYSTEM = TEMPLATE.replace("{{ '", "{% if message['role'] != 'system' %}{{ '", 1).replace(
    "\n' }}", "\n' }}{% endif %}", 1
)
FORMS = {
    "alpaca": "alpaca", "alpaca with a bos": "alpaca with a bos", "llama2": "llama2", "llama3": "llama3",
    "chatml": TEMPLATE, "a system message of its own": DEFAULT_SYSTEM, "takes no system message": NO_SYSTEM,
}  # fmt: skip


def by_the_run(prompt: Prompt, chat: Chat) -> str:
    text: str = prompt.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return text


@pytest.mark.parametrize("name", FORMS)
def test_a_chat_is_written_as_by_the_run_s_own_template(name: str) -> None:
    one = prompt(FORMS[name])
    template = go_template(pieces_of(one))
    begin = one.tokenizer.bos_token if name == "alpaca with a bos" else ""  # llama.cpp puts it there, once
    for chat in chats():
        assert begin + ollama_text(template, chat) == by_the_run(one, chat)


def test_a_bos_that_both_write_would_come_twice() -> None:
    """The planted fault: BOS left in the template, as in unsloth#10312."""
    one = prompt("alpaca with a bos")
    doubled = replace(pieces_of(one), opening=one.tokenizer.bos_token + pieces_of(one).opening)
    assert one.tokenizer.bos_token + ollama_text(go_template(doubled), chats()[0]) != by_the_run(one, chats()[0])


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_templates_are_rendered_as_by_go() -> None:
    templates = [go_template(pieces_of(prompt(form))) for form in FORMS.values()]
    tasks: list[dict[str, Any]] = []
    for template in templates:
        for chat in chats():
            messages = [{"Role": one["role"], "Content": one["content"]} for one in chat]
            system = "".join(one["content"] for one in chat if one["role"] == "system")
            tasks.append({"Template": template, "Data": {"Messages": messages, "System": system}})
    source = Path(__file__).with_name("go_oracle.go")
    ran = subprocess.run(["go", "run", source], input=json.dumps(tasks), capture_output=True, text=True, check=True)
    assert [render(task["Template"], task["Data"]) for task in tasks] == json.loads(ran.stdout)


def test_a_template_that_counts_messages_is_refused() -> None:
    counting = TEMPLATE.replace(
        "{{ '<|im_start|>'", "{% if loop.index == 3 %}{{ 'Third: ' }}{% endif %}{{ '<|im_start|>'", 1
    )
    with pytest.raises(PromptError, match=r"--to ollama: .*hangs on their number; use --to gguf"):
        pieces_of(prompt(counting))


def test_what_the_interpreter_does_not_know_it_refuses() -> None:
    for unknown in ("{{ .Messages | json }}", "{{ foo }}", "{{ if .System }}x", "{{ end }}", '{{ printf "%d" 3 }}'):
        with pytest.raises(ValueError, match=r"not known|missing|without"):
            render(unknown, {"Messages": [], "System": "s"})


def test_a_modelfile_says_how_the_run_is_asked() -> None:
    from transformers import LlamaConfig

    one = prompt("llama3")
    text = modelfile("model-q8_0.gguf", one, LlamaConfig(max_position_embeddings=131072), "Be brief.")
    assert text.startswith("FROM ./model-q8_0.gguf\n")
    assert read_template(text) == go_template(pieces_of(one))
    assert 'SYSTEM """Be brief."""\n' in text
    assert "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\nPARAMETER num_ctx 8192\n" in text
    assert text.endswith('PARAMETER stop "<|eot_id|>"\n')
    with pytest.raises(PromptError, match="three quotation marks"):
        modelfile("model.gguf", one, LlamaConfig(), 'say """')


def test_the_folder_is_read_from_its_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Model:
        def __init__(self, file: Path) -> None:
            seen.append(file)

        def text_ids(self, text: str, begin: bool) -> list[int]:
            seen.append((text, begin))
            return [1, 2]

    monkeypatch.setattr("pronk.ship.ollama.form.LlamaCpp", Model)
    (tmp_path / MODELFILE).write_text('FROM ./m.gguf\nTEMPLATE """{{ range .Messages }}<{{ .Content }}>{{ end }}"""\n')
    assert OllamaReads(tmp_path).chat_ids([{"role": "user", "content": "hi"}]) == [1, 2]
    assert seen == [tmp_path / "m.gguf", ("<hi>", True)]

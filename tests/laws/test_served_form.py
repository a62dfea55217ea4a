"""Law 5, for servers: the template that an engine renders asks, id by id, as `pronk chat` does.

The oracle is transformers' own rendering and tokenizing of the whole text, which is what vLLM does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_tokenizers import renewed

from pronk.ask.asking import Reader
from pronk.ask.models import Form, Model
from pronk.data.questions import Question
from pronk.errors import PromptError
from pronk.recipe import recipe_of_base
from pronk.ship.serve import template as serve_template
from pronk.ship.serve.template import check_template, served_template
from pronk.tokens.prompt import Prompt

OWN = "{%- for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"  # noqa: E501
SYSTEM = 'Sei "nett" – antworte\\n kurz. 🦙 {{ not jinja }}'
INSTRUCTION = "Is it good or bad?\nOne word; it's {% easy %}."
KINDS = {"smollm2": ("alpaca", "chat", "own"), "llama2": ("alpaca", "llama2", "own"), "llama3": ("alpaca", "llama3")}
CASES = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]


@pytest.fixture
def reader_of(tmp_path: Path) -> Any:
    def make(name: str, kind: str, **form: Any) -> Reader:
        (tmp_path / "own.jinja").write_text(OWN, encoding="utf-8")
        prompt = Prompt(str(tmp_path / "own.jinja") if kind == "own" else kind, renewed(name).tokenizer)
        model = Model("tuned", recipe_of_base(str(tmp_path), []), Form(prompt.kind, **form))
        return Reader(0, model, None, prompt, None)

    return make


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize(("system", "instruction"), [(None, INSTRUCTION), (SYSTEM, None), (SYSTEM, INSTRUCTION)])
def test_the_served_template_asks_as_chat_does(reader_of, name, kind, system, instruction):
    reader = reader_of(name, kind, system=system, instruction=instruction)
    notes = check_template(reader, served_template(reader.model.form, reader.prompt))
    # Llama 2's tokenizer puts a space before each text that it reads apart, as answers are; its own form writes it
    later = ["tuned: from the second question of a conversation on, tokens differ from `pronk chat`'s"]
    assert notes == (later if name == "llama2" and kind != "llama2" else [])


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_goes_on_with_texts_gets_the_text_alone(reader_of, name):
    reader = reader_of(name, "alpaca", plain=True)
    assert check_template(reader, served_template(reader.model.form, reader.prompt)) == []


def test_a_clients_system_message_takes_the_place_of_the_runs_own(reader_of):
    reader = reader_of("smollm2", "chat", system=SYSTEM, instruction=INSTRUCTION)
    other = replace(reader.model.form, system="Be brief.")
    wanted = replace(reader, model=replace(reader.model, form=other)).ids([Question("Hello", "", "")])[0]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    template = served_template(reader.model.form, reader.prompt)
    assert serve_template.rendered_ids(reader.prompt.tokenizer, template, messages) == wanted


FAULTS = {
    "without the instruction": {"form": {"system": SYSTEM}},
    "without the system message": {"form": {"instruction": INSTRUCTION}},
    "the instruction in the place of the input": {"before": f"{INSTRUCTION}\n"},
    "a line break more": {"after": "\n"},
    "a BOS more": {"in_front": "{{ bos_token }}"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_asks_otherwise_is_refused(reader_of, fault):
    reader = reader_of("smollm2", "alpaca", system=SYSTEM, instruction=INSTRUCTION)
    planted: dict[str, Any] = FAULTS[fault]
    form = Form("alpaca", **planted["form"]) if "form" in planted else reader.model.form
    template = served_template(form, reader.prompt)
    if "before" in planted:
        template = template.replace("\\n\\n### Input:\\n", "\\n")
    template = planted.get("in_front", "") + template + planted.get("after", "").replace("\n", "{{ '\n' }}")
    with pytest.raises(PromptError, match="does not ask as `pronk chat` does: at token"):
        check_template(reader, template)

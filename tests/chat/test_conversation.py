"""A conversation: every model answers from its own past as transformers and PEFT would, alone and in company."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from talking import heard, write_run

import pronk
import pronk.ask.conversation
import pronk.ask.room
from pronk.ask.conversation import Conversation
from pronk.ask.models import find_models
from pronk.errors import DataError, OptionError, OutOfMemoryError, PromptError
from pronk.model.load import find_base, load_tokenizer
from pronk.model.sampling import likeliest
from pronk.recipe import Generation

Talk = Callable[..., Conversation]
QUESTIONS = ["What is a llama?", "공장이 문을 닫는다. 왜?", "And then? 🦙"]
# PEFT 0.21 asks a transformers 5.23 model by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def their_model(base: Path, adapter: Path | None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return PeftModel.from_pretrained(model, adapter).eval() if adapter else model


def their_answer(model: Any, form: Path, messages: list[dict[str, str]], new: int) -> list[int]:
    """What `generate` of transformers answers to messages, rendered by the tokenizer saved at `form`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(form)
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    written: list[int] = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    return written[: written.index(2)] if 2 in written else written


def theirs(base: Path, adapter: Path | None, form: Path, messages: list[dict[str, str]], new: int) -> list[int]:
    return their_answer(their_model(base, adapter), form, messages, new)


def generated(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What `pronk generate` answers, as JSON."""
    from pronk.cli import main

    monkeypatch.setattr(sys, "argv", ["pronk", "generate", *arguments, "--json"])
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main()
    return json.loads(capsys.readouterr().out)["answers"]


# --- laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawing", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 7}])
def test_the_first_answer_is_that_of_pronk_generate(
    study: Path,
    talk: Talk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    drawing: dict[str, Any],
) -> None:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in {**drawing, "max_new_tokens": 8}.items()]
    expected = generated(
        str(study), "--base", "--questions", QUESTIONS[1], *options, monkeypatch=monkeypatch, capsys=capsys
    )
    replies = heard(talk(**drawing).say(QUESTIONS[1]))
    assert [(r.model, r.text, r.ended, len(r.ids)) for r in replies] == [
        (one["model"], one["answer"], one["ended"], one["tokens"]) for one in expected
    ]


@pytest.mark.parametrize(("name", "run"), [("base", "rank-2"), ("rank-2", "rank-2"), ("rank-3", "rank-3")])
def test_every_turn_is_transformers_on_the_whole_conversation(
    study: Path, tiny_base: Path, talk: Talk, name: str, run: str
) -> None:
    """Rendered by the tokenizer that is saved beside the adapter, as a server does it."""
    chat = talk()
    place = chat.names.index(name)
    adapter = study / "runs" / run / "adapter"
    model = their_model(tiny_base, None if name == "base" else adapter)
    for turn, question in enumerate(QUESTIONS):
        reply = heard(chat.say(question))[place]
        asked = chat.messages(place)[:-1]
        assert len(asked) == 2 * turn + 1 + (run == "rank-2")  # the system message
        assert their_answer(model, adapter, asked, 8) == reply.ids


@pytest.mark.parametrize("drawing", [{}, {"temperature": 1.5, "seed": 7}])
def test_a_model_in_company_answers_as_alone(talk: Talk, drawing: dict[str, Any]) -> None:
    together = talk(**drawing)
    alone = [talk("rank-2", **drawing), talk("rank-3", **drawing)]
    for question in QUESTIONS:
        replies = heard(together.say(question))
        assert len({tuple(reply.ids) for reply in replies}) == 3
        for chat, reply in zip(alone, replies[1:], strict=True):
            assert heard(chat.say(question)) == [reply]


def test_the_same_question_again_draws_anew_and_greedily_the_same(talk: Talk) -> None:
    for drawing, same in (({}, True), ({"temperature": 2.0}, False)):
        chat = talk("rank-2", **drawing)
        heard(chat.say(QUESTIONS[0]))
        first, second = ([r.ids for r in heard(asked)] for asked in (chat.say(QUESTIONS[1]), chat.retry()))
        assert (first == second) is same
        assert len(chat.turns) == 2


def another_past(patch: pytest.MonkeyPatch) -> None:
    """The first model's answers in everybody's past."""
    original = Conversation._ids

    def faulty(self: Conversation, speaker: Any, turns: Any, question: Any) -> Any:
        own = [pronk.ask.conversation.Turn(turn.question, [turn.replies[0]] * len(turn.replies)) for turn in turns]
        return original(self, speaker, own, question)

    patch.setattr(Conversation, "_ids", faulty)


def no_past(patch: pytest.MonkeyPatch) -> None:
    original = Conversation._ids
    patch.setattr(Conversation, "_ids", lambda self, speaker, _, question: original(self, speaker, [], question))


@pytest.mark.parametrize("fault", [another_past, no_past])
def test_a_fault_shows(
    study: Path, tiny_base: Path, talk: Talk, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None]
) -> None:
    fault(monkeypatch)
    chat = talk()
    heard(chat.say(QUESTIONS[0]))
    reply = heard(chat.say(QUESTIONS[1]))[2]
    adapter = study / "runs" / "rank-3" / "adapter"
    assert theirs(tiny_base, adapter, adapter, chat.messages(2)[:-1], 8) != reply.ids


@pytest.mark.slow
def test_smollm2_in_fp32(smollm2: Any, tmp_path: Path) -> None:
    """Thirty layers, three turns, base and adapter together, against transformers and PEFT."""
    folder, base = tmp_path / "runs" / "tuned", Path(smollm2.location)
    write_run(folder, base, 4, prompt="chat", data={"source": "rows.jsonl", "format": "messages"})
    from safetensors.torch import load_file, save_file

    weights = folder / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor * 0.05 for name, tensor in load_file(weights).items()}, weights)
    chat = Conversation(find_models([str(folder)], True), Generation(max_new_tokens=6), pronk_console())
    models = [their_model(base, None), their_model(base, folder / "adapter")]
    for turn, question in enumerate(QUESTIONS):
        for place, reply in enumerate(chat.ask(question)):
            assert their_answer(models[place], folder / "adapter", chat.messages(place)[:-1], 6) == reply.ids
        assert turn == 0 or chat._groups[0].turns.read < 40 * 2  # and what was read before is not read again


def pronk_console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def test_from_python(study: Path, talk: Talk) -> None:
    chat = pronk.chat(study / "runs" / "rank-2", base=True, max_new_tokens=8, system="Shout.")
    (base, tuned) = chat.ask(QUESTIONS[0])
    assert (base.model, tuned.model) == ("base", "rank-2")
    assert tuned.ids == talk("rank-2", system="Shout.").ask(QUESTIONS[0])[0].ids
    with pytest.raises(OptionError, match="at least one"):
        pronk.chat()
    with pytest.raises(OptionError, match="did you mean temperature"):
        pronk.chat(study, temprature=1)


# --- what is seen while it is written -----------------------------------------------------------


def test_replies_grow_by_whole_characters_and_are_cut_at_a_stop_text(talk: Talk) -> None:
    stream = talk(max_new_tokens=24).say(QUESTIONS[1])
    seen = [[reply.text for reply in replies] for replies in stream]
    assert len(seen) == 24
    for earlier, later in itertools.pairwise(seen):
        assert all(b.startswith(a) for a, b in zip(earlier, later, strict=True))
    whole = seen[-1][1]
    stop = whole[len(whole) // 2 :][:3]
    reply = heard(talk("rank-2", max_new_tokens=24, stop=[stop]).say(QUESTIONS[1]))[0]
    assert (reply.text, reply.ended) == (whole[: whole.index(stop)], "stop")


def test_who_stops_listening_interrupts_and_the_talk_goes_on(study: Path, tiny_base: Path, talk: Talk) -> None:
    chat = talk("rank-2")
    chat.say(QUESTIONS[2]).close()  # type: ignore[attr-defined]
    assert chat.undo().replies[0].ended == "interrupted"
    (reply,) = heard(chat.say(QUESTIONS[0]), tokens=3)
    assert (reply.ended, len(reply.ids)) == ("interrupted", 3)
    (second,) = heard(chat.say(QUESTIONS[1]))
    assert second.ended == "length"
    assert chat.messages(0)[2]["content"] == reply.text
    adapter = study / "runs" / "rank-2" / "adapter"
    assert theirs(tiny_base, adapter, adapter, chat.messages(0)[:-1], 8) == second.ids


def test_an_end_token_ends_a_reply_at_once(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others go on; the one that ended says so while they do."""

    def ends(logits: torch.Tensor, members: torch.Tensor, step: int) -> torch.Tensor:
        token = likeliest(logits, members, step)
        return token.masked_fill((members == 1) & (step == 2), 2)

    monkeypatch.setattr("pronk.ask.conversation._choose", lambda *_: ends)
    steps = [[reply.ended for reply in replies] for replies in talk().say(QUESTIONS[0])]
    assert steps[2] == [None, "end", None]
    assert steps[-1] == ["length", "end", "length"]


# --- what fits ----------------------------------------------------------------------------------


def test_the_oldest_questions_leave_when_the_context_is_full(talk: Talk) -> None:
    """The base reads 256 tokens: what is asked then is what a conversation of the later turns alone would ask."""
    chat = talk("rank-2", max_new_tokens=16)
    forgotten = []
    for turn in range(6):
        (reply,) = heard(chat.say(f"{turn} " + "word " * 30))
        forgotten.append(reply.forgotten)
    assert forgotten == sorted(forgotten)
    assert (forgotten[0], forgotten[-1] > 1) == (0, True)
    *before, last = chat.turns
    later = talk("rank-2", max_new_tokens=16)
    later.turns += before[forgotten[-1] :]
    (again,) = heard(later.say(last.question.text))
    assert (again.ids, again.forgotten) == (reply.ids, 0)
    later.turns[:] = [*before, last]
    heard(later.retry())
    assert later.undo().replies[0].ids == reply.ids
    later.undo()
    assert heard(later.say("Short?"))[0].forgotten < forgotten[-1]  # what was left out fits again


def test_a_question_that_never_fits_changes_nothing(talk: Talk) -> None:
    chat = talk("rank-2", "rank-3")
    heard(chat.say(QUESTIONS[0]))
    for text, words in (("word " * 300, "256 at most"), (" ", "empty"), ("\ud800", "half a character")):
        with pytest.raises(DataError, match=words):
            chat.say(text)
    assert len(chat.turns) == 1


def test_running_out_of_memory_takes_the_question_back(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = talk("rank-2")
    first = heard(chat.say(QUESTIONS[0]))[0].ids
    with monkeypatch.context() as patch:

        def fails(*_: Any, **__: Any) -> Any:
            raise MemoryError

        patch.setattr("pronk.model.turns.write", fails)
        with pytest.raises(OutOfMemoryError, match="answering"):
            heard(chat.say(QUESTIONS[1]))
    assert len(chat.turns) == 1
    assert heard(chat.retry())[0].ids == first


# --- what can be changed -------------------------------------------------------------------------


def test_undo_reset_and_system(talk: Talk) -> None:
    fresh = {system: heard(talk("rank-2", system=system).say(QUESTIONS[0]))[0].ids for system in (None, "Shout.")}
    assert fresh[None] != fresh["Shout."]
    chat = talk("rank-2")
    heard(chat.say(QUESTIONS[1]))
    chat.undo()
    assert heard(chat.say(QUESTIONS[0]))[0].ids == fresh[None]
    heard(chat.say(QUESTIONS[2]))
    chat.reset()
    chat.system = "Shout."
    assert heard(chat.say(QUESTIONS[0]))[0].ids == fresh["Shout."]
    assert chat.messages(0)[0] == {"role": "system", "content": "Shout."}
    chat.system = None
    assert heard(chat.retry())[0].ids == fresh[None]
    for _ in range(2):
        with pytest.raises(OptionError, match="nothing was asked yet"):
            chat.undo() and chat.undo()


def test_a_template_that_takes_no_system_message_says_so(tiny_base: Path, tmp_path: Path) -> None:
    form = tmp_path / "form.jinja"
    form.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
        "{{ m.content + '<|im_end|>' }}{% endfor %}", encoding="utf-8",
    )  # fmt: skip
    write_run(tmp_path / "run", tiny_base, 2, prompt=str(form), data={"source": "a.jsonl", "format": "messages"})
    models = find_models([str(tmp_path / "run")])
    with pytest.raises(PromptError, match="no system role here"):
        Conversation(models, Generation(), pronk_console(), "Be brief.")
    chat = Conversation(models, Generation(max_new_tokens=2), pronk_console())
    with pytest.raises(PromptError, match="no system role here"):
        chat.system = "Be brief."
    assert chat.system is None
    assert heard(chat.say("Hello"))[0].ended == "length"


def test_plain_text_is_gone_on_with(tiny_base: Path, tmp_path: Path) -> None:
    """Nothing stands around it, and nothing of before is seen."""
    write_run(tmp_path / "run", tiny_base, 2, prompt="alpaca", data={"source": "a.txt", "format": "text"})
    chat = Conversation(find_models([str(tmp_path / "run")]), Generation(max_new_tokens=6), pronk_console())
    first, second = (heard(chat.say("Once upon a time"))[0].ids for _ in range(2))
    assert first == second
    ids = load_tokenizer(find_base(str(tiny_base)))("Once upon a time").input_ids
    assert chat._ids(chat._speakers[0], [], chat.turns[0].question) == ids
    with pytest.raises(OptionError, match="run goes on with texts"):
        chat.system = "Be brief."


# --- several bases, little memory, no GPU ---------------------------------------------------------


def test_two_bases_answer_side_by_side(study: Path, make_tiny_base: Any, talk: Talk) -> None:
    """Token by token in turn, each as alone."""
    other = make_tiny_base("other", 1)
    models = find_models([str(other), str(study / "runs" / "rank-2")])
    chat = Conversation(models, Generation(max_new_tokens=8), pronk_console())
    grown = [[len(reply.ids) for reply in replies] for replies in chat.say(QUESTIONS[0])]
    assert grown[:2] == [[1, 1], [2, 2]]
    assert chat.turns[0].replies[1].ids == heard(talk("rank-2").say(QUESTIONS[0]))[0].ids


def test_bases_that_do_not_fit_together_are_refused(
    study: Path, make_tiny_base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = find_models([str(make_tiny_base("third", 2)), str(study / "runs" / "rank-2")])
    size = pronk.ask.room.weight_bytes(find_base(models[0].recipe.base), models[0].recipe)
    monkeypatch.setattr("pronk.model.memory.sizes.machine_memory", lambda: (2**40, int(1.5 * size)))
    monkeypatch.setattr("pronk.model.load.load_model", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(OutOfMemoryError, match=r"third .* GiB, .*tiny .* GiB.*runs over one base"):
        Conversation(models, Generation(), pronk_console())


def test_weights_are_counted_as_they_are_kept(study: Path) -> None:
    from transformers import AutoModelForCausalLM

    (model,) = find_models([str(study / "runs" / "rank-2")])
    base = find_base(model.recipe.base)
    whole = AutoModelForCausalLM.from_pretrained(base.location, dtype=torch.float32)
    assert pronk.ask.room.weight_bytes(base, model.recipe) == sum(p.nbytes for p in whole.parameters())
    halved = model.recipe.model_copy(update={"quantize": "int8"})
    assert pronk.ask.room.weight_bytes(base, halved) < pronk.ask.room.weight_bytes(base, model.recipe)


def test_a_long_wait_is_said_before_it_begins(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = find_models([str(study / "runs" / "rank-2")])
    base = find_base(model.recipe.base)
    assert pronk.ask.room.patience(base, model.recipe, 256) is None
    monkeypatch.setattr(pronk.ask.room, "weight_bytes", lambda *_: 32e9)
    monkeypatch.setattr(pronk.ask.room, "_bytes_per_second", lambda: 10e9)
    said = pronk.ask.room.patience(base, model.recipe, 256) or ""
    assert "30 GiB of weights" in said
    assert "about 3 s for a token, 14 minutes for an answer of 256" in said

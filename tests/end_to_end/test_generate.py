"""`pronk generate`: runs and their base answer side by side, as transformers and PEFT do; and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from safetensors.torch import load_file, save_file

import pronk.ask.asking as pronk_asking
import pronk.ask.models as pronk_models
from pronk.ask.models import Form
from pronk.data.labels import default_instruction
from pronk.model.saved import SavedAdapter

Pronk = Callable[..., Told]
NAMES = ["rank-2", "rank-4"]
SYSTEM = "Be brief."
TEXTS = ["Sales rose by 12.", "공장이 문을 닫는다."]
NEW = 8
# PEFT 0.21 asks a transformers 5.23 model by an old name
PEFT_WARNS = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, finish: Any) -> Path:
    """Two runs over the tiny base, in the base's own chat form, with a system message. Their adapters are then
    made large and random: a tiny model of random weights would repeat one token, whatever is wrong."""
    place = Workplace(tmp_path_factory.mktemp("asked"), tiny_base)
    place.recipe |= {"prompt": "chat", "study": {"adapter.rank": [2, 4]}}
    place.recipe["data"]["system"] = SYSTEM
    place.recipe["train"] |= {"max_steps": 6, "learning_rate": 0.05}
    del place.recipe["train"]["epochs"]
    finish(place)
    for number, file in enumerate(sorted(place.out.glob("runs/*/adapter/*.safetensors"))):
        draw = torch.Generator().manual_seed(number)
        state = {name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}
        save_file(state, file)
        save_file(state, file.parents[1] / "checkpoints" / "step-6" / file.name)
    return place.out


def asked(*texts: str) -> list[str]:
    return [part for text in texts for part in ("--questions", text)]


def answers(told: Told) -> dict[tuple[str, str], dict[str, Any]]:
    assert told.code == 0, told.err
    return {(one["model"], one["question"]): one for one in json.loads(told.out)["answers"]}


# --- the oracle: transformers and PEFT, one question at a time ----------------------------------


def theirs(base: Path, adapter: Path | None, text: str, new: int, system: str = SYSTEM) -> tuple[str, list[int]]:
    """What `generate` answers to the conversation that a server would render with the saved tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter or base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    instruction = default_instruction(["negative", "neutral", "positive"])
    messages = [{"role": "user", "content": f"{instruction}\n\n{text}"}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    return tokenizer.decode(written, skip_special_tokens=True), written


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_base_and_runs_answer_as_transformers_and_peft_do(study: Path, tiny_base: Path, pronk: Pronk) -> None:
    """In the form of their training, system message and instruction included, in one batch."""
    found = answers(pronk("generate", str(study), "--base", *asked(*TEXTS), "--max-new-tokens", str(NEW), "--json"))
    assert list(found) == [(model, text) for text in TEXTS for model in ("base", *NAMES)]
    for model in ("base", *NAMES):
        adapter = None if model == "base" else study / "runs" / model / "adapter"
        for text in TEXTS:
            expected, ids = theirs(tiny_base, adapter, text, NEW)
            assert found[model, text]["answer"] == expected.rstrip("\ufffd")
            assert found[model, text]["ended"] == ("end" if 2 in ids else "length")
            assert found[model, text]["tokens"] == len(ids) - (2 in ids)
    assert len({one["answer"] for one in found.values()}) > 3


@pytest.mark.parametrize("drawing", [[], ["--temperature", "1.5", "--top-k", "50", "--top-p", "0.9", "--seed", "7"]])
def test_alone_and_in_company_the_answers_are_the_same(study: Path, pronk: Pronk, drawing: list[str]) -> None:
    more = ["--max-new-tokens", str(NEW), "--json", *drawing]
    together = answers(pronk("generate", str(study), "--base", *asked(*TEXTS), *more))
    for name in NAMES:
        for text in TEXTS:
            alone = answers(pronk("generate", str(study / "runs" / name), *asked(text), *more))
            assert alone == {(name, text): together[name, text]}


def test_seed_and_temperature_change_what_is_drawn(study: Path, pronk: Pronk) -> None:
    def drawn(*more: str) -> set[str]:
        told = pronk("generate", str(study), *asked(*TEXTS), "--max-new-tokens", str(NEW), "--json", *more)
        return {one["answer"] for one in answers(told).values()}

    greedy, one, other = drawn(), drawn("--temperature", "2"), drawn("--temperature", "2", "--seed", "1")
    assert drawn("--temperature", "2", "--seed", "42") == one
    assert drawn("--greedy") == drawn("--temperature", "0") == greedy
    assert drawn("--temperature", "2", "--top-k", "1") == greedy
    assert len(greedy | one | other) == len(greedy) + len(one) + len(other)


def test_a_stop_text_cuts_also_where_it_straddles_tokens(study: Path, pronk: Pronk) -> None:
    arguments = ["generate", str(study / "runs" / "rank-4"), *asked(TEXTS[0]), "--max-new-tokens", "20", "--json"]
    (whole,) = answers(pronk(*arguments)).values()
    text, tokens = whole["answer"], whole["tokens"]
    place = len(text) // 2
    stop = text[place : place + 7]
    (cut,) = answers(pronk(*arguments, "--stop", stop, "--stop", "never written")).values()
    assert cut["answer"] == text[: text.index(stop)]
    assert cut["ended"] == "stop"
    assert cut["tokens"] < tokens


@pytest.mark.parametrize("place", ["adapter", "checkpoints/step-6"])
def test_an_adapter_s_folder_is_its_run(study: Path, pronk: Pronk, place: str) -> None:
    run = study / "runs" / "rank-2"
    more = [*asked(*TEXTS), "--max-new-tokens", str(NEW), "--json"]
    by_run, by_folder = (answers(pronk("generate", str(target), *more)) for target in (run, run / place))
    assert [one["answer"] for one in by_folder.values()] == [one["answer"] for one in by_run.values()]


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_an_adapter_from_elsewhere_is_asked_as_its_tokenizer_says(
    study: Path, tmp_path: Path, tiny_base: Path, pronk: Pronk
) -> None:
    """Away from its run only PEFT's files are left: the base is found by its name, the form is the tokenizer's."""
    shutil.copytree(study / "runs" / "rank-4" / "adapter", tmp_path / "theirs")
    question = f"{default_instruction(['negative', 'neutral', 'positive'])}\n\n{TEXTS[0]}"
    told = pronk("generate", str(tmp_path / "theirs"), *asked(question), "--max-new-tokens", str(NEW), "--json")
    (found,) = answers(told).values()
    assert found["model"] == "theirs"
    assert found["answer"] == theirs(tiny_base, tmp_path / "theirs", TEXTS[0], NEW, system="")[0].rstrip("\ufffd")


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_rslora_scales_as_peft_does(
    study: Path, tmp_path: Path, tiny_base: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(study / "runs" / "rank-4" / "adapter", tmp_path / "theirs")
    file = tmp_path / "theirs" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_rslora": True}))
    question = f"{default_instruction(['negative', 'neutral', 'positive'])}\n\n{TEXTS[0]}"
    arguments = ["generate", str(tmp_path / "theirs"), *asked(question), "--max-new-tokens", str(NEW), "--json"]
    expected = theirs(tiny_base, tmp_path / "theirs", TEXTS[0], NEW, system="")[0].rstrip("\ufffd")
    assert answers(pronk(*arguments))["theirs", question]["answer"] == expected
    rslora_ignored(monkeypatch)
    assert answers(pronk(*arguments))["theirs", question]["answer"] != expected, "the planted fault shows"


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_a_whole_trained_model_answers_beside_its_base(tmp_path: Path, pronk: Pronk, tiny_base: Path) -> None:
    """Full fine-tuning leaves a model in place of an adapter: it is asked in its run's form, and is its own base."""
    place = Workplace(tmp_path, tiny_base)
    place.recipe |= {"full": True, "prompt": "chat"}
    place.recipe["data"]["system"] = SYSTEM
    del place.recipe["adapter"]
    assert pronk(*place.arguments()).code == 0
    run = place.out / "runs" / "tuned"
    found = answers(pronk("generate", str(run), "--base", *asked(*TEXTS), "--max-new-tokens", str(NEW), "--json"))
    assert list(found) == [(model, text) for text in TEXTS for model in ("base", "tuned")]
    for model, folder in (("base", tiny_base), ("tuned", run / "model")):
        assert found[model, TEXTS[0]]["answer"] == theirs(folder, None, TEXTS[0], NEW)[0].rstrip("\ufffd")


def test_a_quantized_base_is_quantized_again(study: Path, pronk: Pronk) -> None:
    """A run's recipe says how its base lay in memory; here it is told to do so."""
    arguments = ["generate", str(study), "--base", *asked(*TEXTS), "--temperature", "1", "--json"]
    plain, nf4 = (
        answers(pronk(*arguments, "--max-new-tokens", str(NEW), *more)) for more in ([], ["--set", "quantize=nf4"])
    )
    assert plain.keys() == nf4.keys()
    assert plain != nf4


def test_a_base_is_asked_in_its_own_form_or_the_one_named(tiny_base: Path, pronk: Pronk) -> None:
    arguments = ["generate", str(tiny_base), *asked(*TEXTS), "--temperature", "1", "--json", "--max-new-tokens", "4"]
    chat, own, alpaca = (
        answers(pronk(*arguments, *form)) for form in (["--prompt", "chat"], [], ["--prompt", "alpaca"])
    )
    assert own == chat != alpaca
    assert {model for model, _ in own} == {"tiny"}


def test_two_bases_one_after_another(study: Path, make_tiny_base: Any, pronk: Pronk) -> None:
    other = make_tiny_base("other", 1)
    found = answers(
        pronk("generate", str(other), str(study / "runs" / "rank-2"), *asked(*TEXTS), "--max-new-tokens", "4", "--json")
    )
    assert list(found) == [(model, text) for text in TEXTS for model in ("other", "rank-2")]


# --- what people see ---------------------------------------------------------------------------


def test_the_terminal_shows_questions_and_answers_within_80_columns(study: Path, pronk: Pronk, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    told = pronk("generate", str(study), "--base", "--max-new-tokens", "12", "--out", str(out))
    assert told.code == 0, told.err
    assert "1. Explain in three sentences" in told.out
    assert "6. A train leaves at 9:40" in told.out
    assert told.out.count("\n  base") == told.out.count("\n  rank-4") == 6
    assert "(never ended: cut at 12 tokens)" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 18
    assert lines[0].keys() == {"question", "input", "model", "answer", "ended", "tokens"}


def test_korean_samples(study: Path, pronk: Pronk) -> None:
    told = pronk("generate", str(study / "runs" / "rank-2"), *asked("korean"), "--max-new-tokens", "2")
    assert told.code == 0, told.err
    assert "6. 기차가 9시 40분에" in told.out


def test_help_names_the_defaults_of_the_schema(pronk: Pronk) -> None:
    from pronk.recipe import Generation

    shown = " ".join(pronk("generate", "--help").out.split())
    for key, field in Generation.model_fields.items():
        option = shown[shown.index(f"--{key.replace('_', '-')} ") :]
        default = "(all)" if field.default is None else f"({field.default})"
        assert (
            field.default == [] or f"[default: {default}]" in option.partition(" --")[0] or default in option[:160]
        ), key


# --- what can go wrong -------------------------------------------------------------------------

WRONG: dict[str, tuple[list[str], list[str]]] = {
    "no such base": (["./nowhere"], ["./nowhere: there is no such folder", "base"]),
    "no such run": (["{study}/runs/rank-9"], ["runs/rank-9: there is no such folder", "expected a run"]),
    "no such folder": (["owner/"], ["owner/: there is no such folder"]),
    "a folder of nothing": (["{tmp}"], ["this folder is no run (recipe.yaml), no study", "no adapter"]),
    "a run without weights": (
        ["{study}/runs/failed"],
        ["no weights (neither adapter/ nor model/)", "loss is not finite"],
    ),
    "the measured base": (["{study}/runs/base"], ["the study's base as it was measured", "--base"]),
    "a run twice": (["{run}", "{run}"], ["rank-2 is named twice"]),
    "base without a run": (["{base}", "--base"], ["--base adds the base of a run"]),
    "prompt for a run": (["{run}", "--prompt", "alpaca"], ["--prompt is for bases"]),
    "unknown prompt": (["{base}", "--prompt", "alpacca"], ["prompt", "'alpacca'", "did you mean alpaca?"]),
    "a form whose tokens are missing": (["{base}", "--prompt", "llama3"], ["llama3 needs tokens"]),
    "empty question": (["{run}", "--questions", "  "], ["question 1 is empty"]),
    "too long a question": (["{run}", "--questions", "word " * 300], ["question 1: for rank-2", "256", "shorten"]),
    "no such file": (["{run}", "--questions", "none.jsonl"], ["none.jsonl: there is no such file of questions"]),
    "a file of another kind": (["{run}", "--questions", "{run}/recipe.yaml"], ["this is a file", ".txt or .jsonl"]),
    "temperature below 0": (["{run}", "--temperature", "-1"], ["temperature", "-1", "greater than or equal to 0"]),
    "top_p of 0": (["{run}", "--temperature", "1", "--top-p", "0"], ["top_p", "greater than 0"]),
    "top_p above 1": (["{run}", "--temperature", "1", "--top-p", "1.5"], ["top_p", "1.5", "less than or equal to 1"]),
    "top_k of 0": (["{run}", "--temperature", "1", "--top-k", "0"], ["top_k", "found 0"]),
    "no new tokens": (["{run}", "--max-new-tokens", "0"], ["max_new_tokens", "found 0"]),
    "top_p for greedy": (["{run}", "--top-p", "0.9"], ["top_p", "nothing is drawn", "add a temperature"]),
    "a seed for greedy": (["{run}", "--seed", "1"], ["seed", "nothing is drawn"]),
    "greedy with temperature": (
        ["{run}", "--greedy", "--temperature", "1"],
        ["--greedy and --temperature 1 contradict"],
    ),
    "empty stop": (["{run}", "--stop", ""], ["stop: an empty text"]),
    "unknown key": (["{run}", "--set", "train.devise=cpu"], ["train.devise", "did you mean train.device?"]),
    "out is no jsonl": (["{run}", "--out", "{tmp}/answers.txt"], ["answers.txt", ".jsonl"]),
    "out exists": (["{run}", "--out", "{tmp}/taken.jsonl"], ["taken.jsonl", "exists already"]),
    "adapter of another base": (["{tmp}/foreign"], ["foreign", "this adapter cannot be used", "of another base"]),
    "adapter of another kind": (["{tmp}/dora"], ["use_dora", "pronk does not do"]),
    "adapter of a base that was changed": (["{tmp}/pissa"], ["pissa", "weights were changed first"]),
    "adapter without one layer": (["{tmp}/torn"], ["no weights for model.layers.1.self_attn.q_proj"]),
    "adapter without weights": (["{tmp}/weightless"], ["has no adapter_model.safetensors"]),
    "adapter that is not finite": (
        ["{tmp}/nan"],
        ["nan: this adapter cannot be used: it holds weights that are not finite"],
    ),
}


def spoil(study: Path, tmp: Path) -> None:
    """Folders that are wrong in one way each."""
    failed = study / "runs" / "failed"
    failed.mkdir(exist_ok=True)
    shutil.copy(study / "runs" / "rank-2" / "recipe.yaml", failed)
    whole = json.loads((study / "study.json").read_text())
    if not any(run["name"] == "failed" for run in whole["runs"]):
        whole["runs"].append({"name": "failed", "status": "failed", "message": "loss is not finite", "baseline": False})
        (study / "study.json").write_text(json.dumps(whole))
    (tmp / "taken.jsonl").write_text("{}\n")
    for name in ("foreign", "dora", "pissa", "torn", "weightless", "nan"):
        shutil.copytree(study / "runs" / "rank-2" / "adapter", tmp / name)
    config = json.loads((tmp / "dora" / "adapter_config.json").read_text())
    (tmp / "dora" / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    (tmp / "pissa" / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa"}))
    (tmp / "weightless" / "adapter_model.safetensors").unlink()
    weights = load_file(tmp / "nan" / "adapter_model.safetensors")
    torn = {name: tensor for name, tensor in weights.items() if "layers.1.self_attn.q_proj" not in name}
    save_file(torn, tmp / "torn" / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, tmp / "nan" / "adapter_model.safetensors")
    wide = {name: torch.cat([t, t], dim=1) if "lora_A" in name else t for name, t in weights.items()}
    save_file(wide, tmp / "foreign" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def spoilt(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("spoilt")
    spoil(study, tmp)
    return tmp


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_message(
    study: Path, spoilt: Path, tiny_base: Path, pronk: Pronk, case: str
) -> None:
    arguments, fragments = WRONG[case]
    places = {"study": study, "run": study / "runs" / "rank-2", "tmp": spoilt, "base": tiny_base}
    told = pronk("generate", *(part.format(**places) for part in arguments))
    assert told.code == 2, told.err
    assert "Traceback" not in told.err
    assert told.err.count("pronk: ") == 1
    assert told.out == ""
    message = " ".join(told.err.split())
    for fragment in fragments:
        assert fragment in message, message


@pytest.mark.parametrize("verb", ["generate", "inspect"])
def test_what_lies_in_a_folder_that_is_here_is_not_sought_on_the_hub(
    verb: str, pronk: Pronk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pronk.model.hub.hub_answers", lambda: pytest.fail("the hub was asked"))
    (tmp_path / "o").mkdir()
    told = pronk(verb, "o/nothere")
    assert told.code == 2
    assert "o/nothere: there is no such folder" in told.err
    assert "a folder o is here" in " ".join(told.err.split())
    pronk_models.refuse_missing("owner/model", "")  # a hub id
    pronk_models.refuse_missing("smollm2", "")


def test_an_adapter_of_another_base_is_found_before_the_weights_are_loaded(
    spoilt: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronk.model.load.load_model", lambda *_: pytest.fail("weights were loaded"))
    assert "of another base" in pronk("generate", str(spoilt / "foreign"), *asked(TEXTS[0])).err


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C while answers are written, at a known step."""
    original, seen = pronk_asking._Watcher.__call__, [0]

    def pressed(self: Any, *args: Any) -> list[bool]:
        seen[0] += 1
        if seen[0] == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    monkeypatch.setattr(pronk_asking._Watcher, "__call__", pressed)


def test_ctrl_c_keeps_what_was_answered(
    study: Path, tmp_path: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers so far are shown and written, marked as interrupted."""
    interrupt_after(monkeypatch, 5)
    out = tmp_path / "answers.jsonl"
    told = pronk("generate", str(study / "runs" / "rank-4"), *asked(*TEXTS), "--out", str(out))
    assert told.code == 130
    assert "2 answers are kept" in told.err
    assert "(interrupted after 5 tokens)" in told.out
    assert [json.loads(line)["ended"] for line in out.read_text(encoding="utf-8").splitlines()] == ["interrupted"] * 2


def test_ctrl_c_before_any_answer(study: Path, tmp_path: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pronk_asking, "_attached", lambda *_: os.kill(os.getpid(), signal.SIGINT) or (None, [0]))
    told = pronk("generate", str(study / "runs" / "rank-4"), *asked(*TEXTS), "--out", str(tmp_path / "a.jsonl"))
    assert told.code == 130
    assert "nothing was answered" in told.err
    assert not (tmp_path / "a.jsonl").exists()


# --- planted faults ----------------------------------------------------------------------------


def no_system(patch: pytest.MonkeyPatch) -> None:
    original = Form.messages
    patch.setattr(Form, "messages", lambda self, question: original(replace(self, system=None), question))


def no_instruction(patch: pytest.MonkeyPatch) -> None:
    original = Form.messages
    patch.setattr(Form, "messages", lambda self, question: original(replace(self, instruction=None), question))


def another_form(patch: pytest.MonkeyPatch) -> None:
    original = pronk_asking.prompt_of
    patch.setattr(pronk_asking, "prompt_of", lambda base, form: original(base, replace(form, kind="alpaca")))


def slots_mixed_up(patch: pytest.MonkeyPatch) -> None:
    original = pronk_asking._attached

    def faulty(*args: Any) -> Any:
        adapter, slots = original(*args)
        return adapter, slots[::-1]

    patch.setattr(pronk_asking, "_attached", faulty)


def changed(saved: SavedAdapter, **shape: Any) -> SavedAdapter:
    return replace(saved, shape=replace(saved.shape, **shape))


def alpha_ignored(patch: pytest.MonkeyPatch) -> None:
    original = pronk_models.read_adapter
    patch.setattr(pronk_models, "read_adapter", lambda folder: changed(original(folder), alpha=1.0))


def rslora_ignored(patch: pytest.MonkeyPatch) -> None:
    original = pronk_models.read_adapter
    patch.setattr(pronk_models, "read_adapter", lambda folder: changed(original(folder), use_rslora=False))


@pytest.mark.parametrize("fault", [no_system, no_instruction, another_form, slots_mixed_up, alpha_ignored])
@pytest.mark.filterwarnings(PEFT_WARNS)
def test_a_fault_shows(
    study: Path, tiny_base: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None]
) -> None:
    fault(monkeypatch)
    found = answers(pronk("generate", str(study), *asked(TEXTS[0]), "--max-new-tokens", str(NEW), "--json"))
    expected = theirs(tiny_base, study / "runs" / "rank-4" / "adapter", TEXTS[0], NEW)[0].rstrip("\ufffd")
    assert found["rank-4", TEXTS[0]]["answer"] != expected


def test_a_stop_text_sought_in_single_tokens_shows(study: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that reads the last token alone lets the answer run on behind a stop text that straddles tokens."""
    arguments = ["generate", str(study / "runs" / "rank-4"), *asked(TEXTS[0]), "--max-new-tokens", "20", "--json"]
    (whole,) = answers(pronk(*arguments)).values()
    stop = whole["answer"][5:17]
    assert stop in whole["answer"]
    original = pronk_asking._decoded
    monkeypatch.setattr(pronk_asking, "_decoded", lambda prompt, ids: original(prompt, [one[-1:] for one in ids]))
    (cut,) = answers(pronk(*arguments, "--stop", stop)).values()
    assert cut["tokens"] == whole["tokens"]

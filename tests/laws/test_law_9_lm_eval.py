"""Law 9 against the field's own judge: on MMLU's questions with the same prompts, `choice` gives the log-likelihoods
of lm-evaluation-harness, and the same decisions by acc and acc_norm.

lm-eval counts spaces and line breaks at a prompt's end to the choices, whose scores then all hold them as well. Where a
prompt of pronk's ends with a line break, as Alpaca's does, its scores are higher by one number for each question: `acc`
is the same. Where the line break is handed over as a part of the choices, so are scores and acc_norm.

lm_eval is in no environment of pronk's, so its figures on SmolLM2 lie in golden_lm_eval.json (lm_eval_side.py says how
they were made); where it is installed, it is asked itself, on a small model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval_side import MMLU, Judged, judged, mmlu_questions

from pronk.evaluate import choice
from pronk.evaluate.choice import ChosenItem, choose, chosen_items
from pronk.model.adapter import attach
from pronk.model.hub import Base
from pronk.model.load import find_base, load_model, load_tokenizer
from pronk.tokens.pack import BASE_SLOT
from pronk.tokens.prompt import Prompt

FORMS = ("listed", "letters", "unlisted")
TOLERANCE = 2e-3  # nats of a whole choice in fp32, thirty layers: sums in another order
GOLDEN = Path(__file__).parent / "golden_lm_eval.json"

Questions = Sequence[tuple[str, Sequence[str], str]]


def ours(base: Base, questions: Questions, moved: bool = True) -> list[ChosenItem]:
    """pronk's scores of the base on the questions, in fp32. moved: the line break at a prompt's end to the choices."""
    model = load_model(base, torch.float32, torch.device("cpu"))
    prompt = Prompt("alpaca", load_tokenizer(base))
    asked = [text.rstrip() if moved else text for text, _, _ in questions]
    ends = [text[len(one) :] for one, (text, _, _) in zip(asked, questions, strict=True)]
    ids = prompt.tokenizer(asked, add_special_tokens=False).input_ids
    choices = [one for _, one, _ in questions]
    said = [[i[:-1] for i in prompt.answer_ids([end + c for c in one])] for end, one in zip(ends, choices, strict=True)]
    scores = choose(model, attach(model, []), ids, said, [BASE_SLOT], 4096)
    return chosen_items(scores[BASE_SLOT], [right for _, _, right in questions], choices)


def check(found: Sequence[ChosenItem], expected: Sequence[Judged], tolerance: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=tolerance)
        assert (one.predicted == one.answer) == bool(other.acc)
        assert (one.predicted_normalised == one.answer) == bool(other.acc_norm)


@pytest.fixture(scope="module")
def mmlu() -> None:
    if not MMLU.is_file():
        pytest.skip(f"the data is not here: {MMLU}")


@pytest.mark.slow
@pytest.mark.usefixtures("mmlu", "smollm2")
def test_smollm2_scores_and_decides_as_lm_eval_did() -> None:
    base = find_base("smollm2")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    asked = {form: mmlu_questions(load_tokenizer(base), form) for form in FORMS}
    found = ours(base, [one for form in FORMS for one in asked[form]])
    for form in FORMS:
        part, found = found[: len(asked[form])], found[len(asked[form]) :]
        check(part, [Judged(**one) for one in golden[form]], TOLERANCE)


def test_the_golden_figures_tell_the_two_ways_of_choosing_apart() -> None:
    """Else a normalisation that does nothing, or by the token, would pass."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert [len(golden[form]) for form in FORMS] == [8, 8, 8]
    differing = [one for form in FORMS for one in golden[form] if one["acc"] != one["acc_norm"]]
    assert differing
    assert all(one["acc"] == one["acc_norm"] for one in golden["letters"])


@pytest.fixture(scope="module")
def both_sides(mmlu: None, tiny_base: Path) -> tuple[Base, Any, list[Judged]]:
    """A small random model, the questions, and what lm-eval says of them."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (tests/laws/lm_eval_side.py says how)")
    from transformers import AutoModelForCausalLM

    base = find_base(str(tiny_base))
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    questions = [one for form in FORMS for one in mmlu_questions(load_tokenizer(base), form)]
    return base, questions, judged(model, load_tokenizer(base), questions)


@pytest.mark.filterwarnings("default")  # lm-eval's own
def test_lm_eval_itself_agrees(both_sides: tuple[Base, Any, list[Judged]]) -> None:
    base, questions, expected = both_sides
    check(ours(base, questions), expected, 1e-3)


@pytest.mark.filterwarnings("default")
def test_a_line_break_at_the_end_of_the_prompt_is_one_number_for_each_question(
    both_sides: tuple[Base, Any, list[Judged]],
) -> None:
    base, questions, expected = both_sides
    for one, other in zip(ours(base, questions, moved=False), expected, strict=True):
        apart = np.array(one.scores) - np.array(other.scores)
        assert np.ptp(apart) < 1e-3
        assert apart[0] > 1  # a random model does not expect it
        assert (one.predicted == one.answer) == bool(other.acc)


@pytest.mark.filterwarnings("default")
def test_an_end_token_too_many_would_show(
    both_sides: tuple[Base, Any, list[Judged]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, questions, expected = both_sides
    original = choice.choice_example
    monkeypatch.setattr(choice, "choice_example", lambda prompt, ids: original(prompt, [*ids, 2]))
    with pytest.raises(AssertionError):
        check(ours(base, questions), expected, 1e-3)

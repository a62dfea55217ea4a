"""`pronk check` and the gate of `pronk run`: exit codes, what is allowed, what reaches the terminal, planted faults."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import BROKEN, LONG, Case, Check, by_name, change, chats, pairs

from pronk.doctor import checking
from pronk.errors import DataError, RecipeError
from pronk.recipe import read_recipe
from pronk.recipe.checks import CHECKS, NOT_ALLOWED
from pronk.tokens.check.lengths import keeping
from pronk.tokens.check.texts import MARKERS
from pronk.tokens.example import Example, Turn, make_example

Told = tuple[int, str, str]
CUT = "a tenth of the answers is cut"


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,  # noqa: ARG001
) -> Callable[..., Told]:
    """`pronk ARGUMENTS` in this process: exit code, stdout, stderr."""

    def pronk(*arguments: str | Path) -> Told:
        from pronk.cli import main

        monkeypatch.setattr(sys, "argv", ["pronk", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return code, *capsys.readouterr()

    return pronk


@pytest.fixture
def write(bases: Callable[[str], Path], tmp_path: Path) -> Callable[[Case], Path]:
    return lambda case: case.write(tmp_path, bases(case.base))


# --- the verb ---------------------------------------------------------------------------------------


def test_exit_codes(call: Callable[..., Told], write: Callable[[Case], Path]) -> None:
    path = write(BROKEN[CUT])
    assert call("check", path)[0] == 1
    assert call("check", path, "--set", "train.max_length=250")[0] == 0
    assert call("check", path, "--set", "allow=[truncated-answers]")[0] == 0
    code, out, err = call("check", path, "--set", "train.epoch=2")
    assert (code, out) == (2, "")
    assert "unknown key train.epoch" in err
    code, _, err = call("check", path, "--set", "data.source=none.jsonl")
    assert code == 2
    assert "Traceback" not in err


def test_json(call: Callable[..., Told], write: Callable[[Case], Path]) -> None:
    code, out, _ = call("check", write(BROKEN[CUT]), "--json", "--set", "allow=[bos-missing]")
    found = json.loads(out)
    assert (code, found["ok"], found["allow"]) == (1, False, ["bos-missing"])
    (cut,) = [one for one in found["findings"] if one["name"] == "truncated-answers"]
    assert cut.keys() >= {"severity", "allowed", "count", "total", "unit", "share", "message", "rows", "remedy"}
    assert (cut["severity"], cut["allowed"], cut["count"], cut["unit"]) == ("error", False, 6, "answers")
    assert cut["share"] == cut["count"] / cut["total"]
    assert len(cut["rows"]) == 2
    assert cut["rows"][0]["place"].startswith("rows.jsonl:")


def test_the_table_fits_into_eighty_columns(
    call: Callable[..., Told], write: Callable[[Case], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call("check", write(BROKEN["a few questions hold a chat form's markers"]))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    names = [line.split()[1] for line in out.splitlines()[1:4]]
    assert names[0] == "rendered-prompt-in-text"  # the worst first
    assert out.rstrip().endswith("1 warning to look at.")
    assert "Traceback" not in out


def test_nothing_of_the_data_steers_the_terminal(call: Callable[..., Told], write: Callable[[Case], Path]) -> None:
    evil = "\x1b[31m[bold]\x07\u202e[/bold] [INST]\r\x9b2J"
    rows = change(pairs(), range(60), "prompt", lambda text: evil + text)
    for flags in ((), ("--json",)):
        code, out, err = call("check", write(Case("", "", rows)), *flags)
        assert code == 1
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out + err)
        assert "[bold]" in out


def test_rows_of_a_study_are_looked_at_once(check: Check, write: Callable[[Case], Path]) -> None:
    """A base and a length are checked once, whatever else varies; what differs says of which it speaks."""
    study = {"adapter.rank": [4, 8], "train.learning_rate": [1e-4, 1e-3], "train.max_length": [100, 250]}
    case = dataclasses.replace(BROKEN[CUT], recipe={"study": study})
    found = [one for one in check(write(case)).findings if one.name == "truncated-answers"]
    assert len(found) == 1
    assert found[0].message.startswith("With train.max_length 100: ")


def test_the_length_that_keeps_99_percent() -> None:
    """Of 1,000 answers ten may be cut: the eleventh longest must fit."""
    assert keeping([500 + n for n in range(50)], 1000) == 539
    assert keeping([500, 900], 100) == 500
    assert keeping([500, 900], 20) == 900
    assert make_example([Turn([1, 5], [6, 7, 2])], 4).ends == (5,)


def test_the_advice_is_true(check: Check, write: Callable[[Case], Path]) -> None:
    """With the max_length that a finding names, the finding is gone."""
    for name in (CUT, "some prompts take all of max_length", "the last turn of conversations is cut"):
        path = write(BROKEN[name])
        one = by_name(check(path))[BROKEN[name].check]
        (length,) = re.findall(r"[Ss]et (?:train\.max_length|it) to (\d+)", one.remedy)
        left = check(path, f"train.max_length={length}")
        assert BROKEN[name].check not in {found.name for found in left.errors}


def test_it_says_what_takes_so_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(checking, "PATIENCE", 0.05)
    with checking.slowly(Console(stderr=True), "tokenizing"):
        time.sleep(0.3)
    assert "tokenizing …" in capsys.readouterr().err
    with checking.slowly(Console(stderr=True), "tokenizing"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


# --- allow --------------------------------------------------------------------------------------------


def test_unknown_names_are_errors_with_a_suggestion(write: Callable[[Case], Path]) -> None:
    path = write(Case("", "", pairs()))
    with pytest.raises(RecipeError, match=r"no check is called 'truncated-answer'; did you mean truncated-answers\?"):
        read_recipe(path, ["allow=[truncated-answer]"])
    with pytest.raises(RecipeError, match="there are no-supervised-token, "):
        read_recipe(path, ["allow=[xyz]"])
    for name in NOT_ALLOWED:
        with pytest.raises(RecipeError, match=f"{name} cannot be allowed"):
            read_recipe(path, [f"allow=[{name}]"])
    assert read_recipe(path, [f"allow=[{', '.join(set(CHECKS) - set(NOT_ALLOWED))}]"])


def test_every_name_of_a_data_check_is_known() -> None:
    import pronk.data.checks

    assert set(getattr(pronk.data.checks, "DATA_FINDINGS", ())) <= set(CHECKS)


# --- the gate -----------------------------------------------------------------------------------------

QUICK = ("--set", "train.device=cpu", "--set", "train.max_steps=1", "--set", "adapter.rank=2")


def test_a_run_does_not_begin_over_an_error(
    call: Callable[..., Told], write: Callable[[Case], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronk.model.load.load_model", lambda *_: pytest.fail("weights were loaded"))
    code, out, err = call("run", write(BROKEN[CUT]), "--out", tmp_path / "study", *QUICK)
    assert (code, out) == (1, "")
    assert "truncated-answers (6 of 50 answers): Answers are cut" in err
    assert re.search(r"Set train\.max_length to \d+, which keeps", err)
    assert "allow: [truncated-answers]" in err
    assert not (tmp_path / "study").exists()


def test_a_run_in_python_refuses_too(write: Callable[[Case], Path], tmp_path: Path) -> None:
    import pronk
    from pronk.errors import RefusedError

    with pytest.raises(RefusedError, match="empty-answers"):
        pronk.run(write(BROKEN["an answer cannot be seen"]), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_an_allowed_error_is_said_and_passed(
    call: Callable[..., Told], write: Callable[[Case], Path], tmp_path: Path
) -> None:
    """Rows without room for an answer are then left out, of training and of validation."""
    rows = change(pairs(), range(4), "prompt", lambda text: text + LONG)
    case = Case("", "", rows, recipe={"train": {"max_length": 100, "batch_size": 8}})
    code, _, err = call(
        "run", write(case), "--out", tmp_path / "study", *QUICK, "--set", "allow=[prompt-longer-than-max-length]"
    )
    assert code == 0, err
    assert "allowed: prompt-longer-than-max-length (4 of 50 rows)" in err
    study = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))
    assert [run["status"] for run in study["runs"]] == ["finished", "finished"]


def test_warnings_are_a_line_each(call: Callable[..., Told], write: Callable[[Case], Path], tmp_path: Path) -> None:
    path = write(BROKEN["a question spells a special token"])
    code, _, err = call("run", path, "--out", tmp_path / "study", *QUICK)
    assert code == 0, err
    (line,) = [line for line in err.splitlines() if line.startswith("warning:")]
    assert line.startswith("warning: special-tokens-in-text (2 of 60 rows): ")
    code, _, err = call("run", path, "--out", tmp_path / "again", *QUICK, "--set", "allow=[special-tokens-in-text]")
    assert code == 0
    assert "special-tokens-in-text" not in err


# --- faults of our own, planted: the checks look at what training gets ----------------------------------


def _changed(patch: pytest.MonkeyPatch, change_: Callable[[Example], Example]) -> None:
    patch.setattr("pronk.tokens.prompt.make_example", lambda turns, length: change_(make_example(turns, length)))


def all_masked(patch: pytest.MonkeyPatch) -> None:
    _changed(patch, lambda one: dataclasses.replace(one, target=np.zeros_like(one.target)))


def ends_masked(patch: pytest.MonkeyPatch) -> None:
    _changed(patch, lambda one: dataclasses.replace(one, target=one.target & np.append(one.target[1:], False)))


def end_of_the_first_answer_masked(patch: pytest.MonkeyPatch) -> None:
    def change_(one: Example) -> Example:
        target = one.target.copy()
        target[np.flatnonzero(target & ~np.append(target[1:], False))[0]] = False
        return dataclasses.replace(one, target=target)

    _changed(patch, change_)


def masks_shifted(patch: pytest.MonkeyPatch) -> None:
    _changed(patch, lambda one: dataclasses.replace(one, target=np.roll(one.target, -1)))


def padding_is_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pronk.tokens.prompt.padding_token", lambda tokenizer, ends: tokenizer.convert_ids_to_tokens(ends[0]))


def _first_id(patch: pytest.MonkeyPatch, ids: Callable[[Any], Any], target: Callable[[Any], Any]) -> None:
    _changed(
        patch,
        lambda one: dataclasses.replace(
            one, ids=ids(one.ids), target=target(one.target), asked=one.asked + len(ids(one.ids)) - len(one.ids)
        ),
    )


def bos_twice(patch: pytest.MonkeyPatch) -> None:
    _first_id(patch, lambda ids: np.insert(ids, 0, ids[0]), lambda target: np.insert(target, 0, False))


def bos_lost(patch: pytest.MonkeyPatch) -> None:
    _first_id(patch, lambda ids: ids[1:], lambda target: target[1:])


def asked_otherwise(patch: pytest.MonkeyPatch) -> None:
    """The last token of what is asked is another in training: a space, say."""

    def change_(one: Example) -> Example:
        ids = one.ids.copy()
        ids[one.asked - 1] += 1
        return dataclasses.replace(one, ids=ids)

    _changed(patch, change_)


FAULTS = [
    (all_masked, "no-supervised-token"), (ends_masked, "end-token-not-supervised"),
    (end_of_the_first_answer_masked, "end-token-not-supervised"), (masks_shifted, "end-token-not-supervised"),
    (padding_is_the_end, "pad-is-end-token"), (bos_twice, "bos-doubled"), (bos_lost, "bos-missing"),
    (asked_otherwise, "prompt-differs-from-inference"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "name"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_of_our_own_is_found(
    fault: Callable[[Any], None], name: str, check: Check, write: Callable[[Case], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write(Case("", "", chats(), base="bos"))
    assert not check(path).errors
    fault(monkeypatch)
    found = by_name(check(path))
    assert found[name].severity == "error"


# --- errors that have a name ------------------------------------------------------------------------------


def test_an_error_that_no_check_goes_by_stays_an_error(check: Check, write: Callable[[Case], Path]) -> None:
    path = write(Case("", "", [*pairs(), {"prompt": 5, "response": "five"}]))
    with pytest.raises(DataError, match="the prompt must be text"):
        check(path)


# --- what reaches a person ------------------------------------------------------------------------------

SECRET = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


@pytest.mark.parametrize("name", ["lengths", "imbalanced-labels", "prompt-longer-than-max-length"])
def test_no_finding_shows_a_secret(call: Callable[..., Told], write: Callable[[Case], Path], name: str) -> None:
    """Findings about lengths and labels show rows too, and those hold whatever the data holds."""
    if name == "imbalanced-labels":
        rows = [{"text": f"pay {place} with {SECRET}", "label": "no" if place % 8 else "yes"} for place in range(60)]
        case = Case("", "", rows, {"format": "classify"}, recipe={"evaluate": ["classify"]})
    else:
        rows = change(pairs(), range(50), "prompt", lambda text: f"{SECRET} {text}")
        rows = change(rows, range(4), "prompt", lambda text: text + LONG)
        case = Case("", "", rows, recipe={"train": {"max_length": 120, "batch_size": 8}})
    _, out, _ = call("check", write(case), "--json")
    found = {one["name"]: one for one in json.loads(out)["findings"]}
    assert "hf_A****" in found[name]["rows"][0]["text"]
    assert SECRET not in out


def test_what_cannot_be_allowed_is_not_offered(call: Callable[..., Told], write: Callable[[Case], Path]) -> None:
    """A prompt that the base cannot read, in the test: no `allow` helps, so none is named."""
    rows = change(pairs(), range(50, 60), "prompt", lambda text: text + " word" * 1100)
    code, out, _ = call("check", write(Case("", "", rows)))
    assert code == 1
    assert "prompt-longer-than-the-base-reads" in out
    assert "allow:" not in out


def test_an_error_that_ends_everything_stays_one(call: Callable[..., Told], write: Callable[[Case], Path]) -> None:
    """A template that cannot be learned from is refused by `run` too, whatever the recipe allows."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}### Response:{% endif %}"
    path = write(Case("", "", pairs(), template=template))
    code, out, _ = call("check", path, "--set", "allow=[prompt-differs-from-inference]")
    assert (code, "`pronk run` will not begin" in out, "or accept with" in out) == (1, True, False)
    assert "(allowed)" not in out


@pytest.mark.parametrize("name", ["template", "empty"])
def test_what_reading_cannot_get_past_is_refused_by_name(
    call: Callable[..., Told], write: Callable[[Case], Path], tmp_path: Path, name: str
) -> None:
    """Exit code 1, as for what was looked for; and no `allow` is offered, as none would help."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}### Response:{% endif %}"
    cases = {
        "template": (Case("", "", pairs(), template=template), "prompt-differs-from-inference"),
        "empty": (Case("", "", change(pairs(), [3], "response", lambda _: "")), "empty-answers"),
    }
    case, check = cases[name]
    code, out, err = call("run", write(case), "--out", tmp_path / "study", *QUICK)
    assert (code, out) == (1, "")
    assert "nothing was trained: a check found what would spoil the result" in err
    assert f"  {check}" in err
    assert "allow:" not in err
    assert not (tmp_path / "study").exists()


def test_a_test_without_rows_is_a_warning(call: Callable[..., Told], write: Callable[[Case], Path]) -> None:
    path = write(Case("", "", pairs()))
    assert "no-test-rows" not in call("check", path)[1]
    code, out, _ = call("check", path, "--set", "data.split={test: 0, validation: 0}")
    assert code == 0
    assert "warning: no-test-rows" in out


@pytest.mark.parametrize("options", [("--ids",), ("--cut-first",), ("--split", "test"), ("--show", "1", "--json")])
def test_options_that_would_do_nothing_are_errors(
    call: Callable[..., Told], write: Callable[[Case], Path], options: tuple[str, ...]
) -> None:
    code, out, err = call("check", write(Case("", "", pairs())), *options)
    assert (code, out) == (2, "")
    assert options[0].lstrip("-") in err or "--json" in err


def test_many_empty_lines_take_no_longer_than_others() -> None:
    start = time.process_time()
    assert MARKERS.search("\n" * 60_000) is None
    assert time.process_time() - start < 0.5
    assert MARKERS.search("\n\n  ### Response:") is not None

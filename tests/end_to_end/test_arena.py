"""`pronk arena`: answers as transformers and PEFT give them, kept and gone on with; the page; the result."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import Told
from rich.console import Console

import pronk.ask.dialogues
from pronk.ask.contest import answers_file, make_contest
from pronk.ask.models import Model, find_models
from pronk.compare.contest import read_contest
from pronk.compare.votes import read_votes, votes_file
from pronk.data.questions import read_questions
from pronk.errors import StudyError
from pronk.recipe import generation_settings
from pronk.runs import one_writer

Pronk = Callable[..., Told]
NEW = 6
ASKED = [("Tell of a llama.", "Shorter.", "In Korean."), ("Sales rose.",), ("What?", "Why?")]
SYSTEM = "Be brief."
PEFT_WARNS = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
pytestmark = [pytest.mark.filterwarnings(PEFT_WARNS), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A base and two runs with large random adapters, so that they answer differently; written by PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("arena") / "study"
    data = {"source": "rows.jsonl", "format": "pairs", "system": SYSTEM, "columns": {"prompt": "q", "response": "a"}}
    recipe = {"base": str(tiny_base), "prompt": "chat", "data": data}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
        tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
        for key, weight in tuned.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(weight, std=0.3)
        tuned.save_pretrained(folder / "runs" / name / "adapter")
        (folder / "runs" / name / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    runs = [{"name": name, "baseline": name == "base", "status": "finished"} for name in ("base", "one", "two")]
    (folder / "study.json").write_text(json.dumps({"runs": runs, "comparisons": []}), encoding="utf-8")
    return folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"turns": list(turns)}) + "\n" for turns in ASKED), encoding="utf-8")
    return path


def contest_of(folder: Path, study: Path, questions: Path, **settings: Any) -> Any:
    models, asked = find_models([str(study)], with_base=True), read_questions([str(questions)], several_turns=True)
    checked = generation_settings({"max_new_tokens": NEW, **settings})
    return make_contest(folder, models, asked, checked, "q.jsonl", Console(stderr=True))


@pytest.fixture(scope="module")
def theirs(study: Path, tiny_base: Path) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
    """By transformers and PEFT, turn by turn, each model going on from its own answers; by model and question."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, found = AutoTokenizer.from_pretrained(tiny_base), {}
    for name in ("base", "one", "two"):
        model: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
        if name != "base":
            model = PeftModel.from_pretrained(model, study / "runs" / name / "adapter").eval()
        for turns in ASKED:
            messages, answers = [{"role": "system", "content": SYSTEM}], []
            for turn in turns:
                messages.append({"role": "user", "content": turn})
                answers.append(answered(model, tokenizer, messages))
                messages.append({"role": "assistant", "content": answers[-1]})
            found[name, turns] = tuple(answers)
    return found


def answered(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )[0, ids.shape[1] :]  # fmt: skip
    return tokenizer.decode(written, skip_special_tokens=True).rstrip("\ufffd")


def ours(contest: Any) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
    return {(name, one.turns): answers for one in contest.matters for name, answers in one.answers.items()}


def test_every_turn_follows_the_models_own_answers(study: Path, theirs: Any, questions: Path, tmp_path: Path) -> None:
    contest = contest_of(tmp_path, study, questions)
    assert contest.contestants == ("base", "one", "two")
    assert [matter.turns for matter in contest.matters] == ASKED
    assert ours(contest) == theirs
    assert len(set(theirs.values())) == 9


def test_a_turn_after_anothers_answer_is_seen(
    study: Path, theirs: Any, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: a later turn follows some other answer, not the model's own."""
    original = pronk.ask.dialogues._messages

    def faulty(model: Model, question: Any, said: Any, turn: Any) -> Any:
        return original(model, question, ["x" for _ in said], turn)

    monkeypatch.setattr(pronk.ask.dialogues, "_messages", faulty)
    found = ours(contest_of(tmp_path, study, questions))
    wrong = [turns for (name, turns), answers in found.items() if answers != theirs[name, turns]]
    assert wrong
    assert ASKED[1] not in wrong  # a single turn has none before it


def test_what_is_there_is_not_asked_again(
    study: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    original = pronk.ask.contest.ask_dialogues

    def counting(*given: Any) -> bool:
        wanted = given[2]
        asked.append(sum(len(ASKED[question]) - len(said) for (_, question), said in wanted.items()))
        return original(*given)

    monkeypatch.setattr(pronk.ask.contest, "ask_dialogues", counting)
    first = contest_of(tmp_path, study, questions)
    assert contest_of(tmp_path, study, questions) == first
    rows = answers_file(tmp_path).read_text(encoding="utf-8").splitlines(keepends=True)
    assert [len(json.loads(row)["answers"]) for row in rows] == [1] * 9 + [2] * 6 + [3] * 3
    answers_file(tmp_path).write_text(
        "".join(rows[:14]) + rows[14][:20], encoding="utf-8"
    )  # as a power failure leaves it
    assert contest_of(tmp_path, study, questions) == first
    assert asked == [18, 4]


def test_ctrl_c_keeps_the_turns_that_are_whole(
    study: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, turns = pronk.ask.dialogues._Dialogues._answer, []

    def pressed(self: Any, turn: int, *more: Any) -> None:
        original(self, turn, *more)
        turns.append(turn)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

    with monkeypatch.context() as patch:
        patch.setattr(pronk.ask.dialogues._Dialogues, "_answer", pressed)
        assert contest_of(tmp_path, study, questions) is None
    kept = [json.loads(line) for line in answers_file(tmp_path).read_text(encoding="utf-8").splitlines()]
    assert (turns, [len(row["answers"]) for row in kept]) == ([0], [1] * 9)


def test_two_commands_do_not_write_answers_at_once(study: Path, questions: Path, tmp_path: Path) -> None:
    with one_writer(answers_file(tmp_path)):
        with pytest.raises(StudyError, match=r"answers\.jsonl: another pronk is writing this"):
            contest_of(tmp_path, study, questions)
        assert not answers_file(tmp_path).exists()


def test_each_turn_finds_room(study: Path, tmp_path: Path) -> None:
    """256 tokens are all that the tiny base reads; a first answer must leave some for the second."""
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"turns": ["word " * 90, "word " * 90]}) + "\n", encoding="utf-8")
    contest = contest_of(tmp_path, study, path, max_new_tokens=200)
    assert all(all(answers) for answers in contest.matters[0].answers.values())


# --- the command --------------------------------------------------------------------------------


class Served:
    """`pronk arena …` in a process of its own, and its page as a browser without a screen."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pronk", "arena", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.told = ""
        assert self.process.stderr is not None
        while "Ctrl-C ends" not in self.told:
            line = self.process.stderr.readline()
            assert line, self.told
            self.told += line
        self.port, token = re.findall(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", self.told)[0]
        answer = self._request("GET", f"/?token={token}", {})
        self.cookie = answer.getheader("Set-Cookie").partition(";")[0]

    def _request(self, method: str, path: str, headers: dict[str, str], body: str | None = None) -> Any:
        connection = HTTPConnection("127.0.0.1", int(self.port), timeout=30)
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def post(self, path: str, **body: Any) -> Any:
        origin = f"http://127.0.0.1:{self.port}"
        headers = {"Cookie": self.cookie, "Origin": origin, "Content-Type": "application/json"}
        with self._request("POST", path, headers, json.dumps(body)) as answer:
            return json.load(answer)

    def end(self) -> Told:
        out, err = self.process.communicate(timeout=60)
        return Told(self.process.returncode, out, self.told + err)


@pytest.fixture
def serving() -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(*arguments: str) -> Served:
        running.append(Served(*arguments))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.communicate()


@pytest.mark.slow
def test_from_questions_to_the_report(
    study: Path, questions: Path, serving: Callable[..., Served], pronk: Pronk
) -> None:
    page = serving(str(study), "--questions", str(questions), "--max-new-tokens", str(NEW), "--run", "one")
    assert "2 contestants, 3 questions: 3 pairs of answers to look at" in page.told
    assert "too few questions to be sure of anything" in page.told
    view = page.post("/api/next", judge="anna")
    view = page.post("/api/vote", judge="anna", pair=view["pair"], choice="left")
    page.process.send_signal(signal.SIGINT)
    told = page.end()
    assert (told.code, told.out) == (130, "")
    assert "all votes are kept" in told.err
    assert "Traceback" not in told.err

    page = serving(str(study), "--judge", "anna")  # the contest that is there: no question, no weights
    assert page.post("/api/next", judge="anna") == view
    while not view.get("finished"):
        view = page.post("/api/vote", judge="anna", pair=view["pair"], choice="both_bad")
    assert page.post("/api/result", judge="anna")["pairs"][0]["b"] == "one"
    page.post("/api/close")
    told = page.end()
    assert told.code == 0, told.err
    assert "one against base" in told.out
    contest = read_contest(study)
    assert contest is not None
    assert contest.source == "questions.jsonl"
    assert len(read_votes(votes_file(study))) == 3
    assert json.loads((study / "study.json").read_text(encoding="utf-8"))["arena"]["votes"] == 3
    assert "Blind test" in (study / "report.html").read_text(encoding="utf-8")
    found = json.loads(pronk("arena", str(study), "--result", "--json").out)
    assert (found["pairs"][0]["both_bad"], found["judges"][0]["name"]) == (2, "anna")


WRONG: dict[str, tuple[list[str], str]] = {
    "no study": (["{}/none"], "there is no such folder; expected a study, or a run of one"),
    "no contest": (["{}", "--result"], "there is no contest here yet"),
    "no answers": (["{}"], "no two of its runs have written answers to the test items"),
    "no such run": (["{}", "--run", "three", "--questions", "a?"], "runs/three: there is no such folder"),
    "no such run, test items": (["{}", "--run", "three"], "there is no evaluated run 'three'; there are one, two"),
    "one contestant": (
        ["{}", "--run", "one", "--no-base", "--questions", "a?"], "a contest needs two models, found one; name one",
    ),
    "runs without answers": (["{}/runs/one"], "no two of its runs have written answers to the test items"),
    "no study and no question": (["smollm2", "--out", "{}/new"], "is no study and has no test items"),
    "no such file": (["{}", "--questions", "none.jsonl"], "there is no such file of questions"),
    "an adapter that is gone": (["{}/runs/gone", "--questions", "a?"], "this run has no weights"),
    "a name that is none": (["{}", "--questions", "a?", "--judge", " "], "a name has 1 to 60 letters"),
    "no home": (["{}/runs/one", "smollm2-none", "--questions", "a?"], "expected a study, or a run of one"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_message(study: Path, tmp_path: Path, pronk: Pronk, case: str) -> None:
    copy = tmp_path / "study"
    copy.mkdir()
    for name in ("study.json", "runs"):
        (copy / name).symlink_to(study / name)
    if case == "an adapter that is gone":
        (copy / "runs").unlink()
        (copy / "runs" / "gone").mkdir(parents=True)
        (copy / "runs" / "gone" / "recipe.yaml").write_bytes((study / "runs/one/recipe.yaml").read_bytes())
    arguments, message = WRONG[case]
    told = pronk("arena", *(one.replace("{}", str(copy)) for one in arguments), "--max-new-tokens", "2")
    assert (told.code, told.out) == (2, "")
    assert message in told.err.replace("\n", " ")
    assert "Traceback" not in told.err

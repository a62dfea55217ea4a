"""Should I fine-tune at all? `pronk check --baseline`, and the same rows in a study and its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from command_line import Told, Workplace

from pronk.compare.items import read_items
from pronk.compare.pairs import compare_study
from pronk.compare.statistics import holm

Pronk = Callable[..., Told]


def checked(place: Workplace, pronk: Pronk, *more: str) -> Told:
    place.arguments()
    out = str(place.folder / "baseline.json")
    return pronk("check", str(place.folder / "recipe.yaml"), "--baseline", "--out", out, *more)


def saved(place: Workplace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.folder / "baseline.json").read_text(encoding="utf-8"))
    return found


def test_the_table_and_the_file(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["evaluate"] = ["likelihood", "classify", "similarity"]
    told = checked(workplace, pronk, "--shots", "0,1,2")
    assert told.code == 0, told.err
    assert all(len(line) <= 80 for line in told.out.splitlines()), told.out
    for title in ("Accuracy, base", "Accuracy, generated, base", "Macro-F1, base", "Loss", "Perplexity", "ROUGE-L"):
        assert f"\n{title}" in told.out
    assert "6 validation rows, nothing trained" in told.out
    record = saved(workplace)
    assert [row.get("shots", 0) for row in record["rows"]] == [0, 1, 2]
    for row in record["rows"]:
        for metric, (low, high) in row["intervals"].items():
            assert low <= row["metrics"][metric] <= high
    assert {(c["a"], c["b"]) for c in record["comparisons"]} == {("base", "base_1-shot"), ("base", "base_2-shot")}
    adjusted = holm([c["p_value"] for c in record["comparisons"]])
    assert [c["p_adjusted"] for c in record["comparisons"]] == pytest.approx(adjusted.tolist())
    rows = [json.loads(line) for line in (workplace.folder / "rows.jsonl").read_text().splitlines()]
    assert all(shown["input"] in {row["text"] for row in rows} for shown in record["examples"])
    assert len(record["examples"]) == 2


def test_json_on_stdout_is_what_is_saved(workplace: Workplace, pronk: Pronk) -> None:
    told = checked(workplace, pronk, "--shots", "0", "--json")
    assert json.loads(told.out) == saved(workplace)


def test_usual_numbers_where_nothing_is_said_and_what_does_not_fit(workplace: Workplace, pronk: Pronk) -> None:
    """0, 2, 4 and 8; the tiny base reads 256 tokens, which are too few for some of them."""
    told = checked(workplace, pronk)
    record = saved(workplace)
    assert [row.get("shots", 0) for row in record["rows"]] == [0, 2]
    assert len(record["left_out"]) == 2
    assert "8 examples in the prompt: left out, as 6 rows of 6" in told.out


@pytest.mark.parametrize(
    ("more", "recipe", "expected"),
    [
        (("--shots", "0,2", "--against", "http://localhost:1/v1"), {}, "belong together"),
        (("--against", "file:///etc/passwd", "--against-model", "m"), {}, "expected an address such as"),
        (("--against", "http://user:secret@localhost:1", "--against-model", "m"), {}, "PRONK_API_KEY"),
        (("--shots", "0,500"), {}, "baseline.shots"),
        (("--shots", "2,2"), {}, "appears twice"),
        (("--shots", "many"), {}, "baseline.shots"),
        (("--shots", "64"), {}, "64 examples asked for, but train has 42 rows"),
        (
            (),
            {"data": {"source": "rows.jsonl", "format": "classify", "split": {"test": 9, "validation": 0}}},
            "write validation: 0.1",
        ),
    ],
)
def test_wrong_input_is_one_message(
    workplace: Workplace, pronk: Pronk, more: tuple[str, ...], recipe: dict[str, Any], expected: str
) -> None:
    workplace.recipe |= recipe
    told = checked(workplace, pronk, *more)
    assert told.code == 2
    assert expected in " ".join(told.err.split())
    assert "secret" not in told.err
    assert not (workplace.folder / "baseline.json").exists()


def test_rows_of_the_test_are_not_looked_at(workplace: Workplace, pronk: Pronk) -> None:
    """Neither measured nor shown: with other texts in them, the file is the same to the last byte."""
    from pronk.data.split import read_splits
    from pronk.recipe import read_recipe

    assert checked(workplace, pronk, "--shots", "0,2").code == 0
    before = (workplace.folder / "baseline.json").read_bytes()
    splits, _ = read_splits(read_recipe(workplace.folder / "recipe.yaml", []).data)
    text = (workplace.folder / "rows.jsonl").read_text(encoding="utf-8")
    for row in splits.test:
        assert row.subject in text
        text = text.replace(f'"{row.subject}"', f'"unlike {row.subject}"')
    (workplace.folder / "rows.jsonl").write_text(text, encoding="utf-8")
    assert checked(workplace, pronk, "--shots", "0,2").code == 0
    assert (workplace.folder / "baseline.json").read_bytes() == before
    # the planted fault: a validation row that changes is seen
    text = text.replace(splits.validation[0].subject, "something else entirely")
    (workplace.folder / "rows.jsonl").write_text(text, encoding="utf-8")
    assert checked(workplace, pronk, "--shots", "0,2").code == 0
    assert (workplace.folder / "baseline.json").read_bytes() != before


@pytest.fixture
def told(workplace: Workplace, pronk: Pronk) -> Told:
    """A study of two runs beside the base with no, one and two examples in its prompt."""
    workplace.recipe |= {"baseline": {"shots": [0, 1, 2], "seed": 5}, "study": {"train.learning_rate": [1e-2, 1e-3]}}
    told = pronk(*workplace.arguments())
    assert told.code == 0, told.err
    return told


def test_a_study_with_few_shot_rows(told: Told, workplace: Workplace) -> None:
    study = workplace
    found = study.study()
    names = [run["name"] for run in found["runs"]]
    assert names[:3] == ["base", "base_1-shot", "base_2-shot"]
    shots = {run["name"]: run.get("shots") for run in found["runs"] if run["baseline"]}
    assert shots == {"base": None, "base_1-shot": 1, "base_2-shot": 2}
    tuned = names[3:]
    pairs = {(c["a"], c["b"]): c["reasons"] for c in found["comparisons"]}
    assert pairs["base", "base_1-shot"] == ["base"]
    best = max(("base_1-shot", "base_2-shot"), key=lambda name: accuracy(found, name))
    assert {pair for pair, reasons in pairs.items() if "few-shot" in reasons} == {(best, run) for run in tuned}
    # one family: Holm's adjustment is over all of them
    adjusted = holm([c["p_value"] for c in found["comparisons"]])
    assert [c["p_adjusted"] for c in found["comparisons"]] == pytest.approx(adjusted.tolist())
    assert compare_study(study.out) == found["comparisons"]
    page = (study.out / "report.html").read_text(encoding="utf-8")
    assert "untouched base, 2 examples in its prompt" in page
    assert "in its prompt the untouched base reaches" in page
    assert "its base with examples in the prompt" in page
    assert "base_2-shot" in told.out


def accuracy(found: dict[str, Any], name: str) -> float:
    return float(next(run for run in found["runs"] if run["name"] == name)["metrics"]["accuracy"])


def test_what_does_not_fit_is_told_in_the_report(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["baseline"] = {"shots": [1, 12]}
    told = pronk(*workplace.arguments())
    assert told.code == 0, told.err
    assert "12 examples in the prompt: left out" in told.err
    assert [run["name"] for run in workplace.study()["runs"]] == ["base", "base_1-shot", "tuned"]
    assert "12 examples in the prompt: left out" in (workplace.out / "report.html").read_text(encoding="utf-8")
    assert workplace.study()["data"]["examples_in_the_prompt"].count("rows.jsonl") == 12


def test_too_little_memory_for_examples_costs_no_other_row(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pronk.evaluate.few_shot as subject
    from pronk.errors import OutOfMemoryError

    def full(*_: Any, **__: Any) -> None:
        raise OutOfMemoryError("evaluating: the memory is not enough")

    monkeypatch.setattr(subject, "measure_shots", full)
    workplace.recipe["baseline"] = {"shots": [1]}
    told = pronk(*workplace.arguments())
    assert told.code == 0, told.err
    assert "examples in the prompt are not measured" in told.err
    assert {run["name"]: bool(run["metrics"]) for run in workplace.study()["runs"]} == {"base": True, "tuned": True}


def test_the_base_is_measured_before_it_is_trained_itself(workplace: Workplace, pronk: Pronk) -> None:
    """full: true changes the base; its rows with examples are those of the base as it was."""
    workplace.recipe["baseline"] = {"shots": [1]}
    rows = {}
    for full in (False, True):
        workplace.out = workplace.folder / f"study-{full}"
        workplace.recipe.pop("adapter", None)
        workplace.recipe["full"] = full
        told = pronk(*workplace.arguments())
        assert told.code == 0, told.err
        rows[full] = {run["name"]: run["metrics"] for run in workplace.study()["runs"] if run["baseline"]}
    assert rows[True].keys() == rows[False].keys() == {"base", "base_1-shot"}
    for name, metrics in rows[True].items():
        assert metrics == pytest.approx(rows[False][name], abs=1e-5)


@pytest.mark.usefixtures("told")
def test_no_examples_are_the_baseline_of_the_study(workplace: Workplace) -> None:
    """`check --baseline` told to take the study's test rows for its own gives the study's rows, the plain prompt and
    those with examples: the same answers, and the same figures to the last digits that float32 has."""
    from rich.console import Console

    import pronk.doctor.baseline as subject
    from pronk.data.shots import choose_shots
    from pronk.data.split import read_splits
    from pronk.doctor.ready import prepare
    from pronk.model.load import load_for_fleet, resolve_dtype
    from pronk.recipe import read_recipe
    from pronk.study import plan_study

    recipe = read_recipe(workplace.folder / "recipe.yaml", [])
    splits, labels = read_splits(recipe.data)
    shots = choose_shots(splits, 2, labels, recipe.baseline.seed)
    (ready,) = prepare(plan_study(recipe), splits, labels, lambda _: None)
    model = load_for_fleet(ready.fleet, ready.base, resolve_dtype("auto", ready.device), ready.device)
    found = subject.measure_few_shot(ready, model, recipe, shots, [0, 1, 2], Console(quiet=True))
    for count, results in found.items():
        items = read_items(workplace.out, "base" if not count else f"base_{count}-shot")
        assert items.classified is not None
        assert items.likelihood is not None
        order = [int(key) for key in items.classified.ids]
        assert results.classified is not None
        assert results.losses is not None
        ours = [results.classified[place] for place in order]
        assert [item.generated for item in ours] == list(items.classified.generated or ())
        assert [item.predicted for item in ours] == list(items.classified.predicted or ())
        assert results.losses.loss[order].tolist() == pytest.approx(items.likelihood.loss.tolist(), abs=1e-5)
        if not count:
            plain = items.likelihood.loss.tolist()
        else:  # the fault that would pass unseen if all rows were alike
            assert items.likelihood.loss.tolist() != pytest.approx(plain, abs=1e-2)


def test_a_served_model_is_a_row(workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers "positive" to everything, one answer in hostile text; only generated figures are given for it."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    key, asked = "planted-key-0123456789", []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            text = "positive" if len(asked) > 1 else "\x1b[2J<script>alert(1)</script>"
            content = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    monkeypatch.setenv("PRONK_API_KEY", key)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    workplace.recipe["evaluate"] = ["likelihood", "classify", "similarity"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = ("--against", f"http://127.0.0.1:{server.server_port}/v1", "--against-model", "org/big")
        told = checked(workplace, pronk, "--shots", "0,2", *where)
        server.shutdown()
    assert told.code == 0, told.err
    assert len(asked) == 6
    assert "org/big (served)" not in told.out.partition("Accuracy, generated")[0]
    row = saved(workplace)["rows"][-1]
    assert (row["name"], row["served"], row["baseline"]) == ("org/big (served)", "127.0.0.1", True)
    assert not {"accuracy", "nll"} & row["metrics"].keys()
    assert row["metrics"]["unparsable"] == 1
    compared = {c["metric"] for c in saved(workplace)["comparisons"] if c["b"] == row["name"]}
    assert compared == {"generated_accuracy", "rouge_l", "chrf"}
    everything = told.out + told.err + (workplace.folder / "baseline.json").read_text()
    assert key not in everything
    assert "\x1b[2J" not in told.out
    assert all(len(line) <= 80 for line in told.out.splitlines()), told.out


def test_a_served_model_needs_answers_to_be_measured(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["evaluate"] = ["likelihood"]
    told = checked(workplace, pronk, "--against", "http://127.0.0.1:9/v1", "--against-model", "m")
    assert told.code == 2
    assert "only answers" in told.err

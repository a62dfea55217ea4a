"""The report's two languages: the same keys and blanks, every text used, and no English left in the Korean page."""

from __future__ import annotations

import dataclasses
import json
import re
import string
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from study_builder import SEEDS, SWEEP, build_study
from test_free_answers import only_answers
from test_judged import judged, many, record
from typer.testing import CliRunner

from pronk import compare
from pronk.cli import app
from pronk.compare import languages, words
from pronk.compare.contest import TEST_ITEMS
from pronk.compare.languages import ENGLISH, LANGUAGES, Language, language
from pronk.compare.overfitting import FEWEST_ROWS, _because
from pronk.compare.pairs import LOWER, PRIMARY, compare_study
from pronk.compare.report import render
from pronk.errors import OptionError

KOREAN = LANGUAGES["ko"]
# names of people, programs and formulas; what stays as it is in Korean
NAMES = {
    "pronk", "Holm", "McNemar", "Tango", "Wilson", "Phipson", "Smyth", "Westfall", "Young", "Connor", "Hesterberg",
    "Lin", "Popović", "ROUGE", "chrF", "GiB", "nat", "Cohen",
}  # fmt: skip
SHOWN_ATTRIBUTES = ("aria-label", "data-label", "title", "alt")


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_tables() -> None:
    for table in ("metrics", "verdicts", "facts", "axes"):
        assert list(getattr(ENGLISH, table)) == list(getattr(KOREAN, table)), table
    assert list(ENGLISH.texts) == list(KOREAN.texts)
    assert {key: blanks(text) for key, text in KOREAN.texts.items()} == {
        key: blanks(text) for key, text in ENGLISH.texts.items()
    }
    assert set(PRIMARY) | set(LOWER) <= set(ENGLISH.metrics)


def used() -> list[str]:
    """Patterns of the texts that code and template ask for: `t("a.b")`, f"a.{kind}", "a." + key."""
    folder = Path(compare.__file__).parent
    found = []
    for path in [*folder.glob("*.py"), *folder.glob("*.html"), folder / "languages" / "__init__.py"]:
        literals = re.findall(r'"([a-z][\w.-]*(?:\{[^"]*)?)"', path.read_text(encoding="utf-8"))
        found += [pattern(literal) for literal in literals]
    return found


def pattern(literal: str) -> str:
    filled = re.sub(r"\\\{.*?\\\}", ".+", re.escape(literal))
    return filled + (".+" if literal.endswith(".") else "")


def test_every_text_is_used() -> None:
    asked = re.compile("|".join(f"(?:{one})" for one in used()))
    counted = {key for key in ENGLISH.texts if key.startswith("count.") and asked.fullmatch(key.removeprefix("count."))}
    assert [key for key in ENGLISH.texts if not asked.fullmatch(key) and key not in counted] == []


class Said(HTMLParser):
    """What a page says, in texts and in attributes, without what is marked as another language."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.said: list[str] = []
        self.language: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = dict(attributes)
        if tag == "html":
            self.language = of.get("lang")
        elif tag not in ("meta", "br"):
            self.open.append((tag, of.get("lang")))
        self.said += [of[key] or "" for key in SHOWN_ATTRIBUTES if key in of]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # the parent names it
        if self.open:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if not any(tag in ("style", "code") or lang == "en" for tag, lang in self.open):
            self.said.append(data)


def strings(value: Any) -> Iterator[str]:
    """Every text of a study, keys included: data, not words of ours."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (str(key), *strings(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def of_the_study(folder: Path) -> list[str]:
    study = json.loads((folder / "study.json").read_text())
    rows = [json.loads(line) for path in folder.rglob("items/*.jsonl") for line in path.read_text().splitlines()]
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    runs = [{**run, "metrics": {}, "status": "", "overfitting": ""} for run in study["runs"]]
    shown = {"runs": runs, "environment": study["environment"], "labels": study.get("labels"), "name": study["name"]}
    shown["judged"] = [
        (one["judge"], one["server"], one["source"], [(pair["a"], pair["b"]) for pair in one["pairs"]])
        for one in study.get("judged", [])
        if one["source"] != TEST_ITEMS
    ]
    found = {text for text in strings([shown, rows, items]) if re.search("[A-Za-z]", text)}
    found |= {key.rsplit(".", 1)[-1] for key in found if re.fullmatch(r"[a-z]+\.\w+", key)}
    return sorted(found, key=len, reverse=True)


def english_words(html: str, folder: Path) -> list[str]:
    """Latin words of a page that are neither names nor the study's own."""
    text = re.sub(r"--[a-z-]+", " ", "\n".join(Said(html).said))  # options of a command
    for own in of_the_study(folder):
        text = re.sub(rf"(?<![A-Za-z]){re.escape(own)}(?![A-Za-z])", " ", text)
    words_found = (word for run in re.findall(r"[^\W\d_]+", text) for word in re.split("[가-힣]+", run))
    return [word for word in words_found if re.search("[A-Za-z]{2}", word) and word not in NAMES]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Studies that between them have every section: axes, two settings, seeds, failures, losses alone, free answers."""
    at = tmp_path_factory.mktemp
    folders = [
        build_study(at("sweep"), items=20, runs=tuple(SWEEP)[:4], failed=True, validation=True),
        build_study(at("seeds"), items=20, runs=tuple(SEEDS), validation=True),
        build_study(at("epochs"), items=20, runs=("qv-2", "all-linear-3"), similarity=True),
        build_study(at("losses"), items=20, runs=("qv-2",), classify=False, baseline=False),
        build_study(at("nothing"), items=20, runs=()),
        judged_study(at("judged")),
        only_answers(at("answers"), ("qv-2",)),
    ]
    for folder in folders:
        study = json.loads((folder / "study.json").read_text())
        study["comparisons"] = compare_study(folder)
        for run in study["runs"]:
            if run["name"] == "qv-2":
                run |= {"status": "stopped_early", "adapter_step": 57, "steps": 114, "overfitting": OVERFITTING}
        (folder / "study.json").write_text(json.dumps(study))
    return folders


def judged_study(folder: Path) -> Path:
    """Two judges, with everything that can be said of a judge, and pairs of which one was not judged."""
    build_study(folder, items=20, runs=("qv-2",))
    counts = {("b", "b"): 30, ("a", "a"): 12, ("a", "b"): 90, ("unparsable", "b"): 1, ("missing", "b"): 2}
    said = many(counts, longer="b")
    said += [*many({("missing", "b"): 1}, b="qv-2"), judged(0, "tie", "tie", identical=True)]
    person = {"with": "김철수", "units": 9, "agreed": 0.5, "cohens_kappa": 0.1, "interval": [0.0, 0.3]}
    retries = {"rate limit": 1, "server error": 2, "no connection": 3, "too slow": 4, "unreadable": 5}
    more = {"own": True, "cut": 3, "no_verdict": 2, "asked": {"limited": True, "retries": retries}}
    first = record(said, agreement=[person, {**person, "cohens_kappa": None}], **more)
    study = json.loads((folder / "study.json").read_text())
    study["judged"] = [first, {**first, "judge": "심판", "server": None, "source": TEST_ITEMS}]
    (folder / "study.json").write_text(json.dumps(study))
    return folder


OVERFITTING = {
    "verdict": "overfitting", "epoch": 1.0, "last_epoch": 2.0, "lowest": 0.5, "last": 0.7, "rise": 0.2,
    "interval": [0.1, 0.3], "p_value": 0.0004, "train_fall": 0.1,
}  # fmt: skip


def test_no_english_text_is_left_in_the_korean_page(studies: list[Path]) -> None:
    for folder in studies:
        page = render(folder, "ko")
        assert Said(page).language == "ko"
        assert english_words(page, folder) == []


def test_the_check_sees_an_english_text(studies: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = {**KOREAN.texts, "ranking.note": ENGLISH.texts["ranking.note"]}
    monkeypatch.setitem(languages.LANGUAGES, "ko", dataclasses.replace(KOREAN, texts=forgotten))
    assert "Against" in english_words(render(studies[0], "ko"), studies[0])
    label = {**KOREAN.texts, "ranking.region": ENGLISH.texts["ranking.region"]}
    monkeypatch.setitem(languages.LANGUAGES, "ko", dataclasses.replace(KOREAN, texts=label))
    assert "Ranking" in english_words(render(studies[0], "ko"), studies[0])


def test_names_that_pronk_made_up_are_said_too(studies: list[Path]) -> None:
    assert KOREAN.row("a/rank-4 (3 seeds)") == "a/rank-4(시드 3개)"
    assert KOREAN.row("smollm2 (as asked in b), 2 examples") == "smollm2(b의 방식으로 물음), 예시 2개"
    for name in ("rank-4 (3 seeds)", "rank-4-seed-1 and seeds alike", "smollm2, nf4, 5 examples", "seeds"):
        assert ENGLISH.row(name) == name
    assert "(시드 2개)" in render(studies[1], "ko")


def test_what_the_terminal_shows_too_has_no_markup() -> None:
    for table in languages.judged.TEXTS.values():
        assert not [text for text in table.values() if set("<>&") & set(text)]


def test_the_english_page_is_english(studies: list[Path]) -> None:
    page = render(studies[0])
    assert Said(page).language == "en"
    assert not re.search("[가-힣]", page)


@pytest.mark.parametrize("why", [key.rsplit(".", 1)[1] for key in ENGLISH.texts if key.startswith("overfitting.why.")])
def test_reasons_are_said_in_either_language(why: str) -> None:
    found = {"verdict": "not assessed", **_because(why, rows=3, fewest=FEWEST_ROWS)}
    assert found["reason"] in words.overfitting(found)
    assert re.search("[가-힣]", words.overfitting(found, KOREAN))
    assert found["reason"] not in words.overfitting(found, KOREAN)


def test_blanks_are_escaped_once() -> None:
    said = ENGLISH("gain.accuracy", run="<a&b>", value="0.5", items=ENGLISH.count("item", 3))
    assert said == Markup("<b>&lt;a&amp;b&gt;</b> answers 0.5 of 3 test items correctly")


def test_counts_have_one_form_or_two() -> None:
    assert [ENGLISH.count("run", n) for n in (1, 2, 5000)] == ["1 run", "2 runs", "5,000 runs"]
    assert [KOREAN.count("run", n) for n in (1, 2)] == ["실행 1개", "실행 2개"]


@pytest.mark.parametrize(
    ("of", "metric", "said"),
    [
        (ENGLISH, "accuracy", "accuracy"),
        (ENGLISH, "nll", "loss"),
        (ENGLISH, "rouge_l", "ROUGE-L"),
        (ENGLISH, "chrf", "chrF"),
        (ENGLISH, "somebody's", "somebody's"),
        (KOREAN, "accuracy", "정확도"),
        (KOREAN, "nll", "손실"),
    ],
)
def test_metrics_within_a_sentence(of: Language, metric: str, said: str) -> None:
    assert of.metric_inside(metric) == said


def test_a_language_that_there_is_not_is_refused() -> None:
    with pytest.raises(OptionError, match="--lang fr: the report is written in en and ko"):
        language("fr")


def test_pronk_report_writes_either_language(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=20, runs=("qv-2",))
    for code in ("ko", "en"):
        done = CliRunner().invoke(app, ["report", str(folder), "--lang", code])
        assert done.exit_code == 0, done.output
        assert f'<html lang="{code}">' in (folder / "report.html").read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, ["report", str(folder), "--lang", "fr"])
    assert isinstance(refused.exception, OptionError)
    assert '<html lang="en">' in (folder / "report.html").read_text(encoding="utf-8")

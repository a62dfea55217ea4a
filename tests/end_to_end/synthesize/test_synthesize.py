"""`pronk synthesize` against a scripted server: what is kept, what is never shown, what is wrong, local models."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Told
from scripted_author import Author, Place, rows, sentence

import pronk.synthesize.samples as samples
from scripted_server import KEY, Scripted

Pronk = Callable[..., Told]


def shown(server: Scripted, texts: list[str]) -> list[str]:
    """Texts that stand in some request."""
    sent = "\n".join(json.dumps(one, ensure_ascii=False) for one in server.seen).casefold()
    return [text for text in texts if text.casefold() in sent]


# --- what is kept, and what is never shown ---------------------------------------------------------


def test_copies_are_dropped_and_test_items_never_shown(
    place: Place, author: Author, server: Scripted, pronk: Pronk
) -> None:
    test = place.kept_out()
    author.plants = test + [row["text"] for row in rows(40)]
    told = pronk(*place.asking(server, "--count", "60", source="--recipe"))
    assert told.code == 0, told.err
    made = place.made()
    assert Counter(row["label"] for row in made) == {"down": 30, "up": 30}
    assert len({row["text"] for row in made}) == 60
    planted = {" ".join(text.split()).casefold() for text in author.planted}
    kept = [row["text"] for row in made if " ".join(row["text"].split()).casefold() in planted]
    assert len(author.planted) > 40
    assert len(kept) <= 0.05 * len(author.planted)
    dropped = place.summary()["dropped"]
    assert dropped["exact-duplicate"] > 10
    assert dropped["near-kept-out"] + dropped["near-seed"] > 3
    assert len(test) == 16
    assert len(server.seen) > 20
    assert shown(server, test) == []
    assert "16 texts kept out" in told.err
    # every seed that is named was shown
    places = {place_ for row in made for place_ in row["provenance"]["seed_ids"]}
    assert len(places) > 10
    assert all(re.fullmatch(r"rows\.jsonl:\d+", one) for one in places)


def test_seeds_that_are_near_a_text_to_avoid_are_not_shown(place: Place, server: Scripted, pronk: Pronk) -> None:
    own = [row["text"] for row in rows(40)]
    (place.folder / "avoid.txt").write_text("\n".join([own[0].upper(), own[1].replace(" ", "  ")]), encoding="utf-8")
    place.write_rows([{"id": 3, "turns": [{"content": own[2]}]}], "items.jsonl")
    files = ["--avoid", str(place.folder / "avoid.txt"), "--avoid", str(place.folder / "items.jsonl")]
    told = pronk(*place.asking(server, "--shots", "12", *files))
    assert told.code == 0, told.err
    assert "3 seeds left out" in told.err
    assert shown(server, own[:3]) == []
    assert len(shown(server, own)) > 30


def test_a_leak_would_show(place: Place, server: Scripted, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the seeds are all rows of the data, and nothing is kept out."""
    test = place.kept_out()
    original = samples.read_splits

    def leaky(*args: Any) -> Any:
        splits, labels = original(*args)
        from dataclasses import replace

        return replace(splits, train=(*splits.train, *splits.test), validation=(), test=()), labels

    monkeypatch.setattr(samples, "read_splits", leaky)
    assert pronk(*place.asking(server, source="--recipe")).code == 0
    assert shown(server, test) != []


def test_a_row_says_where_it_comes_from_and_the_key_is_in_no_file(place: Place, server: Scripted, pronk: Pronk) -> None:
    told = pronk(*place.asking(server, "--temperature", "0.5", "--json"))
    assert told.code == 0, told.err
    assert json.loads(told.out) == place.summary()
    first = place.made()[0]["provenance"]
    assert first["model"] == "author"
    assert first["server"] == "127.0.0.1"
    assert first["prompt_version"] == "classify-json-1"
    assert first["temperature"] == 0.5
    assert len(first["seed_ids"]) == 4
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", first["created"])
    assert {one["temperature"] for one in server.seen} == {0.5}
    assert {one["key"] for one in server.seen} == {f"Bearer {KEY}"}
    files = [path for path in place.folder.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in told.out + told.err


def test_instructions(place: Place, author: Author, server: Scripted, pronk: Pronk) -> None:
    generator = random.Random(5)
    seeds = [{"instruction": sentence(generator), "input": "", "output": sentence(generator)} for _ in range(9)]
    place.write_rows([*seeds, {**seeds[0], "output": "again"}])
    author.plants = [row["instruction"] for row in seeds]
    told = pronk(*place.asking(server))
    assert told.code == 0, told.err
    assert "instruct: 9 seeds" in told.err
    assert [*place.made()[0]] == ["instruction", "input", "output", "provenance"]
    assert len(place.made()) == 20
    assert place.summary()["by_label"] == {}


def test_labels_are_asked_for_once_more_blind(place: Place, server: Scripted, pronk: Pronk) -> None:
    """The author calls everything up: no text for down is confirmed, and the labels are never said beforehand."""
    told = pronk(*place.asking(server, "--verify", "--limit-tokens", "20000"))
    assert told.code == 0, told.err
    assert {row["label"] for row in place.made()} == {"up"}
    assert len(place.made()) == 10
    assert place.summary()["dropped"]["label-not-confirmed"] >= 10
    assert all(row["provenance"]["verified"] for row in place.made())
    blind = [one["messages"][0]["content"] for one in server.seen if one["temperature"] == 0]
    shown_labels = [Counter(re.findall(r"^Label: (\w+)$", text, re.MULTILINE)) for text in blind]
    assert len(blind) >= 20
    assert all(counts == {"up": 2, "down": 2} for counts in shown_labels)


# --- hostile output ----------------------------------------------------------------------------------


def test_hostile_output_stays_harmless(place: Place, author: Author, server: Scripted, pronk: Pronk) -> None:
    markup = "<script>alert(1)</script> <img src=x onerror=alert(2)> lorem ipsum dolor sit amet"
    nasty = [
        "[" * 100_000, "\x1b]0;title\x07\x1b[2J", '[{"text": "' + "z" * 500_000, '{"text": 1e999}', "[]", "null",
        json.dumps([{"text": f"esc \x1b[31mred and more of it {k}"} for k in range(4)]),
        json.dumps([{"text": "half \ud800 of a letter here and there"}]),
        json.dumps([{"text": markup}, {"text": f"{markup} and <|im_end|>"}]),
        json.dumps([{"text": "w" * 5000}, {"text": ["a"]}, {"text": "more of it", "label": {"up": 1}}]),
    ]  # fmt: skip
    answers = iter(nasty)
    server.answer = lambda body: next(answers, None) or author(body)
    told = pronk(*place.asking(server))
    assert told.code == 0, told.err
    content = place.rows.read_text(encoding="utf-8") + told.out + told.err + json.dumps(place.summary())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", content)
    made = [row["text"] for row in place.made()]
    assert len(made) == 20
    assert max(map(len, made)) < 2001
    dropped = place.summary()["dropped"]
    reasons = {"unparsable", "empty", "too-long", "wrong-label", "control-characters", "special-token"}
    assert reasons <= dropped.keys()
    assert markup in made
    assert dropped["unparsable"] >= 5


# --- what is wrong is one message ------------------------------------------------------------------------


WRONG: list[tuple[list[str], list[str]]] = [
    (["--seeds", "{rows}"], ["no model", "--base BASE"]),
    (["--base", "{base}"], ["no seeds", "--recipe RECIPE"]),
    (["--seeds", "{rows}", "--url", "{url}"], ["belong together"]),
    (["--seeds", "{rows}", "--url", "{url}", "--model", "m", "--base", "{base}"], ["name one"]),
    (["--seeds", "{rows}", "{base}", "--base", "{base}"], ["one model writes"]),
    (["--seeds", "{rows}", "--url", "nowhere", "--model", "m"], ["expected an address"]),
    (["--seeds", "{rows}", "--url", "http://models.example/v1", "--model", "m"], ["add --yes"]),
    (["--seeds", "{rows}", "--url", "{url}", "--model", "m", "--form", "continue"], ["--form continue"]),
    (["--seeds", "{rows}", "--base", "{base}", "--limit-cost", "2"], ["limit_cost", "add --price-in"]),
    (["--seeds", "{rows}", "--base", "{base}", "--count", "0"], ["count", "greater than 0"]),
    (["--seeds", "{rows}", "--base", "{base}", "--task", "poems"], ["task", "'poems'"]),
    (["--seeds", "{rows}", "--base", "{base}", "--task", "instruct"], ["the seeds have labels"]),
    (["--seeds", "{rows}", "--base", "{base}", "--labels", "up,down,flat"], ["no seed has the label 'flat'"]),
    (["--seeds", "{rows}", "--base", "{base}", "--avoid", "{rows}"], ["no seed left"]),
    (["--seeds", "{rows}", "--base", "{base}", "--out", "{folder}/rows.csv"], ["ending in .jsonl"]),
    (["--seeds", "{folder}/none.jsonl", "--base", "{base}"], ["there is no such file"]),
    (["--seeds", "{rows}", "./nowhere"], ["there is no such folder"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "fragments"), WRONG)
def test_what_is_wrong_is_one_message_and_nothing_is_written(
    arguments: list[str],
    fragments: list[str],
    place: Place,
    tiny_base: Path,
    pronk: Pronk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place.folder)
    monkeypatch.setattr("pronk.model.load.load_model", lambda *_: pytest.fail("weights were loaded"))
    before = sorted(place.folder.rglob("*"))
    names = {
        "rows": place.folder / "rows.jsonl", "base": tiny_base, "folder": place.folder, "url": "http://127.0.0.1:9/v1",
    }  # fmt: skip
    told = pronk("synthesize", *(part.format(**names) for part in arguments))
    assert told.code == 2, told.err
    assert told.err.count("pronk: ") == 1
    message = " ".join(told.err.split())
    for fragment in fragments:
        assert fragment in message, message
    assert sorted(place.folder.rglob("*")) == before


# --- local models, and what becomes of the rows ------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "continue"])
def test_a_local_model_is_asked_and_counted(form: str, place: Place, tiny_base: Path, pronk: Pronk) -> None:
    """Random weights write rubbish; what they are asked, and that they keep to the limit, is looked at here."""
    options = ["--base", str(tiny_base), "--form", form, "--max-new-tokens", "16", "--per-request", "1", "--shots", "2"]
    more = ["--count", "500", "--limit-tokens", "5000", "--out", str(place.rows)]
    told = pronk("synthesize", "--seeds", str(place.folder / "rows.jsonl"), *options, *more)
    assert told.code == 0, told.err
    record = place.summary()
    assert record["status"] == "limit"
    assert 4500 < record["tokens_in"] + record["tokens_out"] <= 5000
    assert record["estimated_tokens"] == 0
    assert record["tokens_out"] <= 16 * record["requests"]
    assert record["answers_cut"] > 10
    assert record["dropped"].get("cut-off", 0) == (record["answers_cut"] if form == "continue" else 0)
    assert record["settings"]["prompt_version"] == f"classify-{form}-1"


@pytest.mark.slow
def test_rows_pass_the_check_and_train(place: Place, server: Scripted, pronk: Pronk) -> None:
    """As the summary says: beside the rows that the test comes from, which stays the same."""
    told = pronk(*place.asking(server, source="--recipe"))
    assert told.code == 0, told.err
    (line,) = [line for line in told.out.splitlines() if "part: train" in line]
    place.recipe["data"]["source"] = ["rows.jsonl", yaml.safe_load(line)]
    place.recipe["train"] |= {"max_steps": 2}
    del place.recipe["train"]["epochs"]
    test = place.kept_out()
    told = pronk(*place.arguments())
    assert told.code == 0, told.err
    assert place.kept_out() == test
    assert place.study()["data"]["train"] == 40 - 16 + 20
    assert place.study()["data"]["train_only"] == 20
    told = pronk("check", str(place.folder / "recipe.yaml"))
    assert told.code == 0, told.err + told.out
    alone = {"source": "made.jsonl", "split": {"validation": 4, "test": 4}}
    place.recipe["data"] = alone
    place.arguments()
    told = pronk("check", str(place.folder / "recipe.yaml"))
    assert told.code == 0, told.err + told.out
    assert "made.jsonl: read as classify" in told.err

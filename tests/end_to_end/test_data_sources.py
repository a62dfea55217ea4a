"""Data as people have it, from the command line: found formats, Parquet, conditions, weights; and one message each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from command_line import Told, Workplace, labelled_rows

Pronk = Callable[..., Told]


def test_a_study_of_two_sources_whose_format_is_found(workplace: Workplace, pronk: Pronk) -> None:
    from datasets import Dataset

    Dataset.from_list([{**row, "lang": "en"} for row in labelled_rows(90)]).to_parquet(
        str(workplace.folder / "a.parquet")
    )
    other = [{**row, "text": f"Other {row['text']}", "lang": "fr"} for row in labelled_rows(60)]
    (workplace.folder / "b.json").write_text(json.dumps(other), encoding="utf-8")
    workplace.recipe["data"] |= {
        "source": [
            {"path": "a.parquet", "weight": 2},
            {"path": "b.json", "weight": 1, "where": "not 'Item 7:' in text"},
        ],
        "where": "lang == 'en'",
    }
    del workplace.recipe["data"]["format"]
    told = pronk(*workplace.arguments())
    assert told.code == 0, told.err
    lines = " ".join(told.err.split())
    assert "a.parquet: read as classify, from the columns 'text' and 'label'" in lines
    assert "a.parquet: \"lang == 'en'\" keeps 90 of 90 rows" in lines
    assert "b.json: \"not 'Item 7:' in text\" keeps 59 of 60 rows" in lines
    assert "mixed by weight: 90 of 90 rows of a.parquet and 45 of 59 rows of b.json" in lines
    study = workplace.study()
    assert sum(study["data"][part] for part in ("train", "validation", "test")) <= 135
    tuned = next(run for run in study["runs"] if not run["baseline"])
    assert "accuracy" in tuned["metrics"]  # classification was measured, though the recipe never says classify


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no format that fits": (
        {"columns": {"text": "sentence"}},
        ["rows.jsonl does not say which format it has", "'text' and 'label'", "format: classify"],
    ),
    "a condition that is code": ({"where": "__import__('os')"}, ["data.where", "character 1", "not a function"]),
    "a condition on nothing": ({"where": "txt == 'a'"}, ["rows.jsonl:1", "'txt'", "did you mean 'text'?"]),
    "a condition that nothing meets": ({"where": "text == 'a'"}, ["keeps none of the 60 rows"]),
    "a hub data set without a network": ({"source": "owner/name"}, ["owner/name", "the hub cannot be reached"]),
    "a file and an id": ({"source": {"path": "rows.jsonl", "id": "o/n"}}, ["recipe.yaml", "data.source.path"]),
    "a weight of nothing": ({"source": {"path": "rows.jsonl", "weight": 0}}, ["recipe.yaml", "data.source.weight"]),
    "a broken Parquet file": ({"source": "rows.parquet"}, ["rows.parquet", "not a readable Parquet file"]),
    "a broken JSON file": ({"source": "rows.json"}, ["rows.json:2", "broken JSON"]),
    "turns out of order": ({"source": "turns.jsonl", "split": {}}, ["turns.jsonl:1", "turn 1 is the assistant's"]),
    "a measure that does not go with the format found": (
        {"source": "pairs.jsonl", "split": {}},
        ["with the format pairs, found from the columns", "evaluate: classify needs"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused_before_anything_is_written(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    keys, fragments = WRONG[case]
    (workplace.folder / "rows.parquet").write_bytes(b"PAR1 and nothing")
    (workplace.folder / "rows.json").write_text('[{"text": "a"},\n{"text" "b"}]')
    workplace.write_rows([{"messages": [{"role": "assistant", "content": "Hi"}]}], "turns.jsonl")
    workplace.write_rows([{"prompt": "a", "response": "b"}], "pairs.jsonl")
    workplace.recipe["data"] |= keys
    workplace.recipe["evaluate"] = ["classify"] if "measure" in case else ["likelihood"]
    del workplace.recipe["data"]["format"]
    told = pronk(*workplace.arguments())
    assert (told.code, told.out) == (2, "")
    assert "Traceback" not in told.err
    assert told.err.count("pronk: ") == 1
    for fragment in fragments:
        assert fragment in told.err.replace("\n", " ")
    assert not workplace.out.exists()

"""Hub data sets, read from a hub on this machine; and every way in which one cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROWS = [{"sentence": f"s{n}", "label": n % 2} for n in range(6)]
# A process of its own: the hub's address is read once, when its library is imported.
READ = """
import json, sys
from pronk.data.sources import read_conversations
from pronk.errors import PronkError
from pronk.recipe import Data
told, knocks = [], []
sys.addaudithook(lambda event, given: knocks.append(str(given[1])) if event == "socket.connect" else None)
for source, keys in json.loads(sys.stdin.read()):
    knocks.clear()
    try:
        data = Data.model_validate({"source": source, **keys})
        rows, labels = read_conversations(data)
        told.append([[row.subject for row in rows], [row.label or row.answer for row in rows], rows[-1].place])
    except PronkError as error:
        told.append(str(error))
    told[-1] = [told[-1], list(knocks)]
print(json.dumps(told))
"""


def ask(questions, **environment):
    """What becomes of sources with their keys, all in one process; also where each knocked."""
    done = subprocess.run(
        [sys.executable, "-c", READ], input=json.dumps(questions), capture_output=True, text=True, timeout=120,
        check=True, env={**os.environ, **environment},
    )  # fmt: skip
    return [found for found, _ in json.loads(done.stdout)], [knocks for _, knocks in json.loads(done.stdout)], done


def fill(root: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    labelled = Dataset.from_list(ROWS, features=features)
    for place, count in (
        ("o/plain/main/data/train-00000-of-00001.parquet", 6),
        ("o/plain/main/data/test-00000-of-00001.parquet", 2),
        ("o/several/main/one/train.parquet", 6),
        ("o/several/main/two/train.parquet", 4),
        ("o/script/refs_convert_parquet/one/train/0000.parquet", 6),
        ("o/script/refs_convert_parquet/two/train/0000.parquet", 4),
        ("o/single/refs_convert_parquet/default/train/0000.parquet", 3),
        ("o/gated/main/data/train.parquet", 6),
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        labelled.select(range(count)).to_parquet(str(root / place))
    configs = "".join(f"- config_name: {n}\n  data_files: {n}/train.parquet\n" for n in ("one", "two"))
    (root / "o/several/main/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    (root / "o/script/main").mkdir()
    (root / "o/script/main/script.py").write_text("raise SystemExit('must never run')")
    (root / "o/gated/GATED").touch()


CLASSIFY = {"format": "classify", "columns": {"text": "sentence"}}
ALL = [row["sentence"] for row in ROWS]
WORDS = ["bad", "good"] * 3
CONVERTED = "refs/convert/parquet"
CASES = {
    "plain": ("o/plain", CLASSIFY, [ALL, WORDS, "o/plain train, row 6"]),
    "numbers named by the recipe": (
        "o/plain", {**CLASSIFY, "labels": {"no": 0, "yes": 1}}, [ALL, ["no", "yes"] * 3, "o/plain train, row 6"],
    ),
    "another split": ({"id": "o/plain", "split": "test"}, CLASSIFY, [ALL[:2], WORDS[:2], "o/plain test, row 2"]),
    "a configuration": ({"id": "o/several", "name": "two"}, CLASSIFY, [ALL[:4], WORDS[:4], "o/several train, row 4"]),
    "a converted set": (
        {"id": "o/script", "name": "two", "revision": CONVERTED}, CLASSIFY,
        [ALL[:4], WORDS[:4], "o/script train, row 4"],
    ),
    "a converted set of one": (
        {"id": "o/single", "revision": CONVERTED}, {**CLASSIFY, "where": "label == 'bad'", "labels": ["bad", "good"]},
        [["s0", "s2"], ["bad", "bad"], "o/single train, row 3"],
    ),
    "a script": (
        {"id": "o/script", "name": "one"}, CLASSIFY,
        "data.source: o/script needs a script of its author's to be read, and pronk runs no such code; take the copy "
        "that the hub has converted: `source: {id: o/script, name: one, revision: refs/convert/parquet}`",
    ),
    "which configuration": ("o/several", CLASSIFY, "Please pick one among the available configs: ['one', 'two']; "),
    "no such configuration": (
        {"id": "o/several", "name": "six"}, CLASSIFY, "BuilderConfig 'six' not found. Available: ['one', 'two']; write",
    ),
    "which converted configuration": (
        {"id": "o/script", "revision": CONVERTED}, CLASSIFY,
        "data.source: o/script has several configurations; write `name:` with one of 'one' and 'two'",
    ),
    "no such converted configuration": (
        {"id": "o/script", "name": "six", "revision": CONVERTED}, CLASSIFY,
        "data.source: o/script has no configuration 'six'; there are 'one' and 'two'",
    ),
    "no such split": ({"id": "o/plain", "split": "validation"}, CLASSIFY, 'Unknown split "validation". Should be'),
    "no such revision": ({"id": "o/plain", "revision": "v2"}, CLASSIFY, "o/plain has no revision 'v2'"),
    "no such set": ("o/nothing", CLASSIFY, "o/nothing is neither a file here nor a data set on the hub that you"),
    "gated": ("o/gated", CLASSIFY, "o/gated needs its terms accepted: do so at https://huggingface.co/data"),
    "which format": ("o/plain", {}, "o/plain does not say which format it has: its columns are 'sentence' and 'label'"),
    "no such column": ("o/plain", {"format": "pairs"}, "o/plain train: there is no column 'prompt' for prompt"),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    fill(folder / "served")
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("fake_hub.py"), folder / "served", folder / "port"]
    )
    try:
        while not (folder / "port").exists() or not (folder / "port").read_text():
            time.sleep(0.02)
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{(folder / 'port').read_text()}", "HF_HOME": str(folder / "home")}
        online, _, done = ask([CASES[case][:2] for case in CASES], **hub)
        assert done.stderr == ""
        yield dict(zip(CASES, online, strict=True)), hub
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("case", CASES)
def test_a_set_on_the_hub(answers, case):
    expected, found = CASES[case][2], answers[0][case]
    if isinstance(expected, list):
        assert found == expected
    else:
        assert isinstance(found, str)
        assert found.count("\n") == 0 or case == "which format"
        assert expected in found


def test_what_was_downloaded_is_read_without_a_network(answers):
    found, _, _ = ask([CASES["plain"][:2]], **answers[1], HF_HUB_OFFLINE="1")
    assert found == [CASES["plain"][2]]


@pytest.mark.parametrize(("how", "most"), [({"HF_HUB_OFFLINE": "1"}, 0), ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 2)])
def test_no_network_is_one_message_at_once(tmp_path, how, most):
    """The hub's library would try for half a minute. Ours is one knock; its newer versions have one of their own."""
    (found,), (knocks,), done = ask([("o/plain", {})], HF_HOME=str(tmp_path), **how)
    assert found == (
        "data.source: o/plain is neither a file here nor in this machine's cache, and the hub cannot be reached; go "
        "online, or download it elsewhere and name the files, such as `source: rows.parquet`"
    )
    assert done.stderr == ""
    assert len(knocks) <= most

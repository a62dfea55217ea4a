"""`pronk synthesize` against a scripted server: what it may cost, failures, stopping and going on."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from command_line import Told
from scripted_author import Author, Place, rows

import pronk.synthesize.making as making
import pronk.synthesize.samples as samples
from pronk.evaluate.spending import Tally
from pronk.runs import one_writer
from scripted_server import Scripted

Pronk = Callable[..., Told]


# --- budget, failures ----------------------------------------------------------------------------------


def test_a_budget_is_kept_to_and_a_larger_one_goes_on(place: Place, server: Scripted, pronk: Pronk) -> None:
    told = pronk(*place.asking(server, "--count", "200", "--limit-tokens", "3000", "--max-new-tokens", "300"))
    assert told.code == 0, told.err
    assert "stopped at the limit" in told.out
    first, before = place.summary(), place.made()
    spent = first["tokens_in"] + first["tokens_out"]
    assert spent == 110 * len(server.seen)  # as the server counts
    assert 3000 - 110 - 500 < spent <= 3000
    assert first["status"] == "limit"
    told = pronk(*place.asking(server, "--count", "200", "--limit-tokens", "5000", "--max-new-tokens", "300"))
    assert told.code == 0, told.err
    assert f"{len(before)} rows of 200 there already" in told.err
    spent = place.summary()["tokens_in"] + place.summary()["tokens_out"]
    assert spent == 110 * len(server.seen) <= 5000
    assert place.made()[: len(before)] == before
    requests = [row["provenance"]["request"] for row in place.made()]
    assert set(requests[: len(before)]).isdisjoint(requests[len(before) :])
    assert len({row["text"] for row in place.made()}) == len(requests)


def test_a_budget_that_is_not_kept_shows(
    place: Place, server: Scripted, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what is under way is not set aside."""
    monkeypatch.setattr(Tally, "hold", lambda *_: (0, 0))
    pronk(*place.asking(server, "--count", "200", "--limit-tokens", "3000", "--max-new-tokens", "300"))
    assert place.summary()["tokens_in"] > 3000


def test_a_cost_is_kept_to(place: Place, server: Scripted, pronk: Pronk) -> None:
    prices = ["--price-in", "10", "--price-out", "100", "--limit-cost", "0.10", "--max-new-tokens", "300", "--yes"]
    told = pronk(*place.asking(server, "--count", "200", *prices))
    assert told.code == 0, told.err
    assert "a cost of" in told.err  # the estimate
    cost = place.summary()["cost"]
    assert cost == pytest.approx(len(server.seen) * (100 * 10 + 10 * 100) / 1e6)
    assert 0.06 < cost <= 0.10


def test_failures_are_tried_again_and_told(place: Place, server: Scripted, pronk: Pronk) -> None:
    server.plan = [(429, {"Retry-After": "0"}, None), 503, 200, (400, {}, '{"error": "filtered"}'), (200, {}, "<html>")]
    told = pronk(*place.asking(server))
    assert told.code == 0, told.err
    assert len(place.made()) == 20
    record = place.summary()
    assert record["retries"]["rate limit"] == 1
    assert record["retries"]["server error"] == 1
    assert record["failures"] == {"refused": 1}
    assert "tried again: rate limit 1" in told.out


def test_a_server_that_goes_away_leaves_what_is_there(place: Place, server: Scripted, pronk: Pronk) -> None:
    server.plan = [200, 200, *[500] * 200]
    told = pronk(*place.asking(server, "--count", "200"))
    assert told.code == 2
    assert "gave no answer" in " ".join(told.err.split())
    assert place.summary()["status"] == "failed"
    assert len(place.made()) == 8
    server.plan = []
    assert pronk(*place.asking(server)).code == 0
    assert len(place.made()) == 20


def test_it_gives_up_where_nothing_can_be_kept(
    place: Place, author: Author, server: Scripted, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "PATIENCE", 10)
    author.plants, author.every = [row["text"] for row in rows(40)], 1
    told = pronk(*place.asking(server))
    assert told.code == 1
    assert "too little of what the model writes can be kept" in " ".join(told.err.split())
    assert "exact-duplicate" in told.err
    assert 10 <= len(server.seen) < 60
    assert place.summary()["status"] == "gave-up"


# --- stopping and going on ------------------------------------------------------------------------------


def test_ctrl_c_keeps_whole_rows_and_the_same_command_goes_on(
    place: Place, author: Author, server: Scripted, pronk: Pronk
) -> None:
    usual = author.__call__

    def pressed(body: dict[str, Any]) -> str:
        if len(server.seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        elif len(server.seen) > 4:
            threading.Event().wait(0.5)
        return usual(body)

    server.answer = pressed
    told = pronk(*place.asking(server, "--count", "60"))
    assert told.code == 130, told.err
    assert "the same command goes on" in told.out
    before = place.made()
    assert 0 < len(before) < 60
    server.answer = usual
    told = pronk(*place.asking(server, "--count", "60"))
    assert told.code == 0, told.err
    assert place.made()[: len(before)] == before
    assert Counter(row["label"] for row in place.made()) == {"down": 30, "up": 30}
    assert len({row["text"] for row in place.made()}) == 60
    told = pronk(*place.asking(server, "--count", "60"))
    assert told.code == 0
    assert "60 rows of 60 there already" in told.err
    assert len(place.made()) == 60


def test_half_a_line_of_a_killed_process_is_cut_off(place: Place, server: Scripted, pronk: Pronk) -> None:
    assert pronk(*place.asking(server)).code == 0
    whole = place.rows.read_text(encoding="utf-8")
    summary = place.summary()
    summary["under_way"] = {"requests": 3, "tokens_in": 500, "tokens_out": 700}
    (place.folder / "made.jsonl.summary.json").write_text(json.dumps(summary), encoding="utf-8")
    place.rows.write_text(whole + '{"text": "half a', encoding="utf-8")
    assert pronk(*place.asking(server, "--count", "24")).code == 0
    assert place.rows.read_text(encoding="utf-8").startswith(whole)
    assert len(place.made()) == 24
    after = place.summary()
    assert after["estimated_tokens"] == 1200  # the round that was open counts as spent
    assert after["tokens_in"] + after["tokens_out"] == 110 * len(server.seen) + 1200


def test_an_author_that_repeats_itself_adds_no_row_twice(
    place: Place, server: Scripted, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone on with, and as a planted fault: rows that are there already are not remembered."""
    assert pronk(*place.asking(server)).code == 0
    server.answer = Author()  # writes the same once more
    assert pronk(*place.asking(server, "--count", "40")).code == 0
    assert len({row["text"] for row in place.made()}) == 40
    monkeypatch.setattr(making, "_sample", lambda *_: samples.Sample("something else", "", "up"))
    server.answer = Author()
    assert pronk(*place.asking(server, "--count", "60")).code == 0
    assert len({row["text"] for row in place.made()}) < 60


def test_two_commands_do_not_write_one_file(place: Place, server: Scripted, pronk: Pronk) -> None:
    """Nobody is asked for rows that the other one writes."""
    with one_writer(place.rows):
        told = pronk(*place.asking(server))
    assert told.code == 2
    assert "made.jsonl: another pronk is writing this" in " ".join(told.err.split())
    assert (server.seen, place.rows.exists()) == ([], False)
    assert pronk(*place.asking(server)).code == 0
    assert not list(place.folder.glob(".*"))


def test_files_of_others_are_refused(place: Place, server: Scripted, pronk: Pronk) -> None:
    assert pronk(*place.asking(server)).code == 0
    content, asked = place.rows.read_bytes(), len(server.seen)
    (place.folder / "avoid.txt").write_text("one more text", encoding="utf-8")
    for more in (["--temperature", "0.3"], ["--shots", "2"], ["--avoid", str(place.folder / "avoid.txt")]):
        told = pronk(*place.asking(server, "--count", "40", *more))
        assert told.code == 2, told.err
        assert "made with other settings" in " ".join(told.err.split())
    told = pronk(*place.asking(server, "--temperature", "0.3"))
    assert "other settings (temperature: 0.8, now 0.3)" in " ".join(told.err.split())
    assert place.rows.read_bytes() == content
    (place.folder / "made.jsonl.summary.json").unlink()
    told = pronk(*place.asking(server))
    assert told.code == 2
    assert "pronk did not write it" in " ".join(told.err.split())
    assert place.rows.read_bytes() == content
    assert len(server.seen) == asked

"""A model behind an OpenAI-compatible interface, against a small server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

import pronk.evaluate.served as subject
import pronk.evaluate.served_call as calling
from pronk.data.conversation import Message
from pronk.errors import OptionError
from pronk.evaluate.spending import Limits, Tally, rough_tokens
from scripted_server import KEY, Scripted, scripted


@pytest.fixture
def scripted_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    monkeypatch.setattr(calling, "DELAYS", (0.01, 0.01))
    with scripted() as running:
        yield running


@pytest.fixture
def server(scripted_server: Scripted) -> subject.Server:
    return subject.server_of(scripted_server.url, "some/model")


def questions(count: int) -> list[tuple[Message, ...]]:
    return [(Message("system", "be short"), Message("user", "what?", f"text {k}")) for k in range(count)]


def test_answers_come_in_the_order_of_the_questions(server: subject.Server, scripted_server: Scripted) -> None:
    told: list[int] = []
    answers = subject.ask_served(server, questions(30), 12, told.append)
    assert [one.text for one in answers] == [str(k) for k in range(30)]
    assert all(one.ended for one in answers)
    assert sum(told) == 30
    first = scripted_server.seen[0]
    assert first["path"] == "/v1/chat/completions"
    assert first["messages"] == [
        {"role": "system", "content": "be short"}, {"role": "user", "content": "what?\n\ntext 0"},
    ]  # fmt: skip
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("some/model", 0, 12)
    assert first["key"] == f"Bearer {KEY}"
    assert max(scripted_server.at_once) <= subject.WORKERS


def test_what_fails_for_a_while_is_tried_again(server: subject.Server, scripted_server: Scripted) -> None:
    scripted_server.plan = [(429, {"Retry-After": "0"}, None), 503, 200]
    assert [one.text for one in subject.ask_served(server, questions(3), 9, lambda _: None)] == ["0", "1", "2"]
    assert len(scripted_server.seen) == 5


def test_a_server_that_wants_other_parameters_gets_them(server: subject.Server, scripted_server: Scripted) -> None:
    wants = "Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead."
    warm = "'temperature' does not support 0"
    scripted_server.plan = [(400, {}, json.dumps({"error": wants})), (400, {}, json.dumps({"error": warm}))]
    assert len(subject.ask_served(server, questions(2), 9, lambda _: None)) == 2
    assert scripted_server.seen[-1]["max_completion_tokens"] == 9
    assert not {"max_tokens", "temperature"} & scripted_server.seen[-1].keys()


REFUSED = [
    (401, "refuses the key (401); set PRONK_API_KEY"),
    (403, "refuses the key"),
    (404, "knows no model 'some/model'"),
    ((302, {"Location": "http://127.0.0.1:9/"}, "{}"), "sends elsewhere (302)"),
    ((400, {}, f"\x1b[31mbad {KEY}"), "refuses the question (400): [31mbad (hidden)"),
    ((200, {}, "<html>"), "does not answer as OpenAI's interface does"),
    ((200, {}, '{"choices": []}'), "does not answer as OpenAI's interface does"),
    ((200, {}, '{"choices": [{"message": {"content": [1]}}]}'), "does not answer as OpenAI's interface does"),
]


@pytest.mark.parametrize(("step", "expected"), REFUSED)
def test_what_cannot_be_mended_by_waiting_is_told_at_once(
    server: subject.Server, scripted_server: Scripted, step: Any, expected: str
) -> None:
    scripted_server.plan = [step]
    with pytest.raises(OptionError) as caught:
        subject.ask_served(server, questions(5), 9, lambda _: None)
    assert expected in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(scripted_server.seen) == 1


@pytest.mark.parametrize(
    ("step", "expected"), [(429, "asked too often (429)"), (500, "it fails (500)"), ("slow", "no answer within 0 s")]
)
def test_what_does_not_pass_is_told_after_some_tries(
    server: subject.Server, scripted_server: Scripted, monkeypatch: pytest.MonkeyPatch, step: Any, expected: str
) -> None:
    monkeypatch.setattr(calling, "SECONDS", 0.2)
    scripted_server.plan = [step] * 9
    with pytest.raises(OptionError, match="tried 3 times") as caught:
        subject.ask_served(server, questions(2), 9, lambda _: None)
    assert expected in str(caught.value)
    assert len(scripted_server.seen) == 3


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "DELAYS", ())
    with pytest.raises(OptionError, match=r"127\.0\.0\.1 gave no answer.*no connection"):
        subject.ask_served(subject.server_of("http://127.0.0.1:9/v1", "m"), questions(1), 9, lambda _: None)


def test_a_cut_answer_and_an_empty_one(server: subject.Server, scripted_server: Scripted) -> None:
    cut = {"choices": [{"message": {"content": "half of"}, "finish_reason": "length"}]}
    empty = {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}
    scripted_server.plan = [(200, {}, json.dumps(cut)), (200, {}, json.dumps(empty))]
    assert subject.ask_served(server, questions(2), 9, lambda _: None) == [
        subject.ServedAnswer("half of", False), subject.ServedAnswer("", True),
    ]  # fmt: skip


def test_openais_key_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRONK_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert subject.server_of("https://api.openai.com/v1", "m").key == KEY
    for other in ("https://api.openai.com.evil.example/v1", "http://localhost:8000/v1"):
        assert subject.server_of(other, "m").key == ""
    assert KEY not in repr(subject.server_of("https://api.openai.com/v1", "m"))


@pytest.mark.parametrize("url", ["http://[half", "http://localhost:port/v1", "localhost:8000/v1", "http://a:99999/v1"])
def test_what_is_no_address_is_told_before_anything_is_asked(url: str) -> None:
    with pytest.raises(OptionError, match="expected an address such as"):
        subject.server_of(url, "m")


def test_a_key_that_cannot_be_sent_is_told_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """http.client would raise for it, with the key in its message."""
    for key in (f"{KEY}\n{KEY}", f"{KEY}é"):
        monkeypatch.setenv("PRONK_API_KEY", key)
        with pytest.raises(OptionError, match="PRONK_API_KEY") as error:
            subject.server_of("http://localhost:8000/v1", "m")
        assert KEY not in str(error.value)


def test_a_slow_server_holds_nobody_up(server: subject.Server, scripted_server: Scripted) -> None:
    """Ctrl-C in the middle: Python waits at its end for every thread that is no daemon."""
    scripted_server.plan, told = [200, 200, *["slow"] * 9], []

    def progress(count: int) -> None:
        told.append(count)
        if len(told) == 2:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        subject.ask_served(server, questions(9), 9, progress)
    assert [thread.name for thread in set(threading.enumerate()) - before if not thread.daemon] == []


# --- what a judge and a writer of data need of it ---------------------------------------------------


def asked(server: subject.Server, count: int, **more: Any) -> dict[int, Any]:
    return dict(subject.ask_each(server, questions(count), 9, **more))


def test_tokens_and_retries_are_counted(server: subject.Server, scripted_server: Scripted) -> None:
    tally = Tally(Limits(price_in=1.0, price_out=2.0))
    scripted_server.plan = [(429, {"Retry-After": "0"}, None), 200, 500, 503]
    asked(server, 5, tally=tally)
    assert (tally.answers, tally.tokens_in, tally.tokens_out, tally.estimated) == (5, 500, 50, 0)
    assert dict(tally.retries) == {"rate limit": 1, "server error": 2}
    assert tally.cost == pytest.approx(600e-6)
    scripted_server.counts = False
    asked(server, 1, tally=tally)
    assert tally.estimated == rough_tokens(["be short", "what?\n\ntext 0"]) + rough_tokens(["0"])


def test_one_question_that_is_refused_or_gets_nonsense_costs_no_other(
    server: subject.Server, scripted_server: Scripted
) -> None:
    nonsense = (200, {}, '{"choices": "' + "x" * calling.LARGEST_ANSWER + '"}')
    scripted_server.plan = [200, (400, {}, f"context too long {KEY}")]
    tally = Tally()
    found = asked(server, 4, tally=tally)
    (lost,) = (one for one in found.values() if isinstance(one, subject.ServedFailure))
    assert lost.reason == "refused"
    assert "context too long (hidden)" in lost.message
    assert dict(tally.failures) == {"refused": 1}
    scripted_server.plan = [200, nonsense, (200, {}, "<html>")]
    assert all(isinstance(one, subject.ServedAnswer) for one in asked(server, 4, tally=tally).values())
    assert tally.retries["unreadable"] == 2


def test_all_first_questions_refused_is_told(server: subject.Server, scripted_server: Scripted) -> None:
    scripted_server.plan = [400] * 9
    with pytest.raises(OptionError, match=r"refuses the question \(400\)"):
        asked(server, 9)
    assert len(scripted_server.seen) == subject.FIRST


def test_a_server_that_goes_is_given_up(server: subject.Server, scripted_server: Scripted) -> None:
    scripted_server.plan = [200] + [500] * 500
    with pytest.raises(OptionError, match="8 questions in a row"):
        asked(server, 50)
    assert len(scripted_server.seen) <= 1 + 3 * (subject.GIVE_UP + subject.WORKERS)


def test_a_byte_now_and_then_is_no_answer(server: subject.Server, scripted_server: Scripted) -> None:
    scripted_server.plan = [200, "drip"]
    tally = Tally()
    assert len(asked(server, 2, tally=tally, seconds=0.4)) == 2
    assert dict(tally.retries) == {"too slow": 1}
    assert tally.estimated > 0  # the server may bill it


def test_limits_end_the_asking_before_they_are_passed(server: subject.Server) -> None:
    tally = Tally(Limits(tokens=1150))
    found = asked(server, 30, tally=tally)
    assert 5 <= len(found) < 30
    assert tally.tokens_in + tally.tokens_out <= 1150
    paid = Tally(Limits(cost=0.001, price_in=2.0, price_out=4.0))
    assert 1 <= len(asked(server, 30, tally=paid)) <= 4
    assert paid.cost <= 0.001


def test_when_to_come_back_is_a_number_or_a_date(server: subject.Server, scripted_server: Scripted) -> None:
    """A date is what a proxy sends; all workers wait, not only the one that was told."""
    soon = formatdate(time.time() + 2, usegmt=True)
    scripted_server.plan = [200, (429, {"Retry-After": soon}, None)]
    started = time.monotonic()
    asked(server, 2)
    assert 0.5 < time.monotonic() - started < 4
    for said in ("nan", "soon", "-5", ""):
        scripted_server.plan = [(429, {"Retry-After": said}, None)]
        asked(server, 1)


def test_stopping_keeps_what_is_under_way(server: subject.Server, scripted_server: Scripted) -> None:
    found = dict(subject.ask_each(server, questions(100), 9, stop=lambda: len(scripted_server.seen) >= 3))
    assert 3 <= len(found) <= 3 + 2 * subject.WORKERS
    assert len(found) == len(scripted_server.seen)


def test_settings_go_along_until_the_server_says_it_does_not_know_them(
    server: subject.Server, scripted_server: Scripted
) -> None:
    scripted_server.plan = [(400, {}, '{"error": "unknown field: response_format"}')]
    asked(server, 2, settings={"temperature": 0.7, "response_format": {"type": "json_object"}})
    assert [("response_format" in one, one["temperature"]) for one in scripted_server.seen] == [
        (True, 0.7), (False, 0.7), (False, 0.7),
    ]  # fmt: skip

"""`pronk serve` with the engines themselves, where they are installed: served answers are those of `pronk chat`.

vLLM is sought by PRONK_VLLM_PYTHON or beside pronk, the others beside pronk. All compute in fp32.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import openai
import pytest
from rich.console import Console
from runs_to_serve import make_run

from pronk.ask.conversation import Conversation
from pronk.ask.models import find_models
from pronk.errors import OptionError
from pronk.recipe import generation_settings
from pronk.ship.serve import serving as room
from pronk.ship.serve.engine import choose
from pronk.ship.serve.order import Options, read_order

pytestmark = pytest.mark.slow
KEY = "the-key-of-the-live-tests"
QUESTIONS = ["Sales rose by 12.5%.", "Tell me of llamas.", "그는 라마를 보았다", "Count: 1, 2, 3,"]
TOKENS = 16


WIDTH = 128


@pytest.fixture
def runs(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two runs over a base with heads of 64, the smallest that vLLM reads on a CPU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = LlamaConfig.from_pretrained(base, hidden_size=WIDTH, num_attention_heads=2, num_key_value_heads=1)
    config.head_dim = 64
    LlamaForCausalLM(config).save_pretrained(base)
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    shapes = {"first": 4, "second": 12}
    return [str(make_run(tmp_path / name, base, rank, width=WIDTH)) for name, rank in shapes.items()]


def served(runs: Sequence[str], client: Callable[[openai.OpenAI], None], **options: Any) -> None:
    """Serve while the client works; skip where the engine is not installed."""
    wanted = Options(port=0, seconds=300, **options)
    try:
        choose(read_order(runs, None, (), print), wanted)
    except OptionError as error:
        pytest.skip(str(error))
    failures: list[BaseException] = []

    def work(address: str) -> None:
        try:
            with openai.OpenAI(base_url=address, api_key=KEY, max_retries=0, timeout=120) as asking:
                client(asking)
        except BaseException as error:
            failures.append(error)
        os.kill(os.getpid(), signal.SIGINT)

    def ready(found: dict[str, Any]) -> None:
        threading.Thread(target=work, args=[found["address"]], daemon=True).start()

    room.serve(runs, wanted, (), Console(file=StringIO()), ready)
    if failures:
        raise failures[0]


def chatted(runs: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Question, model and reply of `pronk chat`, the base's too."""
    settings = generation_settings({"max_new_tokens": TOKENS})
    chat = Conversation(find_models(runs, with_base=True), settings, Console(file=StringIO()))
    for question in QUESTIONS:
        chat.reset()
        for reply in chat.ask(question):
            yield question, reply.model, reply


def asked(client: openai.OpenAI, model: str, question: str, **more: Any) -> Any:
    message = {"role": "user", "content": question}
    return client.chat.completions.create(model=model, messages=[message], max_tokens=TOKENS, **more)


def test_vllm(runs, one_thread):  # noqa: ARG001
    expected = list(chatted(runs))

    def client(asking: openai.OpenAI) -> None:
        for question, model, reply in expected:
            choice = asked(asking, model, question, extra_body={"return_token_ids": True}).choices[0]
            ended = choice.finish_reason == "stop"
            assert choice.token_ids[: -1 if ended else None] == reply.ids, (model, question)
            assert ended == (reply.ended == "end")
        streams(asking, "second")
        stops(asking, "second")
        many(asking)
        for status, wrong in {404: lambda: asked(asking, "third", "Hello"),
                              400: lambda: asked(asking, "first", "word " * 300),
                              401: lambda: asking.with_options(api_key="wrong").models.list()}.items():  # fmt: skip
            with pytest.raises(openai.APIStatusError) as refused:
                wrong()
            assert refused.value.status_code == status

    served(runs, client, engine="vllm")


def streams(asking: openai.OpenAI, model: str) -> None:
    whole = asked(asking, model, QUESTIONS[0]).choices[0].message.content
    parts = [one.choices[0].delta.content or "" for one in asked(asking, model, QUESTIONS[0], stream=True)]
    assert "".join(parts) == whole
    assert len(parts) > 2


def stops(asking: openai.OpenAI, model: str) -> None:
    whole = asked(asking, model, QUESTIONS[0]).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    assert asked(asking, model, QUESTIONS[0], stop=[stop]).choices[0].message.content == whole.partition(stop)[0]


def many(asking: openai.OpenAI) -> None:
    """50 at once, of two models, are answered as alone."""
    wanted = [("first" if number % 2 else "second", f"Number {number} said what?") for number in range(50)]
    alone = [asked(asking, *one).choices[0].message.content for one in wanted]
    with ThreadPoolExecutor(50) as pool:
        together = list(pool.map(lambda one: asked(asking, *one).choices[0].message.content, wanted))
    assert together == alone


def test_transformers_serve(runs, one_thread):  # noqa: ARG001
    expected = [one for one in chatted(runs[:1]) if one[1] == "first"]

    def client(asking: openai.OpenAI) -> None:
        for question, model, reply in expected:
            assert asked(asking, model, question, temperature=0).choices[0].message.content == reply.text

    served(runs[:1], client, engine="transformers", engine_python=os.environ.get("PRONK_SERVE_PYTHON", sys.executable))

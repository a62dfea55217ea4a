"""The process in which llama.cpp reads or quantizes a .gguf file: it may print, and die, as it likes.

`read MODEL [ADAPTER]` answers one line of JSON on stdin after the other: a line of JSON, behind which the bytes of an
array follow where it names a shape. `quantize SOURCE TARGET TYPE` writes a file. Imports llama_cpp.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

FIRST_CONTEXT = 1024  # tokens; a longer text opens the model once more
THREADS = int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count()
KEPT_AS = 0  # GGML_TYPE_F32 for keys and values: the file is compared, not a cache's rounding


class Opened:
    """A model, with an adapter or without, in a context that grows with the texts that it reads."""

    def __init__(self, model: str, adapter: str | None) -> None:
        self.model, self.adapter = model, adapter
        self.llama = self._open(FIRST_CONTEXT)

    def _open(self, context: int) -> Any:
        from llama_cpp import Llama

        return Llama(
            self.model, lora_path=self.adapter, n_ctx=context, logits_all=True, type_k=KEPT_AS, type_v=KEPT_AS,
            n_threads=THREADS, n_threads_batch=THREADS, verbose=False,
        )  # fmt: skip

    def tokenize(self, text: str, begin: bool) -> list[int]:
        """Ids of a text in which special tokens are spelled; begin: with a BOS, if the file wants one."""
        ids: list[int] = self.llama.tokenize(text.encode(), add_bos=begin, special=True)
        return ids

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a chat that asks for an answer, by the file's own template."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = self.llama.metadata.get("tokenizer.chat_template")
        if not template:
            raise ValueError("the file has no chat template")
        begin, end = (self._spelled(number) for number in (self.llama.token_bos(), self.llama.token_eos()))
        write = Jinja2ChatFormatter(template, eos_token=end, bos_token=begin)
        written = write(messages=[dict(one) for one in messages])
        return self.tokenize(written.prompt, begin=not written.added_special)

    def _spelled(self, token: int) -> str:
        return self.llama.detokenize([token], special=True).decode() if token >= 0 else ""

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Of the next token after each of the ids (T, V)."""
        if len(ids) > self.llama.n_ctx():
            self.llama.close()
            self.llama = self._open(len(ids))
        self.llama.reset()
        self.llama.eval(list(ids))
        logits_TV = self.llama.scores[: len(ids)]
        logits_TV = logits_TV - logits_TV.max(axis=1, keepdims=True)
        found_TV: NDArray[np.float32] = logits_TV - np.log(np.exp(logits_TV).sum(axis=1, keepdims=True))
        return found_TV.astype(np.float32, copy=False)


def read(replies: BinaryIO, model: str, adapter: str | None = None) -> None:
    """Answer requests until stdin ends."""
    opened = Opened(model, adapter)
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["ask"] == "log_probabilities":
                array = opened.log_probabilities(request["ids"])
                _reply(replies, {"shape": array.shape})
                replies.write(array.tobytes())
                replies.flush()
            elif request["ask"] == "chat":
                _reply(replies, {"ids": opened.chat(request["messages"])})
            else:
                _reply(replies, {"ids": opened.tokenize(request["text"], request["begin"])})
        except Exception as error:
            _reply(replies, {"fault": f"{type(error).__name__}: {error}"})


def quantize(source: str, target: str, kind: str) -> None:
    """kind: a type by llama.cpp's name (Q4_K_M). Ends the process with what went wrong."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.nthread = os.cpu_count() or 1
    if code := llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)):
        sys.exit(f"llama_model_quantize gave {code}")


def _reply(replies: BinaryIO, record: Mapping[str, Any]) -> None:
    replies.write(json.dumps(record).encode() + b"\n")
    replies.flush()


def main() -> None:
    """stdout is for replies alone; what C code prints there goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    verb, *arguments = sys.argv[1:]
    if verb == "read":
        read(replies, *arguments)
    else:
        quantize(*arguments)


if __name__ == "__main__":
    main()

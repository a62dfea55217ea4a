"""A model as one program reads it, from files alone; and the run that it came from, as pronk reads it.

Names carry shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pronk.ask.asking import Reader, load_group
from pronk.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from rich.console import Console

LogProbabilities = npt.NDArray[np.float32]


class Reads(Protocol):
    """A model as one program reads it. name: of the program, as people know it: PEFT, transformers, llama.cpp."""

    name: str

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a chat in OpenAI's form that asks for an answer, by the program's OWN tokenizer and template."""
        ...

    def log_probabilities(self, ids: Sequence[int]) -> LogProbabilities:
        """The log-probabilities (nats) of the next token after each of the ids, fp32 (T, V)."""
        ...

    def close(self) -> None:
        """Give back the memory. Nothing is read afterwards."""
        ...


class TransformersReads:
    """A model and a tokenizer of transformers, wherever they come from; see Reads."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name, self._model, self._tokenizer = name, model.eval(), tokenizer

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """See Reads."""
        chat = [dict(message) for message in messages]
        rendered = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        return [int(token) for token in rendered["input_ids"]]

    def log_probabilities(self, ids: Sequence[int]) -> LogProbabilities:
        """See Reads."""
        import torch

        with torch.inference_mode():
            ids_1T = torch.tensor([list(ids)], device=self._model.device)
            return as_log_probabilities(self._model(input_ids=ids_1T, use_cache=False).logits[0])

    def close(self) -> None:
        """See Reads."""
        self._model = None
        free_memory()


class RunReads:
    """The run itself, by pronk's own model: what everything else is compared with; see Reads."""

    name = "pronk"

    def __init__(self, reader: Reader, console: Console) -> None:
        """Loads the base and the run's adapter, as `pronk generate` does. Raises as load_model does."""
        from pronk.recipe import Generation

        loaded = load_group([reader.ask([], Generation())], console)
        self._prompt, self._model, self._adapter = reader.prompt, loaded.model, loaded.adapter
        self._slot = loaded.slots[0]

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """See Reads. The chat's own words, without the context that pronk keeps apart."""
        from pronk.data.conversation import Message

        chat: Any = [Message(message["role"], message["content"]) for message in messages]  # type: ignore[arg-type]
        return self._prompt.question_ids([chat])[0]

    def log_probabilities(self, ids: Sequence[int]) -> LogProbabilities:
        """See Reads."""
        import torch

        from pronk.model.attention import packing
        from pronk.model.forward import output_head

        head_VD = output_head(self._model)
        with torch.no_grad():
            ids_T = torch.tensor(list(ids), device=head_VD.device)
            self._adapter.routing.set(torch.full_like(ids_T, self._slot))
            places_T = torch.arange(len(ids_T), device=head_VD.device)
            hidden_1TD = self._model.base_model(
                input_ids=ids_T[None], position_ids=places_T[None], use_cache=False,
                packing=packing((len(ids_T),), (-1,), head_VD.device),
            ).last_hidden_state  # fmt: skip
            return as_log_probabilities(self._model.get_output_embeddings()(hidden_1TD)[0])

    def close(self) -> None:
        """See Reads."""
        self._adapter.detach()
        del self._model, self._adapter
        free_memory()


def read_merged(folder: Path, recipe: Recipe) -> TransformersReads:
    """A folder with a whole model, as transformers reads it: on the run's device, computing in the run's type."""
    from transformers import AutoModelForCausalLM

    device, dtype = _place(recipe)
    with _quietly():
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        return TransformersReads("transformers", model.to(device), _tokenizer(folder))


def read_adapter_by_peft(folder: Path, base: Any, recipe: Recipe, quantized: bool) -> TransformersReads:
    """An adapter's folder over its base, as PEFT reads them.

    base: a pronk.model.hub.Base. quantized: whether the base is kept as the run kept it (nf4 and int8, by
    bitsandbytes' own layers); else as it was published.
    """
    from transformers import AutoModelForCausalLM

    from pronk.model.hub import pretrained
    from pronk.model.quantize import loading_config

    device, dtype = _place(recipe)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if quantized and recipe.quantize in ("nf4", "int8"):
        kept: Any = recipe.quantize
        config = loading_config(kept, recipe.double_quantization is not False, dtype)
        options |= {"quantization_config": config, "device_map": {"": device}}
    with _quietly():
        from peft import PeftModel

        model = pretrained(AutoModelForCausalLM, base, **options)
        tuned = PeftModel.from_pretrained(model if "device_map" in options else model.to(device), str(folder))
        return TransformersReads("PEFT", tuned, _tokenizer(folder))


def as_log_probabilities(logits_TV: torch.Tensor) -> LogProbabilities:
    """Logits in any float type as log-probabilities in fp32, on the CPU."""
    found: LogProbabilities = logits_TV.float().log_softmax(-1).cpu().numpy()
    return found


def free_memory() -> None:
    """Give back what a model took that nobody holds any longer."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _place(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    from pronk.model.load import resolve_device, resolve_dtype

    device = resolve_device(recipe.train.device)
    return device, resolve_dtype(recipe.train.dtype, device)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without load reports, and warnings among the libraries themselves, which no user can mend."""
    from pronk.hub import silenced
    from pronk.model.hub import quiet

    with quiet(), silenced("bitsandbytes", "peft"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

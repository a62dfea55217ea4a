"""The model card: README.md as the hub reads it. Facts come from facts.py; here they become a page.

Whatever users and models wrote goes through markup.py, or is quoted by YAML or Python.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from pronk.compare.words import METRICS, interval, metric_value, number, overfitting_verdict, p_value
from pronk.ship.hub.card_texts import CardLanguage, card_language
from pronk.ship.hub.facts import Facts, Result, Source
from pronk.ship.hub.markup import block, plain_line, words

# what the hub calls a metric, where it knows it
HUB_METRICS = {
    "accuracy": "accuracy", "generated_accuracy": "accuracy", "choice_accuracy": "accuracy", "macro_f1": "f1",
    "exact_match": "exact_match", "perplexity": "perplexity", "rouge_l": "rouge", "chrf": "chrf",
}  # fmt: skip
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # all that it has kernels for
FEW_ITEMS = 200  # below, an interval of a share is wider than ± 0.05


def card(facts: Facts, code: str = "en") -> str:
    """The whole page: YAML front matter and Markdown. code: of the language, `en` or `ko`; OptionError for another."""
    t = card_language(code)
    parts = [
        f"---\n{_front_matter(facts)}---",
        f"# {words(facts.repository.rpartition('/')[2])}",
        *([f"**{facts.terms.built_with}**"] if facts.terms.built_with else []),
        _what(facts, t), *_results(facts, t), _limits(facts, t), *_load(facts, t), _data(facts, t), _recipe(facts, t),
        _licence(facts, t), *_checked(facts, t), t("made.with", version=words(facts.version)),
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


def _what(facts: Facts, t: CardLanguage) -> str:
    base = f"[{words(facts.base_id)}](https://huggingface.co/{facts.base_id})" if facts.base_id else words(facts.base)
    learned = t("learned", labels=_listed(facts.labels, t)) if facts.labels else ""
    return t(f"what.{facts.kind}", base=base, learned=learned, verdict=_verdict(facts, t))


def _verdict(facts: Facts, t: CardLanguage) -> str:
    """What was found against the base, in a sentence."""
    if not facts.results:
        return t("verdict.nothing")
    first = facts.results[0]
    name, value = t.report.metric(first.metric), _value(first.metric, first.value)
    items = t("on-items", items=t.count("item", facts.rows["test"])) if facts.rows.get("test") else ""
    if first.verdict is None or first.base is None:
        return t("verdict.alone", name=name, value=value, items=items)
    figures = t("verdict.figures", name=name, value=value, base=_value(first.metric, first.base), items=items)
    if first.spread is not None and first.difference is not None:
        spread = interval(first.spread, t.report)
        figures += t("verdict.spread", difference=number(first.difference, signed=True), interval=spread)
    return t(f"verdict.{first.verdict}", figures=figures)


def _results(facts: Facts, t: CardLanguage) -> list[str]:
    if not facts.results:
        return []
    against = any(one.base is not None for one in facts.results)
    keys = ["metric", "this", *(["base", "difference", "verdict"] if against else [])]
    lines = [[t(key) for key in keys], ["---"] * len(keys), *(_row(one, against, t) for one in facts.results)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    adjusted = t("results.adjusted", n=facts.comparisons) if facts.comparisons > 1 else ""
    return [f"## {t('results')}", table, t("results.note") + adjusted]


def _row(one: Result, against: bool, t: CardLanguage) -> list[str]:
    cells = [t.report.metric(one.metric), _spread(one.metric, one.value, one.interval, t)]
    if not against:
        return cells
    base = "–" if one.base is None else _spread(one.metric, one.base, one.base_interval, t)
    change = "–"
    if one.difference is not None:
        change = number(one.difference, signed=True)
        change += f" [{interval(one.spread, t.report)}]" if one.spread is not None else ""
    verdict = t(one.verdict) if one.verdict in ("better", "worse", "tie") else t("not-compared")
    chance = f" (p {_equals(p_value(one.p))})" if one.p is not None and one.verdict else ""
    return [*cells, base, change, verdict + chance]


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _value(metric: str, value: float) -> str:
    return metric_value(metric, value)


def _spread(metric: str, value: float, bounds: Sequence[float] | None, t: CardLanguage) -> str:
    shown = _value(metric, value)
    if bounds is None:
        return shown
    places = 2 if metric.endswith("perplexity") else 3
    return f"{shown} [{interval(bounds, t.report, places, signed=False)}]"


def _limits(facts: Facts, t: CardLanguage) -> str:
    """What these figures do not say."""
    lines = []
    if items := facts.rows.get("test", 0):
        few = t("limits.few") if items < FEW_ITEMS else ""
        lines.append(t("limits.items", items=t.count("item", items), few=few))
    if facts.runs > 1:
        lines.append(t("limits.chosen", n=facts.runs))
    lines.append(t("limits.seeds", n=facts.seeds) if facts.seeds > 1 else t("limits.one-seed"))
    assessed = facts.overfitting and facts.overfitting != "not assessed"
    verdict = words(overfitting_verdict({"verdict": facts.overfitting}, t.report))
    lines.append(t("limits.overfitting", verdict=verdict) if assessed else t("limits.not-assessed"))
    if facts.results and not facts.wrote:
        lines.append(t("limits.scored"))
    if facts.unparsable:
        lines.append(t("limits.unparsable", n=facts.unparsable))
    lines += _of_weights(facts, t)
    if not any(one.metric == "forgetting_perplexity" for one in facts.results):
        lines.append(t("limits.forgotten"))
    lines.append(t("limits.never"))
    return f"## {t('limits')}\n\n" + "\n".join(f"- {line}" for line in lines)


def _of_weights(facts: Facts, t: CardLanguage) -> list[str]:
    """Limits that come from what it was trained over, or merged into."""
    lines = []
    if facts.quantize != "none":
        lines.append(t("limits.quantized", kind=facts.quantize))
    if facts.base == "smollm2":
        elsewhere = t("limits.embedded-adapter") if facts.kind == "adapter" else ""
        lines.append(t("limits.embedded") + elsewhere)
    if facts.kind == "merged" and facts.rank and facts.results:
        lines.append(t("limits.merged"))
    return lines


def _load(facts: Facts, t: CardLanguage) -> list[str]:
    parts = [f"## {t('load')}", t(f"load.{facts.kind}"), block(python_code(facts), "python")]
    if facts.kind == "adapter":
        parts += [t("load.alone"), block(MERGING, "python")]
    parts += [t("load.vllm"), block(_vllm(facts), "sh"), t("load.llama")]
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


def _data(facts: Facts, t: CardLanguage) -> str:
    lines = [f"- {_source(one, t)}" for one in facts.sources]
    parts = [part for part in ("train", "validation", "test") if facts.rows.get(part)]
    if parts:
        rows = ", ".join(t(f"data.{part}", n=f"{facts.rows[part]:,}") for part in parts)
        lines.append(f"- {t('data.rows', rows=rows)}")
    if facts.labels:
        lines.append(f"- {t('data.labels', labels=_listed(facts.labels, t))}")
    return f"## {t('data')}\n\n" + "\n".join(lines or [f"- {t('data.unknown')}"])


def _source(one: Source, t: CardLanguage) -> str:
    if one.id:
        return t("data.hub", name=f"[{words(one.id)}](https://huggingface.co/datasets/{one.id})")
    return t("data.ours" if one.packaged else "data.file", name=words(one.name))


def _recipe(facts: Facts, t: CardLanguage) -> str:
    return f"## {t('recipe')}\n\n{t('recipe.told', prompt=words(facts.prompt))}\n\n{block(facts.recipe, 'yaml')}"


def _licence(facts: Facts, t: CardLanguage) -> str:
    terms = facts.terms
    if terms.id == "unknown":
        said = t("licence.unknown")
    else:
        name = f"{words(terms.name)} ({terms.id})" if terms.id == "other" and terms.name else f"`{terms.id}`"
        said = t("licence.base", name=name, source=t.said(terms.source, words))
    if terms.link:
        said += t("licence.text", link=words(terms.link))
    if terms.llama:
        begins = t("licence.begins", name=terms.name_begins) if terms.name_begins else ""
        said += f"\n\n{terms.notice} {t('licence.copy', begins=begins)}"
    return f"## {t('licence')}\n\n{said}"


def _checked(facts: Facts, t: CardLanguage) -> list[str]:
    """What the gate found of these very files."""
    found = facts.parity
    if not found:
        return []
    loss = found["loss"]
    said = t(
        "compared.said", made=t("made", how=t.said(facts.made, words)) if facts.made else "",
        reader=t.said(str(found["reader"]), words), same=found["same_chats"], chats=found["chats"],
        kl=f"{found['kl']:.1e}", worst=f"{found['worst']:.1e}", places=f"{found['places']:,}",
        top1=f"{found['top1']:.1%}", tokens=t.tokens(found["tokens"]), before=f"{loss['before']:.4f}",
        after=f"{loss['after']:.4f}",
    )  # fmt: skip
    return [f"## {t('compared')}", said]


def _listed(names: Sequence[str], t: CardLanguage) -> str:
    return t.listed([words(name) for name in names])

"""The form `ollama`: a folder for `ollama create`, a .gguf file and a Modelfile that asks it as the run was trained.

Ollama renders templates in Go's language, not in Jinja. What stands between the messages of a chat is found by letting
the run's own template write one; how that is told to Ollama is compared with the run like everything else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pronk.errors import PromptError
from pronk.runs import write_text
from pronk.ship.export.exporting import Artifact, Job
from pronk.ship.export.licences import copy_licences
from pronk.ship.gguf import form as gguf
from pronk.ship.gguf.llama_cpp import LlamaCpp
from pronk.ship.gguf.quantizer import QUANTIZED, types_in
from pronk.ship.gguf.writer import FILE_TYPES
from pronk.ship.ollama.go_template import render
from pronk.tokens.forms import ALPACA_INPUT
from pronk.tokens.prompt import Prompt
from pronk.tokens.special import adds_bos

MODELFILE = "Modelfile"
LONGEST = 8192  # tokens of a chat: Ollama takes memory for all of them at once
BY_SIZE = (*QUANTIZED, "q8_0", "f16", "bf16", "f32")
# Texts that no template writes itself.
SYSTEM, QUESTIONS, ANSWERS = "⟦system⟧", ("⟦question 1⟧", "⟦question 2⟧", "⟦question 3⟧"), ("⟦answer 1⟧", "⟦answer 2⟧")
TRIMMED = (
    '{{- define "trimmed" }}',
    "{{- if not . }}",
    r'{{- else if eq (slice . 0 1) " " "\n" "\t" "\r" }}',
    '{{- template "trimmed" (slice . 1) }}',
    r'{{- else if eq (slice . (len (slice . 1))) " " "\n" "\t" "\r" }}',
    '{{- template "trimmed" (slice . 0 (len (slice . 1))) }}',
    "{{- else }}{{ . }}{{ end }}",
    "{{- end }}",
)
Chat = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Pieces:
    """What a template writes between the messages of a chat.

    opening: before a question that begins a chat; paired: the same where the question holds an input (Alpaca alone).
    before_system, after_system: around a system message; None and the opening where it takes none. reply: after every
    question. lead: between that and an earlier answer. between: after an earlier answer. trimmed: the roles whose
    messages it writes without the spaces around them.
    """

    opening: str
    paired: str | None
    before_system: str | None
    after_system: str
    reply: str
    lead: str
    between: str
    trimmed: frozenset[str]


check = gguf.check


def make(job: Job, folder: Path) -> list[Artifact]:
    """Write Modelfile and model. Raises PromptError for a template that Ollama's language cannot follow."""
    quants = gguf.checked_quants(job.options.more.get("quant") or ())
    prompt, model = job.reader.prompt, job.reader.model
    text = modelfile(f"model-{_smallest(quants)}.gguf", prompt, job.reader.config, model.form.system)
    file = _model_file(job, folder, _smallest(quants))
    write_text(folder / MODELFILE, text)
    copy_licences(job.reader, folder)
    one = gguf.artifact(job, "ollama", file)
    facts = {"model": file.path.name, "to use it": f"ollama create {_ollama_name(model.name)} -f {MODELFILE}"}
    opened = (lambda: OllamaReads(folder)) if one.open else None
    return [Artifact("ollama", "ollama", folder, opened, one.tolerance, {**one.facts, **facts})]


def modelfile(model: str, prompt: Prompt, config: Any, system: str | None) -> str:
    """The Modelfile of a run. model: the .gguf file's name. Raises PromptError for what it cannot say."""
    from pronk.model.load import context_length

    template = go_template(pieces_of(prompt))
    ends = dict.fromkeys((prompt.tokenizer.convert_ids_to_tokens(prompt.end_id), prompt.tokenizer.eos_token))
    # greedy, as `pronk generate` answers unless told otherwise
    settings = {"temperature": 0, "repeat_penalty": 1, "num_ctx": min(context_length(config), LONGEST)}
    lines = [f"FROM ./{model}", "", f"TEMPLATE {_tripled(template)}", ""]
    lines += [f"SYSTEM {_tripled(system)}", ""] if system else []
    lines += [f"PARAMETER {key} {value}" for key, value in settings.items()]
    lines += [f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}" for end in ends if end]
    return "\n".join(lines) + "\n"


def pieces_of(prompt: Prompt) -> Pieces:
    """What a run's template writes between messages, found by rendering chats.

    A BOS that llama.cpp puts before a text is left out, or there would be two. Raises PromptError where what stands
    between two messages hangs on more than their roles.
    """
    opening, reply = _between(prompt, [], QUESTIONS[:1], ())
    longer = _between(prompt, [], QUESTIONS, ANSWERS)
    _, led, between, *_ = longer  # led: between a question and an earlier answer
    if longer != [opening, led, between, led, between, reply] or not led.startswith(reply):
        raise _too_rich("what it writes between two messages hangs on their number")
    opening = _without_begin(prompt, opening)
    before, after = _around_system(prompt, [reply, led, between]) or (None, opening)
    paired = None
    if prompt.kind == "alpaca":
        question = f"{QUESTIONS[0]}{ALPACA_INPUT}an input"
        paired = _without_begin(prompt, _rendered(prompt, [{"role": "user", "content": question}]).split(question)[0])
    return Pieces(opening, paired, before, after, reply, led.removeprefix(reply), between, _trimmed(prompt, before))


def go_template(pieces: Pieces) -> str:
    """The same in Go's language, as Ollama fills it: .Messages, with .Role and .Content.

    Its functions are few, so what needs a loop over characters is a template that calls itself for the rest of a text.
    """
    opening, text = _quoted(pieces.opening), dict.fromkeys(("system", "user", "assistant"), ".Content")
    text |= dict.fromkeys(pieces.trimmed, 'template "trimmed" .Content')
    lines = list(TRIMMED) if pieces.trimmed else []
    if pieces.paired is not None:
        lines += [
            '{{- define "opening" }}',
            f'{{{{- if eq (printf "%.{len(ALPACA_INPUT)}s" .) {json.dumps(ALPACA_INPUT)} }}}}{_quoted(pieces.paired)}',
            '{{- else if . }}{{ template "opening" (slice . 1) }}',
            f"{{{{- else }}}}{opening}{{{{ end }}}}",
            "{{- end }}",
        ]
        opening = '{{ template "opening" .Content }}'
    system = f"{_quoted(pieces.before_system)}{{{{ {text['system']} }}}}" if pieces.before_system is not None else ""
    return "\n".join([
        *lines,
        "{{- range $i, $message := .Messages }}",
        f'{{{{- if eq .Role "system" }}}}{system}',
        '{{- else if eq .Role "user" }}',
        f"{{{{- if eq $i 0 }}}}{opening}",
        f"{{{{- else if and (eq $i 1) $.System }}}}{_quoted(pieces.after_system)}",
        f"{{{{- else }}}}{_quoted(pieces.between)}{{{{ end }}}}",
        f"{{{{- {text['user']} }}}}{_quoted(pieces.reply)}",
        f'{{{{- else if eq .Role "assistant" }}}}{_quoted(pieces.lead)}{{{{ {text["assistant"]} }}}}',
        "{{- end }}",
        "{{- end }}",
    ])  # fmt: skip


class OllamaReads:
    """A folder as Ollama reads it: the Modelfile's template around a chat, llama.cpp for the rest (see Reads)."""

    name = "llama.cpp"

    def __init__(self, folder: Path) -> None:
        """Raises as LlamaCpp does."""
        text = (folder / MODELFILE).read_text(encoding="utf-8")
        self._template = read_template(text)
        source = re.search(r"^FROM (.+)$", text, re.MULTILINE)
        self._model = LlamaCpp(folder / (source[1] if source else ""))

    def chat_ids(self, messages: Chat) -> list[int]:
        """The ids of a chat as it is given: SYSTEM is only for those who send no system message."""
        return self._model.text_ids(ollama_text(self._template, messages), begin=True)

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[Any]:
        """See Reads."""
        return self._model.log_probabilities(ids)

    def close(self) -> None:
        """See Reads."""
        self._model.close()


def read_template(text: str) -> str:
    """The template in a Modelfile; without one Ollama passes on the question alone."""
    found = re.search(r'^TEMPLATE """(.*?)"""', text, re.MULTILINE | re.DOTALL)
    return found[1] if found else "{{ range .Messages }}{{ .Content }}{{ end }}"


def ollama_text(template: str, messages: Chat) -> str:
    """A chat as Ollama's template writes it: neighbours of one role are one message, system messages also `.System`."""
    joined: list[dict[str, str]] = []
    for message in messages:
        if joined and joined[-1]["Role"] == message["role"]:
            joined[-1]["Content"] += "\n\n" + message["content"]
        else:
            joined.append({"Role": message["role"], "Content": message["content"]})
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return render(template, {"Messages": joined, "System": system})


def _model_file(job: Job, folder: Path, quant: str) -> gguf.File:
    """The model's file; where `gguf` was exported with it, the same file under a second name."""
    name = f"model-{quant}.gguf"
    exported = job.out / "gguf" / name
    if not exported.is_file():
        return gguf.model_files(job, folder, [quant])[0]
    try:
        os.link(exported, folder / name)
    except OSError:  # this disk knows no second names
        shutil.copyfile(exported, folder / name)
    return gguf.File(folder / name, quant, types_in(exported))


def _ollama_name(name: str) -> str:
    """A run's name as far as Ollama takes it."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "tuned"


def _smallest(quants: Sequence[str]) -> str:
    assert set(BY_SIZE) == {*QUANTIZED, *FILE_TYPES}
    return min(quants, key=BY_SIZE.index)


def _trimmed(prompt: Prompt, before_system: str | None) -> frozenset[str]:
    """The roles whose messages are written without spaces around them."""
    wide = {
        role: f" \n{text}\n " for role, text in (("system", SYSTEM), ("user", QUESTIONS[0]), ("assistant", ANSWERS[0]))
    }
    chat = [{"role": role, "content": wide[role]} for role in ("user", "assistant")]
    text = _rendered(prompt, [*chat, {"role": "user", "content": QUESTIONS[1]}])
    if before_system is not None:
        text += _rendered(prompt, [{"role": "system", "content": wide["system"]}, {**chat[0]}])
    else:
        text += wide["system"]
    return frozenset(role for role, one in wide.items() if one not in text)


def _around_system(prompt: Prompt, rest: Sequence[str]) -> tuple[str, str] | None:
    """What stands around a system message; None where the template takes none. rest: reply, the same before an earlier
    answer, and between, which must not hang on it."""
    try:
        before, after, *others = _between(prompt, [SYSTEM], QUESTIONS[:2], ANSWERS[:1])
    except PromptError:
        return None
    reply, led, between = rest
    if others != [led, between, reply]:
        raise _too_rich("what it writes between two messages hangs on the system message")
    return _without_begin(prompt, before), after


def _between(prompt: Prompt, system: Sequence[str], questions: Sequence[str], answers: Sequence[str]) -> list[str]:
    """What the template writes before, between and after these messages."""
    chat = [{"role": "system", "content": text} for text in system]
    for number, question in enumerate(questions):
        chat.append({"role": "user", "content": question})
        chat += [{"role": "assistant", "content": text} for text in answers[number : number + 1]]
    found, rest = [], _rendered(prompt, chat)
    for message in chat:
        before, written, rest = rest.partition(message["content"])
        if not written:
            raise PromptError(f"the chat template leaves out the {message['role']}'s message {message['content']!r}")
        found.append(before)
    return [*found, rest]


def _rendered(prompt: Prompt, chat: Chat) -> str:
    try:
        text: str = prompt.tokenizer.apply_chat_template(
            [dict(one) for one in chat], tokenize=False, add_generation_prompt=True, chat_template=prompt.form.template
        )
    except Exception as error:  # a template's author may raise anything
        raise PromptError(f"the chat template: {error}") from None
    return text


def _without_begin(prompt: Prompt, text: str) -> str:
    return text.removeprefix(prompt.tokenizer.bos_token) if adds_bos(prompt.tokenizer) else text


def _quoted(text: str) -> str:
    """An action that prints a text as it is."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _tripled(text: str) -> str:
    if '"""' in text:
        raise PromptError('a Modelfile cannot hold three quotation marks in a row, and the prompt has them: """')
    return f'"""{text}"""'


def _too_rich(why: str) -> PromptError:
    return PromptError(
        f"--to ollama: the run's chat template cannot be told in Ollama's language: {why}; use --to gguf, which "
        "holds the template itself"
    )

"""A tokenizer as llama.cpp reads it: pieces with their types and scores, merges, and what it puts around a text.

What llama.cpp must be told is found by watching what the tokenizer does, not by its name. A tokenizer that does
something which llama.cpp does not is refused: its model would be asked in other ids than it was tuned in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.errors import BaseModelError
from pronk.model.gguf import WHOLE_WORDS, splittings

# gguf.TokenType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "▁"  # how SentencePiece writes one
# Where splittings differ: digits, contractions, capitals, accents as one character or two, scripts, spaces, line ends.
PROBE = (
    "I'LL pay $1,234,567.89 in 2024-2025; he's \t  there,\n\n\n  aren't WE'RE?!\r\n x=a[10]**2 // π≈3.1415926\n"
    "안녕하세요 세계 12개, 가나다라! こんにちは 世界123 Привет мир é e\u0301 \U0001f600\U0001f9d1\u200d\U0001f52c "
    "e-mail\u00a0a ______ ٣٤٥ ½ ¾x #tag @me …  — (ok).\n\tdef f(x):\n        return x+1    \n\n"
)
ROLES = ("bos", "eos", "unk", "pad")


@dataclass(frozen=True)
class Vocabulary:
    """All that a .gguf file says of a tokenizer.

    model: "gpt2" (bytes, joined by merges; pre says how a text is split first) or "llama" (SentencePiece, by scores).
    types: gguf.TokenType of each piece. prefix: whether a space is put before a text, and after each special token.
    ids: of bos, eos, unk, pad and eot, as far as there are such tokens. template: the chat template in Jinja.
    """

    model: str
    pre: str
    pieces: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    bos: bool
    eos: bool
    prefix: bool
    ids: dict[str, int]
    template: str | None


def read_vocabulary(
    tokenizer: Any, size: int, end_id: int | None = None, asked: Sequence[int] = ()
) -> Vocabulary:  # fmt: skip
    """The vocabulary of a loaded tokenizer of transformers, for a model of `size` embeddings.

    end_id: the token that ends an answer, where that is not eos. asked: ids that the model is asked with. Raises
    BaseModelError for what llama.cpp cannot do.
    """
    backend = _backend(tokenizer)
    model = json.loads(backend.to_str())["model"]
    if model.get("type") != "BPE":
        raise _refused(f"it is of the kind {model.get('type')}, and llama.cpp reads BPE for a Llama model")
    _check_added(tokenizer)
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    pieces, types = _pieces(tokenizer, model, size)
    scored = bool(model.get("byte_fallback"))
    around = tokenizer("a").input_ids
    roles = {role: getattr(tokenizer, f"{role}_token_id") for role in ROLES}
    if end_id is not None and end_id != roles["eos"]:
        roles["eot"] = end_id  # llama.cpp ends an answer there too
    return Vocabulary(
        model="llama" if scored else "gpt2",
        pre="default" if scored else _splitting(tokenizer, backend, model),
        pieces=pieces,
        types=types,
        scores=_scores(pieces, merges) if scored else [],
        merges=[] if scored else [" ".join(merge) for merge in merges],
        bos=roles["bos"] is not None and around[:1] == [roles["bos"]],
        eos=roles["eos"] is not None and around[-1:] == [roles["eos"]],
        prefix=scored and _prefix(tokenizer, asked),
        ids={role: int(number) for role, number in roles.items() if number is not None},
        template=getattr(tokenizer, "chat_template", None),
    )


def write_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    """Put a vocabulary into a gguf.GGUFWriter whose file is not yet open."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list([piece.encode() for piece in vocabulary.pieces])
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges(vocabulary.merges)
    for role, number in vocabulary.ids.items():
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(vocabulary.bos)
    writer.add_add_eos_token(vocabulary.eos)
    writer.add_add_space_prefix(vocabulary.prefix)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _backend(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused(f"{type(tokenizer).__name__} is none of the tokenizers library")
    return backend


def _check_added(tokenizer: Any) -> None:
    for token in tokenizer.added_tokens_decoder.values():
        if odd := [name for name in ("lstrip", "rstrip", "single_word") if getattr(token, name)]:
            raise _refused(f"its token {token.content!r} has {' and '.join(odd)} set, which llama.cpp does not follow")


def _pieces(tokenizer: Any, model: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Text and type of each id below `size`; embeddings without a token get a name that no text spells."""
    by_id = {number: piece for piece, number in model["vocab"].items()}
    added = dict(tokenizer.added_tokens_decoder)  # made anew whenever it is asked for
    if (largest := max(*by_id, *added, 0)) >= size:
        raise _refused(f"it has the id {largest}, but the model has only {size} embeddings")
    pieces, types = [], []
    for number in range(size):
        if token := added.get(number):
            piece, kind = str(token.content), CONTROL if token.special else USER_DEFINED
        else:
            piece, kind = by_id.get(number, f"[PAD{number}]"), NORMAL if number in by_id else UNUSED
        if model.get("byte_fallback"):
            kind = BYTE if BYTE_PIECE.fullmatch(piece) else UNKNOWN if number == tokenizer.unk_token_id else kind
        pieces.append(piece)
        types.append(kind)
    return pieces, types


def _splitting(tokenizer: Any, backend: Any, model: Mapping[str, Any]) -> str:
    """llama.cpp's name of the way in which a byte-level tokenizer splits a text before it merges."""
    found = backend.pre_tokenizer.pre_tokenize_str(PROBE) if backend.pre_tokenizer else None
    known = splittings()
    name = next((name for name, one in known.items() if one.pre_tokenize_str(PROBE) == found), None)
    if name is None or (backend.normalizer and backend.normalizer.normalize_str(PROBE) != PROBE):
        raise _refused(
            f"it splits or changes text in a way that is not among those that pronk knows ({', '.join(known)})"
        )
    if bool(model.get("ignore_merges")) != (name in WHOLE_WORDS) and (odd := _unmerged(tokenizer, model)):
        raise _refused(
            f"it splits text as {name} does, but {'takes' if model.get('ignore_merges') else 'never takes'} words such "
            f"as {odd!r} whole, unlike llama.cpp's {name}"
        )
    return name


def _unmerged(tokenizer: Any, model: Mapping[str, Any]) -> str | None:
    """A piece that merges alone do not come to: for such pieces it matters whether words are taken whole."""
    from tokenizers import models

    bare = models.BPE(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    found = model["vocab"].keys() - {token.content for token in tokenizer.added_tokens_decoder.values()}
    return next((piece for piece in sorted(found) if [one.value for one in bare.tokenize(piece)] != [piece]), None)


def _scores(pieces: Sequence[str], merges: Sequence[tuple[str, ...]]) -> list[float]:
    """SentencePiece's scores, as far as they matter: pieces are joined in the order of the merges.

    llama.cpp joins the two neighbours whose union has the highest score. So all merges to one piece must stand
    together, as they do where the list was made from scores.
    """
    scores: dict[str, float] = {}
    last = ""
    for left, right in merges:
        piece = left + right
        if piece != last and piece in scores:
            raise _refused(f"its merges to {piece!r} do not stand together, so they come from no scores")
        scores.setdefault(piece, -float(len(scores) + 1))
        last = piece
    return [scores.get(piece, 0.0) for piece in pieces]


def _prefix(tokenizer: Any, asked: Sequence[int]) -> bool:
    """Whether the first text has a space before it that nobody wrote.

    llama.cpp puts it before a text and behind each special token, or nowhere. transformers may put it before a whole
    text alone, which pronk's own forms tokenize piece by piece and chat templates do not: the run's ids decide.
    """
    special = set(tokenizer.all_special_ids)
    texts = [token for token in asked or tokenizer("a").input_ids if token not in special]
    return bool(texts) and str(tokenizer.convert_ids_to_tokens(texts[0])).startswith(SPACE)


def _refused(why: str) -> BaseModelError:
    return BaseModelError(f"the tokenizer cannot be written to a .gguf file: {why}; leave gguf and ollama out of --to")

"""What is dropped of what a model wrote, and why: each reason has a name, and is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pronk.data.checks.private import find_private
from pronk.data.checks.scripts import languages
from pronk.data.checks.texts import normal
from pronk.data.terminal import STEERING
from pronk.data.words import is_whole
from pronk.synthesize.nearness import Known
from pronk.synthesize.samples import Material, Sample
from pronk.tokens.check.prompts import SPECIAL_LOOK
from pronk.tokens.check.texts import ENDS, MARKERS

# In words for people, in the order in which they are looked for; the names stand in the summary.
REASONS = {
    "unparsable": "answers in which no example could be read",
    "cut-off": "not at its end at the most tokens (--max-new-tokens)",
    "empty": "a field without a word",
    "echo": "the output is the instruction or the input once more",
    "too-long": "longer than --max-length",
    "wrong-label": "another label than was asked for, or none of the data's",
    "control-characters": "characters that steer a terminal, or halves of characters",
    "special-token": "a special token, or a marker of a prompt form",
    "private": "a secret or personal data, by its form",
    "other-language": "another language than the seeds'",
    "exact-duplicate": "says what a seed, a text kept out, or an earlier row says",
    "near-kept-out": "near a test item, or a text to avoid",
    "near-seed": "near a seed",
    "near-earlier": "near an earlier row",
    "label-not-confirmed": "the model itself gives the text another label",
    "not-verified": "nobody could be asked for the label any more",
    "not-needed": "good, but enough of its label, or in all, was there",
}
KEPT_OUT, SEED, EARLIER = "kept-out", "seed", "earlier"
_LATIN = {"English", "Spanish", "French", "German", "Portuguese", "Italian", "Latin letters"}
_WORD = re.compile(r"[^\W_]")
_COMMON = 0.05  # the share of the seeds from which on a language is theirs


class Sieve:
    """Says of each example why it is dropped, if it is, and remembers those that are not."""

    def __init__(self, material: Material, max_length: int, special: re.Pattern[str] | None = None) -> None:
        """special: what spells a special token of the model that writes, where that is known."""
        self.material, self.max_length, self.special = material, max_length, special
        seeds = [seed.asked for seed in material.seeds]
        self.known = Known({KEPT_OUT: material.kept_out, SEED: seeds, EARLIER: ()})
        self.languages = _languages_of([_whole(seed) for seed in material.seeds])

    def take(self, sample: Sample) -> None:
        """Remember an example that is kept; of a row that was there already, too."""
        self.known.add(sample.asked, EARLIER)

    def reason(self, sample: Sample, label: str | None) -> str | None:
        """The name of what speaks against an example; None where nothing does. label: the one that was asked for."""
        return self._of_its_form(sample, label) or self._of_its_text(sample) or self._of_others(sample)

    def _of_its_form(self, sample: Sample, label: str | None) -> str | None:
        needed = [sample.text] if label is not None else [sample.text, sample.answer]
        if not all(_WORD.search(text) for text in needed):
            return "empty"
        if label is None and normal(sample.answer) in (normal(sample.text), normal(sample.context)):
            return "echo"
        if len(_whole(sample)) > self.max_length:
            return "too-long"
        return "wrong-label" if label is not None and sample.answer != label else None

    def _of_its_text(self, sample: Sample) -> str | None:
        whole = _whole(sample)
        if not is_whole(whole) or STEERING.search(whole.replace("\t", " ").replace("\r\n", "\n")):
            return "control-characters"
        looks = (SPECIAL_LOOK, MARKERS, ENDS, *([self.special] if self.special else ()))
        if any(look.search(whole) for look in looks):
            return "special-token"
        if next(find_private(whole), None):
            return "private"
        return None if self._speaks_so(whole) else "other-language"

    def _of_others(self, sample: Sample) -> str | None:
        found = self.known.nearest(sample.asked)
        for part in sample.parts:  # the input of a test item under another instruction
            near = None if found else self.known.nearest(part)
            found = near if near and near[0] == KEPT_OUT else found
        if found is None:
            return None
        group, same = found
        return "exact-duplicate" if same else f"near-{group}"

    def _speaks_so(self, text: str) -> bool:
        (found,) = languages([text])
        if not found or not self.languages or found in self.languages:
            return True
        # Latin letters of an unknown language fit all that are written so
        return found in _LATIN and bool(self.languages & _LATIN) and "Latin letters" in (found, *self.languages)


def _whole(sample: Sample) -> str:
    return "\n".join(filter(None, (sample.text, sample.context, sample.answer)))


def _languages_of(texts: Sequence[str]) -> frozenset[str]:
    counts = Counter(filter(None, languages(texts)))
    return frozenset(language for language, count in counts.items() if count >= _COMMON * len(texts))

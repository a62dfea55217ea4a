"""The names of all checks, in one place: what `pronk check` may find, and what a recipe's `allow` may name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

CHECKS: dict[str, str] = {
    # what is learned
    "no-supervised-token": "an example has no token to learn, or the template prints no answer",
    "end-token-not-supervised": "an answer's end token is not learned: the model would never stop",
    "pad-is-end-token": "padding is the end token, which many trainers then mask",
    "empty-answers": "an answer has nothing that can be read",
    "placeholder-texts": "an answer or an input is nan, null, <noinput> and the like",
    "answer-changed-by-template": "the template does not write the answer as it stands in the data",
    # what the model is asked with
    "bos-missing": "the base begins its texts with a BOS, and the prompt does not",
    "bos-doubled": "the prompt begins with two BOS",
    "prompt-differs-from-inference": "training asks with other tokens than inference will",
    "response-marker-differs": "the template writes spaces between its prompt and the answer",
    "prompt-ends-with-space": "the prompt ends with a space, which tokenizers keep with the word behind it",
    "border-merges": "as one text, prompt and answer would have other tokens at their border",
    "message-not-in-prompt": "the template leaves out or changes what a message says",
    "template-token-unknown": "the template spells a special token that the base's vocabulary does not have",
    "end-token-is-not-eos": "answers end with another token than the base's own eos",
    # what stands in the texts
    "special-tokens-in-text": "a question spells a special token; it is read as plain text",
    "special-tokens-in-answers": "an answer spells a special token, which the model would learn to spell out",
    "rendered-prompt-in-text": "a question holds markers of a prompt form, as if it had been rendered already",
    "rendered-prompt-in-answers": "an answer holds markers of a prompt form",
    "unknown-tokens": "the tokenizer has no token for some of the text",
    "token-beyond-vocabulary": "the tokenizer gives an id that the model has no embedding for",
    # how long things are
    "prompt-longer-than-max-length": "train.max_length ends before the answer begins; allowed, such rows are left out",
    "prompt-longer-than-the-base-reads": "a test row's prompt is longer than the base can read",
    "truncated-answers": "train.max_length cuts answers, so that their end is not learned",
    "one-long-example": "one answer is far longer than all others, and outweighs its batch",
    "lengths": "how long prompts and answers are",
    "tokens-per-epoch": "how many tokens an epoch has, and what packing saves against padding",
    # labels
    "imbalanced-labels": "some labels have far more training rows than others",
    "label-without-rows": "a label has no training row",
    "labels-begin-alike": "labels begin with the same token",
    "label-begins-another": "one label's tokens are the beginning of another's",
    # settings
    "warmup-never-ends": "the run is over before the learning rate has risen to its value",
    "batch-larger-than-data": "a batch is larger than the training set",
    "no-test-rows": "no row is left for the test, so nothing is measured",
    # the rows themselves, whatever the model
    "exact-duplicates": "rows that ask the same",
    "near-duplicates": "rows that ask almost the same",
    "exact-leakage": "rows of validation or test that were trained on",
    "near-leakage": "rows of validation or test that are almost trained on",
    "contradictory-labels": "one text with different labels",
    "near-contradictory-labels": "almost one text with different labels",
    "contradictory-answers": "one question with different answers",
    "mixed-languages": "rows in several languages",
    "answers-in-another-language": "answers in another language than their questions",
    "personal-data": "names, addresses, numbers of people",
    "secrets": "keys and passwords",
    "constant-answers": "one answer to most questions",
    "answers-repeat-question": "answers that say the question again",
    "only-links": "answers that are nothing but links",
    "encoding-damage": "texts that were read in a wrong encoding",
    "html-left-over": "texts with left-over mark-up",
}  # fmt: skip

# These stop a run whatever is allowed: there is nothing that it could do with them.
NOT_ALLOWED = ("prompt-longer-than-the-base-reads", "token-beyond-vocabulary", "answer-changed-by-template")


def check_allowed(names: Sequence[str]) -> None:
    """Raises ValueError for a name that is no check's, or that cannot be allowed."""
    for name in names:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(CHECKS)}"
            raise ValueError(f"allow: no check is called {name!r}{hint}")
        if name in NOT_ALLOWED:
            raise ValueError(f"allow: {name} cannot be allowed ({CHECKS[name]}); leave such rows out (data.where)")

"""What is wrong with prompts, tokens and settings, found before a model is loaded.

view.py      what one training sees of the data, and how a finding is written
masks.py     what is learned: answers and their end tokens, nothing else; BOS and padding
prompts.py   asked in training as asked later, token by token
texts.py     what stands in the data's texts: special tokens, markers of prompt forms, answers that say nothing
lengths.py   what is cut, how long things are, what packing saves
labels.py    labels to classify
settings.py  settings that contradict the data's size

Every check looks at the examples that training gets, not at how they should have come about.
"""

from pronk.tokens.check.labels import label_findings
from pronk.tokens.check.lengths import length_findings
from pronk.tokens.check.masks import mask_findings, token_findings
from pronk.tokens.check.prompts import prompt_findings
from pronk.tokens.check.settings import setting_findings, split_findings
from pronk.tokens.check.texts import text_findings
from pronk.tokens.check.view import View

__all__ = [
    "View", "label_findings", "length_findings", "mask_findings", "prompt_findings", "setting_findings",
    "split_findings", "text_findings", "token_findings",
]  # fmt: skip

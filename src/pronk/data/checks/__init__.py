"""What is wrong with the rows of a study, found without a tokenizer or a model.

repeats.py    duplicates, leakage between the parts, contradictions; texts.py (what a question says), minhash.py
              (candidates among many), alike.py (when two questions count as alike)
language.py   mixed languages; scripts.py tells them apart
privacy.py    personal data and secrets; private.py, secrets.py know their forms
answers.py    constant answers, answers that repeat the question, mere links
damage.py     wrong encodings, left-over mark-up
shown.py      rows as findings show them, private things masked
"""

from __future__ import annotations

from pronk.data.checks import answers, damage, language, privacy, repeats
from pronk.data.finding import Finding
from pronk.data.split import Splits

DATA_FINDINGS: tuple[str, ...] = (*repeats.NAMES, *language.NAMES, *privacy.NAMES, *answers.NAMES, *damage.NAMES)
_SEVERITIES = ("error", "warning", "note")


def data_findings(splits: Splits, labels: tuple[str, ...]) -> list[Finding]:
    """All that is found in the rows of a split, the most severe first; names are those of DATA_FINDINGS.

    labels: those of a classification, or none. A name can come twice, for test and for validation rows. 50,000 rows
    take some seconds on two cores; memory grows with the rows.
    """
    rows = (*splits.train, *splits.validation, *splits.test)
    found = [
        *repeats.find_repeats(splits, labels),
        *language.find_languages(rows),
        *privacy.find_private_rows(rows),
        *answers.find_poor_answers(rows),
        *damage.find_damage(rows),
    ]
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))

"""Labels to classify: how many rows each has, and whether a model can tell them apart by their tokens."""

from __future__ import annotations

from collections import Counter, defaultdict

from pronk.data.finding import Finding
from pronk.data.words import enumerated
from pronk.tokens.check.view import View, shown

# The commonest label against the rarest: what is not worth a word, and what is a mistake more often than not.
ALIKE, TIMES = 1.5, 10


def label_findings(view: View) -> list[Finding]:
    """What is to be said of the labels; nothing where the task is no classification."""
    labels = view.of.labels
    if not labels:
        return []
    return [*_spread(view, labels), *_tokens(view, labels)]


def _spread(view: View, labels: tuple[str, ...]) -> list[Finding]:
    rows = view.of.splits.train
    counts = Counter(row.label or "" for row in rows)
    absent = [label for label in labels if not counts[label]]
    found = []
    if absent:
        found.append(
            Finding(
                "label-without-rows", "error",
                f"No training row has the label {enumerated(map(repr, absent), 'or')}, so it cannot be learned.",
                "Add rows, or take the label out of data.labels; rows of it in the test count as errors.",
                len(absent), len(labels), "labels",
            )
        )  # fmt: skip
    present = [(label, counts[label]) for label in labels if counts[label]]
    (rare, few), (common, many) = min(present, key=lambda one: one[1]), max(present, key=lambda one: one[1])
    if many <= ALIKE * few:
        return found
    shares = ", ".join(f"{label} {count:,}" for label, count in sorted(present, key=lambda one: -one[1])[:8])
    steep = many >= TIMES * few
    firsts = [next(row for row in rows if row.label == label) for label in (rare, common)]
    found.append(
        Finding(
            "imbalanced-labels", "warning" if steep else "note",
            f"Training rows by label: {shares}."
            + (f" A model that always answers {common!r} is right in {many / len(rows):.0%} of them." if steep else ""),
            "Set data.split.balanced to true for as many rows of each"
            + ("; look at macro-F1, not at accuracy alone." if steep else ", if the test should weigh them alike."),
            few, len(rows), f"rows of {rare!r}", shown((row, f"{row.label}: {row.subject}") for row in firsts),
        )
    )  # fmt: skip
    return found


def _tokens(view: View, labels: tuple[str, ...]) -> list[Finding]:
    ids = {label: tuple(one) for label, one in zip(labels, view.of.label_ids(), strict=True)}
    alike: dict[int, list[str]] = defaultdict(list)
    for label, one in ids.items():
        alike[one[0]].append(label)
    groups = [names for names in alike.values() if len(names) > 1]
    begins = [
        (short, long) for short in labels for long in labels
        if short != long and ids[long][: len(ids[short]) - 1] == ids[short][:-1]
    ]  # fmt: skip
    found = []
    if groups:
        token = view.prompt.tokenizer.convert_ids_to_tokens(ids[groups[0][0]][0])
        found.append(
            Finding(
                "labels-begin-alike", "note",
                f"The labels {enumerated(groups[0][:5], 'and')} begin with the same token ({token}), so a tool that "
                "scores labels by their first token cannot tell them apart.",
                "Nothing to do: pronk scores labels as a whole, end token included. Words that begin differently are "
                "learned faster.", sum(map(len, groups)), len(labels), "labels",
            )
        )  # fmt: skip
    if begins:
        short, long = begins[0]
        found.append(
            Finding(
                "label-begins-another", "warning",
                f"The label {short!r} is how {long!r} begins: they differ only in what follows, so an answer that "
                "breaks off is taken for the shorter one.",
                "Rename one of them in data.labels, e.g. {answer: value in the file}.",
                len({name for pair in begins for name in pair}), len(labels), "labels",
            )
        )  # fmt: skip
    return found

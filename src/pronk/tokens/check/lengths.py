"""What train.max_length cuts, how long prompts and answers are, and what an epoch costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pronk.data.conversation import shortened
from pronk.data.finding import FEW, Finding
from pronk.data.words import counted
from pronk.tokens.check.view import View, finding, shown
from pronk.tokens.prompt import NO_ROOM

FAR_LONGER = 5  # times the next ones, and
OUTWEIGHS = 10  # times the median: then one example is what its batch learns


def length_findings(view: View) -> list[Finding]:
    """What is cut, and how long things are."""
    return [*_no_room(view), *_truncated(view), *_one_long(view), _lengths(view), _epoch(view)]


def _no_room(view: View) -> list[Finding]:
    parts = [("train", view.of.splits.train), ("validation", view.of.splits.validation)]
    gone = [(one, rows[one.row]) for part, rows in parts for one in view.left_out(part)]
    if not gone:
        return []
    gone.sort(key=lambda pair: -pair[0].whole)
    longest = gone[0][0]
    fits = f"Set it to {longest.whole}" if longest.needed < view.of.context else "Shorten them"
    return [
        Finding(
            NO_ROOM, "error",
            f"The prompt alone takes all {view.length} tokens of train.max_length, so nothing of the answer is left to "
            "learn.",
            f"{fits}, or leave such rows out (data.where, or allow: [{NO_ROOM}]).",
            len(gone), len(view.rows) + len(gone), "rows",
            shown((row, f"{one.whole:,} tokens: {row.subject}") for one, row in gone),
        )
    ]  # fmt: skip


def _truncated(view: View) -> list[Finding]:
    cut = [(row, one) for row, one in view.rows if one.ends]
    if not cut:
        return []
    cut.sort(key=lambda pair: -pair[1].ends[-1])
    answers = sum(turn.role == "assistant" for row, _ in view.rows for turn in row.messages)
    ends = [end for _, one in cut for end in one.ends]
    severe = len(ends) > FEW * answers
    return [
        finding(
            "truncated-answers", "error" if severe else "warning",
            f"Answers are cut by train.max_length ({view.length}), so the model does not learn how they end.",
            _longer(view, ends, answers),
            [(row, f"{one.ends[-1]:,} tokens: {row.subject}") for row, one in cut], answers, "answers", len(ends),
        )
    ]  # fmt: skip


def keeping(ends: Sequence[int], answers: int, share: float = 0.99) -> int:
    """The least length that leaves at least this share of the answers whole. ends: the lengths that answers which are
    cut now would need."""
    lost = math.floor(answers * (1 - share) + 1e-9)
    longest_first = sorted(ends, reverse=True)
    return longest_first[min(lost, len(ends) - 1)]


def _longer(view: View, ends: list[int], answers: int) -> str:
    gone = [one.whole for part in ("train", "validation") for one in view.left_out(part)]
    wanted, whole = keeping([*ends, *gone], answers + len(gone)), max(*ends, *gone, 0)
    if wanted > view.of.context:
        return (
            f"The base reads {view.of.context:,} tokens at most, and 99% of the answers would need {wanted:,}: shorten "
            "or leave out long rows (data.where)."
        )
    every = f"; {whole} keeps all" if wanted < whole <= view.of.context else ""
    share = "all of them" if wanted == whole else "99% of them"
    return f"Set train.max_length to {wanted}, which keeps {share} whole{every}; or leave long rows out (data.where)."


def _one_long(view: View) -> list[Finding]:
    _, learned = view.sizes
    if len(learned) < 20:
        return []
    order = np.argsort(-learned)
    few = max(1, len(learned) // 1000)
    longest, next_ones = int(learned[order[0]]), int(learned[order[few]])
    usual = float(np.median(learned))
    if not usual or longest < FAR_LONGER * next_ones or longest < OUTWEIGHS * usual:
        return []
    rows = [view.train[place][0] for place in order[:few]]
    batch = usual * (min(view.batch_size, len(learned)) - 1)
    return [
        finding(
            "one-long-example", "warning",
            f"The longest answer has {longest:,} tokens, half of all have at most {usual:,.0f}: each token counts "
            f"the same, so it makes up {longest / (longest + batch):.0%} of what its batch of {view.batch_size} "
            "learns.",
            "Look whether it is a mistake; else lower train.max_length, or leave it out (data.where).",
            [(row, shortened(row.subject)) for row in rows], len(learned),
        )
    ]  # fmt: skip


def _lengths(view: View) -> Finding:
    asked, learned = view.sizes
    name = "prompt and answer together" if view.on_prompt else "answers"
    both = f"{name} {_spread(learned)}" if not asked.any() else f"prompts {_spread(asked)}; {name} {_spread(learned)}"
    place = int(np.argmax(asked + learned))
    row = view.train[place][0]
    return Finding(
        "lengths", "note", f"Tokens of the training rows (median, 95%, longest): {both}.",
        f"Nothing to do: train.max_length is {view.length:,}, the longest row takes {int((asked + learned)[place]):,}.",
        len(learned), len(learned), "rows", shown([(row, f"the longest: {row.subject}")]),
    )  # fmt: skip


def _spread(sizes: npt.NDArray[np.int64]) -> str:
    return f"{np.median(sizes):,.0f}, {np.percentile(sizes, 95):,.0f}, {sizes.max():,}"


def _epoch(view: View) -> Finding:
    """Against batches in the order of the rows, each padded to its longest."""
    asked, learned = view.sizes
    whole = asked + learned
    batch = view.batch_size
    padded = sum(int(part.max()) * len(part) for part in np.split(whole, range(batch, len(whole), batch)))
    saved = 1 - int(whole.sum()) / padded
    return Finding(
        "tokens-per-epoch", "note",
        f"An epoch reads {counted(int(whole.sum()), 'token')} and learns {int(learned.sum()):,} of them. Batches of "
        f"{batch} padded to their longest would read {padded:,}: packing saves {saved:.0%}.",
        "Nothing to do: pronk packs.", len(whole), len(whole),
    )  # fmt: skip

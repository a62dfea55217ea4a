"""Settings that cannot be meant, given how many rows there are."""

from __future__ import annotations

from pronk.data.finding import Finding
from pronk.data.split import Splits
from pronk.data.words import counted
from pronk.recipe import Train


def split_findings(splits: Splits) -> list[Finding]:
    """What a split leaves without rows."""
    if splits.test:
        return []
    return [
        Finding(
            "no-test-rows", "warning",
            "No row is left for the test, so nothing will be measured: the report cannot say whether training helped.",
            "Set data.split.test to a number of rows or a larger share; the rows must ask different things.",
        )
    ]  # fmt: skip


def setting_findings(train: Train, rows: int) -> list[Finding]:
    """What contradicts the number of training rows."""
    per_epoch = -(-rows // train.batch_size)
    steps = train.max_steps or train.epochs * per_epoch
    found = []
    if train.warmup_steps >= steps:
        found.append(
            Finding(
                "warmup-never-ends", "warning",
                f"The learning rate rises for {counted(train.warmup_steps, 'step')}, but the run ends after "
                f"{steps}: it never reaches train.learning_rate.",
                f"Set train.warmup_steps to {steps // 10}, or train for longer.",
            )
        )  # fmt: skip
    if train.batch_size > rows:
        found.append(
            Finding(
                "batch-larger-than-data", "warning",
                f"A batch has {train.batch_size} examples (train.batch_size), and there "
                f"{'is' if rows == 1 else 'are'} {counted(rows, 'training row')}: each epoch is a single step.",
                f"Set train.batch_size to {max(1, rows // 8)} or so.",
            )
        )  # fmt: skip
    return found

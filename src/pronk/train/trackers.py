"""Metrics to TensorBoard: all runs of a study in one view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """Writes a run's metrics; `tensorboard --logdir STUDY/runs` shows the runs side by side."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of one record of metrics.jsonl."""
        for name in ("loss", "learning_rate", "gradient_norm"):
            if name in record:
                self._writer.add_scalar(f"{record['kind']}/{name}", record[name], record["step"])

    def close(self) -> None:
        self._writer.close()

"""The metrics of a run as TensorBoard reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from senet.errors import MissingExtraError, RunError

FOLDER = "tensorboard"

_TAGS = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "accuracy/top1": "test_top1",
    "accuracy/top5": "test_top5",
    "precision/ap": "test_ap",
    "precision/ap50": "test_ap50",
    "precision/ap75": "test_ap75",
    "learning_rate": "lr",
}


class TensorBoard:
    """Writes the losses, accuracies (per cent) and rates of a run to its folder ``tensorboard``.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError.of("tensorboard", extra="tensorboard", need="--tensorboard") from error
        self._kind = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._rows = 0

    def __call__(self, path: Path, history: Sequence[dict[str, Any]]) -> None:
        """Writes the rows that are new, each at its step, and flushes.

        Args:
            path: the run folder.
            history: the rows of metrics.csv.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            if self._writer is None:
                # A run that goes on writes all of its rows again, and readers drop what was there before:
                # then no epoch is missing or stands twice, wherever the process before was killed.
                self._writer = self._kind(str(path / FOLDER), purge_step=0)
            for row in history[self._rows :]:
                for tag, column in _TAGS.items():
                    if column in row:
                        self._writer.add_scalar(tag, row[column], row["step"])
            self._rows = len(history)
            self._writer.flush()
        except OSError as error:
            raise RunError(
                f"{str(path / FOLDER)!r}",
                found=f"it cannot be written ({error})",
                do="Leave out --tensorboard; `senet train --resume` goes on from the last checkpoint.",
            ) from error

    def close(self) -> None:
        """Closes the file; to be called when the run is over, however it ended."""
        # All of it is on the disk since the last call, or that has raised.
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

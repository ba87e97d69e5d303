"""Rows of metrics.csv as a run could have written them."""

import math
from typing import Any


def history(epochs: int, *, rates: list[float] | None = None) -> list[dict[str, Any]]:
    """A loss that falls and an accuracy that rises, to be best in the last epoch but one."""
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        row = {
            "epoch": epoch,
            "step": 22 * epoch,
            "lr": rates[epoch - 1] if rates else 0.05 * (1 + math.cos(math.pi * epoch / epochs)),
            "train_loss": 2.3 / epoch,
            "test_loss": 2.5 / epoch,
            "test_top1": 90 * (1 - 0.8**epoch),
            "test_top5": 100 * (1 - 0.5**epoch),
            "skipped": 0,
            "broken": 0,
        }
        rows.append(row)
    if epochs > 1:
        rows[-1]["test_top1"] = rows[-3]["test_top1"] if epochs > 2 else 0.0
    return rows

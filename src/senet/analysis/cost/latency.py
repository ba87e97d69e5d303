"""Latency, measured: candidates take turns within one process, and the spread is part of the result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Spread:
    """What several runs gave.

    Args:
        median: of the runs.
        low: the quartile below it.
        high: the quartile above it.
        runs: how many.
    """

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


def alternate(
    candidates: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; the candidates take turns, after one warm-up.

    Args:
        candidates: what is measured, by name.
        rounds: how often each has its turn.
        repeats: how often it runs in a turn, where one run is too short for a clock.
    """
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in tqdm(range(rounds), "measuring", leave=False, disable=None):
        for name, run in candidates.items():
            _wait()
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            _wait()
            seconds[name].append((time.perf_counter() - started) / repeats)
    return seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

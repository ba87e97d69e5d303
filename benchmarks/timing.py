"""How every benchmark measures: in turn within one process, and with a passport."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from senet.files import write_text
from senet.passport import passport
from senet.tables import Table

RESULTS = Path(__file__).parent / "results"


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
    for _ in range(rounds):
        for name, run in candidates.items():
            _wait()
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            _wait()
            seconds[name].append((time.perf_counter() - started) / repeats)
    return seconds


def compare(seconds: Mapping[str, Sequence[float]], base: str) -> list[dict[str, Any]]:
    """A row a candidate: its median, and the quartiles of its ratio to ``base`` round by round."""
    rows = []
    for name, values in seconds.items():
        ratios = [value / other for value, other in zip(values, seconds[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append(
            {
                "candidate": name,
                "median ms": 1000 * statistics.median(values),
                f"ratio to {base}": middle,
                "low quartile": low,
                "high quartile": high,
                "rounds": len(values),
            }
        )
    return rows


def publish(name: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Prints the rows and writes ``results/NAME.json`` with their passport."""
    print(Table(rows))
    RESULTS.mkdir(exist_ok=True)
    measured = passport()
    # Where data lies on a machine is nobody else's business.
    measured["command"] = re.sub(r"(?<![\w.])/(?:[^\s/']+/)+", "", measured["command"])
    content = {"settings": dict(settings), "rows": list(rows), "passport": measured}
    write_text(RESULTS / f"{name}.json", json.dumps(content, indent=2) + "\n")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

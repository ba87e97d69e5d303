"""How every benchmark measures: in turn within one process, and with a passport."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from senet.analysis.cost.latency import alternate
from senet.files import write_text
from senet.passport import passport
from senet.tables import Table

__all__ = ["RESULTS", "alternate", "compare", "publish", "write"]

RESULTS = Path(__file__).parent / "results"


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
    write(RESULTS / f"{name}.json", rows, settings)


def write(path: Path, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Writes the rows with their passport."""
    path.parent.mkdir(exist_ok=True)
    measured = passport()
    # Where data lies on a machine is nobody else's business.
    measured["command"] = re.sub(r"(?<![\w.])/(?:[^\s/']+/)+", "", measured["command"])
    content = {"settings": dict(settings), "rows": list(rows), "passport": measured}
    write_text(path, json.dumps(content, indent=2) + "\n")

"""A run on disk: what decided it, what came out of each epoch, the weights.

``config.yaml`` (what ``senet train --config`` takes), ``passport.yaml`` (command, versions, hardware,
and what "auto" and the like came to), ``metrics.csv`` and ``metrics.jsonl`` (a row an epoch),
``last.safetensors``, ``best.safetensors``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from senet.errors import RunError
from senet.files import write_text
from senet.passport import passport

CONFIG = "config.yaml"


class RunFolder:
    """A run folder that this process made and writes.

    Args:
        path: the folder, new or empty.
        config: what decided the run.
        resolved: what was left open in it and has been decided since.

    Raises:
        RunError: the folder holds something already, or cannot be written.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any], *, resolved: Mapping[str, Any]) -> None:
        self.path = Path(path)
        whole = passport() | {"resolved": dict(resolved)}
        asked = f"run folder {str(path)!r}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise RunError(
                    asked,
                    found="the folder is not empty",
                    allowed="a new or empty folder",
                    do="Choose another with --run.",
                )
            write_text(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
            write_text(self.path / "passport.yaml", yaml.safe_dump(whole, sort_keys=False))
        except OSError as error:
            raise RunError(
                asked, f"it cannot be written ({error})", do="Choose another with --run."
            ) from error

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Appends an epoch's row to both files."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(dict(row), allow_nan=False) + "\n")
        with (self.path / "metrics.csv").open("a", newline="", encoding="utf-8") as table:
            writer = csv.DictWriter(table, list(row))
            if table.tell() == 0:
                writer.writeheader()
            writer.writerow(row)


def new_run_path(model: str, data: str, seed: int) -> Path:
    """A folder under runs/ that does not exist yet, named by what is run."""
    stem = f"{model}-{data.partition(':')[0]}-seed{seed}"
    number = 1
    while (path := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path

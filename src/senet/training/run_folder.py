"""A run on disk: what decided it, what came out of each epoch, the weights.

``config.yaml`` (what ``senet train --config`` takes), ``passport.yaml`` (command, versions, hardware,
and what "auto" and the like came to; one a start), ``metrics.csv`` and ``metrics.jsonl`` (a row an epoch),
``times.csv`` (how long each took, and what part of it the network waited for images), ``last.safetensors``,
``best.safetensors``, ``state/`` (checkpoints).
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from senet.errors import InUseError, RunError
from senet.files import write_text
from senet.passport import passport
from senet.training.checkpoints import Checkpoints, sweep

CONFIG = "config.yaml"
METRICS = "metrics.csv"
STATE = "state"

# The lock holds against other processes only.
_WRITTEN_HERE: set[Path] = set()


class RunFolder:
    """A run folder that this process writes, and no other meanwhile; use ``create`` or ``open``.

    Args:
        path: the folder.

    Raises:
        InUseError: another process writes it.
        RunError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / STATE)
        (path / STATE).mkdir(exist_ok=True)
        # A lock of the process, not of the file: it goes with a killed process, though its workers linger.
        self._lock = os.open(path / STATE / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if path.resolve() in _WRITTEN_HERE:
                raise BlockingIOError("this process")
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(self._lock)
            raise InUseError(
                f"run folder {str(path)!r}",
                "another process is writing it, or another run of this one",
                do="Wait for its end, or stop it.",
            ) from error
        _WRITTEN_HERE.add(path.resolve())

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], *, resolved: Mapping[str, Any]) -> Self:
        """A new run folder.

        Args:
            path: the folder, new or empty.
            config: what decided the run.
            resolved: what was left open in it and has been decided since.

        Raises:
            RunError: the folder holds something already, or cannot be written.
        """
        path = Path(path)
        asked = f"run folder {str(path)!r}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            # What a start leaves that was killed before there was a config is no run yet.
            begun = {path / "passport.yaml", path / STATE, path / STATE / "lock"}
            begun.update(path.glob(".passport.yaml.*.tmp"), path.glob(f".{CONFIG}.*.tmp"))
            if not begun.issuperset(path.rglob("*")):
                raise RunError(
                    asked,
                    found="the folder is not empty",
                    allowed="a new or empty folder",
                    do="Choose another with --run, or go on with the run in it by --resume.",
                )
            # The config is the last to come: a folder that has it is a run.
            run = cls(path)
            sweep(path)
            (path / "passport.yaml").unlink(missing_ok=True)
            write_text(path / "passport.yaml", _passport(resolved))
            write_text(path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
        except OSError as error:
            raise RunError(
                asked, f"it cannot be written ({error})", do="Choose another with --run."
            ) from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The folder of a run that goes on.

        Raises:
            InUseError: another process writes it.
            RunError: it is none, or cannot be written.
        """
        path = Path(path)
        try:
            run = cls(path)
            for folder in (path, path / STATE):
                sweep(folder)
        except OSError as error:
            raise RunError(f"run folder {str(path)!r}", f"it cannot be written ({error})") from error
        return run

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the rows of all epochs, to both files.

        Raises:
            RunError: a file cannot be written.
        """
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        lines = "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows)
        self.write(METRICS, table.getvalue())
        self.write("metrics.jsonl", lines)

    def add_time(self, **row: float) -> None:
        """Adds how long an epoch took: apart from the metrics, which are the same whenever a run is."""
        path = self.path / "times.csv"
        before = path.read_text(encoding="utf-8") if path.exists() else ",".join(row) + "\n"
        # A run that an earlier version began goes on with the columns that it has.
        columns = before.partition("\n")[0].split(",")
        self.write(path.name, before + ",".join(f"{row[name]:.6g}" for name in columns) + "\n")

    def write(self, name: str, text: str) -> None:
        """Writes a file of the folder whole or not at all; RunError where it cannot."""
        try:
            write_text(self.path / name, text)
        except OSError as error:
            raise RunError(
                f"{str(self.path / name)!r}",
                found=f"{len(text):,} bytes cannot be written ({error})",
                do="Make room; `senet train --resume` goes on from the last checkpoint.",
            ) from error

    def close(self) -> None:
        """Lets others write the folder."""
        _WRITTEN_HERE.discard(self.path.resolve())
        os.close(self._lock)

    def add_passport(self, resolved: Mapping[str, Any]) -> None:
        """Writes the machine and the versions of a start: of the first to ``passport.yaml``, then ``-2``, ...

        Args:
            resolved: what the config leaves open and has been decided since.

        Raises:
            RunError: it cannot be written.
        """
        before = len(list(self.path.glob("passport*.yaml")))
        name = f"passport-{before + 1}.yaml" if before else "passport.yaml"
        self.write(name, _passport(resolved))


def _passport(resolved: Mapping[str, Any]) -> str:
    return yaml.safe_dump(passport() | {"resolved": dict(resolved)}, sort_keys=False)


def new_run_path(model: str, data: str, seed: int) -> Path:
    """A folder under runs/ that does not exist yet, named by what is run."""
    stem = f"{model}-{data.partition(':')[0]}-seed{seed}"
    number = 1
    while (path := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path

"""The bar of long runs: what grows with the steps."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.training.classification import Classification
from surveys.reliability.bars import bar, check
from surveys.reliability.harness import child, quick_config, trains


@dataclass(frozen=True)
class _Noting:
    """Notes at every step: processor seconds, bytes of memory, open files.

    Args:
        notes: the file.
    """

    notes: str

    def __call__(self) -> None:
        """Changes this process."""
        job_class: Any = Classification
        inputs = job_class.inputs
        page = os.sysconf("SC_PAGE_SIZE")
        file = open(self.notes, "w", encoding="utf-8", buffering=1)  # noqa: SIM115

        def noting(job: Classification, *args: Any) -> Any:
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * page
            file.write(f"{time.process_time()} {memory} {len(os.listdir('/proc/self/fd'))}\n")
            return inputs(job, *args)

        job_class.inputs = noting


@bar(
    "R28",
    "A long run takes no more memory, files or time a step than a short one: at most {megabytes} MB more, no "
    "file more, steps at most {percent} % slower.",
    "{steps} steps in epochs of 100, each with its test, weights and checkpoint, and 2 workers; resident "
    "memory and open files at each step, the most in the last fifth against the most in the second; "
    "processor time of the steps, likewise, the medians",
)
def soak(*, steps: int = 2000, megabytes: int = 20, percent: int = 5) -> str:
    """Trains for long."""
    each = 100
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        config = quick_config(
            Path(folder) / "run",
            epochs=steps // each,
            data=f"fake:1x8x8,images={each * 24},classes=10",
            workers=2,
            ema=0.9,
            save_minutes=60.0,
        )
        running = child(trains, config, False, _Noting(str(notes)))
        check(running.status(3600) == 0, running.said)
        rows = [[float(word) for word in line.split()] for line in notes.read_text().splitlines()]
    check(len(rows) == steps // each * each, f"{len(rows)} steps were noted")
    times, memory, files = zip(*rows, strict=True)
    took = [after - before for before, after in itertools.pairwise(times)]
    # The first fifth has the first of everything, such as checkpoints and tests: that is no growth.
    fifth = len(rows) // 5
    early, late = slice(fifth, 2 * fifth), slice(-fifth, None)
    slower = statistics.median(took[late]) / statistics.median(took[early]) - 1
    grown = (max(memory[late]) - max(memory[early])) / 1e6
    more = max(files[late]) - max(files[early])
    found = f"{len(rows):,} steps: {grown:+.1f} MB, {more:+.0f} files, step time {slower:+.1%}"
    check(grown <= megabytes and more <= 0 and slower <= percent / 100, found)
    return found

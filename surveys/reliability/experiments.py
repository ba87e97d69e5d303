"""Bar of experiments whose processes are killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from senet.experiments.worker import RESULT
from surveys.reliability.bars import bar, check
from surveys.reliability.harness import Running, command, digests, same

_GRID = "{baseline: plain, variants: {plain: {network: plain}, r = 4: {network: se, se.reduction: 4}}}"
_WORDS = (
    "--model se_resnet20 --data fake:1x8x8,images=96,classes=10 --batch_size 24 --epochs 3 --ema 0.9 "
    "--device cpu --workers 0"
).split()
_VICTIMS = ("the process group", "the command alone", "a worker")


@bar(
    "R11",
    "Experiments whose processes are killed go on: no finished run is lost or done again, and the others go "
    "on from where they were, to the same bits. Processes that share a folder never do a run twice.",
    "{kills} SIGKILLs to two `senet ablate` on one folder: to the process group, the command alone or a "
    "worker, at random times or when a result has just been written; all files of finished runs from then "
    "on, and SHA-256 of those of {seeds} seeds against experiments never killed",
)
def experiments(*, kills: int = 50, seeds: int = 3) -> str:
    """Kills what does runs."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        store = _Store(Path(folder) / "killed", stack)
        running = [store.start(jobs) for jobs in (1, 2)]
        killed: Counter[str] = Counter()
        while killed.total() < kills:
            place = rng.randrange(2)
            victim = running[place]
            store.wait(victim, rng)
            kind = rng.choice(_VICTIMS)
            if victim.is_over:  # there was nothing left to do
                check(victim.status() == 0, victim.said)
            elif store.kill(victim, kind):
                killed[kind] += 1
            if victim.is_over:
                running[place] = store.start(1 + place)
        for each in (*running, store.start(2)):
            check(each.status() == 0, each.said)
        unsaid, takeovers = store.check()
        whole = _Store(Path(folder) / "whole", stack)
        check(whole.start(2, seeds=seeds).status() == 0, "experiments never killed failed")
        for run in whole.finished():
            same(digests(store.out / "cells" / run), digests(whole.out / "cells" / run), run)
        kinds = ", ".join(f"{killed[kind]} {kind}" for kind in _VICTIMS)
        return (
            f"{kills} of {kills} kills ({kinds}): {len(store.finished())} runs finished, 0 lost, 0 done "
            f"again; {takeovers} taken over; {unsaid} killed between result and announcement; equal"
        )


class _Store:
    """A folder of experiments, and what is known to be finished in it.

    Args:
        out: the folder.
        stack: ends what is started.
    """

    def __init__(self, out: Path, stack: contextlib.ExitStack) -> None:
        self.out, self.stack = out, stack
        self.grid = out.with_suffix(".yaml")
        self.grid.write_text(_GRID, encoding="utf-8")
        self.seeds = 2
        # What the folder of each finished run holds.
        self.seen: dict[str, dict[str, int]] = {}

    def start(self, jobs: int, seeds: int = 0) -> Running:
        """The command, with one seed more than the last, so that there is always something to do."""
        self.seeds += 1
        out, count = str(self.out), str(seeds or self.seeds)
        running = command(
            "ablate", str(self.grid), *_WORDS, "--out", out, "--seeds", count, "--jobs", str(jobs)
        )
        self.stack.callback(_end_group, running.pid)
        return running

    def wait(self, victim: Running, rng: random.Random) -> None:
        """Waits for a moment to kill: any, one of a run that has just begun, or that of a result."""
        kind = rng.choice(("any", "run", "run", "result"))
        workers, finished = self.workers(victim), len(self.finished())
        end = time.monotonic() + (rng.uniform(0, 10) if kind == "any" else 60)
        while time.monotonic() < end and not victim.is_over:
            if len(self.finished()) > finished and kind == "result":
                return
            if kind == "run" and self.workers(victim).keys() - workers.keys():
                time.sleep(rng.uniform(0, 1))
                return
            time.sleep(0.002)

    def kill(self, victim: Running, kind: str) -> bool:
        """Kills it, or part of it; whether there was something to kill."""
        with contextlib.suppress(ProcessLookupError):
            if kind == "a worker":
                workers = list(self.workers(victim).values())
                for pid in workers[:1]:
                    os.kill(pid, signal.SIGKILL)
                return bool(workers)
            (os.killpg if kind == "the process group" else os.kill)(victim.pid, signal.SIGKILL)
        return victim.status() == -signal.SIGKILL

    def workers(self, running: Running) -> dict[tuple[str, int], int]:
        """Its processes that do a run: by run and entry."""
        found = {}
        for folder in self.out.glob("claims/*"):
            if folder.is_dir() and not (self.out / "cells" / folder.name / RESULT).exists():
                entries = _history(folder)
                if entries and entries[-1]["entry"] == "taken":
                    found[folder.name, len(entries)] = int(entries[-1]["owner"]["pid"])
        return {key: pid for key, pid in found.items() if _group(pid) == running.pid}

    def finished(self) -> list[str]:
        """The runs that have a result; notes what their folders hold."""
        keys = [path.parent.name for path in self.out.glob(f"cells/*/{RESULT}")]
        for key in keys:
            if key not in self.seen:
                self.seen[key] = self.files(key)
        return keys

    def files(self, key: str) -> dict[str, int]:
        """All files of a run, with the time of their last change."""
        folder = self.out / "cells" / key
        return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    def check(self) -> tuple[int, int]:
        """Checks that all is done, and what was done stayed; runs announced by another, and takeovers."""
        check(len(self.finished()) == 2 * self.seeds, f"{2 * self.seeds - len(self.finished())} are missing")
        unsaid = takeovers = 0
        for key, before in self.seen.items():
            check(self.files(key) == before, f"{key} was changed after it was finished")
            entries = _history(self.out / "claims" / key)
            words = [entry["entry"] for entry in entries]
            check(words[-1] == "done" and words.count("done") == 1, f"{key}: {words}")
            check("failed" not in words, f"{key}: {words}")
            takeovers += sum(pair == ("taken", "taken") for pair in itertools.pairwise(words))
            announced = self.out / "claims" / key / str(len(words) - 1)
            result = self.out / "cells" / key / RESULT
            unsaid += result.stat().st_mtime_ns < announced.stat().st_mtime_ns
        return unsaid, takeovers


def _history(folder: Path) -> list[dict[str, Any]]:
    """The entries of a claim."""
    count = len([path for path in folder.iterdir() if path.name.isdecimal()])
    return [json.loads((folder / str(1 + number)).read_text()) for number in range(count)]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)

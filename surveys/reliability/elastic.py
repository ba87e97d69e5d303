"""Bars of several processes of one run, of which one dies, fails or hangs."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.training.checkpoints import Checkpoints
from senet.training.classification import Classification
from senet.training.config import TrainConfig
from senet.training.run_folder import STATE
from surveys.reliability.bars import bar, check
from surveys.reliability.deaths import At
from surveys.reliability.harness import (
    Running,
    children,
    digests,
    first_words,
    program,
    quick_config,
    same,
    together,
    trains,
)

# Who has what all processes share: torchrun, over all attempts, or the first process of each.
_STORES: dict[str, dict[str, str]] = {
    "torchrun": {},
    "first process": {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
}


@bar(
    "R2",
    "A process of a run that is killed is started again by torchrun, with the others; {seconds} s later at "
    "most the run goes on, and it ends in the same bits.",
    "a run of 2 processes (gloo, torchrun --max-restarts), of which a random one is killed by SIGKILL "
    "{kills} times at random times, half of these where torchrun has the store, half where the first process "
    "has it; SHA-256 of weights and metrics against the run never killed; the time from a kill to the next "
    "step that is saved",
)
def elastic(*, kills: int = 20, seconds: int = 60) -> str:
    """Kills one process after the other."""
    rng = random.Random(0)
    took: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def config(name: str) -> TrainConfig:
            return quick_config(Path(folder) / name, epochs=2 * kills)

        whole = _torchrun(config("whole"), 0)
        check(whole.status(1200) == 0, whole.said)
        for store, env in _STORES.items():
            run = Path(folder) / store
            agent = _torchrun(config(store), kills, env)
            for number in range(kills // len(_STORES)):
                until_saved(agent, run, saved(run) + 1)
                time.sleep(rng.uniform(0, 2))
                before = saved(run)
                killed, started = rng.choice(children(agent, 2)), time.monotonic()
                os.kill(killed, signal.SIGKILL)
                until_saved(agent, run, before + 2)  # the one that was under way may still have been saved
                took.append(time.monotonic() - started)
                check(took[-1] <= seconds, f"kill {number + 1}: {took[-1]:.0f} s until the run went on")
            check(agent.status(1200) == 0, agent.said)
            again = agent.said.count("goes on after step")
            check(again >= kills // len(_STORES), f"{store}: {again} kills started it again")
            same(digests(run), digests(Path(folder) / "whole"), f"{store}: killed")
    took.sort()
    return (
        f"{len(took)} of {kills} kills: on again after {took[len(took) // 2]:.0f} s (median; "
        f"{took[-1]:.0f} s at most), equal"
    )


def _torchrun(config: TrainConfig, restarts: int, env: dict[str, str] | None = None) -> Running:
    """The run in two processes on this machine."""
    words = ["--standalone", "--nproc_per_node", "2", "--max-restarts", str(restarts), "-m", "--", "senet"]
    return program(sys.executable, "-m", "torch.distributed.run", *words, *first_words(config), env=env)


def saved(run: Path) -> int:
    """The last step that is saved, 0 before any."""
    paths = Checkpoints(run / STATE).paths()
    return int(paths[0].stem.partition("-")[2]) if paths else 0


def until_saved(agent: Running, run: Path, step: int) -> None:
    """Waits for a step."""
    end = time.monotonic() + 240
    while saved(run) < step:
        check(time.monotonic() < end and not agent.is_over, f"step {step} was not saved: {agent.said}")
        time.sleep(0.02)


@dataclass(frozen=True)
class OfRank:
    """A change to the process of one rank only.

    Args:
        rank: which.
        change: what.
    """

    rank: int
    change: Callable[[], None]

    def __call__(self) -> None:
        """Makes it."""
        if os.environ["RANK"] == str(self.rank):
            self.change()


@dataclass(frozen=True)
class Sleep:
    """Hangs, and notes when that began."""

    note: str

    def __call__(self) -> None:
        """Sleeps for an hour."""
        Path(self.note).write_text(str(time.time()), encoding="utf-8")
        time.sleep(3600)


@dataclass(frozen=True)
class Stop(Sleep):
    """Stops the whole process, its threads too."""

    def __call__(self) -> None:
        """Sends SIGSTOP."""
        Path(self.note).write_text(str(time.time()), encoding="utf-8")
        os.kill(os.getpid(), signal.SIGSTOP)


@dataclass(frozen=True)
class Fewer(Sleep):
    """Has no batches from a step on.

    Args:
        step: from 0.
    """

    step: int

    def __call__(self) -> None:
        """Cuts the batches off."""
        job_class: Any = Classification
        steps = job_class.steps

        def fewer(job: Classification) -> Any:
            for number, batches in enumerate(steps(job)):
                if number == self.step:
                    Path(self.note).write_text(str(time.time()), encoding="utf-8")
                    return
                yield batches

        job_class.steps = fewer


@bar(
    "R10",
    "When a process hangs, or has fewer batches, every process ends with an error that names its rank and "
    "the step, within --timeout (120 s, if not changed) and 5 s.",
    "3 processes (gloo, --timeout {timeout}), of which rank 1 sleeps in its 8th step, is stopped as a whole "
    "by SIGSTOP (then only the others can end), or has no 8th batch; or of which rank 0 is stopped, and with "
    "it what they share",
)
def hang(*, timeout: int = 120) -> str:
    """Hangs in three ways."""
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "began.txt"
        ways: dict[str, OfRank] = {
            "asleep": OfRank(1, At(7, Sleep(str(note)))),
            "stopped": OfRank(1, At(7, Stop(str(note)))),
            "fewer batches": OfRank(1, Fewer(str(note), 7)),
            "the first stopped": OfRank(0, At(7, Stop(str(note)))),
        }
        for way, change in ways.items():
            config = quick_config(Path(folder) / way, timeout=float(timeout))
            every = together(3, trains, config, False, change)
            stopped = change.rank if "stopped" in way else None
            for rank, each in enumerate(every):
                if rank == stopped:
                    continue
                status = each.status(timeout + 60)
                took[way] = time.time() - float(note.read_text())
                check(status == 1, f"{way}, rank {rank}: status {status}: {each.said}")
                guilty = rf"rank {change.rank}\b"
                named = re.search(rf"{guilty}.* step 8\b|step 8\b.*{guilty}", each.said)
                check(named is not None and "Traceback" not in each.said, f"{way}, rank {rank}: {each.said}")
            if stopped is not None:
                os.kill(every[stopped].pid, signal.SIGKILL)
            check(took[way] <= timeout + 5, f"{way}: {took[way]:.0f} s until all had ended")
    return "; ".join(f"{way}: named by all in {seconds:.0f} s" for way, seconds in took.items())

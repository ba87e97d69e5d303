"""Bars of runs that are killed, stopped and resumed."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.training.checkpoints import Checkpoints
from senet.training.classification import Classification
from senet.training.config import TrainConfig
from senet.training.run_folder import CONFIG, STATE
from surveys.reliability.bars import bar, check
from surveys.reliability.deaths import OF_A_CHECKPOINT, OF_A_FILE, At, DieLater, DieWriting
from surveys.reliability.harness import (
    STEPS,
    children,
    command,
    digests,
    finish,
    left_over,
    quick_config,
    same,
    start,
    words_of,
)

# What of a run might not come back as it was, a row a seed.
_CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"randaugment": 2, "jitter": 20},
    {"ema": 0.9, "options": {"dropout": 0.3}, "save_minutes": 0.002},
    {"mixup": 0.2, "cutmix": 1.0, "accumulate": 2, "clip": 1.0},
    {"schedule": "plateau", "patience": 1, "nesterov": True, "freeze_norms": 1, "save_minutes": 0.004},
    {"ema": 0.8, "options": {"dropout": 0.2}, "mixup": 0.4, "accumulate": 3, "balanced": True},
)
_WORKERS = (0, 1, 2)


@bar(
    "R1",
    "A run that is killed at any moment goes on with --resume and ends in the same bits.",
    "{seeds} runs, each killed {kills} times by SIGKILL (before the first checkpoint, inside saves, at "
    "random times), with 0, 1 or 2 workers from start to start; SHA-256 of weights, optimizer, EMA and "
    "metrics against the run never killed",
)
def resume(*, seeds: int = 5, kills: int = 20, epochs: int = 3) -> str:
    """Kills and resumes."""
    early = saving = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            values = _CONFIGURATIONS[(seed + 1) % len(_CONFIGURATIONS)] | {"epochs": epochs}
            wanted = finish(quick_config(Path(folder) / f"{seed}-whole", seed, **values))
            run = Path(folder) / f"{seed}"
            config = quick_config(run, seed, **values)
            for number, planned in enumerate(_deaths(kills, config, random.Random(seed))):
                again = dataclasses.replace(config, workers=_WORKERS[(number + seed) % 3])
                had = bool(Checkpoints(run / STATE).paths())
                running = start(again, planned)
                check(running.status() == -signal.SIGKILL, f"start {number} was not killed: {running.said}")
                early += not Checkpoints(run / STATE).paths()
                saving += had and bool(left_over(run))
            same(finish(config), wanted, f"seed {seed}, killed {kills} times")
    return (
        f"{seeds * kills} of {seeds * kills} kills: equal ({early} before the first checkpoint, {saving} "
        "left a half-written file)"
    )


def _deaths(kills: int, config: TrainConfig, rng: random.Random) -> Iterator[At]:
    """When each start dies: nearer to the end from kill to kill, so that none is in vain."""
    early, saving = max(1, kills * 3 // 20), max(1, kills // 4)
    for _ in range(early):
        # The passport, the config, the first checkpoint up to the moment when it has its name.
        files = 1 if _begun(config) else 2
        yield At(-1, DieWriting(rng.randint(1, files * OF_A_FILE + 3)))
    last = config.recipe.epochs * STEPS - 1
    kinds = ["save"] * (saving - 1) + ["time"] * (kills - early - saving)
    rng.shuffle(kinds)
    places = sorted(rng.choices(range(1, last - 3), k=len(kinds)))
    # What the end of an epoch writes at least: weights, two files of metrics, a checkpoint.
    end = OF_A_CHECKPOINT * (1 + (config.save_minutes == 0)) + 3 * OF_A_FILE
    for step, kind in zip(places, kinds, strict=True):
        if kind == "time":
            yield At(step, DieLater(rng.uniform(0, 0.12)))
        elif step < last - STEPS and rng.random() < 0.5:
            yield At(step // STEPS * STEPS + STEPS - 1, DieWriting(rng.randint(1, end)))
        else:
            yield At(step, DieWriting(rng.randint(1, OF_A_CHECKPOINT)))
    yield At(last, DieWriting(rng.randint(1, end)))


def _begun(config: TrainConfig) -> bool:
    """Whether there is a run to go on with."""
    return (Path(str(config.run)) / CONFIG).exists()


@bar(
    "R1",
    "The same through the command line.",
    "`senet train --config`, killed by SIGKILL at {kills} random times of its training, each time resumed by "
    "`senet train --resume`",
)
def resume_by_command(*, kills: int = 5) -> str:
    """Kills and resumes what a user would type."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        config = quick_config(Path(folder) / "killed", ema=0.9, epochs=4 * kills)
        wanted = finish(dataclasses.replace(config, run=Path(folder) / "whole"))
        for number in range(kills):
            running = command(*words_of(config), "--workers", str(_WORKERS[number % 3]))
            running.until("run      ")
            time.sleep(rng.uniform(0, 1.5))
            os.kill(running.pid, signal.SIGKILL)
            check(running.status() == -signal.SIGKILL, f"it ended before: {running.said}")
        running = command(*words_of(config))
        check(running.status() == 0, f"it did not end well: {running.said}")
        same(digests(Path(str(config.run))), wanted, f"killed {kills} times")
    return f"{kills} of {kills} kills: equal"


@dataclass(frozen=True)
class Ask:
    """The signal to this very process."""

    number: int

    def __call__(self) -> None:
        """Sends it."""
        os.kill(os.getpid(), self.number)


@dataclass(frozen=True)
class _WhenTesting:
    """Does something in the so-manieth evaluation, once it has begun."""

    evaluation: int
    act: Callable[[], None]

    def __call__(self) -> None:
        job_class: Any = Classification
        evaluate, left = job_class.evaluate, [self.evaluation]

        def noticing(job: Classification, *args: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                self.act()
            return evaluate(job, *args)

        job_class.evaluate = noticing


@bar(
    "R7",
    "SIGTERM saves and ends with 143, SIGINT with 130, after one more step at most, and the run goes on.",
    "{times} signals at a random step or in an evaluation, with no checkpoint due; resumed to the same bits",
)
def stopped(*, times: int = 10) -> str:
    """Sends signals from within, to the step."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        wanted = finish(quick_config(Path(folder) / "whole", save_minutes=60.0))
        for number in range(times):
            config = quick_config(Path(folder) / str(number), save_minutes=60.0)
            asked, status = ((signal.SIGTERM, 143), (signal.SIGINT, 130))[number % 4 == 3]
            step = rng.randrange(2 * STEPS)
            testing = number % 2 == 1
            change = _WhenTesting(1 + step // STEPS, Ask(asked)) if testing else At(step, Ask(asked))
            running = start(config, change)
            found = running.status()
            check(found == status, f"the exit status is {found}, not {status}: {running.said}")
            saved = int(Checkpoints(Path(str(config.run)) / STATE).paths()[0].stem.partition("-")[2])
            due = STEPS * (1 + step // STEPS) if testing else step + 1
            # The step that runs may have been begun as one that is followed by another.
            soon = saved == due if testing else saved - due in (0, 1)
            check(soon, f"asked in step {step + 1}, saved was step {saved}")
            same(finish(config), wanted, f"stopped in step {step + 1}")
    return f"{times} of {times}: at most one step more, status 143 or 130, equal when resumed"


@bar(
    "R7",
    "The same through the command line, also where the whole process group is asked, and its workers.",
    "{times} signals to `senet train` at random times, every second one to the process group with 2 workers",
)
def stopped_by_command(*, times: int = 10) -> str:
    """Sends signals from outside, as a cluster does."""
    rng = random.Random(0)
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        config = quick_config(Path(folder) / "whole", epochs=8, save_minutes=60.0)
        wanted = finish(config)
        for number in range(times):
            config = dataclasses.replace(config, run=Path(folder) / str(number), workers=2 * (number % 2))
            running = command(*words_of(config))
            running.until("run      ")
            time.sleep(rng.uniform(0, 2))
            asked, status = ((signal.SIGTERM, 143), (signal.SIGINT, 130))[number % 4 == 3]
            started = time.perf_counter()
            (os.killpg if number % 2 else os.kill)(running.pid, asked)
            found = running.status()
            slowest = max(slowest, time.perf_counter() - started)
            check(found == status, f"the exit status is {found}, not {status}: {running.said}")
            same(finish(config), wanted, f"stopped for the {number}. time")
    check(slowest <= 10, f"one took {slowest:.1f} s to end")
    return f"{times} of {times}: status 143 or 130 in at most {slowest:.1f} s, equal when resumed"


@bar(
    "R8",
    "A process that prepares images and dies is named within {seconds} seconds; the run goes on with "
    "--resume.",
    "{times} times one of 2 workers is killed by SIGKILL at a random time",
)
def worker_killed(*, times: int = 10, seconds: int = 5) -> str:
    """Kills a worker."""
    rng = random.Random(0)
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        wanted = finish(quick_config(Path(folder) / "whole"))
        for number in range(times):
            config = quick_config(Path(folder) / str(number), workers=2)
            running = start(config)
            running.until("run      ")
            workers = children(running, 2)
            time.sleep(rng.uniform(0, 0.5))
            killed, started = rng.choice(workers), time.perf_counter()
            os.kill(killed, signal.SIGKILL)
            status = running.status()
            slowest = max(slowest, time.perf_counter() - started)
            check(status == 1, f"the exit status is {status}: {running.said}")
            named = re.search(rf"\(pid(\(s\))? {killed}\)", running.said)
            check(named is not None and "Traceback" not in running.said, running.said)
            same(finish(config), wanted, f"worker killed for the {number}. time")
    check(slowest <= seconds, f"one took {slowest:.1f} s to end")
    return f"{times} of {times}: named, in at most {slowest:.1f} s; equal when resumed"


@dataclass(frozen=True)
class _Fail:
    """An error that nobody foresaw, such as that of a GPU without memory."""

    def __call__(self) -> None:
        """Raises it."""
        raise RuntimeError("out of memory")


@bar(
    "R8",
    "An error that nobody foresaw ends the run too, and its workers with it; the run goes on with --resume.",
    "{times} times an error of PyTorch's own at a random step, beside 2 workers; {seconds} s from start "
    "to end at most",
)
def unforeseen(*, times: int = 5, seconds: int = 30) -> str:
    """Raises what no one catches."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        wanted = finish(quick_config(Path(folder) / "whole"))
        for number in range(times):
            config = quick_config(Path(folder) / str(number), workers=2)
            step = rng.randrange(1, 2 * STEPS)
            running = start(config, At(step, _Fail()))
            status = running.status(seconds)
            check(status == 1 and "out of memory" in running.said, f"status {status}: {running.said}")
            same(finish(config), wanted, f"failed in step {step + 1}")
    return f"{times} of {times} ended; equal when resumed"


@bar(
    "R26",
    "The same seed on the same machine gives the same bits.",
    "{times} runs with dropout, EMA and RandAugment, and 0, 1 or 2 workers",
)
def repeated(*, times: int = 5) -> str:
    """Does the same again."""
    values: dict[str, Any] = {"ema": 0.9, "options": {"dropout": 0.3}, "randaugment": 2}
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            finish(quick_config(Path(folder) / str(number), workers=_WORKERS[number % 3], **values))
            for number in range(times)
        ]
        other = finish(quick_config(Path(folder) / "other", 1, **values))
    check(all(run == runs[0] for run in runs), "two runs of the same seed differ")
    check(other["last.safetensors"] != runs[0]["last.safetensors"], "two seeds give the same weights")
    return f"{times} of {times} equal"

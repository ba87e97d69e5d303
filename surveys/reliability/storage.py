"""Bars of the disk: killed while writing, full, and rotten."""

from __future__ import annotations

import errno
import os
import pkgutil
import random
import re
import resource
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from senet import weights
from senet.errors import RunError, WeightsError
from senet.training import loop
from senet.training.checkpoints import Checkpoints
from senet.training.run_folder import STATE, RunFolder
from surveys.reliability.bars import bar, check
from surveys.reliability.deaths import At
from surveys.reliability.harness import (
    STEPS,
    child,
    finish,
    left_over,
    quick_config,
    same,
    say,
    start,
)


@bar(
    "R4",
    "A checkpoint is there whole or not at all, and what a kill leaves is swept at the next start.",
    "{kills} SIGKILLs while checkpoints of {megabytes} MB are written, TMPDIR on another filesystem",
)
def written_whole(*, kills: int = 100, megabytes: int = 200) -> str:
    """Kills a process that does nothing but save."""
    rng = random.Random(0)
    orphans = 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        path = Path(folder) / "run"
        RunFolder.create(path, {}, resolved={}).close()
        step = 0
        for _ in range(kills):
            running = child(_save_for_ever, path / STATE, megabytes, step, env={"TMPDIR": elsewhere})
            running.until("saves")
            end = time.monotonic() + 60
            while not left_over(path):
                check(time.monotonic() < end, "no temporary file is seen: it is written in its place")
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.004) * megabytes)
            os.kill(running.pid, signal.SIGKILL)
            running.status()
            orphans += (found := len(left_over(path)))
            check(found <= 1, f"a kill left {found} temporary files")
            RunFolder.open(path).close()
            check(not left_over(path), "what a kill left is still there")
            unloadable: list[str] = []
            saved = Checkpoints(path / STATE).load(unloadable.append)
            told = [int(each) for each in re.findall(r"saved (\d+)\n", running.said)]
            check(not unloadable, f"a checkpoint is damaged: {unloadable}")
            check(saved is not None or not told, "a checkpoint that was saved is gone")
            step = int(saved[1]["step"]) if saved else 0
            check(step >= max(told, default=0), f"step {max(told, default=0)} was saved, {step} is found")
        check(not list(Path(elsewhere).iterdir()), "something was written to TMPDIR")
    return f"{kills} of {kills}: 0 unloadable, 0 lost; {orphans} files half written, all swept"


def _save_for_ever(folder: Path, megabytes: int, step: int) -> int:
    """Saves until it is killed."""
    tensors = {"x": torch.ones(megabytes * 250_000)}
    say("saves")
    while True:
        step += 1
        Checkpoints(folder).save(tensors, {"step": step})
        say(f"saved {step}")


@dataclass(frozen=True)
class _Full:
    """From now on, no file may be larger than so many bytes."""

    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class _FullAt:
    """The same from the so-manieth call of a function on."""

    place: str
    name: str
    calls: int
    size: int

    def __call__(self) -> None:
        place = pkgutil.resolve_name(self.place)
        call, left = getattr(place, self.name), [self.calls]

        def filling(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                _Full(self.size)()
            return call(*args, **options)

        setattr(place, self.name, filling)


_FOLDER = "senet.training.run_folder:RunFolder"
# Where the disk is full, and after how many bytes of a file: in checkpoints, weights, metrics and times.
_POINTS: tuple[Any, ...] = (
    At(13, _Full(500_000)),
    _FullAt(_FOLDER, "write_metrics", 2, 0),
    At(0, _Full(0)),
    At(STEPS - 1, _Full(2_000_000)),
    _FullAt("senet.weights", "save", 1, 1),
    _FullAt(_FOLDER, "add_time", 1, 0),
    _FullAt("senet.weights", "save", 3, 700_000),
    At(2 * STEPS - 1, _Full(100)),
)
# MB of a file system in memory that hold one checkpoint, two, and not all of what an epoch writes.
_ROOM = (1, 3, 6)


@bar(
    "R5",
    "On a full disk the run ends with an error that names the file and its bytes, leaves no part of a file, "
    "and goes on to the same bits when there is room again.",
    "{points} points of a run where no file can grow further (RLIMIT_FSIZE), {disks} small disks (tmpfs)",
)
def disk_full(*, points: int = 8, disks: int = 3) -> str:
    """Fills the disk."""
    small = "no small disk (mounting is not allowed here)"
    with tempfile.TemporaryDirectory() as folder:
        wanted = finish(quick_config(Path(folder) / "whole"))
        for number, point in enumerate(_POINTS[:points]):
            _fill(Path(folder) / str(number), wanted, point)
        for number, megabytes in enumerate(_ROOM[:disks], 1):
            disk = Path(folder) / f"disk{megabytes}"
            disk.mkdir()
            if not _mount(disk, f"size={megabytes}m"):
                break
            try:
                _fill(disk / "run", wanted, None, lambda disk=disk: _mount(disk, "remount,size=200m"))
            finally:
                subprocess.run(["umount", str(disk)], check=True)
            small = f"{number} of {disks} small disks"
    return (
        f"{points} of {points} points, {small}: file and bytes named, nothing left over, equal when resumed"
    )


def _fill(run: Path, wanted: dict[str, str], point: Any, make_room: Any = bool) -> None:
    config = quick_config(run)
    running = start(config, *([] if point is None else [point]))
    status, said = running.status(), running.said
    check(status == 1, f"{point}: the exit status is {status}: {said}")
    named = re.search(rf"{re.escape(str(run))}/\S+'.*[\d,]+ bytes cannot be written", said)
    check(named is not None, f"{point}: no file and no bytes are named: {said}")
    check("Traceback" not in said, f"{point}: {said}")
    check(not left_over(run), f"{point}: {left_over(run)} is left")
    damaged: list[str] = []
    Checkpoints(run / STATE).load(damaged.append)
    check(not damaged, f"{point}: {damaged}")
    make_room()
    same(finish(config), wanted, str(point))


def _mount(disk: Path, options: str) -> bool:
    """Whether a file system in memory of that size now stands there."""
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    try:
        return subprocess.run(words, check=False, capture_output=True).returncode == 0
    except OSError as error:
        check(error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM), str(error))
        return False


@bar(
    "R6",
    "A file with one bit turned over is refused before it is used; of checkpoints the one before is taken, "
    "and that is said.",
    "{flips} random bits, one at a time, in the last weights and the newest checkpoint of a run",
)
def bit_flips(*, flips: int = 1000) -> str:
    """Turns bits over."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        loop.train(quick_config(run, epochs=1, batch_size=120))
        checkpoints = Checkpoints(run / STATE)
        newest, before = checkpoints.paths()
        for number in range(flips):
            path = (newest, run / weights.LAST)[number % 2]
            # A third of them in the header, which is a small part of the file.
            content = path.read_bytes()
            head = 8 + int.from_bytes(content[:8], "little")
            bit = rng.randrange(8 * (head if number % 3 == 0 else len(content)))
            with _flipped(path, bit):
                try:
                    if path == newest:
                        warnings: list[str] = []
                        saved = checkpoints.load(warnings.append)
                        taken = saved is not None and saved[1]["step"] == _step(before)
                        loud = len(warnings) == 1 and str(newest) in warnings[0]
                        refused = taken and loud
                    else:
                        weights.read(path)
                        refused = False
                except WeightsError as error:
                    refused = str(path) in str(error)
                check(refused, f"bit {bit} of {path.name} was not noticed")
        # Both: nothing is left to go on from.
        with _flipped(newest, 99_999), _flipped(before, 99_999):
            try:
                checkpoints.load(lambda _line: None)
                check(False, "two damaged checkpoints were taken for none")
            except RunError as error:
                check(str(checkpoints.folder) in str(error), str(error))
    return f"{flips} of {flips} refused"


class _flipped:  # noqa: N801
    """A file with one bit turned over while the body runs."""

    def __init__(self, path: Path, bit: int) -> None:
        self.path, self.place, self.mask = path, bit // 8, 1 << bit % 8

    def _turn(self) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.place)
            byte = file.read(1)[0] ^ self.mask
            file.seek(self.place)
            file.write(bytes([byte]))

    def __enter__(self) -> None:
        self._turn()

    def __exit__(self, *_error: object) -> None:
        self._turn()


def _step(path: Path) -> int:
    return int(path.stem.partition("-")[2])

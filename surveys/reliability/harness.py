"""Processes that train and are made to fail, and what they leave behind."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import yaml

from senet import weights
from senet.cli import VERBS, main
from senet.training import loop
from senet.training.checkpoints import Checkpoints
from senet.training.config import Recipe, TrainConfig
from senet.training.run_folder import CONFIG, STATE
from surveys.reliability.bars import check

ROOT = Path(__file__).parents[2]

# Forked from a process that has imported everything: a child starts in a tenth of a second.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "surveys.reliability.harness",
        "sklearn.datasets",
        "sklearn.model_selection",
        "torchvision.transforms.v2",
        "senet.models",
    ]
)

# Ten steps an epoch, each a twentieth of a second.
STEPS = 10
_QUICK: dict[str, Any] = {"batch_size": 24, "lr": 0.05, "crop": "pad", "pad": 1, "flip": True}


def quick_config(run: Path, seed: int = 0, **values: Any) -> TrainConfig:
    """A run of two epochs of ten steps that saves after every step; ``values`` of it or of its recipe."""
    fields = Recipe.__dataclass_fields__
    recipe = {"epochs": 2} | _QUICK | {key: value for key, value in values.items() if key in fields}
    rest: dict[str, Any] = {
        "model": "se_resnet20",
        "data": f"fake:1x8x8,images={STEPS * 24},classes=10",
        "device": "cpu",
        "workers": 0,
        "save_minutes": 0.0,
    }
    rest |= {key: value for key, value in values.items() if key not in fields}
    return TrainConfig(run=run, seed=seed, recipe=Recipe(**recipe), **rest)


class Running:
    """A process and what it says.

    Args:
        pid: its number.
        output: the end of the pipe that it writes to.
        wait: waits some seconds for its end; its exit status, negative for a signal, or None.
    """

    def __init__(self, pid: int, output: int, wait: Callable[[float], int | None]) -> None:
        self.pid = pid
        self._wait = wait
        self._said: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        """All that it said."""
        return b"".join(self._said).decode(errors="replace")

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._wait(0) is not None

    def until(self, text: str, seconds: float = 120) -> None:
        """Waits until it says ``text``."""
        end = time.monotonic() + seconds
        while text not in self.said:
            check(time.monotonic() < end and self._wait(0) is None, f"no {text!r} was said: {self.said}")
            time.sleep(0.01)

    def status(self, seconds: float = 240) -> int:
        """Its exit status, negative for a signal; BrokenPromiseError if it does not end."""
        status = self._wait(seconds)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            check(False, f"the process did not end in {seconds:g} s: {self.said}")
        # Workers of a process that was killed hold the pipe open for some seconds.
        self._reader.join(0.0 if status == -signal.SIGKILL else 10.0)
        return int(status or 0)

    def _read(self, output: int) -> None:
        while block := os.read(output, 1 << 16):
            self._said.append(block)
        os.close(output)


def child(function: Callable[..., int], *args: Any, env: dict[str, str] | None = None) -> Running:
    """``function(*args)`` in a process of its own; what it returns is the exit status."""
    reading, writing = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_enter, args=(writing, env or {}, function, args))
    process.start()
    writing.close()

    def wait(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    return Running(int(process.pid or 0), os.dup(reading.fileno()), wait)


def command(*words: str) -> Running:
    """The real command line, in a process group of its own."""
    return program(sys.executable, "-m", "senet", *words)


def program(*words: str, env: dict[str, str] | None = None) -> Running:
    """A program, in a process group of its own."""
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd=ROOT,
        env=os.environ | (env or {}),
    )

    def wait(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    output = os.dup(process.stdout.fileno()) if process.stdout else -1
    if process.stdout:
        process.stdout.close()
    return Running(process.pid, output, wait)


def together(count: int, function: Any, *args: Any) -> list[Running]:
    """So many processes that know of each other as torchrun's do."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = str(server.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        child(function, *args, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]


def children(running: Running, count: int) -> list[int]:
    """The processes that it started, once there are so many."""
    end = time.monotonic() + 60
    found: list[int] = []
    while len(found) < count:
        check(time.monotonic() < end, f"there are no {count} processes: {running.said}")
        lists = Path(f"/proc/{running.pid}/task").glob("*/children")
        with contextlib.suppress(FileNotFoundError):
            found = [int(word) for each in lists for word in each.read_text().split()]
        time.sleep(0.01)
    return found


def words_of(config: TrainConfig) -> list[str]:
    """What a user types: to begin the run, or to go on with it."""
    run = Path(str(config.run))
    return ["train", "--resume", str(run)] if (run / CONFIG).exists() else first_words(config)


def first_words(config: TrainConfig) -> list[str]:
    """What a user types to begin the run."""
    run = Path(str(config.run))
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    return ["train", "--config", str(file), "--run", str(run)]


def trains(config: TrainConfig, resume: bool, *changes: Callable[[], None]) -> int:
    """Trains as the command does, to its exit status; ``changes`` are made to the process before."""
    for change in changes:
        change()
    VERBS["train"] = lambda _words: void(loop.train(config, resume=resume, say=say))
    return main(["train"])


def say(line: str) -> None:
    """Prints at once."""
    print(line, flush=True)


def void(_value: object) -> None:
    """Drops a value."""


def start(config: TrainConfig, *changes: Callable[[], None], env: dict[str, str] | None = None) -> Running:
    """Begins a run, or goes on with it where it has begun."""
    return child(trains, config, (Path(str(config.run)) / CONFIG).exists(), *changes, env=env)


def finish(config: TrainConfig) -> dict[str, str]:
    """Trains to the end, from wherever the run is; its digests."""
    running = start(config)
    check(running.status() == 0, f"a run did not end well: {running.said}")
    return digests(Path(str(config.run)))


def digests(run: Path) -> dict[str, str]:
    """The SHA-256 of what came out of a run: weights, metrics, the newest checkpoint."""
    names = [weights.LAST, weights.BEST, "metrics.csv", "metrics.jsonl"]
    paths = [run / name for name in names] + Checkpoints(run / STATE).paths()[:1]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def same(found: dict[str, str], wanted: dict[str, str], what: str) -> None:
    """Checks that two runs ended in the same bits."""
    differing = [name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    check(not differing, f"{what}: {', '.join(sorted(differing))} differ from the run never stopped")


def left_over(run: Path) -> list[str]:
    """Temporary files in a run folder."""
    return [path.name for path in run.rglob("*.tmp")]


def tensors_of(run: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of every weights file and checkpoint of a run, named."""
    for path in run.rglob("*.safetensors"):
        for key, tensor in weights.read(path)[1].items():
            yield f"{path.name}: {key}", tensor


def _enter(
    output: Connection, env: dict[str, str], function: Callable[..., int], args: tuple[Any, ...]
) -> None:
    os.environ.update(env)
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    # As in a process that nobody forked: workers whose server they keep alive would never end.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    sys.exit(function(*args))

"""Processes that train together over gloo on this machine: their steps timed, and counted at the interface.

They run in a network namespace of their own, whose loopback interface nobody else uses and whose rate can be
limited. Where the system allows none they run beside others, and bytes and limited rates are left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scale_traffic import Buckets
from torch import distributed

from senet.runtime.processes import ALONE, Processes, joined
from senet.training.classification import Classification, prepare
from senet.training.config import Recipe, TrainConfig
from senet.training.step import Step

_NAMESPACE = ("unshare", "--map-root-user", "--net")
_CALLS = 100
_AGREEMENTS = 20
_TIMEOUT = 540


@dataclass(frozen=True)
class Spec:
    """What the processes do.

    Args:
        model: a name of ``senet models``; empty: they only agree on flags.
        size: height and width of its images.
        images: of each process, a step.
        processes: how many.
        rate: bits a second of the interface, all directions together; 0 limits nothing.
        rounds: how often each candidate has its turn.
        steps: in a turn.
        probe: bytes of the all-reduce that the bandwidth is read from.
    """

    model: str = ""
    size: int = 32
    images: int = 8
    processes: int = 2
    rate: float = 0
    rounds: int = 9
    steps: int = 3
    probe: int = 16 << 20


def has_namespaces() -> bool:
    """Whether this system gives the processes an interface of their own."""
    if not all(shutil.which(tool) for tool in ("unshare", "ip", "tc")):
        return False
    return subprocess.run([*_NAMESPACE, "true"], capture_output=True).returncode == 0


def measure(spec: Spec) -> dict[str, Any]:
    """What the first process found: see ``_steps`` and ``_agreement``."""
    own = has_namespaces()
    words = [sys.executable, __file__, json.dumps(dataclasses.asdict(spec)), "own" if own else "shared"]
    if spec.rate and not own:
        raise OSError("no rate can be limited without a network namespace")
    words = [*(_NAMESPACE if own else ()), *words]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as running:
        try:
            said, _ = running.communicate(timeout=_TIMEOUT)
        except BaseException:  # the processes that it has started too
            os.killpg(running.pid, signal.SIGKILL)
            raise
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, words)
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    if not own:
        result = {key: None if key in ("bytes", "packets") else value for key, value in result.items()}
    return result


def _launch(spec: Spec) -> None:
    """Starts the processes, in the namespace that this one is in, and waits."""
    if sys.argv[2] == "own":  # the interface is new, and down
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        if spec.rate:
            shape = ["tbf", "rate", f"{spec.rate:.0f}bit", "burst", "256kb", "latency", "200ms"]
            subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", *shape], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(spec.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Its warnings are of host names, which a namespace does not have.
    shared |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    started = [
        subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, **shared, "RANK": str(rank)})
        for rank in range(spec.processes)
    ]
    failed = [process.wait() for process in started]
    if any(failed):
        raise SystemExit("a process failed")


def _work(spec: Spec) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as processes:
        found = _steps(spec, processes) if spec.model else _agreement(processes)
        if processes.leads:
            print(json.dumps(found), flush=True)


def _agreement(processes: Processes) -> dict[str, Any]:
    """Seconds, bytes and packets of one agreement on three flags: the median of five turns."""
    turns = []
    for _ in range(6):
        distributed.barrier()
        before, started = _counters(), time.perf_counter()
        for _ in range(_CALLS):
            processes.any(False, False, False)
        seconds, after = time.perf_counter() - started, _counters()
        turns.append([value / _CALLS for value in (seconds, after[0] - before[0], after[1] - before[1])])
    seconds, sent, packets = (sorted(column)[2] for column in zip(*turns[1:], strict=True))
    return {"seconds": seconds, "bytes": sent, "packets": packets}


def _steps(spec: Spec, processes: Processes) -> dict[str, Any]:
    """Seconds of each candidate in each round, of its slowest process; bytes of a step at the interface.

    The candidates: a forward, a step ``alone`` (all processes at once, none sends), a step ``together`` as
    `senet train` does it, a ``probe``, an all-reduce by itself, and ``agree``, one of the flags.
    """
    recipe = Recipe(batch_size=spec.images * processes.count, lr=1e-6, epochs=10_000)
    data = f"fake:3x{spec.size}x{spec.size},images={2 * recipe.batch_size},classes=2"
    config = TrainConfig(
        model=spec.model, data=data, recipe=recipe, workers=0, device="cpu", image_size=spec.size
    )
    job = prepare(config, processes)
    job.train_mode(0)
    batches = next(job.steps())
    _check(job, batches)
    buckets = Buckets(job.state.model, lambda network: job.loss(batches[0], 0, network))
    alone = dataclasses.replace(job, network=job.state.model, processes=ALONE)
    steps = {name: Step(each, print) for name, each in (("alone", alone), ("together", job))}
    probe = torch.zeros(spec.probe // 4)

    def down() -> bool:
        return False

    def agree() -> None:
        for _ in range(_AGREEMENTS):
            processes.any(False, False, False)

    candidates: dict[str, Callable[[], object]] = {
        "forward": lambda: alone.loss(batches[0], 0, alone.network),
        "alone": lambda: steps["alone"](batches, [], down, down),
        "probe": lambda: distributed.all_reduce(probe),
        "agree": agree,
        "together": lambda: steps["together"](batches, [], down, down),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    sent = []
    for turn in range(spec.rounds + 1):
        for name, run in candidates.items():
            distributed.barrier()
            before = _counters()[0]
            laps = []
            for _ in range(spec.steps):
                started = time.perf_counter()
                run()
                laps.append(time.perf_counter() - started)
            after = _counters()[0]
            # Each step waits for its slowest process, which is not always the same.
            slowest = [max(each) for each in zip(*processes.gather(laps), strict=True)]
            if turn:  # the first warms up
                seconds[name].append(sum(slowest) / spec.steps)
                sent += [(after - before) / spec.steps] * (name == "together")
    seconds["agree"] = [each / _AGREEMENTS for each in seconds["agree"]]
    return {
        "seconds": seconds,
        "bytes": sorted(sent)[len(sent) // 2],
        "buckets": buckets.sizes,
        "ready": buckets.ready,
        "buffers": sum(each.nbytes for each in buckets.buffers),
        "broadcasts": len({each.dtype for each in buckets.buffers}),
    }


def _check(job: Classification, batches: list[Any]) -> None:
    """Sees that DDP's gradient is the mean of what each process finds alone."""
    model = job.state.model
    found = []
    for called in (job.network, model):
        job.state.optimizer.zero_grad(set_to_none=True)
        job.loss(batches[0], 0, called).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
        found.append(torch.cat(gradients))
    together, alone = found
    distributed.all_reduce(alone)
    alone /= job.processes.count
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max())):
        raise SystemExit("a step together is none on all images: nothing to time")


def _counters() -> tuple[int, int]:
    """Bytes and packets that the loopback interface of this namespace has sent."""
    for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            columns = numbers.split()
            return int(columns[8]), int(columns[9])
    return 0, 0


if __name__ == "__main__":
    asked = Spec(**json.loads(sys.argv[1]))
    (_work if "RANK" in os.environ else _launch)(asked)

"""The device that a user names."""

from __future__ import annotations

import os

import torch

from senet.errors import OptionError


def device_named(name: str) -> torch.device:
    """The device of that name; auto is the GPU if there is one, else the CPU.

    Where ``torchrun`` started several processes, each takes its own GPU.

    Raises:
        OptionError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    allowed = "auto, cpu, cuda, cuda:N"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device {name!r}", f"it cannot be used ({error})", allowed) from error
    if device.type == "meta":
        raise OptionError(f"device {name!r}", "it holds no numbers", allowed)
    return device


def worker_count(asked: int | None, device: torch.device) -> int:
    """The number of processes that prepare images: as asked, or by the device.

    Where the network itself runs on the CPU, other processes only take its cores (measured:
    docs/results.md); beside a GPU, as many as its share of the cores but one, 8 at most.
    """
    if asked is not None:
        return asked
    return 0 if device.type == "cpu" else min(8, max(1, _cores() - 1))


def free_cores(device: torch.device) -> int:
    """The cores that a network on this device leaves to what prepares its images."""
    return max(0, _cores() - torch.get_num_threads()) if device.type == "cpu" else _cores()


def _cores() -> int:
    """This process's share of the cores that it may use: a cluster may not give it all of a host's."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return every // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

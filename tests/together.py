"""Several processes, as torchrun starts them, for tests.

Forked from a server that has imported all and done nothing: autograd refuses to work in a fork of a process
in which it has.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes


def together(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Runs ``function(*arguments)`` in each of ``count`` processes; the first error of one is raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.set_forkserver_preload(["senet.training.loop", "sklearn.datasets"])
    start_processes(_one, (count, port, function, arguments), count, start_method="forkserver")


def _one(rank: int, count: int, port: int, function: Callable[..., None], arguments: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    torch.set_num_threads(1)
    function(*arguments)

"""The processes of one run, as ``torchrun`` starts them: who this one is, and what all of them agree on."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

# A process that waits longer for the others fails: they are stuck or gone.
TIMEOUT = datetime.timedelta(seconds=120)
# Of this process, which all make in the same order.
_connections = itertools.count()


@dataclass(frozen=True)
class Processes:
    """One of some processes that do the same run; alone, unless said otherwise.

    Args:
        rank: the number of this one, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is up in any process."""
        return tuple(total > 0 for total in self.total(torch.tensor(flags, dtype=torch.int64)).tolist())

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of the ranks."""
        every = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(every, value)
        return every

    def from_first(self, value: Any) -> Any:
        """The value of the process that leads."""
        box = [value]
        if self.count > 1:
            distributed.broadcast_object_list(box)
        return box[0]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes the tensors of the one that leads, in place."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


ALONE = Processes()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, connected while the body runs; alone without it.

    Args:
        device: where the networks are: GPUs talk by NCCL, and by gloo on what is on the CPU.
    """
    # Clusters set WORLD_SIZE also where nobody started several processes of this program.
    started = {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    count = int(os.environ.get("WORLD_SIZE", 1)) if started else 1
    if count == 1 or distributed.is_initialized():
        yield ALONE if count == 1 else Processes(distributed.get_rank(), count)
        return
    rank = int(os.environ["RANK"])
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = _store_of_this_attempt()
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    ended = False
    try:
        yield Processes(rank, count)
        ended = True
    finally:
        try:
            _leave_together(store, count if ended else 1)
        finally:
            distributed.destroy_process_group()


def _leave_together(store: Store, count: int) -> None:
    """Waits for the others: who closes its connections before they are done may cut a last message to them.

    Args:
        store: where they find each other.
        count: how many are to come; 1 lets all of them go, as where one has failed.
    """
    last = time.monotonic() + TIMEOUT.total_seconds()
    with contextlib.suppress(RuntimeError):  # the store is gone, with the process that had it
        if store.add("leaving", 1) >= count:
            store.set("all leave", "")
        # In small parts, so that Ctrl-C is heard; one that was killed never comes.
        while not store.check(["all leave"]) and time.monotonic() < last:
            time.sleep(0.01)


def _store_of_this_attempt() -> Store:
    """Where the processes find each other.

    ``torchrun`` keeps one store over its restarts, in which a new attempt finds the addresses of the dead,
    and a second connection of one attempt those of the first.
    """
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=not agents and os.environ["RANK"] == "0",
        timeout=TIMEOUT,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"senet-{attempt}-{next(_connections)}", store)

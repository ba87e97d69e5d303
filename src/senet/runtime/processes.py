"""The processes of one run, as ``torchrun`` starts them: who this one is, and what all of them agree on."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import PrefixStore, Store

from senet.errors import RunError, first_line
from senet.runtime.meeting import connected, met
from senet.runtime.watch import BEAT, Watch, note

_CPU = torch.device("cpu")
# Seconds after which processes no longer wait for each other: one of them hangs, or is gone.
TIMEOUT = 120.0
# What it takes all of them to find out which, and to end.
_TO_TELL = 8 * BEAT
_TO_HEAR = 2 * BEAT
_TO_END = 0.5 * BEAT
_TO_CONNECT = 4.0


@dataclass(frozen=True)
class Processes:
    """One of some processes that do the same run; alone, unless said otherwise.

    Args:
        rank: the number of this one, from 0.
        count: how many there are.
        device: what they talk from: GPUs agree sooner among themselves than the hosts do over TCP.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = _CPU

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            self._meet()
            distributed.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is up in any process."""
        raised = torch.tensor(flags, dtype=torch.int64, device=self.device)
        return tuple(total > 0 for total in self.total(raised).tolist())

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of the ranks."""
        every = [value] * self.count
        if self.count > 1:
            self._meet()
            distributed.all_gather_object(every, value)
        return every

    def from_first(self, value: Any) -> Any:
        """The value of the process that leads."""
        box = [value]
        if self.count > 1:
            self._meet()
            distributed.broadcast_object_list(box)
        return box[0]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes the tensors of the one that leads, in place."""
        if self.count > 1:
            self._meet()
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def _meet(self) -> None:
        note("meets the others", meets=True)


ALONE = Processes()


@contextlib.contextmanager
def joined(device: torch.device, timeout: float = TIMEOUT) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, connected while the body runs; alone without it.

    Args:
        device: where the networks are: GPUs talk by NCCL, and by gloo on what is on the CPU.
        timeout: how long they wait for each other, in seconds.

    Raises:
        RunError: one of them did not come, hangs, failed or is gone: the same words in all of them.
    """
    # Clusters set WORLD_SIZE also where nobody started several processes of this program.
    started = {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    count = int(os.environ.get("WORLD_SIZE", 1)) if started else 1
    if count == 1 or distributed.is_initialized():
        yield ALONE if count == 1 else Processes(distributed.get_rank(), count, device)
        return
    rank, gpus = int(os.environ["RANK"]), device.type == "cuda"
    # torchrun has a store of its own, unless it is told otherwise.
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    meeting = connected(timeout, serves=serves)
    corner = met(meeting, rank, count, timeout)
    store = PrefixStore(corner, meeting)
    # When the time is over all of them are to have the error. NCCL by itself ends a process without saying
    # whom it waited for: there the watch is to come first.
    patience = timeout - min(_TO_TELL, timeout / 2)
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=datetime.timedelta(seconds=timeout + _TO_TELL if gpus else patience),
        )
    except RuntimeError as error:
        raise RunError(
            f"connecting {count} processes, here rank {rank}",
            found=f"they have met, but do not reach each other ({first_line(error)})",
            do="Name the network interface that leads to the other hosts: GLOO_SOCKET_IFNAME, and for GPUs "
            "NCCL_SOCKET_IFNAME.",
        ) from error
    watch = Watch(
        lambda: PrefixStore(corner, connected(_TO_CONNECT)), rank, count, patience if gpus else math.inf
    )
    patience = _TO_END
    with watch:
        try:
            yield Processes(rank, count, device)
            patience = TIMEOUT
        except Exception as error:
            explained = watch.explained(error)
            if explained is error:
                raise
            raise explained from error
        finally:
            # Who closes its connections before the others are done may cut a last message to them.
            _wait_for_all(store, "done", count, patience)
            distributed.destroy_process_group()
            if serves:  # they are still to hear why
                _wait_for_all(store, "gone", count, _TO_HEAR)


def _wait_for_all(store: Store, what: str, count: int, seconds: float) -> None:
    """Waits until all processes are there, or the first has failed; some seconds at most."""
    # In a thread: where the host of the store has fallen silent, its answers are waited for many minutes.
    thread = threading.Thread(target=_gather, args=(store, what, count, seconds), daemon=True)
    thread.start()
    thread.join(seconds)


def _gather(store: Store, what: str, count: int, seconds: float) -> None:
    """What ``_wait_for_all`` does."""
    last = time.monotonic() + seconds
    with contextlib.suppress(RuntimeError):  # the store is gone, with the process that had it
        store.add(what, 1)
        # In small parts; one that was killed never comes.
        while store.add(what, 0) < count and time.monotonic() < last:
            if what == "done" and seconds > _TO_END and store.check(["verdict"]):
                return
            time.sleep(0.01)

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
from senet.runtime import TIMEOUT
from senet.runtime.meeting import answered, connected, is_of_first, met
from senet.runtime.watch import TO_TELL, Watch, leave, meeting

_CPU = torch.device("cpu")
# Until who looks for the store does without it: signs of life and verdicts are for others too.
_TO_CONNECT = 4.0
# What one that ends early gives the others to end with it.
_TO_END = 0.5
# What who has the store gives the others, of which the slowest looks once a second, to leave it.
_TO_HEAR = 2.0
_SOON = 0.01


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
            with meeting():
                distributed.all_reduce(tensor)
                self._wait()
        return tensor

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is up in any process."""
        raised = torch.tensor(flags, dtype=torch.int64, device=self.device)
        return tuple(total > 0 for total in self.total(raised).tolist())

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of the ranks."""
        every = [value] * self.count
        if self.count > 1:
            with meeting():
                distributed.all_gather_object(every, value)
        return every

    def from_first(self, value: Any) -> Any:
        """The value of the process that leads."""
        box = [value]
        if self.count > 1:
            with meeting():
                distributed.broadcast_object_list(box)
        return box[0]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes the tensors of the one that leads, in place."""
        if self.count > 1:
            with meeting():
                for tensor in tensors:
                    distributed.broadcast(tensor, 0)
                self._wait()

    def _wait(self) -> None:
        """Has a GPU, which only notes what it is to do, come so far: else nobody would see it wait."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


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
    if gpus and device.index is not None:
        # For what PyTorch does on a GPU that nobody names: else it were the first, in all of them.
        torch.cuda.set_device(device)
    serves = rank == 0 and is_of_first()
    meeting_place = connected(timeout, serves=serves)
    part = met(meeting_place, rank, count, timeout)
    store = PrefixStore(part, meeting_place)
    # When the time is over all of them are to have ended. NCCL by itself ends a process without saying whom
    # it waited for: there the watch is to come first.
    patience = timeout - min(TO_TELL + 2 * _TO_END + _TO_HEAR, timeout / 2)
    _connect(store, rank, count, timeout + TO_TELL if gpus else patience, gpus=gpus)
    watch = Watch(
        lambda: PrefixStore(part, connected(_TO_CONNECT)), rank, count, patience if gpus else math.inf
    )
    is_well = False
    try:
        with watch:
            try:
                yield Processes(rank, count, device)
                watch.done()
                is_well = True
            except Exception as error:
                explained = watch.explained(error)
                if explained is error:
                    raise
                raise explained from error
            finally:
                _wait_for_all(store, count, timeout if is_well else _TO_END, is_well=is_well)
                distributed.destroy_process_group()
    finally:
        if is_of_first():
            _leave(store, count, serves=serves)


def _connect(store: Store, rank: int, count: int, timeout: float, *, gpus: bool) -> None:
    """Connects each process with each other, who wait for each other ``timeout`` seconds at most."""

    def error_of(found: str) -> RunError:
        return RunError(
            f"connecting {count} processes, here rank {rank}",
            found=f"they have met, but do not reach each other ({found})",
            do="Name the network interface that leads to the other hosts: GLOO_SOCKET_IFNAME, and for GPUs "
            "NCCL_SOCKET_IFNAME.",
        )

    # Gloo tries several times, each for so long.
    late = threading.Timer(timeout + TO_TELL, leave, [error_of(f"no connection in {timeout + TO_TELL:g} s")])
    late.daemon = True
    late.start()
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=datetime.timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        raise error_of(first_line(error)) from error
    finally:
        late.cancel()


def _wait_for_all(store: Store, count: int, seconds: float, *, is_well: bool) -> None:
    """Waits until all processes are done, some seconds at most; one that ``is_well``, until one has failed.

    Who closes its connections before the others are done may cut a last message to them.
    """
    last = time.monotonic() + seconds

    def waits() -> None:
        store.add("done", 1)
        # In small parts; one that was killed never comes.
        while store.add("done", 0) < count and time.monotonic() < last:
            if is_well and store.check(["verdict"]):
                return
            time.sleep(_SOON)

    answered(waits, seconds + _TO_END)


def _leave(store: Store, count: int, *, serves: bool) -> None:
    """Lets who has the store leave as the last one: the others are still to hear why they end."""
    if not serves:
        answered(lambda: store.add("gone", 1), _TO_END)
        return
    last = time.monotonic() + _TO_HEAR
    while store.add("gone", 0) < count - 1 and time.monotonic() < last:
        time.sleep(_SOON)

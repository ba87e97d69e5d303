"""Signs of life of the processes of a run, and whom of them they show to hold the others up."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._C._distributed_c10d import Store

from senet.runtime.meeting import ranks, values

# Between two signs of life, in seconds.
BEAT = 1.0
# After so many without any, a process is gone, or stopped as a whole.
SILENT = 3

# Where PyTorch waits for other processes, unless it does so on a GPU: in its collectives, in the backward
# pass that adds gradients up, in the forward pass that spreads the statistics of batch norms.
_TORCH = Path(torch.__file__).parent
_WAITING = tuple(
    str(_TORCH / name) for name in ("distributed", "autograd/graph.py", "nn/parallel/distributed.py")
)


class Doing(NamedTuple):
    """What a process does: the last thing it noted.

    Args:
        step: of the run; None outside one.
        what: as in "prepares images".
        met: how often it has begun to wait for the others.
        waits: whether that is what it does.
        since: when it began with it, by its own clock.
    """

    step: int | None = None
    what: str = "starts"
    met: int = 0
    waits: bool = False
    since: float = 0.0


def sign_of(doing: Doing, worker: threading.Thread, beats: int) -> str:
    """A sign of life of this process, as it stands in the store.

    Args:
        doing: the last thing it noted.
        worker: the thread that does it.
        beats: how many signs there were before.
    """
    function, file, line = _place_of(worker)
    return json.dumps(
        {
            "beats": beats,
            "step": doing.step,
            "what": doing.what,
            "met": doing.met,
            "for": time.monotonic() - doing.since,
            "where": f"{function} ({os.path.join(*Path(file).parts[-2:])}:{line})",
            "waits": doing.waits or file.startswith(_WAITING),
            "who": f"process {os.getpid()} on {socket.gethostname()}",
        }
    )


def found_out(store: Store, rank: int, count: int, own: str, step: int | None) -> str:
    """Which processes hold the others up; takes some seconds.

    Args:
        store: that has everybody's signs.
        rank: of the process that asks, and is there.
        count: how many there are.
        own: its sign of life.
        step: that it is at.
    """
    first = _told(store, count)
    time.sleep(SILENT * BEAT)
    told = _told(store, count)
    silent = [each for each in range(count) if each != rank and told[each] in (None, first[each])]
    if silent:
        last = told[silent[0]]
        seen = "" if last is None else f", last heard of{_account(last)}"
        verb = "is" if len(silent) == 1 else "are"
        return f"{ranks(silent)} {verb} gone, or cut off{at(step)}{seen}"
    told[rank] = json.loads(own)
    # All do the same things in the same order: who has met the others least often is behind, and of those who
    # are in the same place it is the one that does not wait.
    behind = min((sign["met"], sign["waits"]) for sign in told)
    held = [each for each, sign in enumerate(told) if (sign["met"], sign["waits"]) == behind]
    sign = told[held[0]]
    verb = "hangs" if len(held) == 1 else "hang"
    return f"{ranks(held)} {verb} for {sign['for']:.0f} s{_account(sign)}, in {sign['where']}"


def at(step: int | None) -> str:
    """The step, for people; empty outside one."""
    return "" if step is None else f" at step {step}"


def _told(store: Store, count: int) -> list[Any]:
    """The last sign of life of each process; None where there was none."""
    told = values(store, [f"doing/{rank}" for rank in range(count)])
    return [None if each is None else json.loads(each) for each in told]


def _account(sign: dict[str, Any]) -> str:
    """What a sign of life says, for people."""
    return f"{at(sign['step'])} ({sign['who']}), where it {sign['what']}"


def _place_of(thread: threading.Thread) -> tuple[str, str, int]:
    """Where a thread is: function, file and line."""
    frame = sys._current_frames().get(int(thread.ident or 0))
    if frame is None:
        return "no function", "none/at all", 0
    return frame.f_code.co_name, frame.f_code.co_filename, frame.f_lineno

"""Who holds the others up: each process says what it does, and one that fails, hangs or is gone is named."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from torch import distributed
from torch._C._distributed_c10d import Store

from senet.errors import RunError, SenetError, StoppedError, first_line
from senet.runtime.meeting import ranks

# Between two signs of life, in seconds.
BEAT = 1.0
# After so many without any, a process is gone, or stopped as a whole.
_SILENT = 3
# What one that is asked to end has for it, in seconds: code of others may not let it.
_GRACE = 4.0
# What one that writes has for that.
_WRITING = 60.0
# Free to use: SLURM's and torchrun's are others.
_SIGNAL = signal.SIGUSR2


# Where PyTorch waits for other processes: in its collectives, in the backward pass that adds gradients up,
# in the forward pass that spreads the statistics of batch norms.
_WAITING = ("distributed/", "autograd/graph.py", "parallel/distributed.py")


class Doing(NamedTuple):
    """What a process does: the last thing it noted.

    Args:
        step: of the run; None outside one.
        what: as in "prepares images".
        met: how often it has begun to wait for the others.
        since: when, by its own clock.
    """

    step: int | None = None
    what: str = "starts"
    met: int = 0
    since: float = 0.0


class Watch:
    """Tells the others what this process does, and hears of what befalls them.

    A thread writes a sign of life every second. When a process fails, or waits too long for the others, what
    is known of it is written down once, and every process ends with the same words: by itself, interrupted
    in what it does, or, where that does not let itself be interrupted, at once.

    Args:
        connect: gives a new connection to what all processes share: one must not wait for another's answer.
        rank: of this process.
        count: how many there are.
        longest: seconds after which a process that has noted nothing hangs, or waits for one that does; inf
            where it is told by what it waits in.
    """

    def __init__(
        self, connect: Callable[[], Store], rank: int, count: int, longest: float = math.inf
    ) -> None:
        self.rank = rank
        self.count = count
        self.longest = longest
        self.doing = Doing(since=time.monotonic())
        self._connect = connect
        self._ending = threading.Event()  # the process knows why
        self._over = threading.Event()
        self._heard = ""
        self._waited = False
        self._once = threading.Lock()
        self.undisturbed = threading.Lock()
        self._worker = threading.current_thread()
        self._before: Any = None
        self._thread = threading.Thread(target=self._follow, name="senet-watch", daemon=True)

    def __enter__(self) -> Watch:
        global _current
        if self._worker is threading.main_thread():
            self._before = signal.signal(_SIGNAL, self._interrupt)
        _current = self
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        global _current
        _current = None
        self._ending.set()
        self._over.set()
        if self._before is not None:
            signal.signal(_SIGNAL, self._before)

    def note(self, what: str, *, step: int | None = None, meets: bool = False) -> None:
        """Notes what this process does from now on; ``meets`` where it is to wait for the others."""
        before = self.doing
        self.doing = Doing(before.step if step is None else step, what, before.met + meets, time.monotonic())

    def explained(self, error: Exception) -> Exception:
        """What an error of this process comes from: its own fault, or what befell another.

        The others are told of one that is its own.
        """
        self._ending.set()
        if is_of_others(error):
            self._waited = True
            return self._error(self._heard or self._verdict(self._store()))
        # What was heard, or what all were asked for and agree on.
        if self._heard or isinstance(error, StoppedError):
            return error
        about = first_line(error) if isinstance(error, SenetError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError):  # nobody is there to be told
            words = f"rank {self.rank} failed{_at(self.doing.step)}: {about}"
            self._connect().compare_set("verdict", "", words)
        return error

    def _store(self) -> Store | None:
        """A new connection; None where nobody answers."""
        with contextlib.suppress(RuntimeError):
            return self._connect()
        return None

    def _error(self, words: str) -> RunError:
        """The error that all processes end with."""
        return RunError(
            f"the work of {self.count} processes, here rank {self.rank}{_at(self.doing.step)}",
            found=words,
            do="A training goes on from its last checkpoint: with `senet train --resume RUN`, or by itself "
            "under torchrun --max-restarts. Where a step may take longer, raise --timeout.",
        )

    def _follow(self) -> None:
        store: Store | None = None
        beats, asked = 0, False
        while not self._over.wait(BEAT):
            beats += 1
            try:
                store = store or self._connect()
                # Also while this process looks for who is to blame, or ends: others may be looking too.
                store.set(f"doing/{self.rank}", self._sign(beats))
                if store.check(["verdict"]) and not self._ending.is_set():
                    self._end(store.get("verdict").decode())
                    return
            except RuntimeError:
                store = None  # for a moment, or what this process waits in says so too
            if not asked and time.monotonic() - self.doing.since > self.longest:
                asked = True
                threading.Thread(target=self._ask, name="senet-watch-asks", daemon=True).start()

    def _ask(self) -> None:
        """Ends this process, which is stuck, with what keeps it from going on."""
        self._end(self._verdict(self._store()))

    def _sign(self, beats: int) -> str:
        """A sign of life, for ``_told``."""
        doing, where = self.doing, _place_of(self._worker)
        return json.dumps(
            {
                "beats": beats,
                "step": doing.step,
                "what": doing.what,
                "met": doing.met,
                "for": time.monotonic() - doing.since,
                "where": where,
                "waits": self._waited or _waits(where),
                "who": f"process {os.getpid()} on {socket.gethostname()}",
            }
        )

    def _verdict(self, store: Store | None) -> str:
        """What keeps the processes from going on: found out by one of them, and taken over by the others."""
        try:
            if store is None:
                raise RuntimeError("no connection")
            if not store.check(["verdict"]) and store.add("troubles", 1) == 1:
                store.compare_set("verdict", "", self._found_out(store))
            until = time.monotonic() + 2 * _SILENT * BEAT
            while not store.check(["verdict"]):
                if time.monotonic() > until:
                    return "a process is gone or hangs, and so is the one that was to find out which"
                time.sleep(BEAT / 10)
            return store.get("verdict").decode()
        except RuntimeError:
            at = f"{os.environ.get('MASTER_ADDR')}, port {os.environ.get('MASTER_PORT')}"
            return f"what all processes share, at {at}, is out of reach: that host is gone, or the way to it"

    def _found_out(self, store: Store) -> str:
        """Which processes hold the others up, by their signs of life."""
        first = self._told(store)
        time.sleep(_SILENT * BEAT)
        if store.check(["verdict"]):  # of one that failed by itself
            return ""
        told = self._told(store)
        silent = [
            rank
            for rank in range(self.count)
            if rank != self.rank and (told[rank] is None or told[rank] == first[rank])
        ]
        if silent:
            last = told[silent[0]]
            seen = "" if last is None else f", last heard of{_account(last)}"
            verb = "is" if len(silent) == 1 else "are"
            return f"{ranks(silent)} {verb} gone, or cut off{_at(self.doing.step)}{seen}"
        known = {rank: sign for rank, sign in enumerate(told) if sign is not None and rank != self.rank}
        known[self.rank] = json.loads(self._sign(0))
        # All do the same things in the same order: who has met the others least often is behind, and of those
        # who are in the same place it is the one that does not wait.
        behind = min((sign["met"], sign["waits"]) for sign in known.values())
        held = [rank for rank, sign in known.items() if (sign["met"], sign["waits"]) == behind]
        sign = known[held[0]]
        return (
            f"{ranks(held)} {'hangs' if len(held) == 1 else 'hang'} for {sign['for']:.0f} s{_account(sign)}, "
            f"in {sign['where']}"
        )

    def _told(self, store: Store) -> list[Any]:
        """The last sign of life of each process; None where there was none."""
        keys = [f"doing/{rank}" for rank in range(self.count)]
        if store.check(keys):
            return [json.loads(each) for each in store.multi_get(keys)]
        return [json.loads(store.get(key)) if store.check([key]) else None for key in keys]

    def _end(self, words: str) -> None:
        """Ends this process, that goes on as if nothing had been: gently at first."""
        if not self._once.acquire(blocking=False):
            return
        self._heard = words
        if self._ending.wait(2 * BEAT):
            return  # what it waited in has told it
        # What it writes is not lost for another's fault; but a disk may hang too.
        self.undisturbed.acquire(timeout=_WRITING)
        if self._before is not None:
            signal.pthread_kill(int(self._worker.ident or 0), _SIGNAL)
            if self._ending.wait(_GRACE):
                return
        print(f"senet: {self._error(self._heard)}", file=sys.stderr, flush=True)
        os._exit(1)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._ending.is_set():
            raise self._error(self._heard)


_current: Watch | None = None


def note(what: str, *, step: int | None = None, meets: bool = False) -> None:
    """Notes what this process does from now on, where it is watched; see ``Watch.note``."""
    if _current is not None:
        _current.note(what, step=step, meets=meets)


@contextlib.contextmanager
def undisturbed(what: str) -> Iterator[None]:
    """Notes what the body does, which is not interrupted, whatever befalls the others."""
    note(what)
    with contextlib.nullcontext() if _current is None else _current.undisturbed:
        yield


def is_of_others(error: BaseException) -> bool:
    """Whether an error comes from what another process does, or does not do."""
    if isinstance(error, SenetError):
        return False
    said = any(words in str(error) for words in ("gloo", "NCCL", "pair closure"))
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and said)


def _at(step: int | None) -> str:
    return "" if step is None else f" at step {step}"


def _account(sign: dict[str, Any]) -> str:
    """What a sign of life says, for people."""
    return f"{_at(sign['step'])} ({sign['who']}), where it {sign['what']}"


def _waits(where: str) -> bool:
    """Whether a place in the program is one where a process waits for the others."""
    return any(each in where for each in _WAITING)


def _place_of(thread: threading.Thread) -> str:
    """Where a thread is: function, file and line."""
    frame = sys._current_frames().get(int(thread.ident or 0))
    if frame is None:
        return "no place"
    code = frame.f_code
    return f"{code.co_name} ({os.path.join(*code.co_filename.split(os.sep)[-2:])}:{frame.f_lineno})"

"""Who holds the others up: each process says what it does, and one that fails, hangs or is gone is named."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch import distributed
from torch._C._distributed_c10d import Store

from senet.errors import RunError, SenetError, StoppedError
from senet.runtime.meeting import answered, is_of_first, place
from senet.runtime.signs import BEAT, SILENT, Doing, at, found_out, sign_of

# Within which a process that waits in vain knows why: it looks, after another may have looked and died.
TO_TELL = 8 * BEAT
_TO_FIND_OUT = (SILENT + 1) * BEAT
# What one that is asked to end has for it, in seconds: code of others may not let it.
_GRACE = 4.0
# What one that writes has for that.
_WRITING = 60.0
# Free to use: SLURM's and torchrun's are others.
_SIGNAL = signal.SIGUSR2


class Watch:
    """Tells the others what this process does, and hears of what befalls them.

    A thread writes a sign of life every second. When a process fails, or waits too long for the others, what
    is known of it is written down once, and every process ends with the same words: by itself, interrupted
    in what it does, or, where that does not let itself be interrupted, at once.

    What all processes share is asked by threads only: where its host falls silent, no answer ever comes.

    Args:
        connect: gives a new connection to it: one must not wait for another's answer.
        rank: of this process.
        count: how many there are.
        longest: seconds after which a process that waits for others waits for one that hangs; inf where it is
            told so by what it waits in.
    """

    def __init__(
        self, connect: Callable[[], Store], rank: int, count: int, longest: float = math.inf
    ) -> None:
        self.rank = rank
        self.count = count
        self.longest = longest
        self.doing = Doing(since=time.monotonic())
        # Held by who writes, and is not to be interrupted in it.
        self.undisturbed = threading.Lock()
        self._connect = connect
        self._worker = threading.current_thread()
        self._before: Any = None  # the signal's handler
        self._interrupted = False
        # Set when it is clear how this process ends; until then, and under the lock, it may be interrupted.
        self._decided = threading.Event()
        self._deciding = threading.Lock()
        self._over = threading.Event()
        # The verdict, of which only the first counts.
        self._heard = ""
        self._hearing = threading.Lock()
        self._last: threading.Timer | None = None
        self._threads = [threading.Thread(target=self._follow, name="senet-watch", daemon=True)]
        if longest < math.inf:
            self._threads.append(threading.Thread(target=self._mind, name="senet-watch-clock", daemon=True))

    def __enter__(self) -> Watch:
        global _current
        if self._worker is threading.main_thread():
            self._before = signal.signal(_SIGNAL, self._interrupt)
        _current = self
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_error: object) -> None:
        global _current
        _current = None
        self._decide()
        self._over.set()
        if self._last is not None:
            self._last.cancel()
        if self._before is not None:
            signal.signal(_SIGNAL, self._before)
        # An interpreter that ends while they are in PyTorch takes the process down.
        for each in self._threads:
            each.join(BEAT)

    def note(self, what: str | None = None, *, step: int | None = None, waits: bool = False) -> None:
        """Notes what this process does from now on; ``waits`` where it is to meet the others in that."""
        before = self.doing
        self.doing = Doing(
            before.step if step is None else step,
            before.what if what is None else what,
            before.met + waits,
            waits,
            time.monotonic(),
        )

    def done(self) -> None:
        """Notes that this process has done its work: what now befalls another is nothing to it."""
        self._decide()
        self.note("waits for the others to be done", waits=True)

    def explained(self, error: Exception) -> Exception:
        """What an error of this process comes from: its own fault, or what befell another.

        The others are told of one that is its own.
        """
        self._decide()
        found = error
        if is_of_others(error):
            self.doing = self.doing._replace(waits=True)  # it was not this one that held the others up
            found = self._error(self._heard or self._verdict())
        elif not self._heard and not isinstance(error, StoppedError):  # on which all have agreed
            words = f"rank {self.rank} failed{at(self.doing.step)}: {_said(error)}"
            answered(lambda: self._connect().compare_set("verdict", "", words), TO_TELL)
        if self.longest < math.inf:
            # To leave NCCL may take as long as what failed in it.
            self._last = threading.Timer(TO_TELL, leave, [found])
            self._last.daemon = True
            self._last.start()
        return found

    def _decide(self) -> None:
        with self._deciding:
            self._decided.set()

    def _error(self, words: str) -> RunError:
        """The error that all processes end with."""
        return RunError(
            f"the work of {self.count} processes, here rank {self.rank}{at(self.doing.step)}",
            found=words,
            do="A training goes on from its last checkpoint: with `senet train --resume RUN`, or by itself "
            "under torchrun --max-restarts. Where a step may take longer, raise --timeout.",
        )

    def _follow(self) -> None:
        """Writes the signs of life, and hears the verdict."""
        store: Store | None = None
        beats = 0
        while not self._over.wait(BEAT):
            beats += 1
            try:
                store = store or self._connect()
                # Also while this process ends: others may be looking for who is to blame.
                store.set(f"doing/{self.rank}", sign_of(self.doing, self._worker, beats))
                if not self._decided.is_set() and store.check(["verdict"]):
                    self._end(store.get("verdict").decode())
            except RuntimeError:
                store = None  # for a moment, or what this process waits in says so too

    def _mind(self) -> None:
        """Ends this process where it has waited too long, and nothing else tells it so."""
        while not self._decided.wait(BEAT):
            doing = self.doing
            if doing.waits and time.monotonic() - doing.since > self.longest:
                self._end(self._verdict())
                return

    def _verdict(self) -> str:
        """What keeps the processes from going on."""
        return answered(self._agreed, TO_TELL) or self._out_of_reach()

    def _agreed(self) -> str:
        """The verdict, found out by one of the processes, and taken over by the others."""
        store = self._connect()
        if store.add("troubles", 1) > 1:
            until = time.monotonic() + _TO_FIND_OUT
            while not store.check(["verdict"]) and time.monotonic() < until:
                time.sleep(BEAT / 10)
        if not store.check(["verdict"]):
            own = sign_of(self.doing, self._worker, 0)
            store.compare_set("verdict", "", found_out(store, self.rank, self.count, own, self.doing.step))
        return store.get("verdict").decode()

    def _out_of_reach(self) -> str:
        """The verdict where nobody can be asked."""
        if is_of_first() and self.rank:
            return (
                f"rank 0 is gone, or cut off{at(self.doing.step)}: it has what all processes share, at "
                f"{place()}, which is out of reach"
            )
        return f"what all processes share, at {place()}, is out of reach: that host is gone, or the way to it"

    def _end(self, words: str) -> None:
        """Ends this process, which goes on as if nothing had been: gently at first."""
        if not self._hearing.acquire(blocking=False):
            return
        self._heard = words
        if self._decided.wait(2 * BEAT):
            return  # what it waited in has told it
        # What it writes is not lost for another's fault; but a disk may hang too. Nothing else is begun then.
        self.undisturbed.acquire(timeout=_WRITING)
        if self._before is not None:
            until = time.monotonic() + _GRACE
            while time.monotonic() < until:
                self._ask_to_end()
                if self._decided.wait(BEAT / 4):
                    return
        leave(self._error(words))

    def _ask_to_end(self) -> None:
        """Interrupts what this process does, unless that has been done.

        Once may not do: a signal that comes just before the process begins to wait interrupts nothing.
        """
        with self._deciding:
            if not self._decided.is_set() and not self._interrupted:
                signal.pthread_kill(int(self._worker.ident or 0), _SIGNAL)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._decided.is_set() and not self._interrupted:
            self._interrupted = True
            raise self._error(self._heard)


_current: Watch | None = None


def note(what: str | None = None, *, step: int | None = None) -> None:
    """Notes what this process does from now on, where it is watched; see ``Watch.note``."""
    if _current is not None:
        _current.note(what, step=step)


@contextlib.contextmanager
def meeting(what: str = "meets the others") -> Iterator[None]:
    """Notes that in the body this process waits until the others are there too."""
    watch = _current
    if watch is None:
        yield
        return
    before = watch.doing.what
    watch.note(what, waits=True)
    yield
    watch.note(before)


@contextlib.contextmanager
def undisturbed(what: str) -> Iterator[None]:
    """Notes what the body does, which is not interrupted, whatever befalls the others."""
    note(what)
    with contextlib.nullcontext() if _current is None else _current.undisturbed:
        yield


def leave(error: Exception) -> None:
    """Ends this process at once."""
    print(f"senet: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def is_of_others(error: BaseException) -> bool:
    """Whether an error comes from what another process does, or does not do."""
    if isinstance(error, SenetError):
        return False
    # Gloo has no type of its own for them; the last is what it says of a connection that it has given up.
    said = any(words in str(error) for words in ("gloo", "NCCL", "pair closure"))
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and said)


def _said(error: Exception) -> str:
    """An error, for the other processes."""
    if isinstance(error, SenetError):
        return str(error)
    return ": ".join(each for each in (type(error).__name__, str(error).strip()) if each)

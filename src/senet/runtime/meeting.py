"""Where the processes of one attempt meet: a part of a store that no other attempt has."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch._C._distributed_c10d import Store, TCPStore

from senet.errors import RunError

# Seconds between two looks, at first and at most: hundreds of processes may look at one store.
_SOON, _LATER = 0.02, 0.25
# What the first gives the others to hear that all are there.
_TO_HEAR = 2.0

Answer = TypeVar("Answer")


def place() -> str:
    """Where the store is that all processes share, as ``torchrun`` and others name it."""
    return f"{os.environ.get('MASTER_ADDR')}, port {os.environ.get('MASTER_PORT')}"


def is_of_first() -> bool:
    """Whether the first process has that store; else ``torchrun`` does, which keeps it over restarts."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def connected(timeout: float, *, serves: bool = False) -> TCPStore:
    """A connection to that store.

    Args:
        timeout: in seconds; also of whatever is asked of the store, where its host is there.
        serves: whether this process is to have the store.

    Raises:
        RunError: nobody answers there.
    """
    try:
        return TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=serves,
            timeout=datetime.timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        raise RunError(
            f"meeting the other processes at {place()}",
            found=f"there is no answer in {timeout:g} s, or the port is taken",
            do="That is where the first process runs: is it up, and does a firewall let the port through?",
        ) from error


def answered(ask: Callable[[], Answer], seconds: float) -> Answer | None:
    """What a store says; None where it says nothing in so many seconds, or is gone.

    Where its host has fallen silent, PyTorch waits for an answer without end, whatever its timeout.
    """
    found: list[Answer] = []

    def asks() -> None:
        with contextlib.suppress(RuntimeError):
            found.append(ask())

    thread = threading.Thread(target=asks, name="senet-asks", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def met(store: Store, rank: int, count: int, timeout: float) -> str:
    """The part of a store that belongs to these processes alone: what its keys begin with.

    ``torchrun`` keeps one store over its restarts, in which a new attempt finds the addresses of the dead,
    and a second connection of one attempt those of the first. Its count of restarts does not tell them
    apart: it stays as it is when hosts come or go, and differs among hosts. So each process brings a number
    that nobody had before, and the first makes a list of those that are there now, which all confirm, and
    says who is still missing.

    Args:
        store: that all of them reach.
        rank: of this process.
        count: how many there are.
        timeout: how long they wait for each other, in seconds.

    Raises:
        RunError: some did not come, or who started this process is gone.
    """
    own, parent = secrets.token_hex(8), os.getppid()
    others = [str(each) for each in range(1, count)]
    missing: Sequence[str] = ["0"] if rank else others
    until, pause = time.monotonic() + timeout, _SOON
    if rank:
        store.set(f"senet/here/{rank}", own)
    while True:
        attempt, is_gone = own, False
        try:
            if rank:
                offer = json.loads(values(store, ["senet/attempt"])[0] or "null")
                if offer is not None and offer["here"].get(str(rank)) == own:
                    attempt, missing = offer["attempt"], offer["missing"]
                    store.set(f"senet/seen/{rank}", attempt)
            else:
                came = values(store, [f"senet/here/{each}" for each in others])
                seen = values(store, [f"senet/seen/{each}" for each in others])
                missing = [each for each, confirmed in zip(others, seen, strict=True) if confirmed != own]
                offer = {"attempt": own, "here": dict(zip(others, came, strict=True)), "missing": missing}
                store.set("senet/attempt", json.dumps(offer))
            if not missing:
                _tell(store, rank, attempt, others)
                return f"senet/{attempt}"
        except RuntimeError:  # as where who has the store has waited long enough
            is_gone = True
        if is_gone or time.monotonic() > until:
            silent = [each for each in missing if each != str(rank)] or ["0"]
            only = "the store that all share is gone, and " if is_gone else f"in {timeout:g} s "
            raise RunError(
                f"{count} processes that work together",
                found=f"{only}nothing was heard of {ranks(silent)}",
                do="Look at the output of those, or of their hosts.",
            )
        if os.getppid() != parent:  # the next attempt is not to meet with what is left of this one
            raise RunError(
                f"{count} processes that work together, here rank {rank}", "who started this one is gone"
            )
        time.sleep(pause)
        pause = min(_LATER, 1.5 * pause)


def _tell(store: Store, rank: int, attempt: str, others: Sequence[str]) -> None:
    """Says that this process knows that all are there; the first waits a moment until all the others do.

    If it ended before, as in what it does next, it would take the store away from them.
    """
    if rank:
        store.set(f"senet/told/{rank}", attempt)
        return
    last = time.monotonic() + _TO_HEAR
    keys = [f"senet/told/{each}" for each in others]
    while any(each != attempt for each in values(store, keys)) and time.monotonic() < last:
        time.sleep(_SOON)


def values(store: Store, keys: Sequence[str]) -> list[str | None]:
    """What stands under each key, without waiting for it; None where nothing does."""
    keys = list(keys)
    if store.check(keys):
        return [each.decode() for each in store.multi_get(keys)]
    return [store.get(key).decode() if store.check([key]) else None for key in keys]


def ranks(numbers: Sequence[int | str]) -> str:
    """Some ranks, for people."""
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"rank {shown}" if len(numbers) == 1 else f"ranks {shown}"

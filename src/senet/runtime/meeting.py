"""Where the processes of one attempt meet: a part of a store that no other attempt has."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import time

from torch._C._distributed_c10d import Store, TCPStore

from senet.errors import RunError

_SOON = 0.02


def connected(timeout: float, *, serves: bool = False) -> TCPStore:
    """A connection to the store that the environment names, as ``torchrun`` sets it.

    Args:
        timeout: in seconds; also of whatever is asked of the store.
        serves: whether this process is to have the store.

    Raises:
        RunError: nobody answers there.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return TCPStore(
            host,
            port,
            is_master=serves,
            timeout=datetime.timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        raise RunError(
            f"meeting the other processes at {host}, port {port}",
            found=f"there is no answer in {timeout:g} s, or the port is taken",
            do="That is where the first process runs: is it up, and does a firewall let the port through?",
        ) from error


def met(store: Store, rank: int, count: int, timeout: float) -> str:
    """The part of a store that belongs to these processes alone: what its keys begin with.

    ``torchrun`` keeps one store over its restarts, in which a new attempt finds the addresses of the dead,
    and a second connection of one attempt those of the first. Its count of restarts does not tell them
    apart: it stays as it is when hosts come or go, and differs among hosts. So each process brings a number
    that nobody had before, and the first makes a list of those that are there now, which all confirm.

    Args:
        store: that all of them reach.
        rank: of this process.
        count: how many there are.
        timeout: how long they wait for each other, in seconds.

    Raises:
        RunError: some did not come.
    """
    own = secrets.token_hex(8)
    until = time.monotonic() + timeout
    if rank == 0:
        others = range(1, count)
        missing = list(others)
        while missing:
            here = {each: _value(store, f"senet/here/{each}") for each in others}
            store.set("senet/attempt", json.dumps({"attempt": own, "here": here}))
            missing = [each for each in others if _value(store, f"senet/seen/{each}") != own]
            _wait(missing, count, until, timeout)
        return f"senet/{own}"
    store.set(f"senet/here/{rank}", own)
    while True:
        offer = json.loads(_value(store, "senet/attempt") or "null")
        if offer is not None and len(offer["here"]) == count - 1 and offer["here"][str(rank)] == own:
            store.set(f"senet/seen/{rank}", offer["attempt"])
            return f"senet/{offer['attempt']}"
        _wait([0], count, until, timeout)


def _value(store: Store, key: str) -> str | None:
    """What stands under a key, without waiting for it."""
    return store.get(key).decode() if store.check([key]) else None


def _wait(missing: list[int], count: int, until: float, timeout: float) -> None:
    """Waits a moment for the ``missing``; RunError where that has been long enough."""
    if missing and time.monotonic() > until:
        raise RunError(
            f"{count} processes that work together",
            found=f"in {timeout:g} s nothing was heard of {ranks(missing)}",
            do="Look at the output of those, or of their hosts.",
        )
    time.sleep(_SOON if missing else 0)


def ranks(numbers: list[int]) -> str:
    """Some ranks, for people."""
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"rank {shown}" if len(numbers) == 1 else f"ranks {shown}"

"""Whose a claim is, and whether that process is still there."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Owner:
    """A process, so described that no other is the same.

    Args:
        host: name of the machine.
        pid: number of the process.
        started: when, in ticks since the machine was; None where the system does not tell.
        boot: of this start of the machine; likewise.
        namespace: in which the number holds, as containers have their own; likewise.
        user: whose it is; from other users, systems may hide it.
    """

    host: str
    pid: int
    started: str | None
    boot: str | None
    namespace: str | None
    user: int

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"

    @classmethod
    def here(cls) -> Self:
        """This process."""
        boot = namespace = None
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            namespace = os.readlink("/proc/self/ns/pid")
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), boot, namespace, os.getuid())

    def is_alive(self) -> bool | None:
        """Whether this process is there; None where only another system could know."""
        here = Owner.here()
        near = (self.boot, self.namespace, self.user) == (here.boot, here.namespace, here.user)
        return _started(self.pid) == self.started if near and self.namespace is not None else None


def _started(pid: int) -> str | None:
    """When a process was started; None where there is none, or it has ended and its parent does not know."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    threads, started = rest[16], rest[18]
    # Its first thread may end before the others, which hold its files and locks until they have.
    return None if state in "ZX" and threads == "1" else started

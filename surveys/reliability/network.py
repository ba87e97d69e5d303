"""Hosts on one machine: network namespaces with their own addresses, on a switch with links to cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from types import TracebackType
from typing import Self

from surveys.reliability.harness import Running, program


def missing() -> str:
    """What this machine lacks for hosts of one's own; empty where it lacks nothing."""
    if shutil.which("ip") is None:
        return "there is no `ip`, of the package iproute2"
    name = f"senet-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made ({made.stderr.strip()})"
    ip("netns", "del", name)
    return ""


def ip(*words: str) -> None:
    """The command of that name."""
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


def kill_all(namespace: str) -> None:
    """SIGKILL to all that runs in a network namespace."""
    words = ["ip", "netns", "pids", namespace]
    for pid in subprocess.run(words, capture_output=True, text=True, check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


class Host:
    """One of the hosts of a network.

    Args:
        number: from 1.
        name: of its namespace.
        switch: the namespace of the switch.
    """

    INTERFACE = "eth0"

    def __init__(self, number: int, name: str, switch: str) -> None:
        self.address = f"10.99.0.{number}"
        self.name = name
        self._switch = switch
        self._port = f"port{number}"
        ip("netns", "add", name)
        ip("link", "add", self.INTERFACE, "netns", name, "type", "veth", "peer", self._port, "netns", switch)
        ip("-n", name, "addr", "add", f"{self.address}/24", "dev", self.INTERFACE)
        for interface in ("lo", self.INTERFACE):
            ip("-n", name, "link", "set", interface, "up")
        ip("-n", switch, "link", "set", self._port, "up")
        self.restore()

    def start(self, *words: str, env: dict[str, str] | None = None) -> Running:
        """A program on this host."""
        return program("ip", "netns", "exec", self.name, *words, env=env)

    def cut(self) -> None:
        """Cuts its link, without a word to anybody: packets are lost."""
        ip("-n", self._switch, "link", "set", self._port, "nomaster")

    def restore(self) -> None:
        """Brings the link back."""
        ip("-n", self._switch, "link", "set", self._port, "master", "switch")

    def kill(self) -> None:
        """Ends the host as a power cut does: nothing that it says any more reaches another."""
        self.cut()
        kill_all(self.name)


class Network:
    """Some hosts on a switch; they are gone, with all that runs there, when the body ends.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._names = [f"senet-{os.getpid()}-{number}" for number in range(count + 1)]
        self.hosts: list[Host] = []

    def __enter__(self) -> Self:
        switch, *names = self._names
        try:
            ip("netns", "add", switch)
            ip("-n", switch, "link", "add", "switch", "type", "bridge")
            ip("-n", switch, "link", "set", "switch", "up")
            for number, name in enumerate(names, 1):
                self.hosts.append(Host(number, name, switch))
        except subprocess.CalledProcessError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for host in self.hosts:
            kill_all(host.name)
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

"""Two hosts with a slow link between them: one serves a folder by SSH, the other works with it.

Nothing of it is left: the devices, the mount and the servers are of the two network namespaces alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from surveys.reliability import network
from surveys.reliability.bars import check
from surveys.reliability.harness import Running, program
from surveys.reliability.relay import DEVICE, TUN

_SERVER, _CLIENT = "10.98.0.1", "10.98.0.2"
_PORT = "2022"


def missing() -> str:
    """What this machine lacks for it; empty where it lacks nothing."""
    for name, package in (("sshfs", "sshfs"), ("ssh-keygen", "openssh-client"), ("sshd", "openssh-server")):
        if _tool(name) is None:
            return f"there is no `{name}`, of the package {package}"
    for path in (TUN, Path("/dev/fuse")):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError as error:
            return f"{path} cannot be used ({error.strerror})"
    return network.missing()


class FarFolder:
    """A folder that is on one host, and that another has over a slow link.

    Args:
        folder: on the server; the client has it at the same place.
        scratch: for keys.
        delay: of a packet, each way, in milliseconds.
        loss: of the packets, in per cent.
    """

    def __init__(self, folder: Path, scratch: Path, delay: int, loss: int) -> None:
        self.folder = folder
        self.scratch = scratch
        self.delay, self.loss = delay, loss
        self._names = [f"senet-{os.getpid()}-{who}" for who in ("server", "client")]
        self._servers: list[Running] = []

    def __enter__(self) -> Self:
        server, client = self._names
        try:
            for name in self._names:
                network.ip("netns", "add", name)
            words = ["surveys.reliability.relay", server, client, str(self.delay), str(self.loss)]
            self._start("ready", sys.executable, "-m", *words)
            for name, own, other in ((server, _SERVER, _CLIENT), (client, _CLIENT, _SERVER)):
                network.ip("-n", name, "addr", "add", own, "peer", other, "dev", DEVICE)
                network.ip("-n", name, "link", "set", DEVICE, "up")
            self._serve()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for name in self._names:
            network.kill_all(name)
        for each in self._servers:
            if not each.is_over:
                os.kill(each.pid, signal.SIGKILL)
                each.status()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def start(self, *words: str) -> Running:
        """A program on the client, with the folder; nothing of a file stays in the client's memory."""
        options = {
            "Port": _PORT,
            "IdentityFile": self._path("user"),
            "UserKnownHostsFile": self._path("known"),
            "BatchMode": "yes",
        }
        far, here = f"root@{_SERVER}:{self.folder}", str(self.folder)
        mount = ["sshfs", far, here, "-F", os.devnull, "-o", "direct_io"]
        for name, value in options.items():
            mount += ["-o", f"{name}={value}"]
        # `ip netns exec` gives each program mounts of its own: on this host the folder stays as it is.
        after = f"status=$?; umount -l {shlex.quote(here)}; exit $status"
        script = f"{shlex.join(mount)} || exit; {shlex.join(words)}; {after}"
        return program("ip", "netns", "exec", self._names[1], "sh", "-c", script)

    def carried(self) -> tuple[int, int, int]:
        """Ends the link; the packets that it carried, those that it lost, and the bytes that it carried."""
        cable = self._servers[0]
        os.kill(cable.pid, signal.SIGTERM)
        check(cable.status(10) == 0, cable.said)
        carried, lost, size = (int(word) for word in cable.said.split() if word.isdigit())
        return carried, lost, size

    def _serve(self) -> None:
        """Starts the server."""
        for name in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._path(name)]
            subprocess.run(words, check=True)
        host, user = (Path(self._path(f"{name}.pub")).read_text() for name in ("host", "user"))
        Path(self._path("allowed")).write_text(user)
        Path(self._path("known")).write_text(f"[{_SERVER}]:{_PORT} {host}")
        options = {
            "ListenAddress": _SERVER,
            "AuthorizedKeysFile": self._path("allowed"),
            "StrictModes": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
        }
        server = [str(_tool("sshd")), "-D", "-e", "-f", os.devnull, "-h", self._path("host"), "-p", _PORT]
        for name, value in options.items():
            server += ["-o", f"{name}={value}"]
        # It wants a folder that is there where it was started once; here in memory, and for it alone.
        own = "mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "
        words = ["ip", "netns", "exec", self._names[0], "sh", "-c", own + shlex.join(server)]
        self._start("listening on", *words)

    def _start(self, sign: str, *words: str) -> None:
        """Starts what goes on to the end, and waits for its sign."""
        self._servers.append(program(*words))
        self._servers[-1].until(sign)

    def _path(self, name: str) -> str:
        return str(self.scratch / name)


def _tool(name: str) -> str | None:
    # A server's program is not on everybody's path.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")

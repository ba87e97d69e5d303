"""Bars of one run on several hosts, whose links are cut and which are killed."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import yaml

from senet import weights
from senet.training.config import TrainConfig
from surveys.reliability.bars import bar, check
from surveys.reliability.elastic import saved, until_saved
from surveys.reliability.harness import Running, first_words, program, quick_config
from surveys.reliability.network import Host, Network, missing

_PORT = 29400
# Seconds an image: a run is to last while hosts come and go.
_PAUSE = "0.004"


@bar(
    "R2",
    "A run on two hosts goes on when the link between them is cut, when it is back, and when a host dies: no "
    "image is missed or counted twice.",
    "two network namespaces with addresses of their own, a process in each (gloo, torchrun --nnodes 1:2, "
    "--timeout {timeout}), float64; from a moment on all packets of one are lost; its link comes back when "
    "the other has gone on alone; then it is killed, and nothing is heard of it any more; the weights "
    "against those of one process all along",
    needs=missing,
)
def two_hosts(*, timeout: int = 20) -> str:
    """Cuts, restores, kills."""
    with tempfile.TemporaryDirectory() as folder, Network(2) as network:
        return _Run(folder, network, timeout, least=1).loses(network.hosts[1], network.hosts[1])


@bar(
    "R2",
    "So does one on three hosts, as long as the one with the rendezvous and the least number of them are "
    "there.",
    "three namespaces, torchrun --nnodes 2:3, --timeout {timeout}: the link of the third is cut and "
    "restored, then the second is killed",
    needs=missing,
)
def three_hosts(*, timeout: int = 20) -> str:
    """Likewise."""
    with tempfile.TemporaryDirectory() as folder, Network(3) as network:
        return _Run(folder, network, timeout, least=2).loses(network.hosts[2], network.hosts[1])


class _Run:
    """A run on the hosts of a network, and the same run by one process.

    Args:
        folder: for both.
        network: the hosts; the first has the rendezvous.
        timeout: of the run, in seconds.
        least: hosts with which it goes on.
    """

    def __init__(self, folder: str, network: Network, timeout: int, least: int) -> None:
        self.folder = Path(folder)
        self.network = network
        self.timeout = timeout
        self.least = least
        self.agents: dict[str, Running] = {}
        self.config = self._config("hosts")
        self.path = Path(str(self.config.run))

    def _config(self, name: str) -> TrainConfig:
        return quick_config(
            self.folder / name, epochs=40, sync_norms=True, timeout=float(self.timeout), save_minutes=0.005
        )

    def start(self, *hosts: Host) -> None:
        """Begins, or joins, on these hosts."""
        endpoint = f"{self.network.hosts[0].address}:{_PORT}"
        for host in hosts:
            # torchrun tells the host of the rendezvous by its name, which here all of them have.
            conf = f"is_host={int(host is self.network.hosts[0])},last_call_timeout=5"
            self.agents[host.name] = host.start(
                sys.executable,
                *("-m", "torch.distributed.run", "--nproc_per_node", "1", "--max-restarts", "100"),
                *("--nnodes", f"{self.least}:{len(self.network.hosts)}", "--rdzv-backend", "c10d"),
                *("--rdzv-endpoint", endpoint, "--rdzv-id", "senet", "--rdzv-conf", conf),
                *("--local-addr", host.address, "-m", "--", "surveys.reliability.in_float64"),
                *(_PAUSE, *first_words(self.config)),
                env={"GLOO_SOCKET_IFNAME": Host.INTERFACE, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            )

    def loses(self, cut: Host, killed: Host) -> str:
        """The whole story: one host is cut off and comes back, one is killed."""
        hosts = self.network.hosts
        self.start(*hosts)
        self.waits(len(hosts))
        cut.cut()
        after_cut = self.waits(len(hosts) - 1)
        cut.restore()
        after_restored = self.waits(len(hosts))
        killed.kill()
        self.agents.pop(killed.name).status()
        after_killed = self.waits(len(hosts) - 1)
        apart = self.ends(*(host for host in hosts if host is not killed))
        return (
            f"on without it {after_cut:.0f} s after the cut, with it {after_restored:.0f} s after the link "
            f"was back, without the one that was killed after {after_killed:.0f} s; weights {apart:.0e} apart"
        )

    def waits(self, hosts: int) -> float:
        """The seconds until the run is on, with so many hosts, and has saved some steps."""
        started = time.monotonic()
        while self._hosts() != hosts:
            late = time.monotonic() > started + 300
            check(not late and not self._any().is_over, f"there are {self._hosts()} hosts: {self._said()}")
            time.sleep(0.05)
        until_saved(self._any(), self.path, saved(self.path) + 4)
        return time.monotonic() - started

    def ends(self, *hosts: Host) -> float:
        """Waits for the end on the hosts that are left; how far the weights are from those of one process."""
        alone = self._config("alone")
        words = ["-m", "surveys.reliability.in_float64", "0", *first_words(alone)]
        whole = program(sys.executable, *words)
        for host in hosts:
            check(self.agents[host.name].status(600) == 0, self._said())
        check(whole.status(600) == 0, whole.said)
        found, wanted = (weights.read(self.folder / name)[1] for name in ("hosts", "alone"))
        apart = max(float((found[key] - wanted[key]).abs().max()) for key in wanted)
        check(apart <= 1e-8, f"the weights are {apart:.1e} apart")
        return apart

    def _hosts(self) -> int:
        """How many hosts have the run now, as its last start says."""
        passports = sorted(self.path.glob("passport*.yaml"), key=lambda path: path.stat().st_mtime)
        return int(yaml.safe_load(passports[-1].read_text())["resolved"]["processes"]) if passports else 0

    def _any(self) -> Running:
        return self.agents[self.network.hosts[0].name]

    def _said(self) -> str:
        return "\n".join(f"{name}: {agent.said}" for name, agent in self.agents.items())

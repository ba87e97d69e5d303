"""How long a training step takes on N GPUs: the formulas, and what is assumed of the machines.

Nothing here is measured. A step is

    max(compute, input) + the all-reduces that the backward does not hide + broadcast + agreement

with the gradients in DDP's buckets, each sent while the backward goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# A layer's backward has two products of the size of its forward's one.
BACKWARD = 2 / 3


@dataclass(frozen=True)
class Link:
    """What connects a process with the next.

    Args:
        bandwidth: bytes a second that a process sends, while it receives as many.
        latency: seconds until a message of no size is there.
    """

    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Cluster:
    """Nodes of GPUs.

    Args:
        node: GPUs in one.
        inside: between the GPUs of a node.
        between: of a GPU to its counterpart in the next node.
        host: between the processes, where they talk on the CPU: gloo over TCP.
    """

    node: int = 8
    inside: Link = field(default_factory=lambda: Link(240e9, 3e-6))
    between: Link = field(default_factory=lambda: Link(20e9, 10e-6))
    host: Link = field(default_factory=lambda: Link(1e9, 30e-6))

    def nodes(self, gpus: int) -> int:
        """How many nodes so many GPUs fill."""
        return -(-gpus // self.node)


@dataclass(frozen=True)
class Traffic:
    """What a step of a network sends.

    Args:
        buckets: bytes of gradients in each all-reduce, in their order.
        ready: the share of the backward after which each may begin.
        buffers: bytes of the first process's buffers, which all get before the forward.
        broadcasts: in how many messages, one a type of number.
        flags: bytes that all agree on after the backward.
    """

    buckets: tuple[int, ...]
    ready: tuple[float, ...]
    buffers: int
    broadcasts: int
    flags: int


@dataclass(frozen=True)
class StepTime:
    """A step's parts, in seconds.

    Args:
        compute: forward, backward and optimizer of a GPU's images.
        input: preparing as many images.
        all_reduce: of all buckets, hidden or not.
        exposed: what of it the backward does not hide.
        broadcast: of the buffers.
        agreement: on the flags.
    """

    compute: float
    input: float
    all_reduce: float
    exposed: float
    broadcast: float
    agreement: float

    @property
    def whole(self) -> float:
        """The step."""
        return max(self.compute, self.input) + self.exposed + self.broadcast + self.agreement

    @property
    def efficiency(self) -> float:
        """The share of the step in which GPUs compute."""
        return self.compute / self.whole


def ring(size: float, processes: int, link: Link) -> float:
    """Seconds of an all-reduce of ``size`` bytes: N - 1 steps to add up, N - 1 to tell, of size / N each."""
    steps = 2 * (processes - 1)
    return steps * (size / processes / link.bandwidth + link.latency)


def one_ring(size: float, gpus: int, cluster: Cluster) -> float:
    """The same by one ring through all GPUs: its steps last as long as the slowest of them."""
    if gpus <= cluster.node:
        return ring(size, gpus, cluster.inside)
    # A node's ring comes in as several, one through the network card of each GPU.
    bandwidth = min(cluster.inside.bandwidth, cluster.node * cluster.between.bandwidth)
    return ring(size, gpus, Link(bandwidth, cluster.between.latency))


def all_reduce(size: float, gpus: int, cluster: Cluster) -> float:
    """The same in two levels: added up in each node, then between the nodes, a share a GPU, then told.

    The halves within a node are a ring's; in between each GPU is in a ring with its counterparts.
    """
    if gpus <= cluster.node:
        return ring(size, gpus, cluster.inside)
    share = size / cluster.node
    return ring(size, cluster.node, cluster.inside) + ring(share, cluster.nodes(gpus), cluster.between)


def broadcast(size: float, messages: int, gpus: int, cluster: Cluster) -> float:
    """Seconds until all have the first one's bytes: a chain through the nodes, and through each node."""
    if gpus == 1:
        return 0.0
    nodes = cluster.nodes(gpus)
    slowest = cluster.inside if nodes == 1 else cluster.between
    hops = (min(gpus, cluster.node) - 1) * cluster.inside.latency + (nodes - 1) * cluster.between.latency
    return size / slowest.bandwidth + messages * hops


def exposed(all_reduces: Sequence[float], ready: Sequence[float], backward: float) -> float:
    """What the backward does not hide of all-reduces that go on behind it, one after the other.

    The last bucket is complete when the backward is over: it is never hidden.

    Args:
        all_reduces: seconds of each.
        ready: the share of the backward after which each may begin.
        backward: its seconds.
    """
    over = 0.0
    for seconds, share in zip(all_reduces, ready, strict=True):
        over = max(over, share * backward) + seconds
    return max(over - backward, 0.0)


def step_time(
    traffic: Traffic,
    gpus: int,
    cluster: Cluster,
    *,
    images: int,
    images_per_second: float,
    prepared_per_second: float,
) -> StepTime:
    """A step on so many GPUs.

    Args:
        traffic: of the network.
        gpus: one process each.
        cluster: what connects them.
        images: of each GPU.
        images_per_second: that a GPU trains on, alone.
        prepared_per_second: images that the cores of one GPU prepare.
    """
    compute = images / images_per_second
    alone = gpus == 1
    times = [0.0 if alone else all_reduce(size, gpus, cluster) for size in traffic.buckets]
    return StepTime(
        compute=compute,
        input=images / prepared_per_second,
        all_reduce=sum(times),
        exposed=exposed(times, traffic.ready, BACKWARD * compute),
        broadcast=broadcast(traffic.buffers, traffic.broadcasts, gpus, cluster),
        agreement=0.0 if alone else all_reduce(traffic.flags, gpus, cluster),
    )

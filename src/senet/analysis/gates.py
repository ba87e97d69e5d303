"""The gates of a network, recorded while it runs.

Statistics are streamed: memory grows with the channels, never with the images.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from senet.analysis.watching import sites_of, watching
from senet.errors import RecordingError
from senet.graph.trace import Example
from senet.tables import Table

BINS = 20


@dataclass
class BlockGates:
    """The gates of one block over the samples seen, by channel, in float64.

    Args:
        name: of the block in the network.
        channels: C.
        count: samples seen.
        mean: (C,) over the samples.
        low: the smallest gate seen.
        high: the largest.
        histogram: (20,) counts of gates in equal bins from 0 to 1; what lies outside is
            counted in the first or the last.
    """

    name: str
    channels: int
    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.empty(0))
    low: float = float("inf")
    high: float = float("-inf")
    histogram: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    _square: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)

    def __post_init__(self) -> None:
        self.mean = torch.zeros(self.channels, dtype=torch.float64)
        self._square = torch.zeros(self.channels, dtype=torch.float64)

    @property
    def std(self) -> Tensor:
        """(C,) the standard deviation over the samples (divided by their number)."""
        return (self._square / max(self.count, 1)).sqrt()

    @property
    def spread(self) -> float:
        """The standard deviation over samples and channels together."""
        between = self.mean.var(correction=0)
        return float((between + self.std.square().mean()).sqrt())

    def update(self, s: Tensor) -> None:
        """Adds the gates (N, C) of N samples; their order and grouping do not matter."""
        if not len(s):
            return
        s = s.detach().to("cpu", torch.float64)
        # Chan's update: exact where a sum of squares would cancel.
        mean, total = s.mean(0), self.count + len(s)
        delta = mean - self.mean
        self.mean = self.mean + delta * (len(s) / total)
        self._square = (
            self._square + (s - mean).square().sum(0) + delta.square() * (self.count * len(s) / total)
        )
        self.count = total
        # NaN is passed on to all but the histogram, which has no place for it.
        self.low = float(torch.minimum(s.min(), s.new_tensor(self.low)))
        self.high = float(torch.maximum(s.max(), s.new_tensor(self.high)))
        bins = (s[~s.isnan()] * BINS).clamp(0, BINS - 1).long()
        self.histogram += torch.bincount(bins, minlength=BINS)


class Gates:
    """The gates of a network's blocks, by the name of the block, in the network's order.

    Args:
        blocks: one BlockGates a block.
    """

    def __init__(self, blocks: dict[str, BlockGates]) -> None:
        self.blocks = blocks

    def __getitem__(self, name: str) -> BlockGates:
        return self.blocks[name]

    def __iter__(self) -> Iterator[BlockGates]:
        return iter(self.blocks.values())

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a block: samples, mean and spread over samples and channels, smallest, largest."""
        return [
            {
                "block": block.name,
                "channels": block.channels,
                "samples": block.count,
                "mean": float(block.mean.mean()),
                "spread": block.spread,
                "min": block.low,
                "max": block.high,
            }
            for block in self
        ]

    def __str__(self) -> str:
        return str(Table(self.rows))

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


@contextlib.contextmanager
def record_gates(
    model: nn.Module, *, blocks: Sequence[str] = (), example: Example | None = None
) -> Iterator[Gates]:
    """Records the gates of every SE block of ``model`` that runs inside the ``with``.

    Blocks of ours, of timm, torchvision or anybody are recognised by their arithmetic. Outputs do not
    change, and nothing stays on the model afterwards, whatever happens. Of several processes each records
    what it runs.

    Args:
        model: a network with SE; also wrapped for parallel training, accelerated or compiled: it then
            runs uncompiled, as hooks do not reach into compiled code.
        blocks: names or shell patterns, to record only those, or to name what is not recognised: a module
            that returns gates, (N, C) or (N, C, 1, 1), or one that returns a gated map.
        example: what the network is called with, for networks of others; None: the usual sizes are tried.

    Yields:
        Gates, filled as the network runs.

    Raises:
        OptionError: the network has no such block.
        RecordingError: no block ran.
        TraceError: a network of others does not run on ``example``, or on a usual size.

    Example:
        >>> with senet.record_gates(model) as gates:
        ...     model(images)
        >>> gates["layer4.2.se"].mean
    """
    sites = sites_of(model, blocks=blocks, example=example)
    gates = Gates({site.name: BlockGates(site.name, site.channels) for site in sites})
    lock = threading.Lock()

    def seen(name: str, s: Tensor) -> None:
        if is_functorch_wrapped_tensor(s):
            raise RecordingError(
                f"record_gates({type(model).__name__})",
                found="the network runs inside a transform of torch.func, which shows no numbers",
                do="Record a plain run of it.",
            )
        with lock:
            gates[name].update(s)

    with watching(model, seen, sites=sites):
        yield gates
    if not any(block.count for block in gates):
        raise RecordingError(
            f"record_gates({type(model).__name__})",
            found="no SE block ran, so no gate was seen",
            do="Run it inside the with; if a function around it is compiled, call the network itself.",
        )

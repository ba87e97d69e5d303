"""The gates of a network, recorded while it runs.

Statistics are streamed: memory grows with the channels, never with the images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet.block import SqueezeExcitation
from senet.errors import OptionError, RecordingError
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


@dataclass(frozen=True)
class _Recorder:
    into: BlockGates

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, block: SqueezeExcitation, s: Tensor) -> None:
        self.into.update(s)


@contextlib.contextmanager
def record_gates(model: nn.Module) -> Iterator[Gates]:
    """Records the gates of every SE block of ``model`` that runs inside the ``with``.

    Outputs do not change, and nothing stays on the model afterwards, whatever happens.

    Args:
        model: a network with blocks of ``senet.SqueezeExcitation``.

    Yields:
        Gates, filled as the network runs.

    Raises:
        OptionError: the network has no such block.
        RecordingError: no block ran.

    Example:
        >>> with senet.record_gates(model) as gates:
        ...     model(images)
        >>> gates["layer4.2.se"].mean
    """
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, SqueezeExcitation)}
    if not blocks:
        raise OptionError(
            f"record_gates({type(model).__name__})",
            found="the network has no SE block",
            allowed="a network with senet.SqueezeExcitation in it, such as senet.build('se_resnet50')",
        )
    gates = Gates({name: BlockGates(name, block.channels) for name, block in blocks.items()})
    handles = []
    try:
        for name, block in blocks.items():
            handles.append(block.register_gate_hook(_Recorder(gates[name])))
        yield gates
    finally:
        for handle in handles:
            handle.remove()
    if not any(block.count for block in gates):
        raise RecordingError(
            f"record_gates({type(model).__name__})",
            found="no SE block ran, so no gate was seen",
            do="Run the network inside the with; if it is compiled, run the original module.",
        )

"""What is known of the gates of one image: it prints itself, has rows, and saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from senet.tables import Table

# Gates are float32: what differs by less than ten of its steps at 1 is rounding.
ROUNDING = 1e-6


class Prediction(NamedTuple):
    """A class that the network considers.

    Args:
        number: of the class.
        name: of the class.
        probability: by the softmax of all scores.
    """

    number: int
    name: str
    probability: float


class Average(NamedTuple):
    """The gates of a block over images.

    Args:
        images: how many.
        mean: (C,).
        std: (C,), divided by their number.
    """

    images: int
    mean: Tensor
    std: Tensor


class Channel(NamedTuple):
    """One channel of a block.

    Args:
        number: of the channel.
        gate: s, on this image.
        apart: s minus what it is compared with.
        deviations: the same in standard deviations over the images; None where the gate never varies, or
            without a study.
        before: (H, W), the map that is gated; None where it is not seen.
    """

    number: int
    gate: float
    apart: float
    deviations: float | None
    before: Tensor | None

    @property
    def after(self) -> Tensor | None:
        """(H, W), the gated map: s u."""
        return None if self.before is None else self.before * self.gate


@dataclass(frozen=True)
class ImageBlock:
    """One run of a block on one image; tensors are on the CPU, in float64.

    Args:
        name: of the block in the network; of a later run of the same block with its number.
        channels: C.
        size: of the map it gates, () if it is not seen.
        s: (C,) the gates.
        average: what they are compared with; None without a study.
        similarity: (K,) with each class: the correlation over the channels of what sets the image and the
            class apart from the mean over all images; NaN where there is nothing to compare.
        opened: the channels that are opened most, the first most of all.
        closed: those that are closed most.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    s: Tensor
    average: Average | None
    similarity: Tensor = field(repr=False)
    opened: tuple[Channel, ...] = field(default=(), repr=False)
    closed: tuple[Channel, ...] = field(default=(), repr=False)

    @property
    def apart(self) -> Tensor:
        """(C,) gate minus average; without a study minus the mean gate of the block."""
        return self.s - (self.s.mean() if self.average is None else self.average.mean)

    @property
    def distance(self) -> float | None:
        """The root mean square, over channels, of gate minus average."""
        return None if self.average is None else _rms(self.apart)

    @property
    def usual(self) -> float | None:
        """The same for the images that the average is of, the root mean square over them."""
        return None if self.average is None else _rms(self.average.std)

    @property
    def deviations(self) -> Tensor | None:
        """(C,) gate minus average in standard deviations over the images, NaN where the gate never varies."""
        if self.average is None:
            return None
        varies = self.average.std > ROUNDING
        return torch.where(varies, self.apart / self.average.std, math.nan)

    @property
    def nearest(self) -> int | None:
        """The class whose gates are most alike."""
        if not self.similarity.isfinite().any():
            return None
        return int(self.similarity.nan_to_num(-math.inf).argmax())


@dataclass(frozen=True)
class ImageGates:
    """The gates of one image.

    Args:
        network: its name.
        file: the name of the image.
        image: as the network sees it, resized and cropped (PIL).
        predictions: up to five classes, the likeliest first; none if the network gives no class scores.
        label: the class that is compared with, None for all images.
        images: how many images are compared with, 0 without a study.
        classes: the names, in the order of the labels.
        blocks: in the order in which they ran.
        random: whether the weights are fresh, so that only the mechanics are seen.
    """

    network: str
    file: str
    image: Any = field(repr=False)
    predictions: tuple[Prediction, ...]
    label: int | None
    images: int
    classes: tuple[str, ...] = field(repr=False)
    blocks: tuple[ImageBlock, ...] = field(repr=False)
    random: bool = False

    @property
    def compared(self) -> str:
        """What the gates are compared with, in words."""
        if not self.images:
            return "no other images: channels are ranked by their gates alone"
        of = "over all classes" if self.label is None else f"of the class {self.classes[self.label]}"
        return f"the average of {self.images:,} images {of}"

    @property
    def furthest(self) -> int:
        """The number of the block whose gates are furthest from what they are compared with."""
        return max(range(len(self.blocks)), key=lambda number: _rms(self.blocks[number].apart))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a block; the channels that differ most with their differences."""
        return [
            {
                "block": block.name,
                "channels": block.channels,
                "gate": float(block.s.mean()),
                "average": None if block.average is None else float(block.average.mean.mean()),
                "distance": block.distance,
                "usual": block.usual,
                "nearest": None if block.nearest is None else self.classes[block.nearest],
                "opened": _listed(block.opened),
                "closed": _listed(block.closed),
            }
            for block in self.blocks
        ]

    @property
    def channel_rows(self) -> list[dict[str, Any]]:
        """A row a block and channel; what is not known is None."""
        rows = []
        for block in self.blocks:
            average, deviations = block.average, block.deviations
            for channel, gate in enumerate(block.s.tolist()):
                rows.append(
                    {
                        "block": block.name,
                        "channel": channel,
                        "gate": gate,
                        "average": None if average is None else float(average.mean[channel]),
                        "std": None if average is None else float(average.std[channel]),
                        "deviations": None if deviations is None else _known(deviations[channel]),
                    }
                )
        return rows

    def __str__(self) -> str:
        seen = ", ".join(f"{each.name} {each.probability:.1%}" for each in self.predictions)
        lines = [f"{self.network} on {self.file}" + (f": {seen}" if seen else "")]
        lines.append(f"Compared with {self.compared}.")
        if self.random:
            lines.append("The weights are random: this shows how gates work, not what a network has learned.")
        rows = self.rows
        known = [column for column in rows[0] if any(row[column] is not None for row in rows)]
        return "\n".join([*lines, str(Table([{column: row[column] for column in known} for row in rows]))])

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _known(value: Tensor) -> float | None:
    return float(value) if value.isfinite() else None


def _listed(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{each.number} {each.apart:+.2f}" for each in channels)

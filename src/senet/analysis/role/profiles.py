"""The statistics of a block's gates over many images, by class, in one pass and exactly.

Means and deviations are kept per jackknife group and class, so that intervals need no second pass. Memory
grows with groups x classes x channels and with channels squared, never with the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from senet.errors import ShapeError

# A gate is called closed up to here, and open from there.
CLOSED, OPEN = 0.05, 0.95
BINS = 50
KEPT = 8

# Two float64 numbers a group, class and channel shall stay below a gibibyte.
_MOST_NUMBERS = 2**30 // 16
_MOST_GROUPS, _FEWEST_GROUPS = 10, 4


def groups_for(classes: int, channels: int) -> int:
    """How many jackknife groups: 10, or at least 4 where classes x channels are many.

    Args:
        classes: K.
        channels: of all blocks together. SE-ResNet-50 has 15,104: with 1,000 classes that are 4 groups, and
            0.97 GB; the co-moments add 0.2 GB.
    """
    return max(_FEWEST_GROUPS, min(_MOST_GROUPS, _MOST_NUMBERS // (classes * channels)))


class Moments(NamedTuple):
    """A block's gates over some images, by class; a class without images has NaN.

    Args:
        images: (K,) samples of each class.
        mean: (K, C).
        square: (K, C), the sum of squared deviations from it.
        closed: (C,), in how many samples s <= CLOSED.
        opened: (C,), in how many s >= OPEN.
    """

    images: Tensor
    mean: Tensor
    square: Tensor
    closed: Tensor
    opened: Tensor


@dataclass
class Extremes:
    """Of each channel the images with the most extreme gates; of equal gates, those with lower numbers.

    Args:
        largest: whether the highest or the lowest gates are kept.
        values: (C, k) float32, the most extreme first.
        images: (C, k), their numbers; -1 for none.
    """

    largest: bool
    values: Tensor
    images: Tensor

    @classmethod
    def none(cls, channels: int, *, largest: bool) -> Self:
        """Of no images."""
        values = torch.full((channels, KEPT), float("-inf") if largest else float("inf"))
        return cls(largest, values, torch.full((channels, KEPT), -1))

    def take(self, values: Tensor, images: Tensor) -> None:
        """Keeps the most extreme of what is here and ``values`` (C, n) of ``images`` (C, n)."""
        values = torch.cat([self.values, values.float()], 1)
        images = torch.cat([self.images, images], 1)
        best = _sortable(values if self.largest else -values, images).topk(KEPT).indices
        self.values, self.images = values.gather(1, best), images.gather(1, best)


@dataclass
class BlockProfile:
    """The gates of one block over the samples seen; all on the CPU, in float64 and int64.

    A sample is one run of the block on one image: a block that runs twice a forward has two. G jackknife
    groups, K classes, C channels.

    Args:
        name: of the block in the network.
        channels: C.
        size: of the map it gates, () if it is not known.
        count: (G, K) samples.
        mean: (G, K, C).
        square: (G, K, C), the sum of squared deviations from that mean.
        comoment: (C, C), the sum over all samples of the products of those deviations.
        low: (C,) the smallest gate, NaN if one is no number.
        high: (C,) the largest.
        closed_by_group: (G, C), in how many samples s <= CLOSED.
        opened_by_group: (G, C), in how many s >= OPEN.
        histogram: (50,) counts in equal bins from 0 to 1; what lies outside is in the first or the last,
            and what is no number in none.
        opening: the images with the highest gates of each channel.
        closing: the images with the lowest.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    count: Tensor
    mean: Tensor
    square: Tensor
    comoment: Tensor
    low: Tensor
    high: Tensor
    closed_by_group: Tensor
    opened_by_group: Tensor
    histogram: Tensor
    opening: Extremes = field(repr=False)
    closing: Extremes = field(repr=False)

    @classmethod
    def new(cls, name: str, channels: int, size: Sequence[int], classes: int, groups: int) -> Self:
        """Of no images."""
        return cls(
            name=name,
            channels=channels,
            size=tuple(size),
            count=_counts(groups, classes),
            mean=_numbers(groups, classes, channels),
            square=_numbers(groups, classes, channels),
            comoment=_numbers(channels, channels),
            low=_numbers(channels) + float("inf"),
            high=_numbers(channels) - float("inf"),
            closed_by_group=_counts(groups, channels),
            opened_by_group=_counts(groups, channels),
            histogram=_counts(BINS),
            opening=Extremes.none(channels, largest=True),
            closing=Extremes.none(channels, largest=False),
        )

    def update(self, s: Tensor, labels: Tensor, images: Tensor, groups: Tensor | None = None) -> None:
        """Adds samples; their order and batches do not matter beyond rounding.

        Args:
            s: (N, C) gates, on any device.
            labels: (N,) the class of each.
            images: (N,) the number of each image in its source.
            groups: (N,) the jackknife group of each, the same in all blocks and unrelated to the class; None
                takes the image's number modulo G.

        Raises:
            ShapeError: these do not fit the block or each other, or there is no such class.
        """
        self._check(s, labels, images)
        if not len(s):
            return
        s = s.detach().to("cpu", torch.float64)
        labels, images = labels.cpu(), images.cpu()
        groups = images % len(self.count) if groups is None else groups.cpu()
        cells, cell_of = torch.unique(groups * self.count.shape[1] + labels, return_inverse=True)
        count = torch.bincount(cell_of, minlength=len(cells))
        mean = _summed(s, cell_of, len(cells)) / count[:, None]
        deviation = s - mean[cell_of]
        self.comoment += deviation.T @ deviation
        self._add(cells, count, mean, _summed(deviation.square(), cell_of, len(cells)))
        # The minimum passes NaN on.
        self.low, self.high = torch.minimum(self.low, s.amin(0)), torch.maximum(self.high, s.amax(0))
        self.closed_by_group.index_add_(0, groups, (s <= CLOSED).long())
        self.opened_by_group.index_add_(0, groups, (s >= OPEN).long())
        bins = (s[~s.isnan()] * BINS).clamp(0, BINS - 1).long()
        self.histogram += torch.bincount(bins, minlength=BINS)
        for extremes in (self.opening, self.closing):
            extremes.take(s.T, images.expand(self.channels, -1))

    def merge(self, other: BlockProfile) -> None:
        """Adds what another process has seen of the same block.

        Raises:
            ShapeError: the other has other groups, classes or channels.
        """
        if other.mean.shape != self.mean.shape:
            raise ShapeError(
                f"merging profiles of {self.name!r}",
                found=f"groups, classes and channels are {tuple(other.mean.shape)}",
                allowed=f"{tuple(self.mean.shape)}",
            )
        cells = other.count.flatten().nonzero().flatten()
        self.comoment += other.comoment
        self._add(
            cells,
            other.count.flatten()[cells],
            other.mean.flatten(0, 1)[cells],
            other.square.flatten(0, 1)[cells],
        )
        self.low, self.high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        self.closed_by_group += other.closed_by_group
        self.opened_by_group += other.opened_by_group
        self.histogram += other.histogram
        self.opening.take(other.opening.values, other.opening.images)
        self.closing.take(other.closing.values, other.closing.images)

    def moments(self, without: int | None = None) -> Moments:
        """Merged over the groups, all or all but one."""
        kept = [group for group in range(len(self.count)) if group != without]
        count, images = self.count[kept, :, None], self.count[kept].sum(0)
        mean = (count * self.mean[kept]).sum(0) / images[:, None]
        square = (self.square[kept] + count * (self.mean[kept] - mean).square()).sum(0)
        closed, opened = self.closed_by_group[kept].sum(0), self.opened_by_group[kept].sum(0)
        return Moments(images, mean, square, closed, opened)

    @property
    def images(self) -> Tensor:
        """(K,) samples of each class."""
        return self.count.sum(0)

    @property
    def class_mean(self) -> Tensor:
        """(K, C), NaN for a class without images."""
        return self.moments().mean

    @property
    def class_std(self) -> Tensor:
        """(K, C) over the images of a class (divided by their number), NaN for a class without."""
        found = self.moments()
        return (found.square / found.images[:, None]).sqrt()

    @property
    def overall_mean(self) -> Tensor:
        """(C,) over all images."""
        return torch.einsum("gk,gkc->c", self.count.double(), self.mean) / self.count.sum()

    @property
    def overall_std(self) -> Tensor:
        """(C,) over all images (divided by their number)."""
        apart = self.mean - self.overall_mean
        between = torch.einsum("gk,gkc->c", self.count.double(), apart.square())
        return ((self.square.sum((0, 1)) + between) / self.count.sum()).sqrt()

    @property
    def covariance(self) -> Tensor:
        """(C, C) over all images (divided by their number)."""
        apart = (self.mean - self.overall_mean).flatten(0, 1)
        return (self.comoment + (self.count.flatten()[:, None] * apart).T @ apart) / self.count.sum()

    @property
    def closed(self) -> Tensor:
        """(C,) in how many samples s <= CLOSED."""
        return self.closed_by_group.sum(0)

    @property
    def opened(self) -> Tensor:
        """(C,) in how many samples s >= OPEN."""
        return self.opened_by_group.sum(0)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by their names, those of the extremes as in ``opening.values``."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("opening", "closing"):
            extremes = found.pop(name)
            found |= {f"{name}.values": extremes.values, f"{name}.images": extremes.images}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @classmethod
    def of_tensors(cls, name: str, size: Sequence[int], tensors: dict[str, Tensor]) -> Self:
        """The profile that has these; KeyError where one is missing."""
        given: dict[str, Any] = dict(tensors)
        for side in ("opening", "closing"):
            values, images = given.pop(f"{side}.values"), given.pop(f"{side}.images")
            given[side] = Extremes(side == "opening", values, images)
        return cls(name=name, channels=given["mean"].shape[2], size=tuple(size), **given)

    def _add(self, cells: Tensor, count: Tensor, mean: Tensor, square: Tensor) -> None:
        """Chan's update of some groups and classes: exact where a sum of squares would cancel.

        Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
        (1979).
        """
        counts = self.count.view(-1)
        means, squares = self.mean.view(-1, self.channels), self.square.view(-1, self.channels)
        # Two integers would be divided in float32.
        share = (count.double() / (counts[cells] + count))[:, None]
        delta = mean - means[cells]
        between = delta * (counts[cells][:, None] * share)
        means[cells] += delta * share
        squares[cells] += square + delta * between
        counts[cells] += count
        self.comoment += delta.T @ between

    def _check(self, s: Tensor, labels: Tensor, images: Tensor) -> None:
        if s.shape != (len(labels), self.channels) or images.shape != labels.shape:
            raise ShapeError(
                f"the gates of {self.name!r}",
                found=f"gates {tuple(s.shape)}, labels {tuple(labels.shape)}, images {tuple(images.shape)}",
                allowed=f"(N, {self.channels}), (N,) and (N,)",
            )
        classes = self.count.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ShapeError(
                f"the gates of {self.name!r}",
                found=f"labels from {labels.min()} to {labels.max()}",
                allowed=f"0 to {classes - 1}: there are {classes} classes",
            )


def merged(profiles: Iterable[BlockProfile]) -> BlockProfile:
    """What several processes have seen of one block; the first profile takes it all."""
    first, *others = profiles
    for other in others:
        first.merge(other)
    return first


def _numbers(*size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64)


def _counts(*size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.int64)


def _summed(values: Tensor, cell_of: Tensor, cells: int) -> Tensor:
    return values.new_zeros(cells, values.shape[1]).index_add_(0, cell_of, values)


def _sortable(values: Tensor, images: Tensor) -> Tensor:
    """Integers in the order of the float32 values, and of the numbers from high to low where those are equal.

    The bits of positive floats are in the order of the numbers, those of negative ones in the reverse.
    """
    # Adding zero makes a zero of minus zero.
    bits = (values + 0.0).view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) | (0x7FFFFFFF - images)

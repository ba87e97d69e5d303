"""Which piece of a map or a matrix one program takes: a fixed table, by shape and layout alone.

No timing decides, for it would change the order of summation from run to run.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from senet.kernels.composite import positions
from senet.kernels.layout import is_channels_last

# Enough programs of four warps to keep every processor of a large GPU (132 on an H200) busy.
PROGRAMS = 1024

# Numbers that four warps hold at once when each thread loads 16 bytes of a 16-bit map.
LANES = 1024

# Channels (or positions, in the contiguous layout) that a matrix product of the gate takes at once.
STEP = 32

# The widest excitation that the kernels take; above it cuBLAS is right.
MAX_HIDDEN = 256


class Geometry(NamedTuple):
    """A map as kernels see it.

    Args:
        last: whether channels lie side by side, (N, S, C); else positions do, (N, C, S).
        samples, channels, positions: N, C, S.
        align: the largest power of two, at most 8, that divides the contiguous dimension.
    """

    last: bool
    samples: int
    channels: int
    positions: int
    align: int

    @property
    def contiguous(self) -> int:
        """How many numbers lie side by side."""
        return self.channels if self.last else self.positions

    @property
    def strided(self) -> int:
        """The other one of C and S."""
        return self.positions if self.last else self.channels


class Tile(NamedTuple):
    """What a program holds of a map at once: ``repeats`` × rows × lanes, lanes side by side.

    In channels-last rows are positions and lanes are channels; in the contiguous layout rows are
    channels (of all samples) and lanes are positions. ``repeats`` always counts positions.
    """

    repeats: int
    rows: int
    lanes: int

    def positions(self, last: bool) -> int:
        """How many positions of a channel it covers."""
        return self.repeats * (self.rows if last else self.lanes)

    def kept(self, last: bool) -> int:
        """How many channels it covers."""
        return self.lanes if last else self.rows


class Splits(NamedTuple):
    """How the positions of a channel are shared by programs: ``parts`` of ``size``, the last shorter."""

    parts: int
    size: int


def geometry(u: Tensor) -> Geometry:
    """How the kernels see a map (N, C, *spatial)."""
    samples, channels = u.shape[:2]
    size = positions(u)
    # With one position both layouts are the same memory, and channels are what lies side by side.
    last = size == 1 or is_channels_last(u)
    contiguous = channels if last else size
    align = next(power for power in (8, 4, 2, 1) if contiguous % power == 0)
    return Geometry(last, samples, channels, size, align)


def reduction_tile(shape: Geometry, repeats: int) -> Tile:
    """Of a kernel that sums over positions; it goes over its positions tile by tile.

    Args:
        shape: of the map.
        repeats: how many numbers of a channel each sum takes at once: more where few maps are read,
            so that as much is underway from memory, fewer where many are, for the registers' sake.
    """
    if shape.last:
        lanes = LANES // 2 if shape.positions <= 2 * repeats else _covering(shape.channels, (4, 16, 64))
    else:
        lanes = _covering(ceiling(shape.positions, repeats), (4, 16, 64, 256))
    return Tile(repeats, LANES // lanes, lanes)


def elementwise_tile(shape: Geometry) -> Tile:
    """Of a kernel that writes each position for itself."""
    if shape.last:
        lanes = LANES // 2 if shape.positions <= 4 else _covering(shape.channels, (4, 16, 64))
    else:
        lanes = _covering(shape.positions, (4, 16, 64, 256))
    return Tile(1, 2 * LANES // lanes, lanes)


def splits(shape: Geometry, tile: Tile) -> Splits:
    """Into how many programs the sum of a channel is divided, where channels alone are too few."""
    kept = groups(shape, tile)
    tiles = ceiling(shape.positions, tile.positions(shape.last))
    # A part of fewer than two tiles would cost more in its merging than it saves.
    parts = max(1, min(PROGRAMS // kept, tiles // 2))
    size = ceiling(tiles, parts) * tile.positions(shape.last)
    return Splits(ceiling(shape.positions, size), size)


def groups(shape: Geometry, tile: Tile) -> int:
    """How many tiles hold all channels of all samples once."""
    if shape.last:
        return shape.samples * ceiling(shape.channels, tile.lanes)
    return ceiling(shape.samples * shape.channels, tile.rows)


def channel_blocks(shape: Geometry, tile: Tile) -> int:
    """How many tiles hold the channels of a sample; 1 where a tile spans samples."""
    return ceiling(shape.channels, tile.lanes) if shape.last else 1


def shared_sum(size: int) -> Splits:
    """Into how many programs the sum of a matrix product over channels is divided."""
    chunk = STEP * ceiling(ceiling(size, min(4, ceiling(size, 2 * STEP))), STEP)
    return Splits(ceiling(size, chunk), chunk)


def power_of_two(number: int, least: int, most: int) -> int:
    """The smallest power of two that is at least ``number``, within bounds that are such powers."""
    return min(max(1 << (number - 1).bit_length(), least), most)


def ceiling(number: int, divisor: int) -> int:
    """``number`` / ``divisor``, rounded up."""
    return -(-number // divisor)


def _covering(number: int, sizes: tuple[int, ...]) -> int:
    """The smallest of the sizes that covers a number, else the largest."""
    return next((size for size in sizes if size >= number), sizes[-1])

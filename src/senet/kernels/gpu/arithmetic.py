"""Activations, gates and where a tile lies: what the kernels share, inlined into each.

Comparisons decide with ``where`` and in the order of ``kernels.activations``: Triton's maximum
would swallow a NaN that PyTorch's functions pass on.
"""

from __future__ import annotations

import triton.language as tl

from senet.kernels.gpu.launching import jit


@jit
def sigmoid(v: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(−v))."""
    return 1.0 / (1.0 + tl.exp(-v))


@jit
def tanh(v: tl.tensor) -> tl.tensor:
    """tanh, to the last bits also near 0, where the form by exponentials cancels."""
    square = v * v
    small = v * (135135.0 + square * (17325.0 + square * (378.0 + square)))
    small /= 135135.0 + square * (62370.0 + square * (3150.0 + square * 28.0))
    return tl.where(tl.abs(v) < 0.75, small, 2.0 * sigmoid(2.0 * v) - 1.0)


@jit
def hardsigmoid(v: tl.tensor) -> tl.tensor:
    """min(max(v + 3, 0), 6) / 6."""
    moved = v + 3.0
    return tl.where(moved <= 0.0, 0.0, tl.where(moved >= 6.0, 6.0, moved)) / 6.0


@jit
def activation(v: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """An entry of ``ACTIVATIONS``."""
    if kind == "relu":
        return tl.where(v <= 0.0, 0.0, v)
    elif kind == "silu":
        return v / (1.0 + tl.exp(-v))
    elif kind == "hardswish":
        return v * hardsigmoid(v)
    else:
        return v


@jit
def derivative(v: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """The derivative of an entry of ``ACTIVATIONS``, of what entered it; never of the identity."""
    if kind == "relu":
        return tl.where(v <= 0.0, 0.0, 1.0)
    elif kind == "silu":
        s = sigmoid(v)
        return s * (1.0 + v * (1.0 - s))
    else:
        return tl.where(v <= -3.0, 0.0, tl.where(v < 3.0, v / 3.0 + 0.5, 1.0))


@jit
def gate_of(y: tl.tensor, kind: tl.constexpr, one_at_zero: tl.constexpr) -> tl.tensor:
    """An entry of ``GATES`` or ``ONE_AT_ZERO``."""
    if kind == "sigmoid":
        return 2.0 * sigmoid(y) if one_at_zero else sigmoid(y)
    elif kind == "tanh":
        return 1.0 + tanh(y) if one_at_zero else tanh(y)
    elif kind == "relu":
        return activation(1.0 + y, "relu") if one_at_zero else activation(y, "relu")
    else:
        return 2.0 * hardsigmoid(y) if one_at_zero else hardsigmoid(y)


@jit
def gate_derivative(s: tl.tensor, kind: tl.constexpr, one_at_zero: tl.constexpr) -> tl.tensor:
    """An entry of ``GATE_DERIVATIVES`` or ``ONE_AT_ZERO_DERIVATIVES``, of what the gate gave."""
    if kind == "sigmoid":
        return s * (1.0 - s / 2.0) if one_at_zero else s * (1.0 - s)
    elif kind == "tanh":
        return s * (2.0 - s) if one_at_zero else 1.0 - s * s
    elif kind == "relu":
        return tl.where(s <= 0.0, 0.0, 1.0)
    else:
        top = 2.0 if one_at_zero else 1.0
        slope = 1.0 / 3.0 if one_at_zero else 1.0 / 6.0
        return tl.where((s <= 0.0) | (s >= top), 0.0, slope)


@jit
def extents(contiguous: tl.tensor, strided: tl.tensor, last: tl.constexpr, align: tl.constexpr) -> tl.tensor:
    """C and S, 64 bits wide; what lies side by side as a multiple of align, for wide loads.

    Args:
        contiguous: the number of those side by side, divided by align.
        strided: the number of the others.
        last: whether channels lie side by side.
        align: what the compiler may know to divide.
    """
    wide = tl.cast(contiguous, tl.int64) * align
    other = tl.cast(strided, tl.int64)
    if last:
        return wide, other
    else:
        return other, wide


@jit
def channels_of(
    group: tl.tensor,
    blocks: tl.tensor,
    samples: tl.tensor,
    channels: tl.tensor,
    last: tl.constexpr,
    kept: tl.constexpr,
) -> tl.tensor:
    """The channels of a tile: their lines, their index in (N, C) and in (C,), and which of them exist.

    A line is what the map is made of besides the tile's own two dimensions: in channels-last the
    sample, which is the same for all, else n · C + c.

    Args:
        group: which tile, of all that hold the channels of all samples once.
        blocks: how many tiles hold the channels of a sample, in channels-last.
        samples: N.
        channels: C, 64 bits wide.
        last: whether channels lie side by side; then a tile has one sample's, else any.
        kept: how many channels a tile has.
    """
    lane = tl.arange(0, kept)
    if last:
        channel = (group % blocks).to(tl.int64) * kept + lane
        line = (group // blocks).to(tl.int64)
        return line, line * channels + channel, channel, channel < channels
    else:
        pair = group.to(tl.int64) * kept + lane
        return pair, pair, pair % channels, pair < tl.cast(samples, tl.int64) * channels


@jit
def over_tile(factor: tl.tensor, last: tl.constexpr) -> tl.tensor:
    """A number per channel, so that it multiplies a tile of rows × lanes."""
    if last:
        return factor[None, :]
    else:
        return factor[:, None]


@jit
def places(first: tl.tensor, last: tl.constexpr, rows: tl.constexpr, lanes: tl.constexpr) -> tl.tensor:
    """The positions of a tile, along its rows or its lanes."""
    if last:
        return first + tl.arange(0, rows)[:, None]
    else:
        return first + tl.arange(0, lanes)[None, :]


@jit
def map_offsets(
    line: tl.tensor,
    channel: tl.tensor,
    place: tl.tensor,
    channels: tl.tensor,
    positions: tl.tensor,
    last: tl.constexpr,
) -> tl.tensor:
    """Where a tile's numbers lie in the map, 64 bits wide: a map may have more than 2³¹ of them.

    Args:
        line: as ``channels_of`` gave them, 64 bits wide.
        channel: likewise.
        place: the positions.
        channels: C.
        positions: S.
        last: whether channels lie side by side.
    """
    if last:
        # In this order the compiler sees that channels lie side by side, and loads them together.
        return (line * positions + place) * channels + channel[None, :]
    else:
        return line[:, None] * positions + place


@jit
def norm_of(
    scale: tl.tensor,
    mean: tl.tensor,
    shift: tl.tensor,
    channel: tl.tensor,
    exists: tl.tensor,
    last: tl.constexpr,
) -> tl.tensor:
    """Scale, mean and shift for a tile; without a norm three zeros that nobody uses."""
    if scale is not None:
        factor = over_tile(tl.load(scale + channel, mask=exists, other=0.0), last)
        centre = over_tile(tl.load(mean + channel, mask=exists, other=0.0), last)
        level = over_tile(tl.load(shift + channel, mask=exists, other=0.0), last)
    else:
        # Triton 3.6 has no None to give back.
        factor = tl.zeros((1, 1), tl.float32)
        centre = factor
        level = factor
    return factor, centre, level


@jit
def normalised(
    u: tl.tensor, factor: tl.tensor, centre: tl.tensor, level: tl.tensor, normed: tl.constexpr
) -> tl.tensor:
    """The pair of v and u − mean; without a norm both are u."""
    if normed:
        centred = u - centre
        return level + factor * centred, centred
    else:
        return u, u

"""The kernels that sum over positions: ``moments``, ``pool`` and ``reduce``.

A program goes over its positions tile by tile and keeps a sum for each row and lane of a tile, of
which a channel has several; they are merged when it is done. Where channels alone are too few
programs, several share the positions of one, and a small kernel merges what they found.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from senet.kernels.gpu.arithmetic import (
    activation,
    channels_of,
    derivative,
    extents,
    map_offsets,
    norm_of,
    normalised,
    over_tile,
    places,
)
from senet.kernels.gpu.configurations import (
    Geometry,
    Splits,
    Tile,
    channel_blocks,
    geometry,
    groups,
    reduction_tile,
    splits,
)
from senet.kernels.gpu.launching import jit, launch
from senet.kernels.gpu.merging import merged_moments, merged_sums


def moments(u: Tensor) -> tuple[Tensor, Tensor]:
    """``composite.moments``: reads u once, and centres every tile on its own mean."""
    shape = geometry(u)
    tile, shares = _plan(shape, 4)
    # Apart in memory, as results of an operator must be.
    means, spreads = _partial(u, shares, 1)[:, 0], _partial(u, shares, 1)[:, 0]
    launch(
        moments_kernel, groups(shape, tile) * shares.parts, means, spreads, u,
        *_sizes(shape, tile, shares), **_constants(shape, tile),
    )  # fmt: skip
    return merged_moments(means, spreads, shape.positions, shares.size)


def pool(u: Tensor, scale: Tensor | None, mean: Tensor | None, shift: Tensor | None, inner: str) -> Tensor:
    """``composite.pool``: reads u once."""
    shape = geometry(u)
    tile, shares = _plan(shape, 4)
    partial = _partial(u, shares, 1)
    launch(
        pool_kernel, groups(shape, tile) * shares.parts, partial, u, scale, mean, shift,
        1 / shape.positions, *_sizes(shape, tile, shares), **_constants(shape, tile), inner=inner,
    )  # fmt: skip
    return merged_sums(partial)[0]


def reduce(
    g: Tensor,
    out: Tensor | None,
    u: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    shift: Tensor | None,
    inner: str,
    second: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``composite.reduce``: reads g, second, out and u once, writes gm where it is another map than g."""
    same = out is None and second is None
    masked = g.new_empty(0) if same else torch.empty_like(u, dtype=g.dtype)
    shape = geometry(u)
    tile, shares = _plan(shape, 2)
    partial = _partial(u, shares, 2 if inner == "identity" else 5)
    launch(
        reduce_kernel, groups(shape, tile) * shares.parts, partial, None if same else masked,
        g, second, out, u, scale, mean, shift,
        *_sizes(shape, tile, shares), **_constants(shape, tile), inner=inner,
    )  # fmt: skip
    return masked, merged_sums(partial)


def _plan(shape: Geometry, repeats: int) -> tuple[Tile, Splits]:
    tile = reduction_tile(shape, repeats)
    return tile, splits(shape, tile)


def _partial(u: Tensor, shares: Splits, sums: int) -> Tensor:
    """(parts, sums, N, C), float32."""
    return u.new_empty((shares.parts, sums, *u.shape[:2]), dtype=torch.float32)


def _sizes(shape: Geometry, tile: Tile, shares: Splits) -> tuple[int, ...]:
    contiguous = shape.contiguous // shape.align
    blocks = channel_blocks(shape, tile)
    return contiguous, shape.strided, shape.samples, blocks, shares.parts, shares.size


def _constants(shape: Geometry, tile: Tile) -> dict[str, Any]:
    return {"last": shape.last, "align": shape.align, **tile._asdict()}


@jit
def _over_lanes(total: tl.tensor, last: tl.constexpr) -> tl.tensor:
    """The sum of what a channel's rows or lanes hold."""
    if last:
        return tl.sum(total, 0)
    else:
        return tl.sum(total, 1)


@jit
def _loaded(
    of_map: tl.tensor,
    first: tl.tensor,
    stop: tl.tensor,
    line: tl.tensor,
    channel: tl.tensor,
    exists: tl.tensor,
    channels: tl.tensor,
    positions: tl.tensor,
    last: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """A tile's numbers as they are stored, where they lie, and which of them exist."""
    place = places(first, last, rows, lanes)
    offset = map_offsets(line, channel, place, channels, positions, last)
    inside = (place < stop) & over_tile(exists, last)
    return tl.load(of_map + offset, mask=inside, other=0.0), offset, inside


@jit
def moments_kernel(
    means: tl.tensor,
    spreads: tl.tensor,
    u_map: tl.tensor,
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    parts: tl.tensor,
    size: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    repeats: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Mean and mean squared deviation of some channels over one part of their positions.

    Everything is measured from a channel's first number, which takes a far mean away without
    rounding. The few numbers that a row and lane has of a tile are centred on their own mean; two
    means are merged by Chan's formula, which cancels nothing.
    """
    channels, positions = extents(contiguous, strided, last, align)
    part = tl.program_id(0) % parts
    line, pair, channel, exists = channels_of(
        tl.program_id(0) // parts, blocks, samples, channels, last, lanes if last else rows
    )
    step = rows if last else lanes
    start = tl.cast(part, tl.int64) * size
    stop = tl.minimum(start + size, positions)
    whole = start + (stop - start) // (repeats * step) * (repeats * step)
    at = line * positions * channels + start * channels + channel if last else line * positions + start
    origin = tl.load(u_map + at, mask=exists, other=0.0).to(tl.float32)
    origin_ = over_tile(origin, last)

    # Of each row and lane, over the tiles so far.
    mean = tl.zeros((rows, lanes), tl.float32)
    squares = tl.zeros((rows, lanes), tl.float32)
    seen = 0.0
    for first in range(start, whole, repeats * step):
        # All loads before the first use, so that they are underway together.
        tile: tl.tuple = ()
        for repeat in tl.static_range(repeats):
            u, _, _ = _loaded(
                u_map, first + repeat * step, whole, line, channel, exists, channels, positions,
                last, rows, lanes,
            )  # fmt: skip
            tile = tile + (u.to(tl.float32) - origin_,)  # noqa: RUF005
        own = tl.zeros((rows, lanes), tl.float32)
        for repeat in tl.static_range(repeats):
            own += tile[repeat]
        own /= repeats
        for repeat in tl.static_range(repeats):
            centred = tile[repeat] - own
            squares += centred * centred
        apart = own - mean
        weight = repeats / (seen + repeats)
        mean += apart * weight
        squares += apart * apart * (seen * weight)
        seen += repeats

    # What is left, one number of a row and lane after the other; some have one less than others.
    left: tl.tuple = ()
    for repeat in tl.static_range(repeats):
        u, _, inside = _loaded(
            u_map, whole + repeat * step, stop, line, channel, exists, channels, positions,
            last, rows, lanes,
        )  # fmt: skip
        left = left + ((u.to(tl.float32) - origin_, inside),)  # noqa: RUF005
    number = tl.zeros((rows, lanes), tl.float32) + seen
    for repeat in tl.static_range(repeats):
        u, inside = left[repeat]
        apart = tl.where(inside, u - mean, 0.0)
        mean += apart / (number + 1.0)
        squares += apart * apart * (number / (number + 1.0))
        number += tl.where(inside, 1.0, 0.0)

    # All rows or lanes of a channel, summed from a first guess of the mean to round it once.
    total = (stop - start).to(tl.float32)
    guess = _over_lanes(mean * number, last) / total
    settled = guess + _over_lanes((mean - over_tile(guess, last)) * number, last) / total
    apart = tl.where(number > 0.0, mean - over_tile(settled, last), 0.0)
    spread = _over_lanes(squares + number * apart * apart, last) / total
    count = tl.cast(samples, tl.int64) * channels
    tl.store(means + part * count + pair, origin + settled, mask=exists)
    tl.store(spreads + part * count + pair, spread, mask=exists)


@jit
def pool_kernel(
    partial: tl.tensor,
    u_map: tl.tensor,
    scale: tl.tensor,
    mean: tl.tensor,
    shift: tl.tensor,
    share: tl.tensor,
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    parts: tl.tensor,
    size: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    repeats: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
) -> None:
    """The share of one part of the positions in the mean of φ(v)."""
    channels, positions = extents(contiguous, strided, last, align)
    part = tl.program_id(0) % parts
    line, pair, channel, exists = channels_of(
        tl.program_id(0) // parts, blocks, samples, channels, last, lanes if last else rows
    )
    step = rows if last else lanes
    factor, centre, level = norm_of(scale, mean, shift, channel, exists, last)
    start = tl.cast(part, tl.int64) * size
    stop = tl.minimum(start + size, positions)

    total = tl.zeros((rows, lanes), tl.float32)
    for first in range(start, stop, repeats * step):
        # Summed apart first: the fewer additions to the total, the fewer roundings of it.
        own = tl.zeros((rows, lanes), tl.float32)
        for repeat in tl.static_range(repeats):
            u, _, inside = _loaded(
                u_map, first + repeat * step, stop, line, channel, exists, channels, positions,
                last, rows, lanes,
            )  # fmt: skip
            v, _ = normalised(u.to(tl.float32), factor, centre, level, scale is not None)
            own += tl.where(inside, activation(v, inner), 0.0)
        total += own
    count = tl.cast(samples, tl.int64) * channels
    tl.store(partial + part * count + pair, _over_lanes(total, last) * share, mask=exists)


@jit
def reduce_kernel(
    partial: tl.tensor,
    gm_map: tl.tensor,
    g_map: tl.tensor,
    second_map: tl.tensor,
    out_map: tl.tensor,
    u_map: tl.tensor,
    scale: tl.tensor,
    mean: tl.tensor,
    shift: tl.tensor,
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    parts: tl.tensor,
    size: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    repeats: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
) -> None:
    """The sums of the backward over one part of the positions; and gm there."""
    channels, positions = extents(contiguous, strided, last, align)
    part = tl.program_id(0) % parts
    line, pair, channel, exists = channels_of(
        tl.program_id(0) // parts, blocks, samples, channels, last, lanes if last else rows
    )
    step = rows if last else lanes
    factor, centre, level = norm_of(scale, mean, shift, channel, exists, last)
    start = tl.cast(part, tl.int64) * size
    stop = tl.minimum(start + size, positions)

    total_0 = tl.zeros((rows, lanes), tl.float32)
    total_1 = tl.zeros((rows, lanes), tl.float32)
    if inner != "identity":
        total_2 = tl.zeros((rows, lanes), tl.float32)
        total_3 = tl.zeros((rows, lanes), tl.float32)
        total_4 = tl.zeros((rows, lanes), tl.float32)
    for first in range(start, stop, repeats * step):
        # All loads before the first store, past which the compiler may not move them.
        tile: tl.tuple = ()
        for repeat in tl.static_range(repeats):
            g, offset, inside = _loaded(
                g_map, first + repeat * step, stop, line, channel, exists, channels, positions,
                last, rows, lanes,
            )  # fmt: skip
            u = tl.load(u_map + offset, mask=inside, other=0.0)
            out = g if out_map is None else tl.load(out_map + offset, mask=inside, other=0.0)
            more = g if second_map is None else tl.load(second_map + offset, mask=inside, other=0.0)
            tile = tile + ((g, more, u, out, offset, inside),)  # noqa: RUF005
        for repeat in tl.static_range(repeats):
            g, more, u, out, offset, inside = tile[repeat]
            gm = g.to(tl.float32)
            if second_map is not None:
                gm += more.to(tl.float32)
            if out_map is not None:
                gm = tl.where(out.to(tl.float32) <= 0.0, 0.0, gm)
            if gm_map is not None:
                tl.store(gm_map + offset, gm.to(gm_map.dtype.element_ty), mask=inside)
            v, centred = normalised(u.to(tl.float32), factor, centre, level, scale is not None)
            # Where there is no position, a norm that is not finite would still leave its trace.
            centred = tl.where(inside, centred, 0.0)
            if inner == "identity":
                total_0 += gm
                total_1 += gm * centred
            else:
                slope = tl.where(inside, derivative(v, inner), 0.0)
                passed = gm * slope
                total_0 += gm * tl.where(inside, activation(v, inner), 0.0)
                total_1 += passed
                total_2 += passed * centred
                total_3 += slope
                total_4 += slope * centred

    count = tl.cast(samples, tl.int64) * channels
    at = partial + (2 if inner == "identity" else 5) * part * count + pair
    tl.store(at, _over_lanes(total_0, last), mask=exists)
    tl.store(at + count, _over_lanes(total_1, last), mask=exists)
    if inner != "identity":
        tl.store(at + 2 * count, _over_lanes(total_2, last), mask=exists)
        tl.store(at + 3 * count, _over_lanes(total_3, last), mask=exists)
        tl.store(at + 4 * count, _over_lanes(total_4, last), mask=exists)

"""The kernels that write a map, each number of it for itself: ``apply`` and ``input_gradient``."""

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
    Tile,
    ceiling,
    channel_blocks,
    elementwise_tile,
    geometry,
    groups,
)
from senet.kernels.gpu.launching import jit, launch


def apply(
    u: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    shift: Tensor | None,
    gate: Tensor,
    residual: Tensor | None,
    inner: str,
    outer: str,
) -> Tensor:
    """``composite.apply``: reads u and the residual once, writes out."""
    dtype = u.dtype if residual is None else torch.promote_types(u.dtype, residual.dtype)
    out = torch.empty_like(u, dtype=dtype)
    shape = geometry(u)
    tile = elementwise_tile(shape)
    numbers = (scale, mean, shift, gate.contiguous())
    launch(
        apply_kernel, _programs(shape, tile), out, u, residual, *numbers, *_sizes(shape, tile),
        **_constants(shape, tile), inner=inner, outer=outer,
    )  # fmt: skip
    return out


def input_gradient(
    gm: Tensor,
    u: Tensor,
    scale: Tensor | None,
    mean: Tensor | None,
    shift: Tensor | None,
    gate: Tensor,
    dz: Tensor,
    inverse: Tensor | None,
    dweight: Tensor | None,
    dbias: Tensor | None,
    count: int,
    inner: str,
) -> Tensor:
    """``composite.input_gradient``: reads gm once, u once where it is needed, writes du."""
    du = torch.empty_like(u)
    shape = geometry(u)
    through = inverse is not None and dweight is not None and dbias is not None
    # Without statistics of the batch and without φ the gradient does not depend on u.
    read = u if through or inner != "identity" else None
    tile = elementwise_tile(shape)
    numbers = (scale, mean, shift, gate.contiguous(), dz.contiguous())
    statistics = (inverse, dweight, dbias) if through else (None, None, None)
    launch(
        input_gradient_kernel, _programs(shape, tile), du, gm, read, *numbers, *statistics,
        1 / shape.positions, 1 / count if through else 0.0, *_sizes(shape, tile),
        **_constants(shape, tile), inner=inner,
    )  # fmt: skip
    return du


def _programs(shape: Geometry, tile: Tile) -> int:
    return groups(shape, tile) * ceiling(shape.positions, tile.positions(shape.last))


def _sizes(shape: Geometry, tile: Tile) -> tuple[int, ...]:
    pieces = ceiling(shape.positions, tile.positions(shape.last))
    contiguous = shape.contiguous // shape.align
    return contiguous, shape.strided, shape.samples, channel_blocks(shape, tile), pieces


def _constants(shape: Geometry, tile: Tile) -> dict[str, Any]:
    return {"last": shape.last, "align": shape.align, "rows": tile.rows, "lanes": tile.lanes}


@jit
def _located(
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    pieces: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """This program's channels (in (N, C) and in (C,)), which exist, and its tile of the map, likewise."""
    channels, positions = extents(contiguous, strided, last, align)
    program = tl.program_id(0)
    # Programs that run together read neighbouring channels, then neighbouring positions.
    piece = (program // blocks) % pieces
    group = program // blocks // pieces * blocks + program % blocks
    line, pair, channel, exists = channels_of(group, blocks, samples, channels, last, lanes if last else rows)
    first = piece.to(tl.int64) * (rows if last else lanes)
    place = places(first, last, rows, lanes)
    offset = map_offsets(line, channel, place, channels, positions, last)
    return pair, channel, exists, offset, over_tile(exists, last) & (place < positions)


@jit
def apply_kernel(
    out_map: tl.tensor,
    u_map: tl.tensor,
    residual_map: tl.tensor,
    scale: tl.tensor,
    mean: tl.tensor,
    shift: tl.tensor,
    gate: tl.tensor,
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    pieces: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
    outer: tl.constexpr,
) -> None:
    """One tile of ψ(s ⊙ φ(v) + r)."""
    pair, channel, exists, offset, inside = _located(
        contiguous, strided, samples, blocks, pieces, last, align, rows, lanes
    )
    u = tl.load(u_map + offset, mask=inside, other=0.0).to(tl.float32)
    factor, centre, level = norm_of(scale, mean, shift, channel, exists, last)
    v, _ = normalised(u, factor, centre, level, scale is not None)
    out = over_tile(tl.load(gate + pair, mask=exists, other=0.0), last) * activation(v, inner)
    if residual_map is not None:
        out += tl.load(residual_map + offset, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_map + offset, activation(out, outer).to(out_map.dtype.element_ty), mask=inside)


@jit
def input_gradient_kernel(
    du_map: tl.tensor,
    gm_map: tl.tensor,
    u_map: tl.tensor,
    scale: tl.tensor,
    mean: tl.tensor,
    shift: tl.tensor,
    gate: tl.tensor,
    dz: tl.tensor,
    inverse: tl.tensor,
    dweight: tl.tensor,
    dbias: tl.tensor,
    share: tl.tensor,
    batch_share: tl.tensor,
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    pieces: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    inner: tl.constexpr,
) -> None:
    """One tile of scale · [φ′(v) (s gm + dz / S) − (dbias + x̂ dweight) / count]."""
    pair, channel, exists, offset, inside = _located(
        contiguous, strided, samples, blocks, pieces, last, align, rows, lanes
    )
    du = tl.load(gm_map + offset, mask=inside, other=0.0).to(tl.float32)
    du = over_tile(tl.load(gate + pair, mask=exists, other=0.0), last) * du
    du += over_tile(tl.load(dz + pair, mask=exists, other=0.0) * share, last)
    factor, centre, level = norm_of(scale, mean, shift, channel, exists, last)
    if u_map is not None:
        u = tl.load(u_map + offset, mask=inside, other=0.0).to(tl.float32)
        v, centred = normalised(u, factor, centre, level, scale is not None)
        if inner != "identity":
            du = derivative(v, inner) * du
        if inverse is not None:
            level_share = tl.load(dbias + channel, mask=exists, other=0.0) * batch_share
            slope_share = tl.load(dweight + channel, mask=exists, other=0.0) * batch_share
            slope_share *= tl.load(inverse + channel, mask=exists, other=0.0)
            du = du - over_tile(level_share, last) - over_tile(slope_share, last) * centred
    if scale is not None:
        du = factor * du
    tl.store(du_map + offset, du.to(du_map.dtype.element_ty), mask=inside)

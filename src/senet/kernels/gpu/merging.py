"""Merging what several programs found of the same channels."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from senet.kernels.gpu.configurations import ceiling
from senet.kernels.gpu.launching import jit, launch

# How many parts and how many channels a program takes at once.
PARTS, CHANNELS = 32, 32


def merged_moments(means: Tensor, spreads: Tensor, positions: int, size: int) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation over all parts, (N, C).

    Args:
        means: (parts, N, C), of each part.
        spreads: (parts, N, C), likewise.
        positions: how many the parts have together.
        size: how many a part has, but for the last.
    """
    if len(means) == 1:
        return means[0], spreads[0]
    mean, spread = torch.empty_like(means[0]), torch.empty_like(means[0])
    pairs = mean.numel()
    launch(
        merge_moments_kernel, ceiling(pairs, CHANNELS), mean, spread, means, spreads, pairs, positions,
        len(means), size, rows=PARTS, lanes=CHANNELS,
    )  # fmt: skip
    return mean, spread


def merged_sums(partial: Tensor) -> Tensor:
    """(sums, N, C): the sum over parts, of (parts, sums, N, C)."""
    if len(partial) == 1:
        return partial[0]
    merged = torch.empty_like(partial[0])
    numbers = merged.numel()
    launch(
        merge_sums_kernel, ceiling(numbers, CHANNELS), merged, partial, numbers, len(partial),
        rows=PARTS, lanes=CHANNELS,
    )  # fmt: skip
    return merged


@jit
def merge_moments_kernel(
    merged_mean: tl.tensor,
    merged_spread: tl.tensor,
    means: tl.tensor,
    spreads: tl.tensor,
    pairs: tl.tensor,
    positions: tl.tensor,
    parts: tl.tensor,
    size: tl.tensor,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """From the moments of parts to those of the whole, by Chan's formula for many."""
    pair = tl.program_id(0).to(tl.int64) * lanes + tl.arange(0, lanes)
    exists = pair < pairs
    wide = tl.cast(pairs, tl.int64)
    # Summed from the first part's mean: it is near the others, so that their differences are exact.
    origin = tl.load(means + pair, mask=exists, other=0.0)
    moved = tl.zeros((rows, lanes), tl.float32)
    for first in range(0, parts, rows):
        part = first + tl.arange(0, rows)
        inside = (part < parts)[:, None] & exists[None, :]
        number = tl.minimum(positions - part.to(tl.int64) * size, size).to(tl.float32)
        at = part[:, None] * wide + pair[None, :]
        apart = tl.load(means + at, mask=inside, other=0.0) - origin[None, :]
        moved += tl.where(inside, apart * number[:, None], 0.0)
    mean = origin + tl.sum(moved, 0) / positions
    spread = tl.zeros((rows, lanes), tl.float32)
    for first in range(0, parts, rows):
        part = first + tl.arange(0, rows)
        inside = (part < parts)[:, None] & exists[None, :]
        number = tl.minimum(positions - part.to(tl.int64) * size, size).to(tl.float32)
        at = part[:, None] * wide + pair[None, :]
        apart = tl.load(means + at, mask=inside, other=0.0) - mean[None, :]
        own = tl.load(spreads + at, mask=inside, other=0.0)
        spread += tl.where(inside, (own + apart * apart) * number[:, None], 0.0)
    tl.store(merged_mean + pair, mean, mask=exists)
    tl.store(merged_spread + pair, tl.sum(spread, 0) / positions, mask=exists)


@jit
def merge_sums_kernel(
    merged: tl.tensor,
    partial: tl.tensor,
    numbers: tl.tensor,
    parts: tl.tensor,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """The sum over parts, of each number for itself."""
    number = tl.program_id(0).to(tl.int64) * lanes + tl.arange(0, lanes)
    exists = number < numbers
    total = tl.zeros((rows, lanes), tl.float32)
    for first in range(0, parts, rows):
        part = first + tl.arange(0, rows)[:, None]
        inside = (part < parts) & exists[None, :]
        at = partial + part * tl.cast(numbers, tl.int64) + number[None, :]
        total += tl.load(at, mask=inside, other=0.0)
    tl.store(merged + number, tl.sum(total, 0), mask=exists)

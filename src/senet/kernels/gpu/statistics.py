"""From the moments of samples to the norm of the batch: ``statistics``, in one kernel."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from senet.kernels.gpu.configurations import ceiling, power_of_two
from senet.kernels.gpu.launching import jit, launch

# Few channels a program, so that many programs share the reading.
CHANNELS = 16


def statistics(
    mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, positions: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``composite.statistics``."""
    samples, channels = mean.shape
    count = samples * positions
    mu, unbiased, inverse, scale = (mean.new_empty(channels) for _ in range(4))
    z = torch.empty_like(mean)
    launch(
        statistics_kernel, ceiling(channels, CHANNELS), mu, unbiased, inverse, scale, z, mean, variance,
        weight.contiguous(), bias.contiguous(), samples, channels, eps, count / (count - 1),
        rows=power_of_two(samples, 16, 256), lanes=CHANNELS,
    )  # fmt: skip
    return mu, unbiased, inverse, scale, z


@jit
def statistics_kernel(
    of_mean: tl.tensor,
    of_variance: tl.tensor,
    of_inverse: tl.tensor,
    of_scale: tl.tensor,
    z: tl.tensor,
    mean: tl.tensor,
    variance: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    samples: tl.tensor,
    channels: tl.tensor,
    eps: tl.tensor,
    unbiasing: tl.tensor,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Mean, unbiased variance, inverse and scale of some channels; and z, a sample at a time."""
    channel = tl.program_id(0) * lanes + tl.arange(0, lanes)
    exists = channel < channels
    # Summed from the first sample's mean: it is near the others, so that their differences are exact.
    origin = tl.load(mean + channel, mask=exists, other=0.0)
    moved = tl.zeros((rows, lanes), tl.float32)
    within = tl.zeros((rows, lanes), tl.float32)
    for first in range(0, samples, rows):
        sample = first + tl.arange(0, rows)[:, None]
        inside = (sample < samples) & exists[None, :]
        at = sample.to(tl.int64) * channels + channel[None, :]
        moved += tl.where(inside, tl.load(mean + at, mask=inside, other=0.0) - origin[None, :], 0.0)
        within += tl.load(variance + at, mask=inside, other=0.0)
    mu = origin + tl.sum(moved, 0) / samples
    between = tl.zeros((rows, lanes), tl.float32)
    for first in range(0, samples, rows):
        sample = first + tl.arange(0, rows)[:, None]
        inside = (sample < samples) & exists[None, :]
        at = sample.to(tl.int64) * channels + channel[None, :]
        apart = tl.where(inside, tl.load(mean + at, mask=inside, other=0.0) - mu[None, :], 0.0)
        between += apart * apart
    biased = tl.sum(within, 0) / samples + tl.sum(between, 0) / samples
    inverse = 1.0 / tl.sqrt_rn(biased + eps)
    scale = tl.load(weight + channel, mask=exists, other=0.0) * inverse
    shift = tl.load(bias + channel, mask=exists, other=0.0)
    tl.store(of_mean + channel, mu, mask=exists)
    tl.store(of_variance + channel, biased * unbiasing, mask=exists)
    tl.store(of_inverse + channel, inverse, mask=exists)
    tl.store(of_scale + channel, scale, mask=exists)
    for first in range(0, samples, rows):
        sample = first + tl.arange(0, rows)[:, None]
        inside = (sample < samples) & exists[None, :]
        at = sample.to(tl.int64) * channels + channel[None, :]
        apart = tl.load(mean + at, mask=inside, other=0.0) - mu[None, :]
        tl.store(z + at, scale[None, :] * apart + shift[None, :], mask=inside)

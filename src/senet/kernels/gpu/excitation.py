"""Equation 3 in two kernels: ``excitation``.

The first takes W1 z, divided over channels where there are many; the second adds the parts up, and
takes the bias, the activation, W2 and the gate. Products are float32 throughout.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from senet.kernels import composite
from senet.kernels.gpu.arithmetic import activation, gate_of
from senet.kernels.gpu.configurations import MAX_HIDDEN, STEP, ceiling, power_of_two, shared_sum
from senet.kernels.gpu.launching import jit, launch

# Samples, hidden numbers and channels that a program gives.
SAMPLES, HIDDEN, CHANNELS = 16, 16, 32


def excitation(
    z: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    hidden: str,
    gate: str,
    one_at_zero: bool,
) -> tuple[Tensor, Tensor]:
    """``composite.excitation``, and that itself where the hidden width is above ``MAX_HIDDEN``.

    Matrices that large are cuBLAS's.
    """
    width, channels = w1.shape
    if width > MAX_HIDDEN:
        return composite.excitation(z, w1, b1, w2, b2, hidden, gate, one_at_zero)
    z, w1, w2 = z.contiguous(), w1.contiguous(), w2.contiguous()
    samples = len(z)
    shares = shared_sum(channels)
    partial = z.new_empty(shares.parts, samples, width)
    entering, s = z.new_empty(samples, width), torch.empty_like(z)
    rows = ceiling(samples, SAMPLES)
    launch(
        squeezed_kernel, rows * ceiling(width, HIDDEN) * shares.parts, partial, z, w1, samples, channels,
        width, ceiling(width, HIDDEN), shares.parts, shares.size, rows=SAMPLES, lanes=HIDDEN, step=STEP,
    )  # fmt: skip
    launch(
        excited_kernel, rows * ceiling(channels, CHANNELS), entering, s, partial, b1, w2, b2, samples,
        channels, width, ceiling(channels, CHANNELS), shares.parts, rows=SAMPLES, lanes=CHANNELS,
        step=HIDDEN, padded_parts=power_of_two(shares.parts, 1, 4), hidden=hidden, gate=gate,
        one_at_zero=one_at_zero,
    )  # fmt: skip
    return entering, s


@jit
def squeezed_kernel(
    partial: tl.tensor,
    z: tl.tensor,
    w1: tl.tensor,
    samples: tl.tensor,
    channels: tl.tensor,
    width: tl.tensor,
    blocks: tl.tensor,
    parts: tl.tensor,
    size: tl.tensor,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """W1 z over one part of the channels, of some samples and hidden numbers."""
    part = tl.program_id(0) % parts
    block = tl.program_id(0) // parts % blocks
    sample = (tl.program_id(0) // parts // blocks * rows + tl.arange(0, rows)).to(tl.int64)[:, None]
    unit = (block * lanes + tl.arange(0, lanes))[:, None]
    stop = tl.minimum((part + 1) * size, channels)
    total = tl.zeros((rows, lanes), tl.float32)
    for first in range(part * size, stop, step):
        channel = (first + tl.arange(0, step))[None, :]
        here = (sample < samples) & (channel < stop)
        of_z = tl.load(z + sample * channels + channel, mask=here, other=0.0)
        of_w1 = tl.load(w1 + unit * channels + channel, mask=(unit < width) & (channel < stop), other=0.0)
        total = tl.dot(of_z, tl.trans(of_w1), total, input_precision="ieee")
    column = (block * lanes + tl.arange(0, lanes))[None, :]
    at = partial + (tl.cast(part, tl.int64) * samples + sample) * width + column
    tl.store(at, total, mask=(sample < samples) & (column < width))


@jit
def excited_kernel(
    entering: tl.tensor,
    s: tl.tensor,
    partial: tl.tensor,
    b1: tl.tensor,
    w2: tl.tensor,
    b2: tl.tensor,
    samples: tl.tensor,
    channels: tl.tensor,
    width: tl.tensor,
    blocks: tl.tensor,
    parts: tl.tensor,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    step: tl.constexpr,
    padded_parts: tl.constexpr,
    hidden: tl.constexpr,
    gate: tl.constexpr,
    one_at_zero: tl.constexpr,
) -> None:
    """The gates of some samples and channels; and what enters the hidden activation, once."""
    block = tl.program_id(0) % blocks
    sample = (tl.program_id(0) // blocks * rows + tl.arange(0, rows)).to(tl.int64)[:, None]
    channel = (block * lanes + tl.arange(0, lanes))[None, :]
    row = (block * lanes + tl.arange(0, lanes))[:, None]
    total = tl.zeros((rows, lanes), tl.float32)
    for first in range(0, width, step):
        unit = (first + tl.arange(0, step))[None, :]
        inside = (sample < samples) & (unit < width)
        part = tl.arange(0, padded_parts)[:, None, None]
        at = (part.to(tl.int64) * samples + sample[None, :, :]) * width + unit[None, :, :]
        t = tl.sum(tl.load(partial + at, mask=(part < parts) & inside[None, :, :], other=0.0), 0)
        if b1 is not None:
            t += tl.load(b1 + unit, mask=unit < width, other=0.0)
        if block == 0:
            tl.store(entering + sample * width + unit, t, mask=inside)
        of_w2 = tl.load(w2 + row * width + unit, mask=(row < channels) & (unit < width), other=0.0)
        total = tl.dot(activation(t, hidden), tl.trans(of_w2), total, input_precision="ieee")
    if b2 is not None:
        total += tl.load(b2 + channel, mask=channel < channels, other=0.0)
    here = (sample < samples) & (channel < channels)
    tl.store(s + sample * channels + channel, gate_of(total, gate, one_at_zero), mask=here)

"""Everything between the two sweeps of the backward in two kernels: ``gate_gradients``.

The first takes dy, the gradient before the gate, and its product with W2, divided over channels
where there are many. The second has programs of two kinds: those that give dz and what is summed of
it over samples, and those that give a block of the two weights' gradients.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from senet.kernels import composite
from senet.kernels.gpu.arithmetic import activation, derivative, gate_derivative
from senet.kernels.gpu.configurations import MAX_HIDDEN, ceiling, power_of_two, shared_sum
from senet.kernels.gpu.launching import jit, launch

# The first kernel: samples and channels at once; it has all hidden numbers.
SAMPLES, STEP = 16, 16
# The second: samples, channels and hidden numbers at once.
BATCH, CHANNELS, HIDDEN = 32, 16, 16


def gate_gradients(
    sums: Tensor,
    ds: Tensor | None,
    s: Tensor,
    keep: Tensor | None,
    entering: Tensor,
    z: Tensor,
    w1: Tensor,
    w2: Tensor,
    sample_mean: Tensor | None,
    mean: Tensor | None,
    inverse: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    positions: int,
    inner: str,
    hidden: str,
    gate: str,
    one_at_zero: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``composite.gate_gradients``, and that itself where the hidden width is above ``MAX_HIDDEN``.

    Matrices that large are cuBLAS's.
    """
    width, channels = w1.shape
    if width > MAX_HIDDEN:
        return composite.gate_gradients(
            sums, ds, s, keep, entering, z, w1, w2, sample_mean, mean, inverse, scale, shift, positions,
            inner, hidden, gate, one_at_zero,
        )  # fmt: skip
    samples = len(s)
    normed = inverse is not None
    ds = None if ds is None else ds.contiguous()
    w1, w2 = w1.contiguous(), w2.contiguous()
    shares = shared_sum(channels)
    dy = torch.empty_like(s)
    partial = s.new_empty(shares.parts, samples, width)
    launch(
        before_gate_kernel, ceiling(samples, SAMPLES) * shares.parts, dy, partial, sums, ds, s, keep, scale,
        shift, w2, samples, channels, width, shares.parts, shares.size, rows=SAMPLES,
        lanes=power_of_two(width, 16, MAX_HIDDEN), step=STEP, inner=inner, gate=gate, one_at_zero=one_at_zero,
    )  # fmt: skip

    dz, dw1, dw2 = torch.empty_like(z), torch.empty_like(w1), torch.empty_like(w2)
    db1, db2 = s.new_empty(width), s.new_empty(channels)
    dweight, dbias = (s.new_empty(channels if normed else 0) for _ in range(2))
    blocks = ceiling(channels, CHANNELS)
    launch(
        parameters_kernel, blocks * (1 + ceiling(width, HIDDEN)), dz, dw1, db1, dw2, db2,
        *((dweight, dbias) if normed else (None, None)), partial, dy, sums, s, keep, entering, z, w1,
        sample_mean, mean, inverse, samples, channels, width, blocks, shares.parts, 1 / positions,
        batch=BATCH, lanes=CHANNELS, units=HIDDEN, padded_parts=power_of_two(shares.parts, 1, 4), inner=inner,
        hidden=hidden,
    )  # fmt: skip
    return dz, dw1, db1, dw2, db2, dweight, dbias


@jit
def before_gate_kernel(
    dy: tl.tensor,
    partial: tl.tensor,
    sums: tl.tensor,
    ds: tl.tensor,
    s: tl.tensor,
    keep: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    w2: tl.tensor,
    samples: tl.tensor,
    channels: tl.tensor,
    width: tl.tensor,
    parts: tl.tensor,
    size: tl.tensor,
    rows: tl.constexpr,
    lanes: tl.constexpr,
    step: tl.constexpr,
    inner: tl.constexpr,
    gate: tl.constexpr,
    one_at_zero: tl.constexpr,
) -> None:
    """The gradient dy of some samples over one part of the channels, and that part of its product with W2."""
    part = tl.program_id(0) % parts
    sample = (tl.program_id(0) // parts * rows + tl.arange(0, rows)).to(tl.int64)[:, None]
    unit = tl.arange(0, lanes)[None, :]
    stop = tl.minimum((part + 1) * size, channels)
    count = tl.cast(samples, tl.int64) * channels
    total = tl.zeros((rows, lanes), tl.float32)
    for first in range(part * size, stop, step):
        channel = (first + tl.arange(0, step))[None, :]
        here = (sample < samples) & (channel < stop)
        at = sample * channels + channel
        if inner != "identity":
            dk = tl.load(sums + at, mask=here, other=0.0)
        else:
            dk = tl.load(sums + count + at, mask=here, other=0.0)
            if scale is not None:
                factor = tl.load(scale + channel, mask=channel < stop, other=0.0)
                level = tl.load(shift + channel, mask=channel < stop, other=0.0)
                dk = factor * dk + level * tl.load(sums + at, mask=here, other=0.0)
        if keep is not None:
            dk *= tl.load(keep + sample, mask=sample < samples, other=0.0)
        if ds is not None:
            dk += tl.load(ds + at, mask=here, other=0.0)
        slope = gate_derivative(tl.load(s + at, mask=here, other=0.0), gate, one_at_zero)
        # Where nothing is, dk is 0, and the slope a number.
        own = dk * slope
        tl.store(dy + at, own, mask=here)
        row = (first + tl.arange(0, step))[:, None]
        of_w2 = tl.load(w2 + row * width + unit, mask=(row < stop) & (unit < width), other=0.0)
        total = tl.dot(own, of_w2, total, input_precision="ieee")
    at = partial + (tl.cast(part, tl.int64) * samples + sample) * width + unit
    tl.store(at, total, mask=(sample < samples) & (unit < width))


@jit
def _dt(
    partial: tl.tensor,
    entering: tl.tensor,
    sample: tl.tensor,
    unit: tl.tensor,
    inside: tl.tensor,
    samples: tl.tensor,
    width: tl.tensor,
    parts: tl.tensor,
    padded_parts: tl.constexpr,
    hidden: tl.constexpr,
) -> tl.tensor:
    """The gradient of what entered the hidden activation, and that number itself."""
    part = tl.arange(0, padded_parts)[:, None, None]
    at = (part.to(tl.int64) * samples + sample[None, :, :]) * width + unit[None, :, :]
    after = tl.sum(tl.load(partial + at, mask=(part < parts) & inside[None, :, :], other=0.0), 0)
    t = tl.load(entering + sample * width + unit, mask=inside, other=0.0)
    return after * derivative(t, hidden), t


@jit
def parameters_kernel(
    dz: tl.tensor,
    dw1: tl.tensor,
    db1: tl.tensor,
    dw2: tl.tensor,
    db2: tl.tensor,
    dweight: tl.tensor,
    dbias: tl.tensor,
    partial: tl.tensor,
    dy: tl.tensor,
    sums: tl.tensor,
    s: tl.tensor,
    keep: tl.tensor,
    entering: tl.tensor,
    z: tl.tensor,
    w1: tl.tensor,
    sample_mean: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    samples: tl.tensor,
    channels: tl.tensor,
    width: tl.tensor,
    blocks: tl.tensor,
    parts: tl.tensor,
    share: tl.tensor,
    batch: tl.constexpr,
    lanes: tl.constexpr,
    units: tl.constexpr,
    padded_parts: tl.constexpr,
    inner: tl.constexpr,
    hidden: tl.constexpr,
) -> None:
    """The gradient dz and the sums over samples of some channels; or a block of the weights' gradients."""
    block = tl.program_id(0) % blocks
    role = tl.program_id(0) // blocks
    channel = (block * lanes + tl.arange(0, lanes))[None, :]
    exists = channel < channels
    count = tl.cast(samples, tl.int64) * channels
    if role == 0:
        of_gate = tl.zeros((batch, lanes), tl.float32)
        of_weight = tl.zeros((batch, lanes), tl.float32)
        of_bias = tl.zeros((batch, lanes), tl.float32)
        for first in range(0, samples, batch):
            sample = (first + tl.arange(0, batch)).to(tl.int64)[:, None]
            here = (sample < samples) & exists
            at = sample * channels + channel
            own = tl.zeros((batch, lanes), tl.float32)
            for start in range(0, width, units):
                unit = (start + tl.arange(0, units))[None, :]
                inside = (sample < samples) & (unit < width)
                dt, _ = _dt(
                    partial, entering, sample, unit, inside, samples, width, parts, padded_parts, hidden
                )
                row = (start + tl.arange(0, units))[:, None]
                of_w1 = tl.load(w1 + row * channels + channel, mask=(row < width) & exists, other=0.0)
                own = tl.dot(dt, of_w1, own, input_precision="ieee")
            tl.store(dz + at, own, mask=here)
            of_gate += tl.load(dy + at, mask=here, other=0.0)
            if dweight is not None:
                gates = tl.load(s + at, mask=here, other=0.0)
                if keep is not None:
                    gates *= tl.load(keep + sample, mask=sample < samples, other=0.0)
                if inner == "identity":
                    apart = tl.load(sample_mean + at, mask=here, other=0.0)
                    apart = tl.where(here, apart - tl.load(mean + channel, mask=exists, other=0.0), 0.0)
                    of_bias += gates * tl.load(sums + at, mask=here, other=0.0) + own
                    of_weight += gates * tl.load(sums + count + at, mask=here, other=0.0) + own * apart
                else:
                    slope = tl.load(sums + 3 * count + at, mask=here, other=0.0) * share
                    apart = tl.load(sums + 4 * count + at, mask=here, other=0.0) * share
                    of_bias += gates * tl.load(sums + count + at, mask=here, other=0.0) + own * slope
                    of_weight += gates * tl.load(sums + 2 * count + at, mask=here, other=0.0) + own * apart
        lane = block * lanes + tl.arange(0, lanes)
        tl.store(db2 + lane, tl.sum(of_gate, 0), mask=lane < channels)
        if dweight is not None:
            spread = tl.load(inverse + lane, mask=lane < channels, other=0.0)
            tl.store(dweight + lane, spread * tl.sum(of_weight, 0), mask=lane < channels)
            tl.store(dbias + lane, tl.sum(of_bias, 0), mask=lane < channels)
    else:
        unit = ((role - 1) * units + tl.arange(0, units))[None, :]
        of_w1 = tl.zeros((units, lanes), tl.float32)
        of_w2 = tl.zeros((lanes, units), tl.float32)
        of_b1 = tl.zeros((batch, units), tl.float32)
        for first in range(0, samples, batch):
            sample = (first + tl.arange(0, batch)).to(tl.int64)[:, None]
            here = (sample < samples) & exists
            inside = (sample < samples) & (unit < width)
            dt, t = _dt(partial, entering, sample, unit, inside, samples, width, parts, padded_parts, hidden)
            of_z = tl.load(z + sample * channels + channel, mask=here, other=0.0)
            of_y = tl.load(dy + sample * channels + channel, mask=here, other=0.0)
            of_w1 = tl.dot(tl.trans(dt), of_z, of_w1, input_precision="ieee")
            of_w2 = tl.dot(tl.trans(of_y), activation(t, hidden), of_w2, input_precision="ieee")
            of_b1 += dt
        row = ((role - 1) * units + tl.arange(0, units))[:, None]
        tl.store(dw1 + row * channels + channel, of_w1, mask=(row < width) & exists)
        of_channel = (block * lanes + tl.arange(0, lanes))[:, None]
        tl.store(dw2 + of_channel * width + unit, of_w2, mask=(of_channel < channels) & (unit < width))
        if block == 0:
            column = (role - 1) * units + tl.arange(0, units)
            tl.store(db1 + column, tl.sum(of_b1, 0), mask=column < width)

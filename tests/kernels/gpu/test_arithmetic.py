from typing import Any

import pytest
import torch
import triton.language as tl
from tests.kernels.gpu.cases import DEVICE, HIDDEN, same_kind
from torch import Tensor

from senet.kernels.activations import ACTIVATIONS, GATE_DERIVATIVES, ONE_AT_ZERO_DERIVATIVES
from senet.kernels.gpu import arithmetic
from senet.kernels.gpu.arithmetic import channels_of, extents, map_offsets, places
from senet.kernels.gpu.launching import jit, launch
from senet.kernels.reference import GATES, ONE_AT_ZERO


@jit
def _function_kernel(
    result: tl.tensor, numbers: tl.tensor, what: tl.constexpr, kind: tl.constexpr, one_at_zero: tl.constexpr
) -> None:
    at = tl.program_id(0) * 64 + tl.arange(0, 64)
    v = tl.load(numbers + at)
    if what == "activation":
        found = arithmetic.activation(v, kind)
    elif what == "derivative":
        found = arithmetic.derivative(v, kind)
    elif what == "gate":
        found = arithmetic.gate_of(v, kind, one_at_zero)
    else:
        found = arithmetic.gate_derivative(v, kind, one_at_zero)
    tl.store(result + at, found)


def _check_function(true: Any, numbers: Tensor, what: str, kind: str, one_at_zero: bool = False) -> None:
    padded = torch.cat([numbers, numbers.new_zeros(-len(numbers) % 64)])
    result = torch.empty_like(padded)
    launch(_function_kernel, len(padded) // 64, result, padded, what=what, kind=kind, one_at_zero=one_at_zero)
    wide = true(padded.double())
    assert same_kind(result, wide)
    finite = wide.isfinite()
    # Where v + 3 cancels, as it does in eager PyTorch, no more than its rounding is left.
    least = 2e-8 if kind.startswith("hard") else 1e-12
    torch.testing.assert_close(result.double()[finite], wide[finite], rtol=1e-6, atol=least)


# Edges of every piece, both sides of them, and what is not finite.
EDGES = [
    0.0,
    -0.0,
    0.74,
    0.76,
    1,
    -1,
    2.999,
    3,
    3.001,
    6,
    -2.999,
    -3,
    -3.001,
    40,
    -40,
    80,
    -80,
    1e-4,
    -0.0017,
    0.03,
]
NUMBERS = torch.tensor([*EDGES, torch.nan, torch.inf, -torch.inf, *torch.linspace(-8, 8, 60).tolist()])
NUMBERS = NUMBERS.to(DEVICE)


@pytest.mark.parametrize("kind", [*HIDDEN, "identity"])
def test_activations_are_the_composites(kind: str) -> None:
    _check_function(ACTIVATIONS[kind].forward, NUMBERS, "activation", kind)
    if kind != "identity":
        _check_function(ACTIVATIONS[kind].derivative, NUMBERS, "derivative", kind)
    assert kind in ACTIVATIONS


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("one_at_zero", [False, True])
def test_gates_are_the_references(kind: str, one_at_zero: bool) -> None:
    gates = ONE_AT_ZERO if one_at_zero else GATES
    derivatives = ONE_AT_ZERO_DERIVATIVES if one_at_zero else GATE_DERIVATIVES
    # Near −1 what is 1 at 0 cancels, in eager PyTorch as well.
    near = NUMBERS[(NUMBERS.abs() < 6) | ~NUMBERS.isfinite()] if kind == "hardsigmoid" else NUMBERS
    if one_at_zero:
        near = near[~(near < -0.9) | near.isinf()]
    _check_function(gates[kind], near, "gate", kind, one_at_zero)
    given = NUMBERS[NUMBERS.abs() < 3] if kind == "sigmoid" else NUMBERS
    _check_function(derivatives[kind], given, "slope", kind, one_at_zero)
    assert kind in GATES


@jit
def _address_kernel(
    result: tl.tensor,
    group: tl.tensor,
    piece: tl.tensor,
    contiguous: tl.tensor,
    strided: tl.tensor,
    samples: tl.tensor,
    blocks: tl.tensor,
    last: tl.constexpr,
    align: tl.constexpr,
    rows: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    channels, positions = extents(contiguous, strided, last, align)
    line, pair, channel, exists = channels_of(
        tl.program_id(0) + group, blocks, samples, channels, last, lanes if last else rows
    )
    place = places(tl.cast(piece, tl.int64) * (rows if last else lanes), last, rows, lanes)
    offset = map_offsets(line, channel, place, channels, positions, last)
    at = tl.arange(0, rows)[:, None] * lanes + tl.arange(0, lanes)[None, :]
    tl.store(result + at, offset)
    kept = tl.arange(0, lanes if last else rows)
    tl.store(result + rows * lanes + kept, pair)
    tl.store(result + rows * lanes + 64 + kept, channel)
    tl.store(result + rows * lanes + 128 + kept, exists.to(tl.int64))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("samples", "channels", "positions"),
    [(3, 8 * 11, 8 * 9), (70_000, 512, 56 * 56), (1, 8, 2**31 + 8), (2**20, 2**12, 8)],
)
def test_addresses_are_right_beyond_two_to_the_31(
    samples: int, channels: int, positions: int, last: bool
) -> None:
    rows, lanes = 8, 16
    kept, covered = (lanes, rows) if last else (rows, lanes)
    blocks = -(-channels // kept) if last else 1
    groups = samples * blocks if last else -(-samples * channels // kept)
    group, piece = groups - 1, -(-positions // covered) - 1
    result = torch.full((rows * lanes + 192,), -1, dtype=torch.int64, device=DEVICE)
    contiguous, strided = (channels, positions) if last else (positions, channels)
    launch(
        _address_kernel, 1, result, group, piece, contiguous // 8, strided, samples, blocks,
        last=last, align=8, rows=rows, lanes=lanes,
    )  # fmt: skip
    offsets = result[: rows * lanes].reshape(rows, lanes).tolist()
    pairs, which, exist = (result[rows * lanes + 64 * i :][:kept].tolist() for i in range(3))
    checked = 0
    for i in range(kept):
        channel = (group % blocks) * kept + i if last else (group * kept + i) % channels
        sample = group // blocks if last else (group * kept + i) // channels
        there = channel < channels and sample < samples
        assert exist[i] == there
        if not there:
            continue
        assert (pairs[i], which[i]) == (sample * channels + channel, channel)
        for j in range(covered):
            place = piece * covered + j
            found = offsets[j][i] if last else offsets[i][j]
            stride = (sample * positions + place) * channels + channel
            assert found == (stride if last else (sample * channels + channel) * positions + place)
            checked += place < positions
    assert checked > 0

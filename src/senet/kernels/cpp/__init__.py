"""The steps of the fused tail over maps in C++, for the CPU; ``composite`` says what they compute.

Maps may be float32, float64, bfloat16 or float16, each its own; they are dense, contiguous or
channels-last. Results are the same bits whatever the number of threads.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from senet.kernels import composite
from senet.kernels.cpp import build
from senet.kernels.layout import is_channels_last
from senet.kernels.reference import accumulation_dtype

# As in maps.hpp, steps.hpp and gates.hpp.
_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_ACTIVATIONS = {"identity": 0, "relu": 1, "silu": 2, "hardswish": 3}
_GATES = {"sigmoid": 0, "tanh": 1, "relu": 2, "hardsigmoid": 3}
# N · C · hidden up to which one thread's plain loops beat calls of a dozen operators.
_SMALL = 1 << 16

# p: an address, t: a type or another choice, n: a count, b: yes or no, d: a number. "nnnbnb" is the
# shape of the maps, whether they are channels-last, the threads, and whether to accumulate in double.
_SIGNATURES = {
    "moments": "pt nnnbnb pp",
    "pool": "pt nnnbnb ppp tp",
    "apply": "pt pt pt nnnbnb ppp p tb",
    "reduce": "pt pt pt pt p nnnbnb ppp tp",
    "input_gradient": "pt pt p nnnbnb ppp pp ppp nt",
    "statistics": "bnn pppp dd ppppp",
    "excitation": "bnnnttb ppppp pp",
    "gate_gradients": "bnnnttb p nb p",
}
_ARGUMENTS: dict[str, Any] = {
    "d": ctypes.c_double,
    "p": ctypes.c_void_p,
    "t": ctypes.c_int,
    "n": ctypes.c_int64,
    "b": ctypes.c_bool,
}


def moments(u: Tensor) -> tuple[Tensor, Tensor]:
    """As ``composite.moments``."""
    dtype = accumulation_dtype(u.dtype)
    mean = u.new_empty(u.shape[:2], dtype=dtype)
    variance = u.new_empty(u.shape[:2], dtype=dtype)
    _run("moments", *_map(u), *_shape(u, dtype), mean.data_ptr(), variance.data_ptr())
    return mean, variance


def pool(u: Tensor, scale: Tensor | None, mean: Tensor | None, shift: Tensor | None, inner: str) -> Tensor:
    """As ``composite.pool``."""
    dtype = accumulation_dtype(u.dtype)
    z = u.new_empty(u.shape[:2], dtype=dtype)
    norm = _dense(dtype, scale, mean, shift)
    _run("pool", *_map(u), *_shape(u, dtype), *_places(norm), _ACTIVATIONS[inner], z.data_ptr())
    return z


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
    """As ``composite.apply``."""
    kind = u.dtype if residual is None else torch.promote_types(u.dtype, residual.dtype)
    dtype = accumulation_dtype(kind)
    out = torch.empty_like(u, dtype=kind)
    factors = _dense(dtype, scale, mean, shift, gate)
    _run(
        "apply", *_map(u), *_map(residual), *_map(out), *_shape(u, dtype),
        *_places(factors), _ACTIVATIONS[inner], outer == "relu",
    )  # fmt: skip
    return out


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
    """As ``composite.reduce``."""
    dtype = accumulation_dtype(u.dtype)
    # In the widest of the maps: g comes out as it came in.
    wide = _widest(dtype, *(each for each in (g, out, second) if each is not None))
    masked = g.new_empty(0) if out is None and second is None else torch.empty_like(g)
    sums = u.new_empty(2 if inner == "identity" else 5, *u.shape[:2], dtype=wide)
    norm = _dense(wide, scale, mean, shift)
    _run(
        "reduce", *_map(g), *_map(second), *_map(out), *_map(u), masked.data_ptr(), *_shape(u, wide),
        *_places(norm), _ACTIVATIONS[inner], sums.data_ptr(),
    )  # fmt: skip
    return masked, sums.to(dtype)


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
    """As ``composite.input_gradient``; u is not read where the result does not depend on it."""
    dtype = torch.promote_types(accumulation_dtype(u.dtype), gm.dtype)
    du = torch.empty_like(u)
    if inverse is None or dweight is None or dbias is None:
        inverse = dweight = dbias = None
    factors = _dense(dtype, scale, mean, shift, gate, dz, inverse, dweight, dbias)
    _run(
        "input_gradient", *_map(gm), *_map(u), du.data_ptr(), *_shape(u, dtype),
        *_places(factors), count, _ACTIVATIONS[inner],
    )  # fmt: skip
    return du


def statistics(
    mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float, positions: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As ``composite.statistics``."""
    n, c = mean.shape
    count = n * positions
    given = _dense(mean.dtype, mean, variance, weight, bias)
    batch_mean, batch_variance, inverse, scale = (mean.new_empty(c) for _ in range(4))
    z = torch.empty_like(mean)
    results = (batch_mean, batch_variance, inverse, scale, z)
    wide = mean.dtype is torch.float64
    _run("statistics", wide, n, c, *_places(given), eps, count / (count - 1), *_places(results))
    return results


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
    """As ``composite.excitation``, which serves where the products are large."""
    if z.numel() * w1.shape[0] > _SMALL:
        return composite.excitation(z, w1, b1, w2, b2, hidden, gate, one_at_zero)
    entering, s = (z.new_empty(z.shape[0], width) for width in w1.shape)
    given = _dense(z.dtype, z, w1, b1, w2, b2)
    chosen = _chosen(z, w1, hidden, gate, one_at_zero)
    _run("excitation", *chosen, *_places(given), entering.data_ptr(), s.data_ptr())
    return entering, s


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
    """As ``composite.gate_gradients``, which serves where the products are large."""
    if z.numel() * w1.shape[0] > _SMALL:
        return composite.gate_gradients(
            sums, ds, s, keep, entering, z, w1, w2, sample_mean, mean, inverse, scale, shift,
            positions, inner, hidden, gate, one_at_zero,
        )  # fmt: skip
    norm = (mean, inverse, scale, shift)
    if mean is None or inverse is None or scale is None or shift is None:
        norm = (None,) * 4
    dtype, (n, c), h = z.dtype, z.shape, w1.shape[0]
    given = _dense(dtype, sums, ds, s, keep, entering, z, w1, w2, sample_mean, *norm)
    channels = 0 if norm[0] is None else c
    shapes = ((n, c), (h, c), (h,), (c, h), (c,), (channels,), (channels,))
    dz, dw1, db1, dw2, db2, dweight, dbias = results = [z.new_empty(shape) for shape in shapes]
    _run(
        "gate_gradients", *_chosen(z, w1, hidden, gate, one_at_zero), _array(given),
        positions, inner != "identity", _array(results),
    )  # fmt: skip
    return dz, dw1, db1, dw2, db2, dweight, dbias


def _map(u: Tensor | None) -> tuple[int | None, int]:
    return (None, 0) if u is None else (u.data_ptr(), _TYPES[u.dtype])


def _shape(u: Tensor, dtype: torch.dtype) -> tuple[int, int, int, bool, int, bool]:
    n, c, *spatial = u.shape
    s = prod(spatial)
    # Of one position, both layouts are the same, and this one has the longer lines; of no channels, none.
    last = (s == 1 and c > 0) or is_channels_last(u)
    return n, c, s, last, torch.get_num_threads(), dtype is torch.float64


def _dense(dtype: torch.dtype, *factors: Tensor | None) -> list[Tensor | None]:
    """The factors as the library reads them: held by who calls until it is done."""
    # Asked first, since each call that does nothing still costs as much as the rest of this line.
    return [
        each
        if each is None or (each.dtype is dtype and each.is_contiguous())
        else each.to(dtype).contiguous()
        for each in factors
    ]


def _places(factors: Sequence[Tensor | None]) -> list[int | None]:
    return [None if each is None else each.data_ptr() for each in factors]


def _array(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*_places(tensors))


def _chosen(
    z: Tensor, w1: Tensor, hidden: str, gate: str, one_at_zero: bool
) -> tuple[bool, int, int, int, int, int, bool]:
    wide = z.dtype is torch.float64
    return wide, *z.shape, w1.shape[0], _ACTIVATIONS[hidden], _GATES[gate], one_at_zero


def _widest(dtype: torch.dtype, *maps: Tensor) -> torch.dtype:
    for each in maps:
        dtype = torch.promote_types(dtype, each.dtype)
    return dtype


@functools.cache
def _functions() -> dict[str, ctypes._NamedFuncPointer]:
    library = build.library()
    found = {}
    for name, signature in _SIGNATURES.items():
        function = library[f"senet_{name}"]
        function.argtypes = [_ARGUMENTS[each] for each in signature.replace(" ", "")]
        function.restype = ctypes.c_bool
        found[name] = function
    return found


def _run(name: str, *arguments: object) -> None:
    if not _functions()[name](*arguments):
        raise MemoryError(f"no memory for senet's step {name!r}")

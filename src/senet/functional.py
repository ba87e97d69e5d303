"""Squeeze, excite and scale as checked functions: equations 2, 3 and 4 of the paper.

Shapes: a map is (N, C, *spatial) with one, two or three spatial sizes, z and s are
(N, C). Any batch size is taken, zero included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from senet.errors import DtypeError, ShapeError, check_choice
from senet.kernels import reference

SQUEEZES = tuple(reference.SQUEEZES)
GATES = tuple(reference.GATES)
ACTIVATIONS = ("relu",)


def squeeze(u: Tensor, mode: str = "avg", mask: Tensor | None = None) -> Tensor:
    """Squeezes each channel of a map to one number (equation 2; max: Table 11).

    Args:
        u: (N, C, *spatial), floating point.
        mode: "avg" (the paper's) or "max".
        mask: (N, *spatial) bool, True where a position counts. A sample without any
            such position is squeezed to 0.

    Returns:
        z (N, C): float32 for half-precision maps, else the dtype of u.

    Raises:
        ShapeError: u is no map, has no positions, or the mask does not fit.
        DtypeError: u is not floating point, or the mask not bool.
        OptionError: the mode is unknown.
    """
    asked = f"squeeze(u, mode={mode!r})"
    check_choice(asked, mode, SQUEEZES)
    check_map(asked, u)
    if mask is not None:
        _check_mask(asked, u, mask)
    return reference.SQUEEZES[mode](u, mask)


def excite(
    z: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    gate: str = "sigmoid",
    one_at_zero: bool = False,
) -> Tensor:
    """The gates of squeezed maps: s = gate(W2 relu(W1 z + b1) + b2) (equation 3).

    Args:
        z: (N, C).
        w1: (hidden, C).
        b1: (hidden,) or None.
        w2: (C, hidden).
        b2: (C,) or None.
        gate: "sigmoid" (the paper's), "tanh", "relu" or "hardsigmoid".
        one_at_zero: take the form of the gate that is exactly 1 at 0: 2σ, 1 + tanh,
            relu(1 + ·), twice the hard sigmoid.

    Returns:
        s (N, C), in the dtype of z: never lowered by autocast.

    Raises:
        OptionError: the gate is unknown.
        ShapeError: the shapes do not belong together.
    """
    check_choice(f"excite(gate={gate!r})", gate, GATES)
    fits = z.ndim == 2 and w1.ndim == 2 and w1.shape[1] == z.shape[1] and w2.shape == w1.shape[::-1]
    for weight, bias in ((w1, b1), (w2, b2)):
        fits = fits and (bias is None or bias.shape == weight.shape[:1])
    if not fits:
        sizes = (None if tensor is None else _sizes(tensor) for tensor in (z, w1, b1, w2, b2))
        raise ShapeError(
            "excite(z, w1, b1, w2, b2)",
            found="the shapes are " + ", ".join(str(size) for size in sizes),
            allowed="(N, C), (hidden, C), (hidden,) or None, (C, hidden), (C,) or None",
        )
    gates = reference.ONE_AT_ZERO if one_at_zero else reference.GATES
    return reference.excite(z, w1, b1, w2, b2, gates[gate])


def scale(u: Tensor, s: Tensor) -> Tensor:
    """Multiplies each channel by its gate (equation 4).

    Args:
        u: (N, C, *spatial).
        s: (N, C), any floating dtype.

    Returns:
        (N, C, *spatial) in the dtype and memory format of u.

    Raises:
        ShapeError: u is no map, or s does not fit it.
    """
    _check_gate("scale(u, s)", u, s)
    return reference.scale(u, s)


def scale_add(u: Tensor, s: Tensor, residual: Tensor, *, activation: str | None = None) -> Tensor:
    """The end of a residual branch, s ⊙ u + residual (the authors' Axpy layer).

    Args:
        u: (N, C, *spatial), the branch.
        s: (N, C), its gates.
        residual: the shape of u, the shortcut.
        activation: None or "relu", applied to the sum.

    Returns:
        (N, C, *spatial), in the dtype of u and residual together.

    Raises:
        ShapeError: the shapes do not belong together.
        OptionError: the activation is unknown.
    """
    if activation is not None:
        check_choice(f"scale_add(activation={activation!r})", activation, ACTIVATIONS)
    _check_gate("scale_add(u, s, residual)", u, s)
    if residual.shape != u.shape:
        raise ShapeError(
            "scale_add(u, s, residual)",
            found=f"u is {_sizes(u)} and residual {_sizes(residual)}",
            allowed="a residual of u's shape",
            do="Project the shortcut to the branch's channels and size first.",
        )
    return reference.scale_add(u, s, residual, relu=activation == "relu")


def check_map(asked: str, u: Tensor, channels: int | None = None) -> None:
    """Raises unless u is (N, C, *spatial), floating point, not empty in space, C as given."""
    if not 3 <= u.ndim <= 5:
        raise ShapeError(
            asked,
            found=f"the map has {u.ndim} dimensions: {_sizes(u)}",
            allowed="(N, C, L), (N, C, H, W) or (N, C, D, H, W)",
            do="Add the batch with .unsqueeze(0)." if u.ndim == 2 else "",
        )
    if channels is not None and u.shape[1] != channels:
        raise ShapeError(
            asked,
            found=f"the map has {u.shape[1]} channels: {_sizes(u)}",
            allowed=f"(N, {channels}, *spatial)",
            do="Build the block for the map's channels, or permute a channels-last tensor.",
        )
    if 0 in u.shape[2:]:
        raise ShapeError(
            asked,
            found=f"the map has no positions: {_sizes(u)}",
            allowed="at least one position per channel (an empty batch is fine)",
        )
    if not u.is_floating_point():
        raise DtypeError(asked, found=f"the map is {u.dtype}", allowed="a floating-point dtype")


def _check_mask(asked: str, u: Tensor, mask: Tensor) -> None:
    wanted = (u.shape[0], *u.shape[2:])
    if tuple(mask.shape) != wanted:
        raise ShapeError(
            asked,
            found=f"the mask is {_sizes(mask)} for a map of {_sizes(u)}",
            allowed=f"(N, *spatial) = {wanted}, one mask for all channels",
        )
    if mask.dtype != torch.bool:
        raise DtypeError(
            asked,
            found=f"the mask is {mask.dtype}",
            allowed="torch.bool, True where a position counts",
            do="Convert it, for example with mask != 0.",
        )


def _check_gate(asked: str, u: Tensor, s: Tensor) -> None:
    check_map(asked, u)
    if s.shape != u.shape[:2]:
        raise ShapeError(
            asked,
            found=f"s is {_sizes(s)} for a map of {_sizes(u)}",
            allowed="one gate per sample and channel, (N, C)",
        )


def _sizes(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))

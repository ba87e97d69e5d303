"""Squeeze, excite and scale as checked functions: equations 2, 3 and 4 of the paper.

Shapes: a map is (N, C, *spatial) with one, two or three spatial sizes, z and s are
(N, C), and maps where nothing is squeezed (Table 16). Any batch size is taken, zero included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from senet.errors import DtypeError, ShapeError, check_choice
from senet.kernels import backends, reference
from senet.kernels.reference import Tail, TailResult, TailTensors

SQUEEZES = tuple(reference.SQUEEZES)
GATES = tuple(reference.GATES)
ACTIVATIONS = ("relu",)


def squeeze(u: Tensor, mode: str = "avg", mask: Tensor | None = None) -> Tensor:
    """Squeezes each channel of a map to one number (equation 2; max: Table 11), or leaves it (Table 16).

    Args:
        u: (N, C, *spatial), floating point.
        mode: "avg" (the paper's), "max" or "none".
        mask: (N, *spatial) bool, True where a position counts. A sample without any
            such position is squeezed to 0; with "none" each position that does not count is 0.

    Returns:
        z (N, C), with "none" (N, C, *spatial): float32 for half-precision maps, else the dtype of u.

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
        z: (N, C), or (N, C, *spatial): the layers are then 1×1 convolutions (Table 16).
        w1: (hidden, C).
        b1: (hidden,) or None.
        w2: (C, hidden).
        b2: (C,) or None.
        gate: "sigmoid" (the paper's), "tanh", "relu" or "hardsigmoid".
        one_at_zero: take the form of the gate that is exactly 1 at 0: 2σ, 1 + tanh,
            relu(1 + ·), twice the hard sigmoid.

    Returns:
        s, in the shape and dtype of z: never lowered by autocast.

    Raises:
        OptionError: the gate is unknown.
        ShapeError: the shapes do not belong together.
    """
    check_choice(f"excite(gate={gate!r})", gate, GATES)
    fits = 2 <= z.ndim <= 5 and w1.ndim == 2 and w1.shape[1] == z.shape[1] and w2.shape == w1.shape[::-1]
    for weight, bias in ((w1, b1), (w2, b2)):
        fits = fits and (bias is None or bias.shape == weight.shape[:1])
    if not fits:
        sizes = (None if tensor is None else _sizes(tensor) for tensor in (z, w1, b1, w2, b2))
        raise ShapeError(
            "excite(z, w1, b1, w2, b2)",
            found="the shapes are " + ", ".join(str(size) for size in sizes),
            allowed="(N, C) or (N, C, *spatial), (hidden, C), (hidden,) or None, (C, hidden), (C,) or None",
        )
    gates = reference.ONE_AT_ZERO if one_at_zero else reference.GATES
    return reference.excite(z, w1, b1, w2, b2, gates[gate])


def scale(u: Tensor, s: Tensor) -> Tensor:
    """Multiplies each channel by its gate (equation 4).

    Args:
        u: (N, C, *spatial).
        s: (N, C), or the shape of u, any floating dtype.

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
        s: (N, C), or the shape of u, its gates.
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


def bn_se_add_act(
    u: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    residual: Tensor | None = None,
    keep: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    gate: str = "sigmoid",
    one_at_zero: bool = False,
    inner: str | None = None,
    hidden: str = "relu",
    activation: str | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The end of a branch as one operation: batch norm, SE, sum and activation.

    With v = φ(batch_norm(u)) and s = ``excite(squeeze(v), w1, b1, w2, b2)``, it is
    activation(keep · s ⊙ v + residual): 4 passes over a map forward and 7 backward, as without SE.

    Args:
        u: (N, C, *spatial).
        running_mean: (C,), updated in training; None for none.
        running_var: (C,), likewise.
        weight: (C,), of the norm; None for 1.
        bias: (C,), of the norm; None for 0.
        w1: (hidden, C).
        b1: (hidden,) or None.
        w2: (C, hidden).
        b2: (C,) or None.
        residual: the shape of u, the shortcut; None for none.
        keep: (N,), what drop-path multiplies a sample's branch with: 0 or 1 / (1 − p).
        training: normalise with the statistics of this batch, as ``F.batch_norm``; else with the
            running ones.
        momentum: of the running statistics.
        eps: of the norm.
        gate: see ``excite``.
        one_at_zero: see ``excite``.
        inner: φ: None, "relu", "silu" or "hardswish".
        hidden: what stands between w1 and w2: "relu", "silu" or "hardswish".
        activation: None or "relu", applied to the sum.
        backend: "auto", "triton", "cpp", "aten" or "reference"; see ``kernels.why``.

    Returns:
        out, in the dtype of u and residual together and the memory format of u, and the gates s
        (N, C). Both are differentiable twice, but for the gate "hardsigmoid": of that PyTorch has no
        second derivative.

    Raises:
        ShapeError: the shapes do not belong together.
        OptionError: an option is unknown.
        BackendError: the backend that was asked for cannot serve this call.
        ValueError: training, and a channel has one number only, as ``F.batch_norm``.
    """
    norm = "batch" if training or running_mean is None else "fixed"
    spec = Tail(norm, inner or "identity", activation or "identity", hidden, gate, one_at_zero, eps)
    fixed = (running_mean, running_var) if norm == "fixed" else (None, None)
    tensors = TailTensors(u, residual, keep, weight, bias, *fixed, w1, b1, w2, b2)
    result = run_tail("bn_se_add_act", spec, tensors, backend)
    if training and running_mean is not None and running_var is not None:
        update_running(running_mean, running_var, result.mean, result.variance, momentum)
    return result.out, result.s


def update_running(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    momentum: float | Tensor,
) -> None:
    """Moves running statistics towards a batch's, in place."""
    if mean is not None and variance is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_(variance.to(running_var.dtype), momentum)


def run_tail(asked: str, spec: Tail, tensors: TailTensors, backend: str = "auto") -> TailResult:
    """A checked tail; see ``kernels.reference.tail`` for what it is and ``bn_se_add_act`` for errors."""
    u = tensors.u
    check_map(asked, u)
    check_choice(f"{asked}(inner={spec.inner!r})", spec.inner, reference.ACTIVATIONS)
    check_choice(f"{asked}(hidden={spec.hidden!r})", spec.hidden, reference.ACTIVATIONS)
    check_choice(f"{asked}(gate={spec.gate!r})", spec.gate, GATES)
    check_choice(f"{asked}(activation={spec.outer!r})", spec.outer, ("identity", *ACTIVATIONS))
    channels, hidden = u.shape[1], tensors.w1.shape[0]
    wanted = {
        "residual": tuple(u.shape),
        "keep": (u.shape[0],),
        **dict.fromkeys(("weight", "bias", "mean", "variance", "b2"), (channels,)),
        "w1": (hidden, channels),
        "b1": (hidden,),
        "w2": (channels, hidden),
    }
    for name, shape in wanted.items():
        tensor: Tensor | None = getattr(tensors, name)
        if tensor is not None and tensor.shape != shape:
            raise ShapeError(
                f"{asked}(u, {name}=...)",
                found=f"{name} is {_sizes(tensor)} for a map of {_sizes(u)}",
                allowed=str(shape),
            )
    return backends.run(spec, tensors, backend)


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
    if s.shape not in (u.shape[:2], u.shape):
        raise ShapeError(
            asked,
            found=f"s is {_sizes(s)} for a map of {_sizes(u)}",
            allowed="one gate per sample and channel, (N, C), or one per number of u",
        )


def _sizes(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))

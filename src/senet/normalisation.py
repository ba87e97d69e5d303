"""A batch norm module, read as numbers: which statistics normalise a call, and what is updated after it.

What PyTorch's own modules do, in steps, so that a fused operation can stand between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.functional import update_running


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device: torch's ``SyncBatchNorm`` refuses the CPU.

    The moments are centred, and exact for batches of different sizes.
    """

    def forward(self, u: Tensor) -> Tensor:
        """(N, C, H, W), normalised by the statistics of all processes in training."""
        how = statistics(self, u)
        if how.group is None:
            return super().forward(u)
        # Like PyTorch's own, in float32 for what is lower.
        x = u if u.dtype == torch.float64 else u.float()
        numbers = torch.tensor(u.numel() // u.shape[1], dtype=torch.float64, device=u.device)
        torch.distributed.all_reduce(numbers, group=how.group)
        mean = _Over.apply(x.sum((0, 2, 3)), how.group) / numbers
        centred = x - mean[:, None, None]
        variance = _Over.apply(centred.square().sum((0, 2, 3)), how.group) / numbers
        update(self, mean.detach(), (variance * (numbers / (numbers - 1))).detach())
        weight, bias, eps = affine(self)
        scale = torch.rsqrt(variance + eps) * (1 if weight is None else weight)
        out = centred * scale[:, None, None]
        given: Tensor = (out if bias is None else out + bias[:, None, None]).to(u.dtype)
        return given


class _Over(torch.autograd.Function):
    """The sum over the processes of a group; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total, group=ctx.group)
        return total, None


def share_statistics(model: nn.Module) -> int:
    """Makes the batch norms of a network share their statistics among the processes; returns how many.

    On a GPU they become torch's ``SyncBatchNorm``. Keys, parameters and buffers stay as they are.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.BatchNorm2d
    ]
    for parent, name, norm in found:
        on_gpu = next(norm.buffers()).is_cuda if any(True for _ in norm.buffers()) else False
        kind = nn.SyncBatchNorm if on_gpu else SharedBatchNorm
        shared = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        # The same tensors: an optimizer that has them keeps them.
        shared._parameters, shared._buffers, shared.training = norm._parameters, norm._buffers, norm.training
        setattr(parent, name, shared)
    return len(found)


_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SharedBatchNorm)
# torchvision's and timm's norms that never learn: buffers only, and no mode.
_FROZEN = ("FrozenBatchNorm2d", "FrozenBatchNormAct2d")
# A batch norm and an activation as one module, in timm.
_WITH_ACTIVATION = ("BatchNormAct2d", "SyncBatchNormAct", "FrozenBatchNormAct2d")


class Statistics(NamedTuple):
    """How a norm normalises a call.

    Args:
        kind: "batch" or "fixed".
        mean: (C,), fixed; else None.
        variance: (C,), likewise.
        group: the processes that share the batch's statistics; None for this one alone.
    """

    kind: str
    mean: Tensor | None = None
    variance: Tensor | None = None
    group: Any = None


def is_batch_norm(module: nn.Module) -> bool:
    """Whether it is a batch norm that this file can read, perhaps with an activation of its own."""
    kind = type(module)
    # Others have classes of these names too, which compute in ways of their own.
    of_library = kind.__module__.partition(".")[0] in ("torchvision", "timm")
    known = kind in _PLAIN or (of_library and kind.__name__ in (*_FROZEN, *_WITH_ACTIVATION))
    # What timm drops between norm and activation is in the norm's module too.
    return known and isinstance(getattr(module, "drop", None), nn.Identity | None)


def learns_statistics(module: nn.Module) -> bool:
    """Whether it is a batch norm of any kind, also of one that this file cannot read."""
    return is_batch_norm(module) or isinstance(module, _BatchNorm)


def activation_within(norm: nn.Module) -> nn.Module | None:
    """The activation that is part of the norm, None where it has none."""
    act: nn.Module | None = getattr(norm, "act", None)
    if type(norm).__name__ not in _WITH_ACTIVATION or isinstance(act, nn.Identity):
        return None
    return act


def is_fixed(norm: Any) -> bool:
    """Whether it normalises with the statistics that it holds, and not with the batch's."""
    return type(norm).__name__ in _FROZEN or (not norm.training and norm.running_mean is not None)


def affine(norm: Any) -> tuple[Tensor | None, Tensor | None, float]:
    """Weight, bias and eps."""
    return norm.weight, norm.bias, norm.eps


def statistics(norm: Any, u: Tensor) -> Statistics:
    """What normalises ``u``.

    Raises:
        ValueError: the batch's statistics are wanted and a channel has one number, as in PyTorch.
    """
    if is_fixed(norm):
        return Statistics("fixed", norm.running_mean, norm.running_var)
    group = _group(norm)
    if group is None and u.numel() == u.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {u.size()}")
    return Statistics("batch", group=group)


def update(norm: Any, mean: Tensor | None, variance: Tensor | None) -> None:
    """Updates the running statistics with the batch's, and counts the batch, as the module would.

    An empty batch is counted, and has none.
    """
    if is_fixed(norm) or not norm.training or not norm.track_running_stats:
        return
    momentum: float | Tensor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            # A tensor: the mean of all batches, without waiting for the GPU.
            momentum = 1 / norm.num_batches_tracked.to(norm.running_mean.dtype)
    if norm.running_mean is not None:
        update_running(norm.running_mean, norm.running_var, mean, variance, momentum)


def _group(norm: _BatchNorm) -> Any:
    """The processes that a synchronised norm shares statistics with, None where it has none."""
    if not isinstance(norm, nn.SyncBatchNorm | SharedBatchNorm) or not norm.training:
        return None
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    group = getattr(norm, "process_group", None) or torch.distributed.group.WORLD
    return group if torch.distributed.get_world_size(group) > 1 else None

"""Blocks whose weights do something, maps that are hard to read, and the formula in float64."""

import torch
from torch import Tensor

from senet import SqueezeExcitation


def randomised(block: SqueezeExcitation) -> SqueezeExcitation:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    return block


def double_formula(block: SqueezeExcitation, u: Tensor) -> Tensor:
    """Equations 2 to 4 with a sigmoid, in float64, independent of the reference."""
    weights = [parameter.double() for parameter in block.parameters()]
    w1, b1, w2, b2 = weights if len(weights) == 4 else (weights[0], 0.0, weights[1], 0.0)
    u = u.double()
    z = u.flatten(2).sum(2) / u[0, 0].numel()
    s = 1 / (1 + torch.exp(-(torch.clamp(z @ w1.T + b1, min=0) @ w2.T + b2)))
    return torch.einsum("nc...,nc->nc...", u, s)


def awkward_maps() -> dict[str, Tensor]:
    base = torch.randn(4, 24, 9, 10)
    return {
        "batch 0": base[:0],
        "1x1": base[:, :, :1, :1],
        "1x70000": torch.randn(1, 24, 1, 70_000),
        "expanded": torch.randn(4, 24, 1, 1).expand(4, 24, 9, 10),
        "expanded batch": base[:1].expand(4, 24, 9, 10),
        "sliced": base[:, :, ::2, 1::3],
        "sliced channels": torch.randn(4, 48, 5, 5)[:, ::2],
        "channels last": base.contiguous(memory_format=torch.channels_last),
        "transposed": base.transpose(2, 3),
        "unaligned": torch.randn(4 * 24 * 90 + 1)[1:].view(4, 24, 9, 10),
        "1-D": torch.randn(2, 24, 11),
        "3-D": torch.randn(2, 24, 3, 4, 5),
        "3-D channels last": torch.randn(2, 24, 3, 4, 5).contiguous(memory_format=torch.channels_last_3d),
    }

"""An SE block in the operators of ONNX, in the form that an engine runs best.

The canonical form is six nodes: GlobalAveragePool, Conv, Relu, Conv, Sigmoid, Mul. With ReduceMean in place
of the pool, as PyTorch's own exporter writes it, and with a product that broadcasts, ONNX Runtime leaves the
blocked memory layout of its convolutions, and comes back, at each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.acceleration.pointwise import Gates
from senet.block import Substitute
from senet.kernels import reference

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


class Excite(nn.Module):
    """Squeeze and excitation by a global pool and 1×1 convolutions.

    Args:
        gates: the layers and what follows them.
        rank: of the map, 4 for images.
    """

    def __init__(self, gates: Gates, rank: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = _convolution(gates.fc1, rank), _convolution(gates.fc2, rank)
        self.hidden, self.kind, self.one_at_zero = gates.hidden, gates.kind, gates.is_one_at_zero

    def forward(self, u: Tensor) -> Tensor:
        """Of u (N, C, *spatial) the gates s (N, C, 1, 1)."""
        gates = reference.ONE_AT_ZERO if self.one_at_zero else reference.GATES
        hidden = reference.ACTIVATIONS[self.hidden](self.fc1(_pooled(u)))
        return gates[self.kind](self.fc2(hidden))


class Scale(nn.Module):
    """s ⊙ u as one product that broadcasts: the canonical form."""

    def forward(self, u: Tensor, s: Tensor) -> Tensor:
        """(N, C, *spatial) and (N, C, 1, 1) to (N, C, *spatial)."""
        return u * s


class BlockedScale(nn.Module):
    """s ⊙ u for ONNX Runtime on a CPU, whose blocked layout has no product that broadcasts.

    The gates are resized to the map: then both are blocked, and so is the product. A 1×1 convolution of each
    channel with 1 gives what it reads, and takes in the sum and the activation that come after it, as the
    runtime fuses these into convolutions only.

    Args:
        carry: the channels of that convolution where a sum follows, else 0.
    """

    def __init__(self, carry: int = 0) -> None:
        super().__init__()
        self.carry = _identity(carry) if carry else None

    def forward(self, u: Tensor, s: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C, 1, 1) to (N, C, H, W)."""
        product = u * _resized(s, u)
        return product if self.carry is None else self.carry(product)


class Deployed(Substitute):
    """An SE block in such a form, with the pointwise convolution that it was joined with, if it was.

    Args:
        excite: makes the gates, of what this module reads.
        scale: their product with the map.
        before: the convolution that gives the map; None where the map is what this module reads.
        after: the convolution that reads the product, None for none.
    """

    def __init__(
        self,
        excite: Excite,
        scale: nn.Module,
        before: nn.Module | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.excite, self.scale = excite, scale.to(excite.fc1.get_parameter("weight"))
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        """(N, entering, *spatial) to (N, leaving, *spatial)."""
        s = self.excite(x)
        gated: Tensor = self.scale(x if self.before is None else self.before(x), s)
        return gated if self.after is None else self.after(gated)


class FromPixels(nn.Module):
    """A network that takes uint8 pixels, 0 to 255, and normalises them.

    Args:
        network: takes them normalised.
        mean: a channel, of values from 0 to 1.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1) * 255)

    def forward(self, images: Tensor) -> Any:
        """What the network gives for uint8 (N, C, H, W)."""
        return self.network((images.to(self.mean.dtype) - self.mean) / self.std)


def _pooled(u: Tensor) -> Tensor:
    """The mean over positions, (N, C, 1, 1)."""
    if torch.onnx.is_in_onnx_export():
        # By itself the exporter writes a ReduceMean.
        shape = (*u.shape[:2], *(1 for _ in u.shape[2:]))
        return torch.onnx.ops.symbolic("GlobalAveragePool", (u,), dtype=u.dtype, shape=shape)
    return u.mean(tuple(range(2, u.ndim)), keepdim=True)


def _resized(s: Tensor, u: Tensor) -> Tensor:
    """The gates s (N, C, 1, 1) at each position of u (N, C, H, W)."""
    if torch.onnx.is_in_onnx_export():
        # By scales that are constant: sizes that are computed keep the runtime from its blocked form.
        scales = torch.tensor([1.0, 1.0, *(float(size) for size in u.shape[2:])])
        nearest: dict[str, Any] = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        return torch.onnx.ops.symbolic("Resize", (s, None, scales), nearest, dtype=s.dtype, shape=u.shape)
    return F.interpolate(s, u.shape[2:], mode="nearest")


def _convolution(layer: nn.Linear, rank: int) -> nn.Module:
    """A linear layer as a 1×1 convolution, with copies of its numbers."""
    with torch.device("meta"):
        conv = _CONVOLUTIONS[rank](layer.in_features, layer.out_features, 1, bias=layer.bias is not None)
    weight = layer.weight.detach().clone()
    conv.weight = nn.Parameter(weight.reshape(*weight.shape, *(1,) * (rank - 2)), requires_grad=False)
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    return conv


def _identity(channels: int) -> nn.Conv2d:
    """The convolution that gives what it reads."""
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    nn.init.ones_(conv.weight)
    return conv.requires_grad_(False)

"""What a training step moves and keeps in eager mode, counted operator by operator.

On tensors of the device "meta", which have shapes and no memory: it takes no time and no GPU, and a
fused operator counts as what it is, whoever would run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from subjects import load
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from senet.analysis.cost.saved import saved_bytes
from senet.block import SqueezeExcitation
from senet.models.units import ResidualUnit

MIB = 2**20


class Passes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts reads and writes of maps: each operator's own, as often as it goes over them.

    Args:
        numel: how many numbers a tensor has at least that counts as a map.
    """

    def __init__(self, numel: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = numel
        self.by_operator: list[tuple[str, int, int]] = []

    @property
    def total(self) -> int:
        """The passes so far."""
        return sum(reads + writes for _, reads, writes in self.by_operator)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs the operator and notes what it went over."""
        result = func(*args, **(kwargs or {}))
        returned = result if isinstance(result, (tuple, list)) else [result]
        aliases = [each.alias_info for each in func._schema.returns]
        is_view = bool(aliases) and all(each is not None and not each.is_write for each in aliases)
        name = str(func)
        if not (is_view or name.startswith("aten.empty")):
            # For its statistics, or the sums of its gradients, and again with them.
            times = 2 if "batch_norm" in name else 1
            reads = times * sum(self._is_map(each) for each in (*args, *(kwargs or {}).values()))
            writes = sum(self._is_map(each) for each in returned)
            if reads or writes:
                self.by_operator.append((name, reads, writes))
        return result

    def _is_map(self, value: object) -> bool:
        if not isinstance(value, Tensor):
            return False
        # An expanded tensor is read from the few numbers that it is made of.
        there = [size for size, stride in zip(value.shape, value.stride(), strict=True) if stride]
        return torch.Size(there).numel() >= self.numel


def tail_passes(network: str) -> tuple[Passes, Passes]:
    """The passes at the end of a residual branch, forward and backward, with an identity shortcut.

    Args:
        network: a ResNet of bottlenecks with or without SE, as ``subjects.load`` takes it.
    """
    unit: Any = build(network).get_submodule("layer1.1")
    u, r = (torch.empty(2, 256, 56, 56, device="meta", requires_grad=True) for _ in range(2))
    forward, backward = Passes(u.numel()), Passes(u.numel())
    # The unit's own forward, with nothing before its last norm.
    ours = isinstance(unit, ResidualUnit)
    if ours:
        unit.branch = lambda _: (u, unit.bn3)
    else:
        for name in "conv1 bn1 act1 conv2 bn2 act2".split():
            setattr(unit, name, nn.Identity())
        unit.conv3 = _Gives(u)
    with forward:
        out = unit(r)
    g = torch.empty_like(out)
    with backward:
        torch.autograd.grad(out, [u, r, *unit.bn3.parameters()], g)
    return forward, backward


def saved_mib(network: str, *, size: int = 224) -> float:
    """What a training step of float32 keeps for its backward, in MiB an image.

    Memory that several operators keep counts once; parameters and buffers, which are there anyway, do not.
    """
    batch = 2
    return saved_bytes(build(network), torch.empty(batch, 3, size, size, device="meta")) / batch / MIB


def build(network: str) -> nn.Module:
    """A network without memory, in training mode; ours with the fused operators."""
    with torch.device("meta"):
        model = load(network, backend="composite")
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            # Left to itself a block shows a watching mode its layers, and no operator.
            module.backend = "composite"
    return model.train()


class _Gives(nn.Module):
    """Gives a tensor, whatever it is given."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, _: Tensor) -> Tensor:
        """The tensor."""
        return self.tensor

"""Copies of a network to try things on: on another device, without what users attached, without SE."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from senet.acceleration.forwards import GateForward, NormForward
from senet.block import SqueezeExcitation
from senet.insertion.surgery import replace

# Backends that stay: they compute by PyTorch's own operations anywhere.
_LAYERS = ("aten", "reference")


def replica(model: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of ``model`` with parameters and buffers of its own, without the hooks of users.

    Args:
        model: any network; it is left as it is.
        make: the copy's tensor for each of the model's.
    """
    memo: dict[int, Any] = {
        id(each): nn.Parameter(make(each.detach()), requires_grad=each.requires_grad)
        for each in model.parameters()
    }
    memo |= {id(each): make(each.detach()) for each in model.buffers()}
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if not getattr(hook, "part_of_network", False)]:
                del hooks[key]
        if isinstance(module, SqueezeExcitation):
            module._gate_hooks.clear()
    return copied


def on_meta(model: nn.Module, *, fused: bool) -> nn.Module:
    """A copy without memory.

    Args:
        model: any network.
        fused: whether blocks that may choose compute in one operation, as where there is memory, or
            layer by layer.
    """
    copied = replica(model, lambda tensor: torch.empty_like(tensor, device="meta"))
    for module in copied.modules():
        for each in (module, module.__dict__.get("forward")):
            if isinstance(each, SqueezeExcitation | GateForward) and each.backend not in _LAYERS:
                each.backend = "composite" if fused else "auto"
    return copied


def without(model: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """A copy that shares the model's tensors, in which modules that gate a map are taken out.

    Args:
        model: the network.
        blocks: paths of modules that take a map and return it gated.
    """
    copied = replica(model, lambda tensor: tensor)
    for path in blocks:
        block = copied.get_submodule(path)
        for module in list(copied.modules()):
            stand_in = module.__dict__.get("forward")
            gate = stand_in.gate if isinstance(stand_in, NormForward) else stand_in
            if isinstance(gate, GateForward) and gate.module is block:
                del module.forward
        replace(copied, block, None)
    return copied

"""What a training step keeps for its backward: exact, and without running anything."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """The bytes that autograd keeps from a network's forward until its backward.

    Memory that several operations keep counts once; parameters and buffers, which are there anyway, do
    not. Gradients, an optimizer's state and what operations need only while they run are no part of it.

    Args:
        model: in training mode; on "meta" nothing is computed, and the bytes are the same.
        images: what it is given, on its device.
    """
    there = {each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held until all is counted, so that no later memory gets its name.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(images)
    total = sum(each.untyped_storage().nbytes() for key, each in kept.items() if key not in there)
    del out
    return total

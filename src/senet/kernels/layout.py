"""How a map lies in memory: the two dense layouts that kernels know."""

from __future__ import annotations

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(u: Tensor) -> torch.memory_format:
    """The dense format that a map has, or that it is given before a kernel reads it."""
    last = _CHANNELS_LAST.get(u.ndim)
    if last is not None and not u.is_contiguous() and u.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def is_channels_last(u: Tensor) -> bool:
    """Whether the channels of a position lie side by side."""
    return memory_format(u) is not torch.contiguous_format


def dense(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the dense format of a map, itself where it has it."""
    return tensor.contiguous(memory_format=memory_format(like))

"""Gates of known truth, for the tests of what is made of them."""

import torch
from torch import Tensor

from senet.analysis.role.profiles import BlockProfile


def profile_of(
    s: Tensor, labels: Tensor, *, name: str = "b", groups: int = 10, size: int = 7
) -> BlockProfile:
    """The profile of the gates (N, C) of images 0 to N - 1, which are dealt out to the groups."""
    found = BlockProfile.new(name, s.shape[1], (size, size), int(labels.max()) + 1, groups)
    found.update(s, labels, torch.arange(len(s)))
    return found


def labels_of(classes: int, each: int) -> Tensor:
    """``each`` images of every class, one class after the other."""
    return torch.arange(classes).repeat_interleave(each)


def normal(*size: int, seed: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

"""Networks with random weights and random running statistics, so that no tensor is like another."""

from typing import Any

import torch


def randomised(model: Any, seed: int = 0) -> Any:
    """In float64 and evaluation mode, in place."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.double().eval().state_dict().items():
        if not value.is_floating_point():
            continue
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1, generator=generator)
        elif value.ndim == 1:
            # Of norms, about 1 times and 0 more, and of other biases.
            value.uniform_(-0.2, 0.2, generator=generator)
            value += 0.8 * key.endswith("weight")
        else:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return model


def change(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()

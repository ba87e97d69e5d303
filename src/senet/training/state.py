"""Everything that a training step changes, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class TrainState:
    """The state of a run between two steps.

    Order and augmentation of the images are functions of the seed and ``step``, the learning
    rate of the recipe and ``step``: neither is state.

    Args:
        model: the network.
        optimizer: of its parameters.
        scaler: of the loss, for float16; idle otherwise.
        step: steps done, over the whole run.
        best: the highest count of rightly classified test images so far.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    best: int = -1

"""SGD as the recipes mean it: which parameters decay, and the learning rate at each step."""

from __future__ import annotations

import bisect
import math

import torch
from torch import nn

from senet.training.config import Recipe


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD whose weight decay spares norms and biases: everything with fewer than two dimensions."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step: a pure function, so that a resumed run needs no state.

    Args:
        recipe: schedule, warm-up and lr.
        step: from 0, over the whole run.
        steps_per_epoch: steps an epoch.
    """
    steps = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup * steps
    if step < warmup:
        return recipe.lr * min(1.0, (step + 1) / warmup)
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** bisect.bisect_right(recipe.milestones, step / steps)
    return recipe.lr * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

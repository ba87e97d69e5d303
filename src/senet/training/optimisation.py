"""SGD as the recipes mean it: which parameters decay, and the learning rate at each step."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import torch
from torch import nn

from senet.training.config import Recipe


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD whose weight decay spares norms and biases, unless the recipe says otherwise.

    Norms and biases are everything with fewer than two dimensions.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
            {
                "params": [p for p in parameters if p.ndim < 2],
                "weight_decay": recipe.weight_decay if recipe.decay_all else 0.0,
            },
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


@dataclass
class Plateau:
    """How far the plateau schedule is: the one part of the learning rate that is state.

    Args:
        lowest: the test loss to beat.
        waited: epochs since then.
        falls: how often the rate has fallen.
        over: whether the run has ended, after the last plateau.
    """

    lowest: float = math.inf
    waited: int = 0
    falls: int = 0
    over: bool = False

    def note(self, recipe: Recipe, test_loss: float) -> None:
        """Takes in the test loss of an epoch."""
        if recipe.schedule != "plateau":
            return
        self.waited = 0 if test_loss < self.lowest else self.waited + 1
        self.lowest = min(self.lowest, test_loss)
        if self.waited >= recipe.patience:
            self.over = self.falls == recipe.plateaus
            self.falls += not self.over
            self.waited = 0


def highest_rate(recipe: Recipe, batch_size: int) -> float:
    """The learning rate that the schedule starts from, for steps of ``batch_size`` images."""
    return recipe.lr if recipe.lr_batch is None else recipe.lr * batch_size / recipe.lr_batch


def learning_rate(lr: float, recipe: Recipe, step: int, steps_per_epoch: int, falls: int = 0) -> float:
    """The learning rate of one step: a pure function, so that a resumed run needs no state.

    Args:
        lr: the highest.
        recipe: schedule and warm-up.
        step: from 0, over the whole run.
        steps_per_epoch: steps an epoch.
        falls: of the plateau schedule, so far.
    """
    steps = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup * steps
    if step < warmup:
        return lr * min(1.0, (step + 1) / warmup) if recipe.warmup_lr is None else recipe.warmup_lr
    if recipe.schedule == "plateau":
        return lr * recipe.gamma**falls
    if recipe.schedule == "step":
        return lr * recipe.gamma ** bisect.bisect_right(recipe.milestones, step / steps)
    return lr * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

"""Networks as after training, where that is what a test needs."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def settled(model: Model, x: Tensor) -> Model:
    """``model`` in evaluation mode, with the statistics of x for running ones, and scores that differ.

    Fresh gates of one half and fresh statistics leave little of an image at a deep network's end: whatever
    is then compared is the classifier's bias.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
        for norm in norms:
            norm.momentum = 0.1
        scores = model.eval()(x)
    assert scores.std(0).min() > 1e-4
    return model

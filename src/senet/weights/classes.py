"""The order of ImageNet's classes: that of the sorted synsets, and that of the ILSVRC devkit.

The released Caffe models were trained on the devkit's numbers (ILSVRC2012_ID); everything else uses the
synsets, sorted, which is also the order of their folders.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import torch
from torch import Tensor

from senet.errors import WeightsError, check_choice
from senet.weights.keys import Tensors

ORDERS = ("synset", "devkit")
COUNT = 1000


@cache
def devkit_numbers() -> tuple[int, ...]:
    """The devkit's number of each class, from 1 to 1000, in the order of the sorted synsets."""
    text = resources.files("senet.weights").joinpath("devkit_order.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return tuple(int(number) for line in lines for number in line.split())


def in_synset_order(scores: Tensor) -> Tensor:
    """Rows (1000, ...) in the devkit's order to the same in the order of the synsets."""
    return scores[torch.tensor(devkit_numbers()) - 1]


def reorder(tensors: Tensors, order: str, *, classifier: str, asked: str) -> Tensors:
    """A network that scores in the devkit's order, its classifier changed to the order asked for.

    Args:
        tensors: of the network.
        order: "synset", or "devkit" to leave them.
        classifier: the module's path.
        asked: the weights, for the error.

    Raises:
        OptionError: there is no such order.
        WeightsError: there is nothing to reorder, as the classifier does not have 1000 classes.
    """
    check_choice(f"classes={order!r}", order, ORDERS)
    if order == "devkit":
        return tensors
    keys = [key for key in (f"{classifier}.weight", f"{classifier}.bias") if key in tensors]
    for key in keys:
        if tensors[key].shape[:1] != (COUNT,):
            raise WeightsError(
                asked,
                found=f"its classifier is {tuple(tensors[key].shape)}, not of ImageNet's {COUNT} classes",
                do="With classes='devkit' its order is left as it is.",
            )
    return tensors | {key: in_synset_order(tensors[key]) for key in keys}

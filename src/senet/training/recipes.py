"""The recipes, as data, each with its source."""

from __future__ import annotations

from senet.errors import check_choice
from senet.training.config import Recipe

RECIPES: dict[str, Recipe] = {
    # Ours, for a first run on 2 CPU cores; docs/results.md has what it reaches.
    "digits": Recipe(
        epochs=30,
        batch_size=64,
        lr=0.1,
        schedule="cosine",
        warmup=0.05,
        weight_decay=5e-4,
        label_smoothing=0.1,
        crop="pad",
        pad=1,
    ),
    # He et al. 2015, section 4.2: batch 128, 64k steps, lr / 10 at 32k and 48k, pad 4 and flip.
    "cifar": Recipe(
        epochs=164,
        batch_size=128,
        lr=0.1,
        schedule="step",
        milestones=(0.5, 0.75),
        crop="pad",
        pad=4,
        flip=True,
    ),
    # The SE paper, section 5.1: batch 1024, lr 0.6, / 10 every 30 of 100 epochs; weight decay
    # from the authors (issue 37 of their repository).
    "imagenet": Recipe(
        epochs=100,
        batch_size=1024,
        lr=0.6,
        schedule="step",
        milestones=(0.3, 0.6, 0.9),
        crop="resized",
        flip=True,
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; OptionError, naming the nearest, if there is none."""
    check_choice(f"recipe {name!r}", name, RECIPES)
    return RECIPES[name]


def default_recipe(data: str, network_size: int) -> str:
    """The recipe that fits some data and a network designed for images of ``network_size``."""
    if data == "digits":
        return "digits"
    return "cifar" if network_size <= 64 else "imagenet"

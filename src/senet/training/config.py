"""What decides a training run, as typed values; imports no torch, so that the command line may."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from senet.errors import require

Crop = Literal["centre", "pad", "resized"]
Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["cosine", "step"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: SGD with momentum, and the augmentation.

    Args:
        epochs: passes over the training images.
        batch_size: images a step.
        lr: the learning rate after the warm-up; not scaled with the batch.
        schedule: cosine to zero, or step: multiplied by gamma at each milestone.
        milestones: for the step schedule, as shares of the epochs.
        gamma: for the step schedule, what the rate is multiplied by.
        warmup: the share of all steps over which the learning rate rises linearly.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of weights only: norms and biases are spared.
        label_smoothing: the share of the target spread over all classes.
        crop: pad (zeros around, then a random crop), resized (random area and aspect, as
            GoogLeNet), or centre (as in evaluation).
        pad: pixels on each side, for the crop pad.
        flip: whether half of the images are mirrored.
    """

    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.1
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    crop: Crop = "centre"
    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        require("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("lr", self.lr, self.lr > 0, "above 0")
        require("gamma", self.gamma, 0 < self.gamma <= 1, "0 < gamma <= 1")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "0 <= momentum < 1")
        require("nesterov", self.nesterov, not self.nesterov or self.momentum > 0, "a momentum above 0")
        require("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        require("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "0 <= share < 1")
        require("warmup", self.warmup, 0 <= self.warmup < 1, "0 <= share < 1")
        require("pad", self.pad, self.pad >= 0, "at least 0")
        rising = all(0 < milestone < 1 for milestone in self.milestones)
        rising = rising and list(self.milestones) == sorted(self.milestones)
        require("milestones", self.milestones, rising, "rising shares of the epochs, between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: what, on which images, how, where.

    Args:
        model: a name of senet.list_models().
        data: digits, folder:DIR or shards:DIR.
        recipe: how.
        recipe_name: which recipe it was before anything was changed, for the record.
        se: options of the SE blocks: reduction, hidden, squeeze, gate, bias, init (as in
            --se.reduction 4); empty leaves the paper's.
        placement: where SE stands: standard, pre, post, identity or 3x3.
        stages: the stages that get SE; None for all.
        layout: modern or original.
        options: the network's own, such as --options.width 0.5; `senet models NAME` lists them.
        image_size: side of the input in pixels; None takes that of small images as it is,
            and the network's own for others.
        seed: of weights, order and augmentation.
        device: auto, cpu, cuda, cuda:1, ...
        precision: of autocast; float32 means none.
        channels_last: whether maps lie in memory with the channels last.
        workers: processes that prepare images; None decides by the device.
        run: the run folder; None makes a new one under runs/.
    """

    model: str = "se_resnet20"
    data: str = "digits"
    recipe: Recipe = field(default_factory=Recipe)
    recipe_name: str = "custom"
    se: dict[str, Any] = field(default_factory=dict)
    placement: str = "standard"
    stages: tuple[int, ...] | None = None
    layout: str = "modern"
    options: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: Precision = "float32"
    channels_last: bool = True
    workers: int | None = None
    run: Path | None = None

    def __post_init__(self) -> None:
        require("seed", self.seed, 0 <= self.seed < 2**63, "0 <= seed < 2**63")
        require("workers", self.workers, self.workers is None or self.workers >= 0, "at least 0")
        require("image_size", self.image_size, self.image_size is None or self.image_size >= 1, "at least 1")

    def to_dict(self) -> dict[str, Any]:
        """The fields, flat, as the command line and its ``--config`` take them."""
        values = dataclasses.asdict(self)
        recipe = values.pop("recipe")
        values["recipe"] = values.pop("recipe_name")
        values["run"] = None  # a configuration is used again, a run folder is not
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in (values | recipe).items()
        }

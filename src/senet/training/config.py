"""What decides a training run, as typed values; imports no torch, so that the command line may."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from senet.data.augmentation import Augmentation
from senet.errors import OptionError, check_choice, did_you_mean, require
from senet.runtime import TIMEOUT

# Of a config: where and how a run runs, and not what comes out of it. A run may go on with others.
WHEREABOUTS = ("run", "device", "workers", "save_minutes", "broken_images", "timeout")

# What float32 holds, in which optimizers compute.
_MOST = 3.4e38

Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["cosine", "step", "plateau"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation):
    """How a network is trained: SGD with momentum, its schedule, and the augmentation.

    Args:
        epochs: passes over the training images; at most, for the plateau schedule.
        batch_size: images a step, over all processes.
        accumulate: parts in which each process takes its share of a step, one after the other.
        lr: the learning rate after the warm-up.
        lr_batch: the batch size that lr is meant for: the rate is scaled with the batch; none: it is as it
            stands.
        schedule: cosine to zero; step: multiplied by gamma at each milestone; or plateau: multiplied by
            gamma when the test loss no longer falls.
        milestones: for the step schedule, as shares of the epochs.
        gamma: what the rate is multiplied by.
        patience: for the plateau schedule: epochs without a lower test loss that make a plateau.
        plateaus: for the plateau schedule: how often the rate falls; the plateau after that ends the run.
        warmup: the share of all steps over which the learning rate rises linearly.
        warmup_lr: a constant rate for the warm-up, in place of the rise.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of the weights.
        decay_all: whether norms and biases decay too.
        clip: the largest norm of the whole gradient; 0 lets it be.
        label_smoothing: the share of the target spread over all classes.
        ema: what of the averaged weights stays at each step, such as 0.9999; they are then what is tested
            and saved, and a copy until the warm-up is over; 0 averages none.
        freeze_norms: the last of the epochs (which a plateau may cut short) in which batch norms stay as they
            are, statistics and parameters.
        frozen_norms: whether batch norms stay so in all epochs.
        frozen_stages: the stages from the first on that stay as they are: 2 is up to conv2_x.
        balanced: whether every class is shown equally often.
        repeats: each epoch shows 1 / repeats of the images, each that often.
        squash: whether images are first resized to a square, whatever their shape; to train on, before a
            crop that is not resized.
        resize: the shorter edge before a crop that is not resized; none: 8 / 7 of the size.
    """

    epochs: int = 100
    batch_size: int = 256
    accumulate: int = 1
    lr: float = 0.1
    lr_batch: int | None = None
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    patience: int = 5
    plateaus: int = 3
    warmup: float = 0.0
    warmup_lr: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_all: bool = False
    clip: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    freeze_norms: int = 0
    frozen_norms: bool = False
    frozen_stages: int = 0
    balanced: bool = False
    repeats: int = 1
    squash: bool = False
    resize: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", "accumulate", "patience", "repeats"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "clip", "plateaus", "freeze_norms", "frozen_stages"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("momentum", "label_smoothing", "warmup", "ema"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 <= share < 1")
        for name in ("lr_batch", "warmup_lr", "resize"):
            value = getattr(self, name)
            require(name, value, value is None or value > 0, "above 0")
        require("lr", self.lr, 0 < self.lr < _MOST, "above 0, and within float32")
        require("gamma", self.gamma, 0 < self.gamma <= 1, "0 < gamma <= 1")
        require("nesterov", self.nesterov, not self.nesterov or self.momentum > 0, "a momentum above 0")
        require("freeze_norms", self.freeze_norms, self.freeze_norms <= self.epochs, "at most the epochs")
        rising = all(0 < milestone < 1 for milestone in self.milestones)
        rising = rising and list(self.milestones) == sorted(self.milestones)
        require("milestones", self.milestones, rising, "rising shares of the epochs, between 0 and 1")
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            finite = not isinstance(value, float) or math.isfinite(value)
            require(each.name, value, finite, "a finite number")
        check_choice(f"schedule={self.schedule!r}", self.schedule, ("cosine", "step", "plateau"))
        both = self.balanced and self.repeats > 1
        require("repeats", self.repeats, not both, "1 beside balanced: one of the two decides the order")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: what, on which images, how, where.

    Args:
        model: a name of senet.list_models().
        data: digits, folder:DIR, shards:DIR, cifar10:DIR, cifar100:DIR, fashion-mnist:DIR or fake:CxHxW.
        weights: what the network starts from: a file, a run folder, timm:TAG, hf:ORG/NAME.
        new_head: whether its last layer starts afresh all the same, for other classes.
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
        sync_norms: whether batch norms share their statistics among the processes.
        workers: processes that prepare images, beside each that trains; None decides by the device.
        nonfinite: what a loss or gradient that is not finite does: stop, or skip the step.
        broken_images: how many of the images may be broken before the run stops: others stand in for
            them, and all are named at the end; 0 stops at the first.
        save_minutes: time between two checkpoints within an epoch; 0 saves after every step.
        timeout: seconds that the processes of a run wait for each other: one that hangs, or is gone, is then
            an error in all of them.
        run: the run folder; None makes a new one under runs/.
    """

    model: str = "se_resnet20"
    data: str = "digits"
    weights: str | None = None
    new_head: bool = False
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
    sync_norms: bool = False
    workers: int | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    broken_images: int = 100
    save_minutes: float = 10.0
    timeout: float = TIMEOUT
    run: Path | None = None

    def __post_init__(self) -> None:
        for name, kind in (("model", str), ("data", str), ("se", dict), ("options", dict)):
            value = getattr(self, name)
            require(name, value, isinstance(value, kind), f"a {kind.__name__}")
        check_choice(f"nonfinite={self.nonfinite!r}", self.nonfinite, ("stop", "skip"))
        started = self.weights is not None or not self.new_head
        require("new_head", self.new_head, started, "true only beside --weights")
        require("seed", self.seed, 0 <= self.seed < 2**63, "0 <= seed < 2**63")
        require("workers", self.workers, self.workers is None or self.workers >= 0, "at least 0")
        require("image_size", self.image_size, self.image_size is None or self.image_size >= 1, "at least 1")
        require("broken_images", self.broken_images, self.broken_images >= 0, "at least 0")
        require("save_minutes", self.save_minutes, self.save_minutes >= 0, "at least 0")
        require("timeout", self.timeout, self.timeout >= 1, "at least 1")

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


def add_options(parser: Any, *, skip: Collection[str] = ()) -> None:
    """Gives a jsonargparse parser the fields of ``TrainConfig`` but ``skip``, the recipe's among them."""
    parser.add_class_arguments(TrainConfig, skip={"recipe", "recipe_name", *skip})
    parser.add_class_arguments(Recipe)


def config_of(values: dict[str, Any]) -> TrainConfig:
    """The config of parsed fields, flat; OptionError where a value is not possible."""
    recipe = {each.name: values[each.name] for each in dataclasses.fields(Recipe)}
    rest = {key: value for key, value in values.items() if key not in recipe and key != "recipe"}
    return TrainConfig(recipe=Recipe(**recipe), recipe_name=values["recipe"], **rest)


def read_config(path: Path) -> TrainConfig:
    """The config that a run wrote.

    Raises:
        OptionError: the file cannot be read, or a key or value in it is unknown.
    """
    asked = f"the configuration {str(path)!r}"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _unusable(asked, error) from error
    return config_from(values, asked=asked)


def config_from(values: Any, *, asked: str) -> TrainConfig:
    """The config of fields as a file has them, flat: as ``TrainConfig.to_dict`` gives them.

    Args:
        values: of the fields; what is missing has its default.
        asked: what an error says of them.

    Raises:
        OptionError: they are no mapping, or a key or value is unknown.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--recipe", type=str, default="custom")
    add_options(parser)
    try:
        if not isinstance(values, dict):
            raise ValueError("it is no mapping")
        return config_of(parser.parse_object(values).as_dict())
    except (TypeError, ValueError, RecursionError, argparse.ArgumentError) as error:
        raise _unusable(asked, error) from error


def _unusable(asked: str, error: Exception) -> OptionError:
    unknown = re.search(r"Option '([\w.]+)' is not accepted", str(error))
    fields = [each.name for kind in (TrainConfig, Recipe) for each in dataclasses.fields(kind)]
    return OptionError(
        asked,
        found=f"it cannot be used ({str(error).strip().splitlines()[0]})",
        allowed="a config.yaml as a run writes it",
        do=did_you_mean(unknown[1], fields) if unknown else "",
    )

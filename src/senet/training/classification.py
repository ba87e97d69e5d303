"""Training that classifies images; what is wrong in a configuration shows up here, before any step."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet import weights
from senet.block import SEConfig
from senet.data import Splits, open_data
from senet.data.augmentation import mixing, training_transform
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.data.stream import Batch, Images, Loader, TrainingBatches
from senet.errors import WeightsError, check_options, require
from senet.evaluation.classification import Batches, Evaluation, batches_of, evaluate
from senet.evaluation.members import check_size
from senet.models import build, info
from senet.runtime.device import device_named, worker_count
from senet.runtime.processes import ALONE, Processes
from senet.training.config import TrainConfig
from senet.training.job import Job, Labels, check_shares, memory_format_of, trained


@dataclass(frozen=True)
class Classification(Job[Evaluation]):
    """A network that is to learn the classes of images.

    Args:
        data: the images.
        preprocessing: what is done to them.
    """

    data: Splits
    preprocessing: Preprocessing

    def order(self, start: int = 0, labels: Labels | None = None) -> TrainingBatches:
        """Which images make up each step from ``start`` on, this process's share of them."""
        balanced = self.data.train.labels if self.config.recipe.balanced else labels
        return super().order(start, balanced)

    def steps(self) -> Generator[list[Batch]]:
        """The batches of each step that is still to be done, in their parts."""
        transform = training_transform(self.preprocessing, self.config.recipe)
        images = Images(self.data.train, transform, self.config.seed, replace=True)
        order = self.order(self.state.step)
        yield from self.in_parts(
            Loader(images, order, workers=self.workers, pin_memory=self.device.type == "cuda")
        )

    def inputs(self, batch: Batch, part: int) -> tuple[Tensor, Tensor]:
        """A batch as the network takes it: normalised, mixed, on its device, in its memory format."""
        self.seed(part)
        x = self.preprocessing.normalise(batch.images.to(self.device, non_blocking=True))
        target = batch.labels.to(self.device, non_blocking=True)
        mix = mixing(self.config.recipe, len(self.data.classes))
        if mix is not None:
            x, target = mix(x, target)
        return x.contiguous(memory_format=self.memory_format), target

    def loss(self, batch: Batch, part: int, network: nn.Module) -> Tensor:
        """The sum over a batch of each image's cross-entropy, in training."""
        x, target = self.inputs(batch, part)
        smoothing = self.config.recipe.label_smoothing
        with self.autocast():
            return F.cross_entropy(network(x), target, reduction="sum", label_smoothing=smoothing)

    def test_batches(self) -> Batches:
        """Every test image once, over all processes."""
        return batches_of(self.data.test, self.preprocessing, workers=self.workers, processes=self.processes)

    def test(self, batches: Batches) -> Evaluation:
        """How many of the images of these batches the tested network classifies rightly."""
        return evaluate(
            self.state.tested,
            batches,
            self.preprocessing,
            device=self.device,
            memory_format=self.memory_format,
            processes=self.processes,
        )

    def header(self) -> dict[str, Any]:
        """What the weights of this run say beside the network: images, classes, data."""
        return {"preprocessing": self.preprocessing.to_dict(), **super().header()}

    def resolved(self) -> dict[str, Any]:
        """What the configuration left open, as it was decided: network, images, device."""
        return {**super().resolved(), "preprocessing": self.preprocessing.to_dict()}


def prepare(config: TrainConfig, processes: Processes = ALONE) -> Classification:
    """Builds all that a run needs and writes nothing.

    Raises:
        OptionError: a name or a value is not allowed.
        DataError: the images are missing or broken.
        WeightsError: the weights to start from cannot be read, or do not fit.
    """
    recipe = config.recipe
    device = device_named(config.device)
    network = info(config.model)
    # Those that build itself has are fields of the config.
    check_options(f"--options of {config.model}", config.options, network.options)
    data = open_data(config.data)
    preprocessing = preprocessing_for(
        data.train,
        data.channels,
        image_size=config.image_size,
        network_size=network.input_size[1],
        resize=recipe.resize,
        squash=recipe.squash,
    )
    within = recipe.train_size is None or recipe.train_size <= preprocessing.size
    require("train_size", recipe.train_size, within, f"at most the size of the images, {preprocessing.size}")
    smaller = recipe.resize is None or recipe.resize <= 2 * preprocessing.size
    require("resize", recipe.resize, smaller, f"at most twice the size of the images, {preprocessing.size}")
    check_shares(config, len(data.train), processes)
    torch.manual_seed(config.seed)
    model = build(
        config.model,
        num_classes=len(data.classes),
        in_channels=data.channels,
        se=SEConfig.from_dict(config.se) if config.se else "auto",
        placement=config.placement,
        stages=config.stages,
        layout=config.layout,
        **config.options,
    )
    if config.weights is not None:
        _start_from(model, config, data)
    memory_format = memory_format_of(config)
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    check_size(model.eval(), preprocessing, config.model, option="--image_size")
    model.train()
    for name, module in model.named_modules():
        if (model.stage_of(name) or math.inf) <= recipe.frozen_stages:
            module.requires_grad_(False)
    state, called = trained(model, config, processes)
    return Classification(
        config=config,
        processes=processes,
        device=device,
        memory_format=memory_format,
        data=data,
        preprocessing=preprocessing,
        state=state,
        network=called,
        workers=worker_count(config.workers, device),
    )


def _start_from(model: nn.Module, config: TrainConfig, data: Splits) -> None:
    """Loads the weights that the run starts from."""
    found = weights.recognise(str(config.weights))
    classes = found.header.get("classes", list(data.classes))
    if not config.new_head and classes != list(data.classes):
        raise WeightsError(
            f"--weights {config.weights} for {config.data}",
            found=f"the weights know {len(classes)} classes, the data has {len(data.classes)}, or others",
            do="Add --new_head true to start the last layer afresh.",
        )
    try:
        weights.load(model, found, head=not config.new_head)
    except WeightsError as error:
        if config.new_head:
            raise
        raise WeightsError(
            f"--weights {config.weights}", str(error), do="For other classes, add --new_head true."
        ) from error

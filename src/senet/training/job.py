"""From a configuration to everything a run needs; what is wrong in it shows up here, before any step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet.block import SEConfig, SqueezeExcitation
from senet.data import Splits, open_data
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.data.stream import Images, Loader, TrainingBatches
from senet.errors import OptionError, check_options
from senet.models import build, info
from senet.training.config import TrainConfig
from senet.training.device import device_named, worker_count
from senet.training.evaluation import Batches, Evaluation, batches_of, evaluate
from senet.training.optimisation import optimizer_for
from senet.training.state import TrainState


@dataclass(frozen=True)
class Job:
    """A run that is ready to begin.

    Args:
        config: what decided it.
        device: where the network is.
        memory_format: of the maps.
        data: the images.
        preprocessing: what is done to them.
        state: the network and its optimizer.
        order: which images make up each step.
        train_batches: the batches of the whole run, in that order.
        test_batches: every test image once.
        workers: processes that prepare images.
    """

    config: TrainConfig
    device: torch.device
    memory_format: torch.memory_format
    data: Splits
    preprocessing: Preprocessing
    state: TrainState
    order: TrainingBatches
    train_batches: Batches
    test_batches: Batches
    workers: int

    def to_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as the network takes it: normalised, on its device, in its memory format."""
        x = self.preprocessing.normalise(images.to(self.device, non_blocking=True))
        return x.contiguous(memory_format=self.memory_format), labels.to(self.device, non_blocking=True)

    def evaluate(self) -> Evaluation:
        """The network's evaluation on the test images."""
        return evaluate(
            self.state.model,
            self.test_batches,
            self.preprocessing,
            device=self.device,
            memory_format=self.memory_format,
        )

    def resolved(self) -> dict[str, Any]:
        """What the configuration left open, as it was decided: network, images, device."""
        network: Any = self.state.model.config
        return {
            "network": network.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "device": str(self.device),
            "workers": self.workers,
        }

    def description(self) -> Iterable[str]:
        """The run in a few lines, for people."""
        config, recipe = self.config, self.config.recipe
        parameters = sum(parameter.numel() for parameter in self.state.model.parameters())
        blocks = sum(isinstance(module, SqueezeExcitation) for module in self.state.model.modules())
        yield f"network  {config.model}: {parameters:,} parameters, {blocks} SE blocks"
        yield f"data     {config.data}: {self.data.description}"
        yield (
            f"recipe   {config.recipe_name}: {recipe.epochs} epochs of {self.order.steps_per_epoch} steps, "
            f"batch {self.order.batch_size}, lr {recipe.lr:g} {recipe.schedule}, "
            f"{config.precision} on {self.device}, seed {config.seed}"
        )


def prepare(config: TrainConfig) -> Job:
    """Builds all that a run needs and writes nothing.

    Raises:
        OptionError: a name or a value is not allowed.
        DataError: the images are missing or broken.
    """
    recipe = config.recipe
    device = device_named(config.device)
    network = info(config.model)
    # Those that build itself has are fields of the config.
    check_options(f"--options of {config.model}", config.options, network.options)
    data = open_data(config.data)
    preprocessing = preprocessing_for(
        data.train, data.channels, image_size=config.image_size, network_size=network.input_size[1]
    )
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
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    _check_size(model, preprocessing, config.model)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")

    workers = worker_count(config.workers, device)
    augment = preprocessing.training(crop=recipe.crop, pad=recipe.pad, flip=recipe.flip)
    order = TrainingBatches(len(data.train), recipe.batch_size, recipe.epochs, config.seed)
    images = Images(data.train, augment, config.seed)
    return Job(
        config=config,
        device=device,
        memory_format=memory_format,
        data=data,
        preprocessing=preprocessing,
        state=TrainState(model, optimizer_for(model, recipe), scaler),
        order=order,
        train_batches=Loader(images, order, workers=workers, pin_memory=device.type == "cuda"),
        test_batches=batches_of(data.test, preprocessing, workers=workers),
        workers=workers,
    )


def _check_size(model: nn.Module, preprocessing: Preprocessing, name: str) -> None:
    """Raises OptionError where the network cannot take images of this size."""
    parameter = next(model.parameters())
    x = torch.zeros(
        1, preprocessing.channels, preprocessing.size, preprocessing.size, device=parameter.device
    )
    model.eval()
    try:
        with torch.inference_mode():
            model(x)
    except (RuntimeError, ValueError) as error:
        raise OptionError(
            f"images of {preprocessing.size}x{preprocessing.size} for {name}",
            found=f"they are too small for it ({str(error).splitlines()[0]})",
            do="Set a larger --image_size.",
        ) from error
    model.train()

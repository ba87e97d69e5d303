"""From a configuration to everything a run needs; what is wrong in it shows up here, before any step."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from senet import weights
from senet.block import SEConfig, SqueezeExcitation
from senet.data import Splits, open_data
from senet.data.augmentation import mixing, training_transform
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.data.stream import NOISE, Batch, Images, Loader, TrainingBatches, seed_of
from senet.errors import RunError, WeightsError, check_options, require
from senet.evaluation.classification import Batches, Evaluation, batches_of, evaluate
from senet.evaluation.members import check_size
from senet.models import build, info
from senet.normalisation import is_batch_norm, share_statistics
from senet.runtime.device import device_named, worker_count
from senet.runtime.processes import ALONE, Processes
from senet.training.config import TrainConfig
from senet.training.optimisation import optimizer_for
from senet.training.state import TrainState

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Job:
    """A run that is ready to begin.

    Args:
        config: what decided it.
        processes: which of them this is.
        device: where the network is.
        memory_format: of the maps.
        data: the images.
        preprocessing: what is done to them.
        state: the network and its optimizer.
        network: the state's network as it is called: among several processes, what adds their gradients up.
        workers: processes that prepare images.
    """

    config: TrainConfig
    processes: Processes
    device: torch.device
    memory_format: torch.memory_format
    data: Splits
    preprocessing: Preprocessing
    state: TrainState
    network: nn.Module
    workers: int

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Steps an epoch."""
        return self.order().steps_per_epoch

    @functools.cached_property
    def batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.order().batch_size

    def order(self, start: int = 0) -> TrainingBatches:
        """Which images make up each step from ``start`` on, this process's share of them."""
        recipe = self.config.recipe
        return TrainingBatches(
            len(self.data.train),
            recipe.batch_size,
            recipe.epochs,
            self.config.seed,
            start,
            parts=recipe.accumulate,
            repeats=recipe.repeats,
            labels=self.data.train.labels if recipe.balanced else None,
            processes=self.processes,
        )

    def steps(self) -> Generator[list[Batch]]:
        """The batches of each step that is still to be done, in their parts."""
        transform = training_transform(self.preprocessing, self.config.recipe)
        images = Images(self.data.train, transform, self.config.seed, replace=True)
        order = self.order(self.state.step)
        batches = iter(Loader(images, order, workers=self.workers, pin_memory=self.device.type == "cuda"))
        while parts := [batch for _, batch in zip(range(order.parts), batches, strict=False)]:
            yield parts

    def inputs(self, batch: Batch, part: int) -> tuple[Tensor, Tensor]:
        """A batch as the network takes it: normalised, mixed, on its device, in its memory format.

        What is random from here on, in the mixing and in the network, is a function of seed, step, part
        and process: done twice it is the same, and a resumed run needs no generator's state.
        """
        seed = seed_of(
            self.config.seed, self.state.step, part * self.processes.count + self.processes.rank, NOISE
        )
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        x = self.preprocessing.normalise(batch.images.to(self.device, non_blocking=True))
        target = batch.labels.to(self.device, non_blocking=True)
        mix = mixing(self.config.recipe, len(self.data.classes))
        if mix is not None:
            x, target = mix(x, target)
        return x.contiguous(memory_format=self.memory_format), target

    def autocast(self) -> AbstractContextManager[Any]:
        """What lowers the precision of the forward, where the run wants it."""
        lowered = _DTYPES.get(self.config.precision)
        return nullcontext() if lowered is None else torch.autocast(self.device.type, lowered)

    def train_mode(self, epoch: int) -> list[nn.Parameter]:
        """Puts the network into training; returns the parameters that stay as they are in this epoch."""
        self.network.train()
        if epoch < self.config.recipe.epochs - self.config.recipe.freeze_norms:
            return []
        norms = [module.eval() for module in self.state.model.modules() if is_batch_norm(module)]
        return [parameter for norm in norms for parameter in norm.parameters(recurse=False)]

    def evaluate(self, batches: Batches | None = None) -> Evaluation:
        """The network's evaluation on the test images; the averaged network's, where there is one."""
        # Without shared statistics each process has its own: those of the first are what is saved.
        self.processes.spread(self.state.tested.buffers())
        return evaluate(
            self.state.tested,
            self.test_batches() if batches is None else batches,
            self.preprocessing,
            device=self.device,
            memory_format=self.memory_format,
            processes=self.processes,
        )

    def test_batches(self) -> Batches:
        """Every test image once, over all processes."""
        return batches_of(self.data.test, self.preprocessing, workers=self.workers, processes=self.processes)

    def header(self) -> dict[str, Any]:
        """What the weights of this run say beside the network: images, classes, data."""
        return {
            "preprocessing": self.preprocessing.to_dict(),
            "classes": list(self.data.classes),
            "data": self.config.data,
        }

    def identity(self) -> dict[str, Any]:
        """What the images are known by: the order of a run depends on it."""
        return {"images": len(self.data.train), "classes": list(self.data.classes)}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Takes over a checkpoint; RunError where it is of another run."""
        asked = f"going on with {str(self.config.run)!r}"
        for what, now in self.identity().items():
            if facts.get(what) != now:
                raise RunError(
                    asked,
                    found=f"the {what} of {self.config.data} are not those that the run began with",
                    do="Bring the data back, or start a new run with --weights.",
                )
        try:
            self.state.restore(tensors, facts)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(
                asked, f"its checkpoint is of another run ({str(error).splitlines()[0]})"
            ) from error

    def resolved(self) -> dict[str, Any]:
        """What the configuration left open, as it was decided: network, images, device."""
        network: Any = self.state.model.config
        return {
            "network": network.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "device": str(self.device),
            "processes": self.processes.count,
            "workers": self.workers,
        }

    def description(self) -> Iterable[str]:
        """The run in a few lines, for people."""
        config, recipe, order = self.config, self.config.recipe, self.order()
        parameters = sum(parameter.numel() for parameter in self.state.model.parameters())
        blocks = sum(isinstance(module, SqueezeExcitation) for module in self.state.model.modules())
        among = f" in {self.processes.count} processes" if self.processes.count > 1 else ""
        yield f"network  {config.model}: {parameters:,} parameters, {blocks} SE blocks"
        yield f"data     {config.data}: {self.data.description}"
        yield (
            f"recipe   {config.recipe_name}: {recipe.epochs} epochs of {order.steps_per_epoch} steps, "
            f"batch {order.batch_size}, lr {recipe.lr:g} {recipe.schedule}, "
            f"{config.precision} on {self.device}{among}, seed {config.seed}"
        )


def prepare(config: TrainConfig, processes: Processes = ALONE) -> Job:
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
    enough = recipe.repeats <= len(data.train)
    require("repeats", recipe.repeats, enough, f"at most the number of images, {len(data.train)}")
    shares = processes.count * recipe.accumulate
    fits = min(recipe.batch_size, len(data.train) // recipe.repeats * recipe.repeats) >= shares
    require("batch_size", recipe.batch_size, fits, f"at least {shares}, processes times --accumulate")
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
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    check_size(model.eval(), preprocessing, config.model, option="--image_size")
    model.train()
    if config.sync_norms and processes.count > 1:
        share_statistics(model)
    average = None
    if recipe.ema:
        mean = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
        average = AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    return Job(
        config=config,
        processes=processes,
        device=device,
        memory_format=memory_format,
        data=data,
        preprocessing=preprocessing,
        state=TrainState(model, optimizer_for(model, recipe), scaler, average),
        network=DistributedDataParallel(model) if processes.count > 1 else model,
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

"""A run that is ready to begin: what all tasks have in common, and what each of them decides."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from senet.block import SqueezeExcitation
from senet.data.stream import NOISE, Batch, TrainingBatches, seed_of
from senet.errors import RunError, require
from senet.evaluation.classification import Batches
from senet.normalisation import learns_statistics, share_statistics
from senet.runtime.processes import Processes
from senet.runtime.watch import meeting
from senet.training.config import TrainConfig
from senet.training.optimisation import highest_rate, learning_rate, optimizer_for
from senet.training.state import TrainState

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Outcome(Protocol):
    """What a test of the network gave."""

    @property
    def broken(self) -> Sequence[str]:
        """Why, for each image that cannot be read, in their order."""

    @property
    def score(self) -> float:
        """What is compared from epoch to epoch: the higher, the better."""

    @property
    def measure(self) -> str:
        """The column, in per cent, that says the score to people."""

    @property
    def summary(self) -> str:
        """The score in a line."""

    def columns(self) -> Mapping[str, float]:
        """The columns of metrics.csv that are the test's."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""


class DataSet(Protocol):
    """Images to train on, whatever is known of each."""

    @property
    def description(self) -> str:
        """One line for people."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels."""

    @property
    def train(self) -> Sized:
        """The images to train on."""


Labels = npt.NDArray[np.int64]
Found = TypeVar("Found", bound=Outcome)


@dataclass(frozen=True)
class Job(ABC, Generic[Found]):
    """A run that is ready to begin.

    Args:
        config: what decided it.
        processes: which of them this is.
        device: where the network is.
        memory_format: of the maps.
        data: the images.
        state: the network and its optimizer.
        network: the state's network as it is called: among several processes, what adds their gradients up.
        workers: processes that prepare images.
    """

    config: TrainConfig
    processes: Processes
    device: torch.device
    memory_format: torch.memory_format
    data: DataSet
    state: TrainState
    network: nn.Module
    workers: int

    @abstractmethod
    def steps(self) -> Generator[list[Batch]]:
        """The batches of each step that is still to be done, in their parts."""

    @abstractmethod
    def loss(self, batch: Batch, part: int, network: nn.Module) -> Tensor:
        """The sum over a batch of each image's loss, in training.

        Args:
            batch: of ``steps``.
            part: which of the step's parts it is.
            network: the state's, or what adds up its gradients.
        """

    @abstractmethod
    def test_batches(self) -> Batches:
        """Every test image once, over all processes."""

    @abstractmethod
    def test(self, batches: Batches) -> Found:
        """The outcome of the tested network on these batches."""

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Steps an epoch."""
        return self.order().steps_per_epoch

    @functools.cached_property
    def batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.order().batch_size

    def learning_rate(self, step: int) -> float:
        """The rate of a step, from 0, where the schedule stands now."""
        recipe = self.config.recipe
        highest = highest_rate(recipe, self.batch_size)
        return learning_rate(highest, recipe, step, self.steps_per_epoch, self.state.plateau.falls)

    def order(self, start: int = 0, labels: Labels | None = None) -> TrainingBatches:
        """Which images make up each step from ``start`` on, this process's share of them.

        Args:
            start: the first step.
            labels: of the images, for an order that shows all classes equally often.
        """
        recipe = self.config.recipe
        return TrainingBatches(
            len(self.data.train),
            recipe.batch_size,
            recipe.epochs,
            self.config.seed,
            start,
            parts=recipe.accumulate,
            repeats=recipe.repeats,
            labels=labels,
            processes=self.processes,
        )

    def in_parts(self, batches: Iterable[Batch]) -> Generator[list[Batch]]:
        """Batches, put together to steps."""
        each = iter(batches)
        while parts := [batch for _, batch in zip(range(self.config.recipe.accumulate), each, strict=False)]:
            yield parts

    def seed(self, part: int) -> None:
        """Seeds what a step draws from here on, in the mixing and in the network.

        It is a function of seed, step, part and process: done twice it is the same, and a resumed run needs
        no generator's state.
        """
        seed = seed_of(
            self.config.seed, self.state.step, part * self.processes.count + self.processes.rank, NOISE
        )
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)

    def autocast(self) -> AbstractContextManager[Any]:
        """What lowers the precision of the forward, where the run wants it."""
        lowered = _DTYPES.get(self.config.precision)
        return nullcontext() if lowered is None else torch.autocast(self.device.type, lowered)

    def train_mode(self, epoch: int) -> list[nn.Parameter]:
        """Puts the network into training; returns the parameters that stay as they are in this epoch."""
        self.network.train()
        recipe = self.config.recipe
        model = self.state.model
        named = {name: module for name, module in model.named_modules() if learns_statistics(module)}
        if not recipe.frozen_norms and epoch < recipe.epochs - recipe.freeze_norms:
            # Those of frozen stages alone.
            named = {name: norm for name, norm in named.items() if _is_frozen(model, name)}
        norms = list(named.values())
        for norm in norms:
            norm.eval()
        return [parameter for norm in norms for parameter in norm.parameters(recurse=False)]

    def evaluate(self, batches: Batches | None = None) -> Found:
        """The network's test on the test images; the averaged network's, where there is one."""
        # Without shared statistics each process has its own: those of the first are what is saved.
        self.processes.spread(self.state.tested.buffers())
        return self.test(self.test_batches() if batches is None else batches)

    def header(self) -> dict[str, Any]:
        """What the weights of this run say beside the network: classes, data."""
        return {"classes": list(self.data.classes), "data": self.config.data}

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
        """What the configuration left open, as it was decided: network, device."""
        network: Any = self.state.model.config
        return {
            "network": network.to_dict(),
            "device": str(self.device),
            "processes": self.processes.count,
            "workers": self.workers,
        }

    def description(self) -> Iterable[str]:
        """The run in a few lines, for people."""
        config, recipe, order = self.config, self.config.recipe, self.order()
        parameters = sum(parameter.numel() for parameter in self.state.model.parameters())
        blocks = sum(isinstance(module, SqueezeExcitation) for module in self.state.model.modules())
        epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
        among = f" in {self.processes.count} processes" if self.processes.count > 1 else ""
        yield f"network  {config.model}: {parameters:,} parameters, {blocks} SE blocks"
        yield f"data     {config.data}: {self.data.description}"
        yield (
            f"recipe   {config.recipe_name}: {epochs} of {order.steps_per_epoch} steps, "
            f"batch {order.batch_size}, lr {highest_rate(recipe, order.batch_size):g} {recipe.schedule}, "
            f"{config.precision} on {self.device}{among}, seed {config.seed}"
        )


def _is_frozen(model: nn.Module, name: str) -> bool:
    """Whether nothing learns in a module; of one without parameters, in what holds it."""
    while name and not any(True for _ in model.get_submodule(name).parameters()):
        name = name.rpartition(".")[0]
    return not any(each.requires_grad for each in model.get_submodule(name).parameters())


def check_shares(config: TrainConfig, images: int, processes: Processes) -> None:
    """Raises OptionError where a step has too few images for all processes and parts."""
    recipe = config.recipe
    require("repeats", recipe.repeats, recipe.repeats <= images, f"at most the number of images, {images}")
    shares = processes.count * recipe.accumulate
    fits = min(recipe.batch_size, images // recipe.repeats * recipe.repeats) >= shares
    require("batch_size", recipe.batch_size, fits, f"at least {shares}, processes times --accumulate")


def memory_format_of(config: TrainConfig) -> torch.memory_format:
    """How maps lie in memory."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def trained(model: nn.Module, config: TrainConfig, processes: Processes) -> tuple[TrainState, nn.Module]:
    """What training changes, and the network as it is called, of a network on its device."""
    recipe = config.recipe
    if config.sync_norms and processes.count > 1:
        norms = sum(learns_statistics(module) for module in model.modules())
        shared = share_statistics(model)
        whole = f"false: of {norms} batch norms {norms - shared} are of a kind that cannot share"
        require("sync_norms", True, shared == norms, whole)
    average = None
    if recipe.ema:
        mean = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
        average = AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
    kind = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(kind, enabled=config.precision == "float16")
    network: nn.Module = model
    if processes.count > 1:
        with meeting():
            network = DistributedDataParallel(model)
    return TrainState(model, optimizer_for(model, recipe), scaler, average), network

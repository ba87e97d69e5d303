"""Everything that training changes, in one place, and its way to a checkpoint and back."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from senet.training.optimisation import Plateau


@dataclass
class TrainState:
    """The state of a run between two steps.

    Order and augmentation of the images are functions of the seed and ``step``, and so is what dropout
    draws: none of them is state.

    Args:
        model: the network.
        optimizer: of its parameters.
        scaler: of the loss, for float16; idle otherwise.
        average: the averaged weights, where the recipe wants them.
        plateau: where the schedule of that name is.
        step: steps done, over the whole run.
        epoch: epochs done, their test included.
        skipped: steps whose loss or gradient was not finite.
        best: the highest score of a test so far, such as a count of rightly classified images.
        losses: the sum of the losses of the steps since the last whole epoch, of each process.
        broken: images that could not be read, by number, and why.
        history: the rows of metrics.csv.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None = None
    plateau: Plateau = field(default_factory=Plateau)
    step: int = 0
    epoch: int = 0
    skipped: int = 0
    best: float = -1
    losses: list[float] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tested(self) -> nn.Module:
        """The network that is tested and saved: the averaged one, where there is one."""
        averaged: nn.Module = self.model if self.average is None else self.average.module
        return averaged

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by key."""
        found = {f"model.{key}": tensor for key, tensor in self.model.state_dict().items()}
        if self.average is not None:
            found |= {f"average.{key}": tensor for key, tensor in self.average.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:  # a momentum that no step has filled yet
                    found[f"optimizer.{number}.{name}"] = value
        return found

    def facts(self) -> dict[str, Any]:
        """All else, as JSON can hold it."""
        plateau = dataclasses.asdict(self.plateau)
        return {
            "step": self.step,
            "epoch": self.epoch,
            "skipped": self.skipped,
            "best": self.best,
            "losses": self.losses,
            "broken": sorted(self.broken.items()),
            "history": self.history,
            "scaler": self.scaler.state_dict(),
            "plateau": plateau | {"lowest": None if math.isinf(self.plateau.lowest) else self.plateau.lowest},
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Takes over what ``tensors`` and ``facts`` gave.

        Raises:
            KeyError: something of it is missing.
            RuntimeError: the tensors are those of another network.
        """
        self.model.load_state_dict(_under("model.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_under("average.", tensors))
        parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under("optimizer.", tensors).items():
            number, _, name = key.partition(".")
            # In the memory format of the parameter, which a file does not keep.
            like = torch.empty_like(parameters[int(number)]).copy_(tensor)
            state.setdefault(int(number), {})[name] = like
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.scaler.load_state_dict(facts["scaler"])
        lowest = facts["plateau"]["lowest"]
        self.plateau = Plateau(**{**facts["plateau"], "lowest": math.inf if lowest is None else lowest})
        self.broken = {int(image): str(why) for image, why in facts["broken"]}
        for name in ("step", "epoch", "skipped", "best", "losses", "history"):
            setattr(self, name, facts[name])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

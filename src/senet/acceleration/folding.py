"""What folding does to a network, block by block: a plan that can be applied to any copy, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from senet.acceleration.absorption import Fold
from senet.block import ConstantScale
from senet.insertion.placement import Rebuilt
from senet.insertion.surgery import replace
from senet.tables import Table


@dataclass(frozen=True)
class Folding:
    """One block that goes.

    Args:
        block: its path.
        scale: (C,), its constant gates, in float64.
        folds: the layers that take the gates in; none where all are 1, or where a constant scale remains.
        remains: whether one does.
        parameters: of the block.
    """

    block: str
    scale: Tensor
    folds: tuple[Fold, ...]
    remains: bool
    parameters: int

    @property
    def into(self) -> str:
        """Where the gates went, in words."""
        if self.remains:
            return "a constant scale, as no layer beside it takes it in"
        return ", ".join(f"{each.side} of {each.layer}" for each in self.folds) or "nothing: all gates are 1"


@dataclass(frozen=True)
class FoldReport:
    """What ``fold`` did.

    Args:
        network: the class of the network.
        foldings: a block each.
        change: of the outputs, in float64 and evaluation mode, from the network with its gates held,
            relative to the largest; or why it was not computed.
    """

    network: str
    foldings: tuple[Folding, ...]
    change: float | str

    def __len__(self) -> int:
        return len(self.foldings)

    @property
    def parameters(self) -> int:
        """How many there are fewer."""
        return sum(each.parameters for each in self.foldings)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a block."""
        return [
            {
                "block": each.block,
                "channels": len(each.scale),
                "low": float(each.scale.min()),
                "high": float(each.scale.max()),
                "parameters": each.parameters,
                "into": each.into,
            }
            for each in self.foldings
        ]

    def __str__(self) -> str:
        remaining = sum(each.remains for each in self.foldings)
        noun = "block" if len(self) == 1 else "blocks"
        headline = f"{self.network}: folded {len(self)} SE {noun}, {self.parameters:,} parameters fewer"
        headline += f"; {remaining} remain as constant scales" if remaining else ""
        change = f"not compared, as {self.change}" if isinstance(self.change, str) else f"{self.change:g}"
        return "\n".join([headline, str(Table(self.rows)), f"largest change of the output: {change}"])

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def apply(model: nn.Module, foldings: Sequence[Folding]) -> None:
    """Takes the blocks out of a network, in place, and their gates into the layers beside them."""
    modules = dict(model.named_modules())
    for folding in foldings:
        block = modules[folding.block]
        replace(model, block, _scale(model, block, folding.scale) if folding.remains else None)
        for each in folding.folds:
            each.apply(model)
    for path, module in modules.items():
        if isinstance(module, Rebuilt):
            _tell(module, path, modules, foldings)


def _scale(model: nn.Module, block: nn.Module, scale: Tensor) -> ConstantScale:
    """The constant scale that stands for a block, where and as its parameters are."""
    like = next((each for part in (block, model) for each in part.parameters()), scale)
    constant = ConstantScale(scale.to(like.device, like.dtype)).train(block.training)
    constant.inserted = getattr(block, "inserted", False)
    return constant


def _tell(network: Rebuilt, path: str, modules: Mapping[str, nn.Module], foldings: Sequence[Folding]) -> None:
    """Lets a network of ours know which of its blocks are gone."""
    prefix = f"{path}." if path else ""
    gone: dict[bool, list[str]] = {False: [], True: []}
    for folding in foldings:
        block = modules[folding.block]
        if folding.block.startswith(prefix) and not getattr(block, "inserted", False):
            gone[folding.remains].append(folding.block.removeprefix(prefix))
    network.became_constant(gone[False], gone[True])

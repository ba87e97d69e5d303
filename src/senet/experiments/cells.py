"""Cells: one variant of a grid with one seed, as a run's configuration, known by its hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from senet.block import SEConfig
from senet.errors import OptionError, UndefinedError, check_options
from senet.experiments.grid import Grid, plain_and_se
from senet.models import info
from senet.training.classification import prepare
from senet.training.config import WHEREABOUTS, TrainConfig, config_from

# What does not change a run's result, but where, how fast and under which name it runs.
ASIDE = ("recipe", *WHEREABOUTS)
# What a grid may not change: cells have their own.
_NEVER_CHANGED = {"run", "recipe", "seed", "se", "options"}


@dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    Args:
        label: of the variant.
        config: of the run, its seed among it.
    """

    label: str
    config: TrainConfig

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits of a hash of all that decides the result; the label does not."""
        values = {name: value for name, value in self.config.to_dict().items() if name not in ASIDE}
        # Said or not, a default is the same.
        usual = dataclasses.asdict(SEConfig())
        values["se"] = {name: value for name, value in self.config.se.items() if value != usual.get(name)}
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """The cells of a grid.

    Args:
        grid: whose they are.
        cells: seed by seed, so that whole seeds are done first.
        undefined: the labels of the variants that have no meaning for this network, with the reason.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    undefined: Mapping[str, str]


def plan(grid: Grid, base: TrainConfig, seeds: Sequence[int]) -> Plan:
    """The cells of a grid, each of which has been tried to build.

    Args:
        grid: the variants.
        base: the run that they change; its seed does not matter.
        seeds: of each variant.

    Raises:
        OptionError: a variant changes what does not exist, or to what is not possible.
        DataError: the images are missing or broken.
    """
    configs: dict[str, TrainConfig] = {}
    undefined: dict[str, str] = {}
    _check_free(grid, base)
    for label, own in grid.variants.items():
        asked = f"the grid {grid.name!r}, {label!r}"
        config = changed(base, grid.changes(label), asked=asked)
        _check_meant(config, own, asked=asked)
        try:
            prepare(dataclasses.replace(config, device="cpu"))
        except UndefinedError as error:
            undefined[label] = error.found
        else:
            configs[label] = config
    cells = [
        Cell(label, dataclasses.replace(config, seed=seed))
        for seed in seeds
        for label, config in configs.items()
    ]
    return Plan(grid, tuple(cells), undefined)


def distinct(plans: Iterable[Plan]) -> list[Cell]:
    """The cells of several grids, seed by seed, each run once: grids share what is the same."""
    cells = {cell.key: cell for each in plans for cell in each.cells}
    return sorted(cells.values(), key=lambda cell: cell.seed)


def changed(base: TrainConfig, changes: Mapping[str, Any], *, asked: str) -> TrainConfig:
    """``base`` with changes, dotted as on the command line, checked as a run's configuration is.

    Raises:
        OptionError: there is no such option, or the value is not possible.
    """
    values = base.to_dict()
    allowed = sorted(values.keys() - _NEVER_CHANGED | {"network"})
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if dot and head in ("se", "options"):
            values[head] = values[head] | {rest: value}
        else:
            check_options(asked, [key], allowed)
            values[key] = value
    side = values.pop("network", None)
    found = config_from(values, asked=asked)
    if side is not None:
        found = dataclasses.replace(found, model=plain_and_se(found.model)[side])
    if info(found.model).se:
        return found
    # What is said of SE blocks, for all variants, does not make one of a plain network.
    return dataclasses.replace(found, se={}, placement="standard", stages=None)


def _check_free(grid: Grid, base: TrainConfig) -> None:
    """Raises OptionError where the user has set what the grid sets: one of the two would be lost."""
    said = {f"se.{key}" for key in base.se} | {f"options.{key}" for key in base.options}
    said |= {
        key for key, usual in (("placement", "standard"), ("stages", None)) if getattr(base, key) != usual
    }
    if "se.hidden" in said:
        said.add("se.reduction")  # which it would override
    both = said & {key for each in (grid.base, *grid.variants.values()) for key in each}
    if both:
        raise OptionError(
            f"the grid {grid.name!r} with --{min(both)}",
            "the grid sets that itself",
            do="Leave the option out, or write a grid of your own.",
        )


def _check_meant(config: TrainConfig, own: Iterable[str], *, asked: str) -> None:
    """Raises OptionError where a variant says of SE blocks what its network has not."""
    lost = [key for key in own if key.startswith("se.") or key in ("placement", "stages")]
    if lost and not info(config.model).se:
        raise OptionError(
            asked, f"{lost[0]} is of SE blocks, and {config.model} has none", do="Add network: se."
        )

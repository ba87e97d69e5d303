"""Cells that take a second, for tests."""

import dataclasses
from pathlib import Path

from senet.experiments.cells import Plan, plan
from senet.experiments.grid import Grid
from senet.training.config import Recipe, TrainConfig

BASE = TrainConfig(
    model="se_resnet20",
    data="fake:1x8x8,images=32,classes=2",
    recipe=Recipe(epochs=2, batch_size=16, lr=0.01),
    device="cpu",
    workers=0,
)
GRID = Grid(
    name="small",
    title="Small",
    question="Does it work?",
    variants={"plain": {"network": "plain"}, "SE": {"network": "se"}},
    baseline="plain",
)


def small_plan(*seeds: int, **changes: object) -> Plan:
    """Plain and SE, with these seeds."""
    return plan(GRID, dataclasses.replace(BASE, **changes), seeds)  # type: ignore[arg-type]


def lines_of(path: Path) -> list[str]:
    """The lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()

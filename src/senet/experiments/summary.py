"""The comparison of a grid, computed from the folders of its cells."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from senet.analysis.comparison.comparison import Comparison, Group, Pair
from senet.experiments.cells import ASIDE, Cell, Plan, changed
from senet.experiments.claims import Claims, Phase
from senet.experiments.worker import folder_of, read_result
from senet.passport import passport
from senet.training.config import Recipe, TrainConfig
from senet.training.recipes import RECIPES
from senet.training.run_folder import METRICS


def comparison_of(plan: Plan, base: TrainConfig, out: Path, claims: Claims) -> Comparison:
    """What is there of a grid's cells, side by side.

    Args:
        plan: the grid and its cells.
        base: the run that its variants change.
        out: the folder of the experiments.
        claims: of the cells.

    Raises:
        RunError: a result cannot be read.
    """
    grid = plan.grid
    return Comparison(
        title=grid.title,
        question=grid.question,
        name=folder_name(plan, base),
        groups=[_group(plan, label, out, claims) for label in grid.variants],
        baseline=grid.baseline,
        conditions=_conditions(plan, base),
        origin=grid.origin if any(grid.beside(label) for label in grid.variants) else "",
        pairs=[Pair(*pair) for pair in grid.pairs],
        passport=passport(),
    )


def folder_name(plan: Plan, base: TrainConfig) -> str:
    """Of the folder that a grid's table goes to: in words, and a hash of the grid and of all it stands on."""
    grid = plan.grid
    common = _common(plan, base)
    words = [grid.name, common.data.partition(":")[0], f"{common.recipe.epochs}epochs"]
    if not grid.is_of_networks:
        words.insert(1, base.model.removeprefix("se_"))
    whole = [Cell("", common).key, grid.baseline, {label: grid.changes(label) for label in grid.variants}]
    mark = hashlib.sha256(json.dumps(whole, default=str).encode()).hexdigest()[:6]
    return "-".join([*words, mark])


def _common(plan: Plan, base: TrainConfig) -> TrainConfig:
    """The run that all variants change."""
    return changed(base, {key: value for key, value in plan.grid.base.items() if key != "network"}, asked="")


def _group(plan: Plan, label: str, out: Path, claims: Claims) -> Group:
    cells = [cell for cell in plan.cells if cell.label == label]
    results, curves, failed, missing = {}, {}, {}, []
    for cell in cells:
        result = read_result(cell, out)
        if result is not None:
            results[cell.seed], curves[cell.seed] = result, _curve(cell, out)
        elif (state := claims.state(cell.key)).phase is Phase.FAILED:
            failed[cell.seed] = state.why
        else:
            missing.append(cell.seed)
    return Group(
        label=label,
        network=cells[0].config.model if cells else "",
        undefined=plan.undefined.get(label, ""),
        results=results,
        curves=curves,
        failed=failed,
        missing=missing,
        printed=plan.grid.beside(label),
    )


def _curve(cell: Cell, out: Path) -> Sequence[dict[str, Any]]:
    """The rows of a run's metrics, as numbers."""
    with (folder_of(cell, out) / METRICS).open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _conditions(plan: Plan, base: TrainConfig) -> dict[str, str]:
    """What all runs share, and what of it is not the recipe's."""
    common = _common(plan, base)
    known = common.recipe_name in RECIPES
    usual = TrainConfig(recipe=RECIPES[common.recipe_name] if known else Recipe()).to_dict()
    shown = {"model", "data", "recipe", "epochs", "batch_size", "precision"}
    other = _flat({key: value for key, value in common.to_dict().items() if key not in shown | set(ASIDE)})
    differing = [f"{key}={value}" for key, value in other.items() if value != _flat(usual).get(key)]
    return {
        **({} if plan.grid.is_of_networks else {"network": base.model.removeprefix("se_")}),
        "data": common.data,
        "recipe": common.recipe_name,
        "epochs": str(common.recipe.epochs),
        "batch": str(common.recipe.batch_size),
        "precision": common.precision,
        "all variants": ", ".join(differing) or "as the recipe",
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """With dots for what is inside of SE's and the network's options."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            {f"{key}.{name}": each for name, each in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
    return flat

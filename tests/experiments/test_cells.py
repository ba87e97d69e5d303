import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from senet.errors import DataError, OptionError
from senet.experiments.cells import Cell, changed, distinct, plan
from senet.experiments.grid import Grid, grid_named
from senet.training.config import Recipe, TrainConfig

BASE = TrainConfig(
    model="se_resnet20", data="fake:1x8x8,images=8,classes=2", recipe=Recipe(epochs=1, batch_size=4)
)


def _grid(**variants: Mapping[str, object]) -> Grid:
    return Grid(name="x", title="x", variants=variants, baseline=next(iter(variants)))


def test_changes_go_where_they_belong() -> None:
    changes = {"network": "se", "se.reduction": 4, "options.shortcut": "pad", "lr": 0.5, "stages": [2, 3]}
    found = changed(dataclasses.replace(BASE, se={"bias": False}), changes, asked="x")
    assert found.se == {"bias": False, "reduction": 4}
    assert found.options == {"shortcut": "pad"}
    assert (found.recipe.lr, found.recipe.epochs, found.stages) == (0.5, 1, (2, 3))
    assert (BASE.se, BASE.options) == ({}, {}), "what it was made from stays"


def test_the_plain_side_has_no_se() -> None:
    base = dataclasses.replace(BASE, se={"reduction": 4}, placement="pre", stages=(2,))
    for changes in ({"network": "plain"}, {"model": "resnet20"}):
        found = changed(base, changes, asked="x")
        assert (found.model, found.se, found.placement, found.stages) == ("resnet20", {}, "standard", None)
    assert changed(base, {"network": "se"}, asked="x").se == {"reduction": 4}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"leraning_rate": 1}, "there is no option"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": "much"}, "asked"),
        ({"epochs": 1.5}, "asked"),
        ({"epochs": True}, "asked"),
        ({"precision": "float8"}, "asked"),
        ({"channels_last": "perhaps"}, "asked"),
        ({"stages": "two"}, "asked"),
        ({"seed": 3}, "there is no option 'seed'"),
        ({"run": "x"}, "there is no option 'run'"),
        ({"se": {"reduction": 4}}, "there is no option 'se'"),
        ({"model": "renset20"}, "resnet20"),
    ],
)
def test_changes_that_are_not_possible(changes: dict[str, object], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        changed(BASE, changes, asked="asked")


def test_a_key_is_of_what_decides_the_result() -> None:
    key = Cell("a", BASE).key
    assert len(key) == 16
    aside: dict[str, Any] = {
        "device": "cpu",
        "workers": 3,
        "save_minutes": 1.0,
        "recipe_name": "other",
        "broken_images": 1,
    }
    assert Cell("b", dataclasses.replace(BASE, **aside)).key == key
    deciding: dict[str, Any] = {
        "seed": 1,
        "se": {"reduction": 4},
        "model": "resnet20",
        "stages": (2,),
        "precision": "bfloat16",
    }
    keys = {Cell("a", dataclasses.replace(BASE, **{name: value})).key for name, value in deciding.items()}
    keys.add(Cell("a", dataclasses.replace(BASE, recipe=Recipe(epochs=1, batch_size=4, lr=0.2))).key)
    assert len(keys | {key}) == len(deciding) + 2


def test_cells_come_seed_by_seed_and_what_is_not_defined_is_none() -> None:
    found = plan(grid_named("reduction", "se_resnet20"), BASE, [0, 1])
    labels = ["plain", "r = 2", "r = 4", "r = 8", "r = 16"]
    assert [(cell.seed, cell.label) for cell in found.cells] == [
        (s, label) for s in (0, 1) for label in labels
    ]
    assert list(found.undefined) == ["r = 32"]
    assert "16 // 32 is 0" in found.undefined["r = 32"]
    # Standing by itself in a table, a placement that a unit lacks is not defined either.
    units = _grid(a={}, b={"placement": "3x3"})
    assert list(plan(units, BASE, [0]).undefined) == ["b"]


def test_what_two_grids_share_runs_once() -> None:
    plans = [
        plan(grid_named(name, "se_resnet20"), BASE, [0, 1]) for name in ("squeeze", "excitation", "placement")
    ]
    assert [len(each.cells) for each in plans] == [4, 6, 8]
    cells = distinct(plans)
    assert len(cells) == 2 * (2 + 3 + 4 - 2)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_all_is_tried_before_anything_runs() -> None:
    with pytest.raises(OptionError, match="reductoin"):
        plan(_grid(a={}, b={"se.reductoin": 4}), BASE, [0])
    with pytest.raises(OptionError, match="no option 'unti'"):
        plan(_grid(a={}, b={"options.unti": 4}), BASE, [0])
    with pytest.raises(DataError, match="nowhere"):
        plan(_grid(a={}, b={"lr": 0.2}), dataclasses.replace(BASE, data="folder:nowhere"), [0])


def test_values_are_read_as_a_runs_are() -> None:
    """YAML makes text of 1e-1, and people write numbers with a point or without."""
    found = changed(BASE, {"lr": "1e-1", "flip": "false", "epochs": "3", "weight_decay": 0}, asked="x")
    assert (found.recipe.lr, found.recipe.flip, found.recipe.epochs) == (0.1, False, 3)
    same = changed(BASE, {"lr": 0.1, "flip": False, "epochs": 3, "weight_decay": 0.0}, asked="x")
    assert Cell("a", found).key == Cell("b", same).key


def test_what_is_said_of_blocks_that_are_not_there() -> None:
    plain = dataclasses.replace(BASE, model="resnet20")
    for own in ({"se.reduction": 4}, {"placement": "pre"}, {"stages": [2]}):
        with pytest.raises(OptionError, match="of SE blocks, and resnet20 has none"):
            plan(_grid(a={}, b=own), plain, [0])


@pytest.mark.parametrize(
    ("grid", "options"),
    [
        ("stages", {"stages": (2,)}),
        ("placement", {"placement": "pre"}),
        ("reduction", {"se": {"reduction": 4}}),
        ("reduction", {"se": {"hidden": 4}}),
        ("squeeze", {"se": {"bias": True}}),
    ],
)
def test_options_that_the_grid_sets_itself(grid: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="the grid sets that itself"):
        plan(grid_named(grid, "se_resnet20"), dataclasses.replace(BASE, **options), [0])

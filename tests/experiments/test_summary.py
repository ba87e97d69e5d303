import dataclasses
from pathlib import Path
from typing import Any

from tests.experiments.small import BASE, GRID, small_plan

from senet.experiments.cells import plan
from senet.experiments.grid import Grid, grid_named
from senet.experiments.summary import comparison_of, folder_name
from senet.experiments.sweep import claims_in
from senet.experiments.worker import read_result, run_cell
from senet.training.recipes import RECIPES


def _untold(**_facts: Any) -> None:
    pass


def test_the_comparison_is_what_the_folders_hold(tmp_path: Path) -> None:
    small = small_plan(0, 1)
    for cell in small.cells[:2]:
        run_cell(cell, tmp_path, tell=_untold, say=lambda line: None)
    claims = claims_in(tmp_path)
    claim = claims.take(small.cells[2].key)
    assert claim is not None
    claim.fail("it broke")
    found = comparison_of(small, BASE, tmp_path, claims)
    plain, se = found.groups
    assert (plain.label, plain.network, se.network) == ("plain", "resnet20", "se_resnet20")
    assert plain.results == {0: read_result(small.cells[0], tmp_path)}
    assert (plain.failed, plain.missing) == ({1: "it broke"}, [])
    assert (se.failed, se.missing) == ({}, [1])
    assert [row["epoch"] for row in se.curves[0]] == [1.0, 2.0]
    assert se.curves[0][-1]["test_top1"] == se.results[0].test_top1
    assert found.baseline == "plain"
    assert found.conditions["epochs"] == "2"
    assert found.origin == "", "of these the paper prints nothing"
    assert len(found.rows) == 2
    assert str(found)


def test_what_is_not_defined_and_what_the_paper_prints(tmp_path: Path) -> None:
    found = comparison_of(
        plan(grid_named("reduction", "se_resnet20"), BASE, [0]), BASE, tmp_path, claims_in(tmp_path)
    )
    groups = {group.label: group for group in found.groups}
    assert "16 // 32 is 0" in groups["r = 32"].undefined
    assert groups["r = 32"].printed["top1"] == "22.72"
    assert groups["r = 4"].missing == [0]
    assert "Table 10" in found.origin
    assert "se.bias=False" in found.conditions["all variants"]
    assert found.name.startswith("reduction-resnet20-fake-2epochs-")


def test_a_series_has_its_pairs(tmp_path: Path) -> None:
    depths = grid_named("depth", "resnet20").only(["se_resnet20", "resnet32", "se_resnet32"])
    found = comparison_of(plan(depths, BASE, [0]), BASE, tmp_path, claims_in(tmp_path))
    assert [(pair.plain, pair.se, pair.depth) for pair in found.pairs] == [
        ("resnet20", "se_resnet20", 20),
        ("resnet32", "se_resnet32", 32),
    ]


def test_a_folder_is_named_by_all_that_a_table_stands_on() -> None:
    def name(grid: Grid, **changes: Any) -> str:
        base = dataclasses.replace(BASE, **changes)
        return folder_name(plan(grid, base, [0]), base)

    models = Grid.of_models(["resnet20", "se_resnet20"])
    assert name(models).startswith("compare-resnet20-se_resnet20-fake-2epochs-")
    grid = grid_named("placement", "se_resnet20")
    names = [
        name(grid),
        name(grid.only(["SE-PRE"])),
        name(grid, se={"reduction": 4}),
        name(grid, recipe=dataclasses.replace(BASE.recipe, weight_decay=0.5)),
        name(dataclasses.replace(grid, base={**grid.base, "epochs": 3})),
    ]
    assert len(set(names)) == len(names)
    assert name(grid) == names[0]
    assert "-3epochs-" in names[-1]


def test_conditions_say_what_is_not_the_recipes(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["digits"], epochs=3, weight_decay=0.5)
    base = dataclasses.replace(BASE, recipe=recipe, recipe_name="digits", se={"reduction": 4})
    grid = dataclasses.replace(GRID, base={"label_smoothing": 0.3})
    found = comparison_of(plan(grid, base, [0]), base, tmp_path, claims_in(tmp_path)).conditions
    assert (found["recipe"], found["epochs"]) == ("digits", "3")
    words = set(found["all variants"].split(", "))
    assert words == {"se.reduction=4", "label_smoothing=0.3", "weight_decay=0.5"}

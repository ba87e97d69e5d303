from pathlib import Path

import pytest

import senet
from senet.errors import DataError, OptionError
from senet.experiments.cells import changed
from senet.experiments.grid import Grid, grid_named, grid_names, parse, plain_and_se
from senet.paper import table
from senet.training.config import TrainConfig

TWO = "variants:\n  a: {network: plain}\n  b: {se.reduction: 4}\n"


@pytest.mark.parametrize("name", grid_names())
def test_the_papers_ablations(name: str) -> None:
    """Each variant can be made, and each printed row is one of the paper's table, once."""
    grid = grid_named(name, "se_resnet20")
    configs = [changed(TrainConfig(), grid.changes(label), asked="") for label in grid.variants]
    described = [(config.model, config.se, config.placement, config.stages) for config in configs]
    assert len({str(each) for each in described}) == len(configs)
    # As the paper: no block of an ablation has biases, but for the released models.
    assert all(config.se.get("bias") is False for config in configs if config.model.startswith("se_"))
    rows = {row.label for row in table(grid.table).rows} if grid.table else set()
    assert set(grid.printed.values()) == rows
    assert set(grid.printed) == (set(grid.variants) if grid.table else set())


def test_the_papers_numbers_stand_beside() -> None:
    grid = grid_named("reduction", "resnet50")
    assert grid.beside("r = 8") == {"top1": "22.26", "top5": "5.99", "parameters": "30.7"}
    assert grid.beside("plain")["top1"] == "23.30"
    assert "Table 10" in grid.origin
    assert Grid.of_models(["resnet50", "se_resnet50"]).beside("se_resnet50")["top1, ImageNet"] == "23.29"
    assert Grid.of_models(["resnet20", "se_resnet20"]).beside("se_resnet20") == {}


def test_of_whole_networks_the_papers_own_numbers_come_before_those_that_it_repeats() -> None:
    networks = Grid.of_models(["resnet50", "preresnet110", "se_preresnet110"])
    assert networks.beside("resnet50") == {
        "top1, ImageNet": "24.80",
        "top5, ImageNet": "7.48",
        "gmacs, ImageNet": "3.86",
        "parameters, ImageNet": "25.6",
    }
    assert networks.beside("preresnet110") == {
        "error, CIFAR-10": "6.37 (original paper's)",
        "error, CIFAR-100": "26.88 (original paper's)",
    }
    assert networks.beside("se_preresnet110")["error, CIFAR-10"] == "5.21"


def test_a_series_of_depths() -> None:
    grid = grid_named("depth", "se_resnet32")
    assert list(grid.pairs)[:2] == [("resnet20", "se_resnet20", 20), ("resnet32", "se_resnet32", 32)]
    fewer = grid.only(["se_resnet20", "resnet44", "se_resnet44"])
    assert list(fewer.variants) == ["resnet20", "se_resnet20", "resnet44", "se_resnet44"]
    assert [pair[2] for pair in fewer.pairs] == [20, 44]
    assert list(grid.only(["se_resnet56"]).variants) == ["resnet56", "se_resnet56"], "and not another depth"
    with pytest.raises(OptionError, match="of no series"):
        grid_named("depth", "se_vgg16_bn")
    with pytest.raises(OptionError, match="Did you mean 'resnet32'"):
        grid.only(["resnet23"])


def test_units_are_chosen_where_the_network_offers_them() -> None:
    assert grid_named("se3x3", "se_resnet20").base["options.unit"] == "bottleneck"
    assert "options.unit" not in grid_named("se3x3", "se_preresnet164").base


def test_networks_side_by_side() -> None:
    grid = Grid.of_models(["resnet20", "se_resnet20"])
    assert (grid.baseline, grid.name) == ("resnet20", "compare-resnet20-se_resnet20")
    for wrong, match in (
        (["resnet20"], "1 variants"),
        (["resnet20", "resnet20"], "twice"),
        (["resnet20", "renset20"], "Did you mean 'resnet20'"),
    ):
        with pytest.raises(OptionError, match=match):
            Grid.of_models(wrong)


def test_both_sides_of_a_network() -> None:
    assert (
        plain_and_se("se_resnet20") == plain_and_se("resnet20") == {"plain": "resnet20", "se": "se_resnet20"}
    )
    with pytest.raises(OptionError, match="there is no se_senet154"):
        plain_and_se("senet154")


def test_a_grid_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TWO + "base: {epochs: 3}\n")
    grid = grid_named(str(path), "resnet20")
    assert (grid.name, grid.title, grid.baseline) == ("mine", "mine", "a")
    assert grid.changes("b") == {"epochs": 3, "se.reduction": 4}
    assert grid.beside("b") == {}
    with pytest.raises(DataError, match="cannot be read"):
        grid_named(str(tmp_path / "none.yaml"), "resnet20")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "no YAML"),
        ("- a\n", "no variants"),
        ("variants: {a: {}}\n", "1 variants"),
        (TWO + "baselin: a\n", "Did you mean 'baseline'"),
        (TWO + "baseline: c\n", "'c' is unknown"),
        (TWO + "  a: {}\n", "'a' stands twice"),
        (TWO + "  c: 3\n", "'c' is no mapping"),
        (TWO + "  c: {network: both}\n", "'both' is unknown"),
        (TWO + "base: 3\n", "'base' is no mapping"),
        (TWO + "title: 5\n", "title is 5"),
        (TWO + "question: null\n", "question is None"),
        (TWO + '  "two\\nlines": {}\n', "one line of text"),
        (TWO + '  "": {}\n', "one line of text"),
        (TWO + '  "a, b": {}\n', "'a, b' has a comma.*--only"),
        ("variants: &a {a: *a}\n", "no YAML|no mapping|1 variants"),
    ],
)
def test_a_grid_that_is_none(text: str, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        parse("x", text, asked="the grid 'x'")


def test_the_name_of_an_ablation() -> None:
    with pytest.raises(OptionError, match="Did you mean 'squeeze'"):
        grid_named("squeze", "resnet20")
    assert set(grid_names()) == set(
        "reduction squeeze excitation stages placement se3x3 nosqueeze depth".split()
    )
    assert senet.info("resnet20").se is False

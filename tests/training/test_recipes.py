import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

import senet.training.recipes
from senet.detection import list_detectors
from senet.errors import OptionError
from senet.models import list_models
from senet.training.config import Recipe
from senet.training.recipes import (
    RECIPES,
    default_recipe,
    described,
    parse,
    recipe_named,
    to_markdown,
)

FILE = Path(senet.training.recipes.__file__).with_name("recipes.yaml")
DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"

# Read from the sources, not from the file: name, what they print.
PRINTED: list[tuple[str, dict[str, Any]]] = [
    ("imagenet", {"epochs": 100, "batch_size": 1024, "lr": 0.6, "momentum": 0.9, "gamma": 0.1}),
    ("imagenet", {"weight_decay": 1e-4, "crop": "resized", "area": 0.08, "flip": True, "nesterov": False}),
    ("imagenet", {"label_smoothing": 0.0, "warmup": 0.0, "decay_all": False, "freeze_norms": 0}),
    ("bn_inception", {"weight_decay": 2e-4, "batch_size": 1024, "lr": 0.6, "epochs": 100}),
    ("ablation", {"lr": 0.1, "schedule": "plateau", "label_smoothing": 0.1, "epochs": 300, "plateaus": 3}),
    ("released", {"epochs": 270, "batch_size": 256, "lr": 0.1, "rotate": 10.0, "jitter": 20, "area": 0.08}),
    ("senet154", {"batch_size": 2048, "lr": 1.0, "label_smoothing": 0.1}),
    ("mobile", {"batch_size": 256, "lr": 0.1, "schedule": "plateau", "epochs": 400, "weight_decay": 4e-5}),
    ("places365", {"squash": True, "resize": 256, "balanced": False}),
    ("places365_balanced", {"squash": True, "resize": 256, "balanced": True}),
    ("modern", {"epochs": 600, "batch_size": 1024, "lr": 0.5, "schedule": "cosine", "weight_decay": 2e-5}),
    ("modern", {"mixup": 0.2, "cutmix": 1.0, "erase": 0.1, "trivialaugment": True, "label_smoothing": 0.1}),
    ("modern", {"train_size": 176, "resize": 232, "repeats": 4, "nesterov": False, "decay_all": False}),
    ("cifar", {"batch_size": 128, "lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9, "pad": 4, "flip": True}),
    ("cifar", {"nesterov": False, "warmup": 0.0, "pad_mode": "constant", "crop": "pad"}),
    ("cifar_deep", {"warmup_lr": 0.01, "lr": 0.1, "batch_size": 128}),
    ("preresnet", {"warmup_lr": 0.01, "lr": 0.1, "batch_size": 128, "weight_decay": 1e-4}),
    ("wrn", {"epochs": 200, "gamma": 0.2, "weight_decay": 5e-4, "nesterov": True, "pad_mode": "reflect"}),
    ("wrn", {"batch_size": 128, "lr": 0.1, "decay_all": True, "pad": 4, "cutout": 0}),
    ("shakeshake", {"epochs": 1800, "batch_size": 128, "lr": 0.2, "schedule": "cosine", "cutout": 16}),
    ("shakeshake", {"weight_decay": 1e-4, "nesterov": True, "decay_all": True, "pad_mode": "constant"}),
    ("shakeeven", {"epochs": 1800, "batch_size": 32, "lr": 0.025, "weight_decay": 5e-4, "cutout": 8}),
    ("coco", {"lr": 0.02, "batch_size": 16, "weight_decay": 1e-4, "flip": True, "frozen_norms": True}),
    ("coco", {"frozen_stages": 2, "gamma": 0.1, "schedule": "step", "momentum": 0.9, "crop": "centre"}),
    ("coco_conference", {"lr": 0.001, "batch_size": 8, "milestones": (0.75,), "frozen_norms": True}),
    ("digits", {"epochs": 30, "batch_size": 64, "lr": 0.1, "warmup": 0.05, "weight_decay": 5e-4, "pad": 1}),
    ("digits", {"flip": False, "decay_all": False, "schedule": "cosine", "label_smoothing": 0.1}),
]


@pytest.mark.parametrize(("name", "values"), PRINTED)
def test_the_values_are_the_sources(name: str, values: dict[str, Any]) -> None:
    recipe = recipe_named(name)
    assert {key: getattr(recipe, key) for key in values} == values


def test_every_recipe_is_checked_here() -> None:
    assert {name for name, _ in PRINTED} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_values_are_of_their_types(name: str) -> None:
    """As the command line takes them: YAML reads 4e-5 as words."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    stated = {key: list(v) if isinstance(v, tuple) else v for key, v in described()[name].stated.items()}
    found = parser.parse_object(stated).as_dict()
    assert Recipe(**found) == recipe_named(name)


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("imagenet", (30, 60, 90)), ("released", (125, 200, 250)), ("wrn", (60, 120, 160))],
)
def test_milestones_are_exactly_at_the_end_of_an_epoch(name: str, epochs: tuple[int, ...]) -> None:
    recipe = recipe_named(name)
    assert recipe.milestones == tuple(epoch / recipe.epochs for epoch in epochs)


@pytest.mark.parametrize("name", ["cifar", "cifar_deep", "preresnet"])
def test_64k_steps_with_the_rate_falling_at_32k_and_48k(name: str) -> None:
    recipe = recipe_named(name)
    steps = 50_000 // recipe.batch_size * recipe.epochs
    assert abs(steps - 64_000) < 390
    assert [round(share * steps, -3) for share in recipe.milestones] == [32_000, 48_000]
    assert round(recipe.warmup * steps) == (0 if name == "cifar" else 400)


def test_coco_takes_the_steps_of_detectron() -> None:
    recipe = recipe_named("coco")
    steps = 117_266 // recipe.batch_size * recipe.epochs
    assert steps == pytest.approx(180_000, rel=0.02)
    assert [share * 180_000 for share in recipe.milestones] == pytest.approx([120_000, 160_000], rel=1e-3)
    assert recipe.warmup * steps == pytest.approx(500, rel=0.05)
    conference = recipe_named("coco_conference")
    assert 82_081 // conference.batch_size * conference.epochs == pytest.approx(320_000, rel=0.02)


def test_places365_takes_as_many_steps_as_imagenet() -> None:
    ours, imagenet = recipe_named("places365"), recipe_named("imagenet")
    assert 8_000_000 * ours.epochs == pytest.approx(1_281_167 * imagenet.epochs, rel=0.01)


def test_the_modern_average_and_warm_up_are_torchvisions() -> None:
    recipe = recipe_named("modern")
    # Every 32 steps, 1 - 0.00002 scaled by the images between two updates and the epochs.
    assert recipe.ema**32 == pytest.approx(1 - 0.00002 * 1024 * 32 / 600, abs=1e-6)
    assert recipe.warmup * recipe.epochs == pytest.approx(5)


@pytest.mark.parametrize("prefix", ["", "se_"])
def test_every_network_has_the_recipe_of_its_family(prefix: str) -> None:
    families = {
        "cifar": "resnet20 resnet32 resnet44 resnet56",
        "cifar_deep": "resnet110",
        "preresnet": "preresnet110 preresnet164",
        "wrn": "wrn16_8",
        "shakeshake": "shakeshake26_2x96d",
        "shakeeven": "shakeeven29_2x4x64d",
        "mobile": "mobilenet_v1 shufflenet_v1_g3",
        "bn_inception": "bn_inception",
        "senet154": "senet154",
        "imagenet": "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x4d "
        "vgg16_bn inception_resnet_v2",
    }
    expected = {network: name for name, networks in families.items() for network in networks.split()}
    assert {name.removeprefix("se_") for name in list_models()} == set(expected)
    for network, name in expected.items():
        assert default_recipe("folder:x", prefix + network) == name


def test_digits_and_unknown_networks_have_a_recipe_too() -> None:
    assert default_recipe("digits", "se_resnet20") == default_recipe("digits", "resnet50") == "digits"
    assert default_recipe("folder:x", "timm:resnet20d") == "imagenet"
    assert default_recipe("coco:x", "fasterrcnn_se_resnet50_fpn") == "coco"
    assert default_recipe("coco:x", "fasterrcnn_timm:seresnet50_fpn") == "coco"


def test_no_pattern_is_dead() -> None:
    for each in described().values():
        for pattern in each.networks:
            names = [*list_models(), *list_detectors()]
            assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_every_recipe_says_where_it_is_from() -> None:
    for each in described().values():
        assert each.data
        origin = "arXiv" in each.source or "https://" in each.source
        assert origin or any(word in each.source for word in ("SE paper", "As ", "Ours"))


def test_rates_are_not_scaled_unless_asked() -> None:
    assert {recipe.lr_batch for recipe in RECIPES.values()} == {None}


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'cifar'"):
        recipe_named("cifar10")


def test_an_unknown_key_fails() -> None:
    text = "x: {data: d, networks: [], source: s, note: '', values: {lr: 0.1}}"
    assert parse(text)["x"].recipe == Recipe(lr=0.1)
    with pytest.raises(OptionError, match="Did you mean 'lr'"):
        parse(text.replace("lr:", "lrr:"))
    with pytest.raises(OptionError, match="Did you mean 'source'"):
        parse(text.replace("source:", "sources:"))
    with pytest.raises(OptionError, match=r"epochs=0"):
        parse(text.replace("lr: 0.1", "epochs: 0"))


def test_no_key_stands_twice() -> None:
    """YAML takes the last in silence."""

    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            for _, value in node.value:
                check(value)

    root = yaml.compose(FILE.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert root is not None
    check(root)


def test_the_document_equals_the_data() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").endswith(f"\n\n{to_markdown()}")


def test_the_command_line_reads_them_without_torch() -> None:
    code = "import sys, senet.training.recipes as r; list(r.RECIPES); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

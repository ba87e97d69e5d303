import pytest

from senet.errors import OptionError
from senet.training.recipes import RECIPES, default_recipe, recipe_named


def test_the_papers_imagenet_recipe() -> None:
    recipe = recipe_named("imagenet")
    assert (recipe.batch_size, recipe.lr, recipe.epochs, recipe.momentum) == (1024, 0.6, 100, 0.9)
    assert [round(share * recipe.epochs) for share in recipe.milestones] == [30, 60, 90]
    assert (recipe.gamma, recipe.weight_decay, recipe.crop, recipe.flip) == (0.1, 1e-4, "resized", True)


def test_the_cifar_recipe_is_64k_steps() -> None:
    recipe = recipe_named("cifar")
    steps = 50_000 // recipe.batch_size * recipe.epochs
    assert abs(steps - 64_000) < 390
    assert [round(share * steps, -3) for share in recipe.milestones] == [32_000, 48_000]
    assert (recipe.crop, recipe.pad, recipe.flip) == ("pad", 4, True)


def test_digits_are_never_mirrored() -> None:
    assert not RECIPES["digits"].flip


@pytest.mark.parametrize(
    ("data", "size", "name"),
    [
        ("digits", 32, "digits"),
        ("digits", 224, "digits"),
        ("shards:x", 32, "cifar"),
        ("folder:x", 224, "imagenet"),
    ],
)
def test_the_recipe_follows_data_and_network(data: str, size: int, name: str) -> None:
    assert default_recipe(data, size) == name


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'cifar'"):
        recipe_named("cifar10")

from typing import Any

import pytest
import yaml

from senet.errors import OptionError
from senet.training.config import Recipe, TrainConfig


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": 0.0}, "lr=0.0.*above 0"),
        ({"gamma": 2.0}, "gamma=2.0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"nesterov": True, "momentum": 0.0}, "a momentum above 0"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"warmup": 1.0}, "warmup"),
        ({"pad": -1}, "pad=-1"),
        ({"milestones": (30, 60)}, "shares of the epochs"),
        ({"milestones": (0.6, 0.3)}, "rising"),
    ],
)
def test_recipes_that_are_not_possible(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe(**values)


@pytest.mark.parametrize("values", [{"seed": -1}, {"workers": -1}, {"image_size": 0}])
def test_runs_that_are_not_possible(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        TrainConfig(**values)


def test_it_travels_flat_as_yaml() -> None:
    config = TrainConfig(recipe=Recipe(milestones=(0.5,)), recipe_name="cifar", stages=(2, 3))
    values = config.to_dict()
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    assert (values["recipe"], values["milestones"], values["stages"]) == ("cifar", [0.5], [2, 3])

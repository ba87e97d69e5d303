"""The recipes, as data, each with its source: ``recipes.yaml`` holds them and says how to read it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from senet.errors import check_choice, check_options
from senet.tables import Table
from senet.training.config import Recipe


@dataclass(frozen=True, kw_only=True)
class DescribedRecipe:
    """A recipe, and what stands beside it.

    Args:
        name: what ``--recipe`` takes.
        recipe: the values.
        stated: those of them that ``recipes.yaml`` states; the others are the defaults of ``Recipe``.
        data: the images that it is for.
        networks: shell patterns of the networks that it is the default for, without a leading ``se_``.
        source: where the values are from.
        note: what the source does not say, and what was taken then: that is ours.
    """

    name: str
    recipe: Recipe
    stated: Mapping[str, Any]
    data: str
    networks: tuple[str, ...]
    source: str
    note: str

    def to_markdown(self) -> str:
        """The recipe as docs/recipes.md shows it."""
        rows = [{"option": f"`--{key}`", "value": _written(value)} for key, value in self.stated.items()]
        default = ", ".join(f"`{pattern}`" for pattern in self.networks) or "no network"
        note = f"\n**Ours, or left open.**\n{self.note}" if self.note else ""
        return (
            f"### {self.name}\n\n{self.data}. The default of {default}.\n\n"
            f"**Source.**\n{self.source}{note}\n{Table(rows).to_markdown()}"
        )


class _Recipes(Mapping[str, Recipe]):
    """The recipes by name, read when they are first asked for."""

    def __getitem__(self, name: str) -> Recipe:
        return described()[name].recipe

    def __iter__(self) -> Iterator[str]:
        return iter(described())

    def __len__(self) -> int:
        return len(described())


RECIPES: Mapping[str, Recipe] = _Recipes()


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; OptionError, naming the nearest, if there is none."""
    check_choice(f"recipe {name!r}", name, RECIPES)
    return RECIPES[name]


def default_recipe(data: str, network: str) -> str:
    """The recipe that fits some data and a network.

    Args:
        data: as ``--data`` takes it; the digits have a recipe of their own.
        network: its name; one that no recipe knows gets imagenet.
    """
    if data == "digits":
        return "digits"
    plain = network.removeprefix("se_")
    fitting = [
        name for name, each in described().items() if any(fnmatchcase(plain, at) for at in each.networks)
    ]
    return fitting[-1]


@cache
def described() -> Mapping[str, DescribedRecipe]:
    """All recipes by name, in the file's order, with what stands beside their values."""
    return parse(Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, DescribedRecipe]:
    """The recipes in ``text``, which is as ``recipes.yaml``.

    Raises:
        OptionError: a key is unknown, or a value is not possible.
    """
    return {name: _described(name, entry) for name, entry in yaml.safe_load(text).items()}


def to_markdown() -> str:
    """All recipes, as docs/recipes.md shows them: a table, and a section each."""
    rows = [
        {
            "recipe": each.name,
            "for": each.data.partition(":")[0],
            "epochs": each.recipe.epochs,
            "batch": each.recipe.batch_size,
            "rate": each.recipe.lr,
            "schedule": each.recipe.schedule,
            "weight decay": f"{each.recipe.weight_decay:g}",
        }
        for each in described().values()
    ]
    return "\n".join([Table(rows).to_markdown(), *(each.to_markdown() for each in described().values())])


def _described(name: str, entry: Mapping[str, Any]) -> DescribedRecipe:
    check_options(f"recipe {name!r}", entry, ("data", "networks", "source", "note", "values"))
    fields = [field.name for field in dataclasses.fields(Recipe)]
    stated: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry["values"].items()
    }
    check_options(f"recipe {name!r}", stated, fields)
    return DescribedRecipe(
        name=name,
        recipe=Recipe(**stated),
        stated=stated,
        data=entry["data"],
        networks=tuple(entry["networks"]),
        source=entry["source"],
        note=entry["note"],
    )


def _written(value: Any) -> str:
    """As the command line takes it."""
    return json.dumps(value) if isinstance(value, bool | tuple) else str(value)

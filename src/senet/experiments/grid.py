"""Grids: what is compared with what, as data; the paper's ablations are in ``grids.yaml``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml

from senet.errors import DataError, OptionError, check_choice, check_options
from senet.models import info, list_models
from senet.paper import published
from senet.paper import table as paper_table

SIDES = ("plain", "se")
# Columns of the paper's that runs are compared with.
_BESIDE = ("top1", "top5", "error", "gmacs", "mmacs", "parameters")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Variants of a run, and which of them the others are compared with.

    Args:
        name: of the folder that the table goes to.
        title: of the table.
        question: that it answers.
        variants: by label, what each changes of the run: options of ``senet train``, dotted, and ``network``,
            "plain" or "se", for the side of the model.
        baseline: the label of the variant that the others are compared with.
        base: what all variants change.
        table: the paper's, such as "reduction"; "" for none.
        printed: the row of that table for a label.
        pairs: for a series of depths, the labels of plain and SE, and the depth.

    Raises:
        OptionError: the baseline is no variant, or there are fewer than two.
    """

    name: str
    title: str
    question: str = ""
    variants: Mapping[str, Mapping[str, Any]]
    baseline: str
    base: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""
    printed: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str, int]] = ()

    def __post_init__(self) -> None:
        asked = f"the grid {self.name!r}"
        if len(self.variants) < 2:
            raise OptionError(asked, f"it has {len(self.variants)} variants", "at least two to compare")
        check_choice(f"{asked}, baseline {self.baseline!r}", self.baseline, self.variants)
        for side in (each["network"] for each in self.variants.values() if "network" in each):
            check_choice(f"{asked}, network: {side}", side, SIDES)

    def changes(self, label: str) -> dict[str, Any]:
        """All that a variant changes."""
        return {**self.base, **self.variants[label]}

    def only(self, labels: Sequence[str]) -> Self:
        """The grid with these variants and what they are compared with; OptionError if one is unknown."""
        for label in labels:
            check_choice(f"the grid {self.name!r}, variant {label!r}", label, self.variants)
        pairs = [pair for pair in self.pairs if pair[1] in labels or pair[0] in labels]
        partners = {side for pair in pairs for side in pair[:2]} if self.pairs else {self.baseline}
        kept = {label: each for label, each in self.variants.items() if label in {*labels, *partners}}
        baseline = self.baseline if self.baseline in kept else next(iter(kept))
        return dataclasses.replace(self, variants=kept, pairs=pairs, baseline=baseline)

    def beside(self, label: str) -> dict[str, str]:
        """What the paper prints for a variant, by column; {} if it prints nothing.

        Of a whole network by column and data: the authors' own, or else what they repeat of its own paper.
        """
        if self.table:
            row = self.printed.get(label)
            return dict(paper_table(self.table).row(row).printed) if row else {}
        found: dict[str, str] = {}
        numbers = [
            each for each in published(str(self.changes(label).get("model"))) if each.column in _BESIDE
        ]
        # Of several the first: those of a longer schedule stand later.
        for by, mark in (("paper", ""), ("original", " (original paper's)")):
            for each in numbers:
                if each.by == by:
                    found.setdefault(f"{each.column}, {each.data}", f"{each}{mark}")
        return found

    @property
    def origin(self) -> str:
        """Where the paper's numbers are from."""
        if not self.table:
            return "the paper's numbers for these networks"
        found = paper_table(self.table)
        return f"{found.where} of the paper, {found.data}: {found.setting}"

    @property
    def is_of_networks(self) -> bool:
        """Whether each variant names its network, so that they share none."""
        return all("model" in each for each in self.variants.values())

    @classmethod
    def of_models(cls, models: Sequence[str]) -> Self:
        """Whole networks: the first is what the others are compared with; OptionError if one is unknown."""
        for model in models:
            info(model)
        repeated = {model for model in models if models.count(model) > 1}
        if repeated:
            raise OptionError(f"comparing {', '.join(models)}", f"{min(repeated)} stands there twice")
        return cls(
            name=f"compare-{'-'.join(models)}" if len(models) < 4 else f"compare-{len(models)}-networks",
            title=" and ".join([", ".join(models[:-1]), models[-1]]),
            variants={model: {"model": model} for model in models},
            baseline=models[0] if models else "",
        )


def grid_names() -> list[str]:
    """The names of the paper's ablations."""
    return list(_shipped())


def grid_named(name: str, model: str) -> Grid:
    """The ablation of that name for a network, or the grid in a .yaml file.

    Raises:
        OptionError: the name or a key is unknown, or the network has no such ablation.
        DataError: the file cannot be read.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise DataError(f"the grid {name!r}", f"it cannot be read ({error})") from error
        return parse(Path(name).stem, text, asked=f"the grid {name!r}")
    check_choice(f"the ablation {name!r}", name, grid_names())
    entry = dict(_shipped()[name])
    if "series" in entry:
        entry |= _series(entry.pop("series"), model)
    if "options.unit" in entry["base"] and "unit" not in info(model).options:
        entry["base"] = {key: value for key, value in entry["base"].items() if key != "options.unit"}
    return Grid(name=name, **entry)


def parse(name: str, text: str, *, asked: str) -> Grid:
    """A grid written as YAML: title, question, baseline, base, variants (label: changes).

    Raises:
        OptionError: it is none, a label stands there twice, or a key is unknown.
    """
    try:
        entry = _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionError(asked, f"it is no YAML ({' '.join(str(error).split())})") from error
    form = "title, question, baseline, base: {option: value}, variants: {label: {option: value}}"
    variants = entry.get("variants") if isinstance(entry, dict) else None
    if not isinstance(variants, dict):
        raise OptionError(asked, "there are no variants in it", allowed=form)
    check_options(asked, entry, ("title", "question", "baseline", "base", "variants"))
    for label, changes in [("base", entry.get("base", {})), *variants.items()]:
        if not (isinstance(label, str) and isinstance(changes, dict) and all(map(_is_word, changes))):
            raise OptionError(asked, f"{label!r} is no mapping of options to values", allowed=form)
    texts = {"title": entry.get("title", name), "question": entry.get("question", "-")}
    for what, text in [*texts.items(), *(("the label", label) for label in variants)]:
        if not isinstance(text, str) or not text.strip() or text.splitlines() != [text]:
            raise OptionError(asked, f"{what} is {text!r}", "one line of text")
    for label in variants:
        if "," in label:
            raise OptionError(
                asked, f"the label {label!r} has a comma", "none: --only separates labels by them"
            )
    return Grid(**{"name": name, "title": name, "baseline": next(iter(variants), ""), **entry})


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    text = Path(__file__).with_name("grids.yaml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = _Loader(text).get_single_data()
    return entries


def _series(series: Sequence[Sequence[str]], model: str) -> dict[str, Any]:
    """The variants of the series that the model is of."""
    plain = model.removeprefix("se_")
    for networks in series:
        if plain in networks and len(networks) > 1:
            variants = {name: {"model": name} for each in networks for name in (each, f"se_{each}")}
            depths = [int(re.findall(r"\d+", each)[0]) for each in networks]
            pairs = [(each, f"se_{each}", depth) for each, depth in zip(networks, depths, strict=True)]
            return {"variants": variants, "baseline": networks[0], "pairs": pairs}
    raise OptionError(
        f"the ablation 'depth' of {model}",
        "it is of no series of depths",
        allowed="; ".join(", ".join(networks) for networks in series),
    )


def plain_and_se(model: str) -> dict[str, str]:
    """The names of both sides of a model; OptionError if the registry has only one."""
    info(model)
    sides = dict(zip(SIDES, (model.removeprefix("se_"), f"se_{model.removeprefix('se_')}"), strict=True))
    missing = [name for name in sides.values() if name not in list_models()]
    if missing:
        raise OptionError(f"an ablation of {model}", f"there is no {missing[0]} to compare with")
    return sides


def _is_word(key: object) -> bool:
    return isinstance(key, str)


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: the first variant would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merged = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merged]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)

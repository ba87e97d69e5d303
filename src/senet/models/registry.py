"""The names of networks, and how one is built from its name.

A family registers each plain name once; its SE twin ``se_NAME`` comes of itself.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch

from senet.block import SEConfig
from senet.errors import OptionError, check_choice, check_options, did_you_mean, require, require_count
from senet.graph.arithmetic import MultiplyAdds, multiply_adds
from senet.insertion.placement import placement_named
from senet.models.network import Network
from senet.models.placing import take_out
from senet.models.structure import Structure, structure
from senet.paper import Published, published
from senet.weights import PublishedWeights, published_weights

LAYOUTS = ("modern", "original")

# What every network has; what its family's constructor takes by keyword are options of its own.
_COMMON = ("num_classes", "in_channels", "se", "placement", "stages", "layout")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a name; what has to be counted is counted when it is asked for.

    Args:
        name: as for ``build``.
        family: the architecture it is a row of.
        input_size: (C, H, W) of the images that it was designed for.
        classes: how many it was designed for.
        se: whether it has SE blocks unless told otherwise.
        options: the options that its family adds to those of ``build``.
        layouts: "modern" and "original"; one of them where both are the same network.
    """

    name: str
    family: str
    input_size: tuple[int, int, int]
    classes: int
    se: bool
    options: tuple[str, ...]
    layouts: tuple[str, ...] = LAYOUTS

    @cached_property
    def parameters(self) -> int:
        """The learnable parameters with ``classes`` classes."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    @cached_property
    def multiply_adds(self) -> MultiplyAdds:
        """Those of one image of ``input_size`` in the original layout, which the paper counts."""
        example = torch.empty(1, *self.input_size, device="meta")
        return multiply_adds(self._network, example)

    @cached_property
    def structure(self) -> Structure:
        """The stages and units, as the paper prints them in Table 1."""
        return structure(self._network, self.input_size)

    @property
    def published(self) -> tuple[Published, ...]:
        """What the paper, and the README of the released models, print of it."""
        return published(self.name)

    @property
    def weights(self) -> tuple[PublishedWeights, ...]:
        """The weights that others have published for it, with their licence and accuracy."""
        return published_weights(self.name)

    @cached_property
    def _network(self) -> Network:
        """In the original layout, without memory."""
        se = SEConfig() if self.se else None
        with torch.device("meta"):
            return NetworkConfig(self.name, self.classes, se=se, layout="original").build()


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that decides a network but its weights; ``build`` makes it, JSON carries it.

    Args:
        name: of the registry.
        num_classes: of the classifier.
        in_channels: of the images.
        se: the SE blocks' config, None for a plain network.
        placement: where SE stands in a unit.
        stages: the stages that have SE, None for all.
        layout: "modern" or "original".
        options: of the family.
        folded: the SE blocks that ``senet.fold_gates`` has taken out, by their paths.
        scaled: those in whose place a constant scale is.

    Raises:
        OptionError: a name, an option or a value is not allowed.
    """

    name: str
    num_classes: int = 1000
    in_channels: int = 3
    se: SEConfig | None = None
    placement: str = "standard"
    stages: tuple[int, ...] | None = None
    layout: str = "modern"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    folded: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = _known(self.name)
        require_count("num_classes", self.num_classes)
        require_count("in_channels", self.in_channels)
        require("se", self.se, self.se is None or isinstance(self.se, SEConfig), "'auto', an SEConfig, None")
        listed = self.stages is None or isinstance(self.stages, tuple)
        require("stages", self.stages, listed, "None, or stages such as (2, 3)")
        placement_named(self.placement)
        check_choice(f"layout={self.layout!r}", self.layout, LAYOUTS)
        if self.layout not in known.info.layouts:
            # So that weights of the one fit the other.
            object.__setattr__(self, "layout", known.info.layouts[0])
        if self.se is None and (self.placement != "standard" or self.stages is not None):
            raise OptionError(
                f"build({self.name!r}, placement={self.placement!r}, stages={self.stages!r})",
                found="the network has no SE block to place",
                do="Give se=SEConfig(), or take the name with se_ before it.",
            )
        options = [name for name in self.options if name not in known.info.options]
        check_options(f"build({self.name!r})", options, sorted({*known.info.options, *_COMMON, "weights"}))

    def build(self) -> Network:
        """The network, freshly initialised, with this config as its ``config``."""
        network = _known(self.name).make(self, **self.options)
        take_out(network)
        return network

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; of the last two only what there is, as they are rare."""
        values = dataclasses.asdict(self)
        return {key: value for key, value in values.items() if value or key not in ("folded", "scaled")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that ``to_dict`` gave."""
        se, stages = values["se"], values["stages"]
        return cls(
            **{
                **values,
                "se": None if se is None else SEConfig.from_dict(se),
                "stages": None if stages is None else tuple(stages),
                "folded": tuple(values.get("folded", ())),
                "scaled": tuple(values.get("scaled", ())),
            }
        )


@dataclass(frozen=True)
class _Entry:
    info: ModelInfo
    make: Callable[..., Network]


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str,
    make: Callable[..., Network],
    *,
    family: str,
    input_size: tuple[int, int, int],
    classes: int = 1000,
    se_by_default: bool = False,
    one_layout: bool = False,
) -> None:
    """Registers a network under its plain name, and as ``se_NAME`` with SE.

    Args:
        name: the plain name.
        make: builds it from a NetworkConfig and, by keyword, the family's own options.
        family: the architecture's name.
        input_size: (C, H, W) that it was designed for.
        classes: how many it was designed for.
        one_layout: both layouts are the same network, which is then called modern.
        se_by_default: the name itself means the SE network (SENet-154); it has no twin.

    Raises:
        OptionError: the name is taken.
    """
    options = tuple(
        parameter.name
        for parameter in inspect.signature(make).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    )
    names = {name: se_by_default} if se_by_default else {name: False, f"se_{name}": True}
    for each, se in names.items():
        if each in _ENTRIES:
            raise OptionError(f"register({each!r})", found="the name is taken", do="Choose another.")
        layouts = LAYOUTS[:1] if one_layout else LAYOUTS
        _ENTRIES[each] = _Entry(ModelInfo(each, family, input_size, classes, se, options, layouts), make)


def list_models(pattern: str = "*") -> list[str]:
    """The registered names that match a shell pattern such as ``"se_*"``, each plain one before its twin."""
    return sorted(fnmatch.filter(_ENTRIES, pattern), key=_order)


def info(name: str) -> ModelInfo:
    """What is known of a name; OptionError, naming the nearest, if there is no such network."""
    return _known(name).info


def _known(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise OptionError(
            f"build({name!r})",
            found="there is no such network",
            allowed="the names of senet.list_models()",
            do=did_you_mean(name, _ENTRIES),
        )
    return _ENTRIES[name]


def _order(name: str) -> list[int | str]:
    # Numbers as numbers: resnet18 stands before resnet101. A network stands before its twin.
    plain = name.removeprefix("se_")
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", plain)]
    return [*parts, plain != name]

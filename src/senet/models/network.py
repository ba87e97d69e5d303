"""What all networks have in common: levels of a pyramid one after the other, and a head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from senet.errors import UndefinedError, require
from senet.insertion.placement import Rebuilt, Staged

if TYPE_CHECKING:
    from senet.models.registry import NetworkConfig


@dataclass(frozen=True)
class Level:
    """The part of a network that works at one resolution; its last map is one of the pyramid's.

    Args:
        stage: k of the paper's conv{k}_x, the last one in it.
        modules: the paths of the modules that run, one after the other.
        channels: of the last map.
        stride: of the last map: how many pixels of the image a step is.
    """

    stage: int
    modules: tuple[str, ...]
    channels: int
    stride: int


class Network(nn.Module, Staged, Rebuilt):
    """A network that is a chain of levels, and a head on the last.

    Args:
        config: what rebuilds it: classes, channels, SE, layout.
        dropout: before the classifier.

    Raises:
        OptionError: the dropout is not one.
    """

    # From the widest map to the narrowest; a subclass sets it.
    pyramid_info: tuple[Level, ...] = ()

    def __init__(self, config: NetworkConfig, dropout: float = 0.0) -> None:
        super().__init__()
        share = isinstance(dropout, int | float) and 0 <= dropout < 1
        require("dropout", dropout, share, "0 <= dropout < 1")
        self.config = config
        self.drop_probability = dropout

    def finish(self, levels: Sequence[Level]) -> None:
        """Adds the head after the levels' modules, and initialises the convolutions.

        Args:
            levels: from the widest map to the narrowest.
        """
        self.pyramid_info = tuple(levels)
        self.add_head(levels[-1].channels)
        for module in self.modules():
            # He et al. 2015, as the paper trains; SE blocks have initialised themselves. Without memory
            # there is nothing to draw, and PyTorch is slow at it.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                # PyTorch's own function takes no account of groups.
                outgoing = module.weight[:, 0].numel() // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / outgoing))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def add_head(self, channels: int) -> None:
        """Adds the modules between the last map, of so many channels, and the scores."""
        self.dropout = nn.Dropout(self.drop_probability)
        self.fc = nn.Linear(channels, self.config.num_classes)

    def head(self, x: Tensor) -> Tensor:
        """The last map (N, C, H, W) to class scores (N, num_classes)."""
        scores: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) to class scores (N, num_classes)."""
        for level in self.pyramid_info:
            x = self._run(level, x)
        return self.head(x)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The last map of each level, for detection and segmentation.

        Args:
            x: images (N, in_channels, H, W).

        Returns:
            A map (N, channels, about H / stride, about W / stride) for each level of ``pyramid_info``.
        """
        maps = []
        for level in self.pyramid_info:
            x = self._run(level, x)
            maps.append(x)
        return maps

    def stage_of(self, module: str) -> int | None:
        """The stage of the module at a path, None in the head."""
        for level in self.pyramid_info:
            if any(f"{module}.".startswith(f"{each}.") for each in level.modules):
                return level.stage
        return None

    def became_constant(self, folded: Sequence[str], scaled: Sequence[str]) -> None:
        """Has the config say so; see ``Rebuilt``."""
        config = self.config
        self.config = dataclasses.replace(
            config, folded=(*config.folded, *folded), scaled=(*config.scaled, *scaled)
        )

    def _run(self, level: Level, x: Tensor) -> Tensor:
        for name in level.modules:
            x = self.get_submodule(name)(x)
        return x


def checked_stages(stages: Sequence[int] | None, existing: Sequence[int]) -> tuple[int, ...]:
    """The stages that get SE, all that exist for None; UndefinedError where one does not exist."""
    if stages is None:
        return tuple(existing)
    unknown = [stage for stage in stages if stage not in existing]
    if unknown or not stages:
        raise UndefinedError(
            f"stages={tuple(stages)}",
            found=f"there is no stage {unknown[0]}" if unknown else "no stage is named",
            allowed=", ".join(str(stage) for stage in existing),
            do="Stage k is the paper's conv{k}_x; `senet models NAME` shows them.",
        )
    return tuple(sorted(set(stages)))

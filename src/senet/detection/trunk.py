"""Any CNN as the trunk of a detector: its maps at four resolutions, and nothing behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet.errors import OptionError, require
from senet.evaluation.classification import evaluating

# Of the maps that a feature pyramid is built on (Lin et al. 2017, arXiv 1612.03144, section 3).
STRIDES = (4, 8, 16, 32)
# Of the image that shows what a network does; a multiple of every stride.
_SIDE = 256


class Trunk(nn.Module):
    """The last map that a network has at each of the strides 4, 8, 16 and 32.

    The network runs as its own forward says, up to the last of them, so that SE which was inserted is in
    it. What runs later, its head, is taken out; the other keys of its state dict stay.

    Args:
        network: any CNN that takes an image of 256 pixels; it is changed.
        in_channels: of the images.

    Raises:
        OptionError: it has no map of one of the strides, or fails on such an image.
    """

    def __init__(self, network: nn.Module, in_channels: int = 3) -> None:
        super().__init__()
        self.network = network
        calls = _calls(network, in_channels)
        self._maps = list(_chain(calls))
        last = {each.stride: each for each in self._maps}
        missing = [stride for stride in STRIDES if stride not in last]
        if missing:
            raise OptionError(
                f"a detector on {type(network).__name__}",
                found=f"it has no map of stride {missing[0]}, but of {sorted(last)}",
                allowed=f"a network with maps of the strides {', '.join(map(str, STRIDES))}",
            )
        self.names = [last[stride].module for stride in STRIDES]
        self.channels = [last[stride].channels for stride in STRIDES]
        self._order = [call.module for call in calls]
        self._order = self._order[: self._order.index(self.names[-1]) + 1]
        self._take_out_the_head()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, in_channels, H, W) to four maps (N, channels[i], about H / stride, about W / stride)."""
        found: dict[str, Tensor] = {}

        def keeping(name: str) -> Any:
            def keep(_module: nn.Module, _given: Any, output: Tensor) -> None:
                found[name] = output
                if name == self.names[-1]:
                    raise _LastMapError

            return keep

        with ExitStack() as stack:
            for name in self.names:
                stack.callback(self.network.get_submodule(name).register_forward_hook(keeping(name)).remove)
            with suppress(_LastMapError):
                self.network(x)
        return [found[name] for name in self.names]

    def freeze(self, stages: int) -> None:
        """Has what comes first stay as it is: up to the last map of stride 2 to the power of ``stages``.

        In a ResNet stage k is the paper's conv{k}_x; Detectron freezes two. 0 freezes nothing.

        Raises:
            OptionError: it is not 0 to 5.
        """
        require("frozen_stages", stages, 0 <= stages <= len(STRIDES) + 1, f"0 to {len(STRIDES) + 1}")
        frozen = [each.module for each in self._maps if each.stride <= 2**stages and stages]
        for name in self._order[: self._order.index(frozen[-1]) + 1] if frozen else []:
            # A norm that its unit reads, and never calls, is in the unit.
            self.network.get_submodule(name).requires_grad_(False)

    def _take_out_the_head(self) -> None:
        """Puts nothing in the place of each module that ran after the maps, or not at all."""
        ran = set(self._order)
        around = {"", *(each for name in ran for each in _ancestors(name))} - ran
        for name, _ in list(self.network.named_modules()):
            parent, _, own = name.rpartition(".")
            if parent in around and name not in ran | around:
                setattr(self.network.get_submodule(parent), own, nn.Identity())


class _LastMapError(Exception):
    """Not an error: the last map is there."""


@dataclass(frozen=True)
class _Call:
    """A module that ran: its path, and the channels and stride of its output if that is a map."""

    module: str
    channels: int = 0
    stride: int = 0


def _calls(network: nn.Module, in_channels: int) -> list[_Call]:
    """The modules that ran on an image, as they ended."""
    calls: list[_Call] = []

    def noting(name: str) -> Any:
        def note(_module: nn.Module, _given: Any, output: Any) -> None:
            square = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]
            # A map of one pixel is a mean.
            is_map = square and output.shape[2] > 1
            calls.append(_Call(name, output.shape[1], _SIDE // output.shape[2]) if is_map else _Call(name))

        return note

    like = next(network.parameters())
    image = torch.zeros(1, in_channels, _SIDE, _SIDE, device=like.device, dtype=like.dtype)
    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(noting(name)).remove)
        try:
            with torch.no_grad():
                network(image)
        except Exception as error:  # whatever a network of others raises
            raise OptionError(
                f"a detector on {type(network).__name__}",
                found=f"it fails on an image of {_SIDE} pixels ({type(error).__name__}: {error})",
                allowed="a network for images of any size",
            ) from error
    return calls


def _chain(calls: Sequence[_Call]) -> Iterator[_Call]:
    """The modules that lead from the image to the head one after the other, as large as they may be.

    Larger ones, that halve the map more than once, are the modules within them.
    """
    times = Counter(call.module for call in calls)
    stride = 1

    def within(outer: str) -> Iterator[_Call]:
        nonlocal stride
        begin = f"{outer}." if outer else ""
        inner = [call for call in calls if call.module.startswith(begin) and call.module != outer]
        names = {call.module for call in inner}
        for call in inner:
            if any(each in names for each in _ancestors(call.module) if len(each) > len(outer)):
                continue
            if call.stride > 2 * stride and any(name.startswith(f"{call.module}.") for name in names):
                yield from within(call.module)
            elif call.stride >= stride and times[call.module] == 1:
                yield call
                stride = call.stride

    return within("")


def _ancestors(name: str) -> Iterator[str]:
    """The paths of the modules around one, the outermost first; without the network itself."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))

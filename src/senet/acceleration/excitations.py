"""Reads SE modules of any library: two layers and a gate, recognised by what they compute.

No class name is asked for. A module that has two 1×1 layers and nothing else to learn is run on
random numbers with random weights, and is an SE block if equations 2 to 4 give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet.block import SqueezeExcitation
from senet.kernels.reference import ACTIVATIONS, GATES, Tail, TailTensors
from senet.kernels.reference import tail as reference_tail
from senet.tail import Excitation

# Why a tail does not compute them: the norm's sums give averages only.
_SQUEEZES = {
    "max": "its squeeze is a maximum, which the norm's sums do not give",
    "none": "it has no squeeze: its gates are a map",
}
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass
class Layers:
    """The two layers of somebody's SE module, and what stands between and after them.

    Args:
        first: C to hidden.
        second: hidden to C.
        hidden: see ``Excitation``, as for ``gate``.
        gate: what makes s.
    """

    first: nn.Module
    second: nn.Module
    hidden: str
    gate: str

    def stands_for(self, modules: Sequence[nn.Module]) -> bool:
        """Whether it is still what a module computes, by all that is in that."""
        return all(any(layer is each for each in modules) for layer in (self.first, self.second))

    def __call__(self) -> Excitation:
        """Equation 3, with the weights as they are now."""
        (w1, b1), (w2, b2) = _matrix(self.first), _matrix(self.second)
        return Excitation(w1, b1, w2, b2, self.gate, False, self.hidden)


@dataclass
class Own:
    """The layers of a block of ours.

    Args:
        block: the block.
    """

    block: SqueezeExcitation

    def stands_for(self, modules: Sequence[nn.Module]) -> bool:
        """As ``Layers.stands_for``: nobody has changed what the block does."""
        return self.block.is_plain

    def __call__(self) -> Excitation:
        """Equation 3, with the weights as they are now."""
        return self.block.excitation


def read(module: nn.Module, channels: int, rank: int) -> Layers | Own | str:
    """What makes the gates of an SE module, or why it is none that a fused tail can compute.

    Args:
        module: takes a map and returns it gated.
        channels: C.
        rank: of the map, 4 for images.
    """
    if isinstance(module, SqueezeExcitation):
        if not module.is_plain:
            return "its class, or one of its layers, computes something of its own"
        return _SQUEEZES.get(module.config.squeeze) or Own(module)
    layers = [each for each in module.modules() if isinstance(each, _LAYERS)]
    owned = {id(parameter) for layer in layers for parameter in layer.parameters()}
    others = [name for name, each in module.named_parameters() if id(each) not in owned]
    if others or any(True for _ in module.buffers()):
        return f"it has more to it than two layers: {(others or ['buffers'])[0]}"
    if len(layers) != 2:
        return f"it has {len(layers)} layers, and SE has two"
    shapes = [tuple(layer.weight.shape) for layer in layers]
    for first, second in ((0, 1), (1, 0)):
        hidden = shapes[first][0]
        ones = (1,) * (len(shapes[first]) - 2)
        if shapes[first] == (hidden, channels, *ones) and shapes[second] == (channels, hidden, *ones):
            found = _recognised(module, layers[first], layers[second], channels, rank)
            if found is not None:
                return found
    return "it computes something else than an average, two layers, a gate and a product"


def _recognised(
    module: nn.Module, first: nn.Module, second: nn.Module, channels: int, rank: int
) -> Layers | None:
    """The combination of activation and gate that gives what the module gives."""
    # On the CPU, wherever the module is and whatever device is the caller's default.
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu")
        for name, parameter in module.named_parameters()
    }
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    # Wide enough that every gate saturates somewhere and every activation bends.
    size = (4, channels, *(2,) * (rank - 2))
    x = 3 * torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    try:
        gives, in_training = (_given(module, weights, x, training=training) for training in (False, True))
    except Exception:
        return None
    if not isinstance(gives, Tensor) or gives.shape != x.shape or not torch.equal(gives, in_training):
        return None  # as with dropout, which only training has

    def of(layer: nn.Module, name: str) -> Tensor | None:
        parameter = getattr(layer, name)
        return None if parameter is None else weights[names[id(parameter)]]

    for hidden in ACTIVATIONS:
        for gate in GATES:
            w1, w2 = (of(layer, "weight") for layer in (first, second))
            tensors = TailTensors(
                x, None, None, None, None, None, None,
                w1.flatten(1), of(first, "bias"), w2.flatten(1), of(second, "bias"),  # type: ignore[union-attr]
            )  # fmt: skip
            ours = reference_tail(Tail("none", outer="identity", hidden=hidden, gate=gate), tensors).out
            if torch.allclose(ours, gives, rtol=1e-9, atol=1e-9):
                return Layers(first, second, hidden, gate)
    return None


def _given(module: nn.Module, weights: dict[str, Tensor], x: Tensor, *, training: bool) -> Any:
    """What a module gives with other weights, in one of its modes; it and the generator stay as they are."""
    modes = {each: each.training for each in module.modules()}
    try:
        module.train(training)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return torch.func.functional_call(module, weights, (x,))
    finally:
        for each, mode in modes.items():
            each.training = mode


def _matrix(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    return weight.flatten(1), bias

"""Which layers beside a product can take a constant scale in, so that the product is not needed.

A scale s (C,) of a map commutes with whatever treats channels one by one and is linear, and, where no
number of it is negative, with ReLU and maximum as well. So it moves back to the layer that made the map,
or forward to all that read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from senet.acceleration.sites import touched
from senet.graph.flow import MATRIX, NORMS, Flow
from senet.graph.trace import Op
from senet.normalisation import is_batch_norm

# What subclasses do to their weights is not known.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# One map to one map, channel by channel.
_LINEAR = frozenset(
    "mul mean clone alias squeeze avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d".split()
)
_HOMOGENEOUS = frozenset(
    "relu leaky_relu prelu _prelu_kernel max_pool2d_with_indices max_pool3d_with_indices".split()
)
_SUMS = frozenset("add sub lerp".split())
_FLATTENS = frozenset("view _unsafe_view reshape squeeze".split())


@dataclass(frozen=True)
class Fold:
    """One layer that takes a scale in.

    Args:
        layer: its path.
        side: "output": what it gives is scaled; "input": what it reads.
        scale: (C,), in float64.
    """

    layer: str
    side: str
    scale: Tensor

    def apply(self, model: nn.Module) -> None:
        """Multiplies the layer's parameters, in place."""
        layer: Any = model.get_submodule(self.layer)
        with torch.no_grad():
            if self.side == "output":
                for tensor in (layer.weight, layer.bias):
                    if tensor is not None:
                        _multiply(tensor, self.scale.reshape(-1, *(1,) * (tensor.ndim - 1)))
            else:
                # Of a grouped convolution, each group of outputs reads other channels.
                groups = getattr(layer, "groups", 1)
                read = self.scale.reshape(groups, 1, -1).expand(-1, len(layer.weight) // groups, -1)
                _multiply(
                    layer.weight, read.reshape(*layer.weight.shape[:2], *(1,) * (layer.weight.ndim - 2))
                )


def _multiply(tensor: Tensor, scale: Tensor) -> None:
    # In float64, as the scale is, and rounded once.
    tensor.copy_(tensor * scale.to(tensor.device))


class Neighbours:
    """The layers around the products of a network.

    Args:
        model: the network.
        flow: of its graph.
    """

    def __init__(self, model: nn.Module, flow: Flow) -> None:
        self.model = model
        self.flow = flow
        self.graph = flow.graph
        self.users = Counter(id(tensor) for module in model.modules() for tensor in _own_tensors(module))

    def absorb(self, gated: int, inside: Iterable[int], product: int, scale: Tensor) -> list[Fold] | None:
        """The layers that take ``scale`` in together, None where there are none.

        Args:
            gated: the map.
            inside: the operations of the attention, which alone may read it.
            product: the map times its gates.
            scale: (C,).
        """
        return self._before(gated, set(inside), scale) or self._after(product, scale)

    def _before(self, value: int, readers: set[int], scale: Tensor) -> list[Fold] | None:
        """The layers that make a value which only ``readers`` read."""
        op = self.graph.op_of(value)
        if op is None or not self._is_read_by(op, value, readers):
            return None
        if self._is_layer(op) or self._is_norm(op):
            return [Fold(op.module, "output", scale)]
        inner = {op.index}
        if self._passes(op, scale):
            return self._before(op.inputs[0], inner, scale)
        if self._is_sum(op):
            return _all(self._before(each, inner, scale) for each in op.inputs)
        if self.flow.is_concatenation(op):
            parts = torch.split(scale, [self.flow.channels(each) for each in op.inputs])
            return _all(self._before(each, inner, part) for each, part in zip(op.inputs, parts, strict=True))
        return None

    def _after(self, value: int, scale: Tensor) -> list[Fold] | None:
        """The layers that read a value, if only such do."""
        readers = self.graph.consumers(value)
        op = self.graph.op_of(value)
        if op is None or not readers or not self._is_read_by(op, value, {each.index for each in readers}):
            return None
        return _all(self._into(op, scale) for op in readers)

    def _into(self, op: Op, scale: Tensor) -> list[Fold] | None:
        shapes = self.graph.shapes
        if len(op.inputs) != 1:
            return None
        if self._is_layer(op):
            layer = self.model.get_submodule(op.module)
            # Zeros around a map stay zeros; other paddings are made of what is read, before it is scaled.
            padded = getattr(layer, "padding_mode", "zeros") != "zeros"
            return None if padded else [Fold(op.module, "input", scale)]
        given, made = shapes[op.inputs[0]], shapes[op.outputs[0]]
        if op.name in _FLATTENS and made == (given[0], prod(given[1:])):
            return self._after(op.outputs[0], scale.repeat_interleave(prod(given[2:])))
        return self._after(op.outputs[0], scale) if self._passes(op, scale) else None

    def _is_read_by(self, op: Op, value: int, readers: set[int]) -> bool:
        """Whether of what an operation made, only ``value`` is read, and only by these operations."""
        return all(
            each not in self.graph.outputs
            and all(each == value and reader.index in readers for reader in self.graph.consumers(each))
            for each in op.outputs
        )

    def _passes(self, op: Op, scale: Tensor) -> bool:
        """Whether it commutes with the scale."""
        known = op.name in _LINEAR or (op.name in _HOMOGENEOUS and bool((scale >= 0).all()))
        shapes = self.graph.shapes
        return known and len(op.inputs) == 1 and shapes[op.inputs[0]][:2] == shapes[op.outputs[0]][:2]

    def _is_sum(self, op: Op) -> bool:
        shapes = {self.graph.shapes[each] for each in (*op.inputs, op.outputs[0])}
        return op.name in _SUMS and len(set(op.inputs)) == 2 and len(shapes) == 1

    def _is_layer(self, op: Op) -> bool:
        """Whether it is that of a convolution or linear layer which nothing else depends on."""
        flat = op.name in MATRIX and len(self.graph.shapes[op.inputs[0]]) == 2
        kinds = CONVOLUTIONS if op.name == "convolution" else (nn.Linear,) if flat else ()
        return type(self.model.get_submodule(op.module)) in kinds and self.is_free(op.module)

    def _is_norm(self, op: Op) -> bool:
        """Whether it is the last of a batch norm's with a weight of its own."""
        norm: Any = self.model.get_submodule(op.module)
        # A norm that never learns is written as a product and a sum.
        ends = op.name in NORMS or op.name == "add"
        return ends and is_batch_norm(norm) and norm.weight is not None and self.is_free(op.module)

    def is_free(self, path: str) -> bool:
        """Whether nothing else depends on a layer: its tensors are its own, it runs once, as it is."""
        module = self.model.get_submodule(path)
        alone = all(self.users[id(tensor)] == 1 for tensor in _own_tensors(module))
        return alone and self.graph.runs[path] == 1 and touched(module) is None


def _own_tensors(module: nn.Module) -> list[Tensor]:
    found = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in found if tensor is not None]


def _all(parts: Iterable[list[Fold] | None]) -> list[Fold] | None:
    """All folds together, None if there are none for one part."""
    folds: list[Fold] = []
    for part in parts:
        if part is None:
            return None
        folds += part
    return folds

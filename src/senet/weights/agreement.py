"""Whether a network of ours is the one of a prototxt, in what no tensor shows: layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from senet.weights.layouts.caffe import LAYOUTS, POOLINGS
from senet.weights.prototxt import PrototxtLayer

# What computes without anything to compare, or what a network of ours does in its forward.
_SILENT = frozenset(
    "Axpy Concat Dropout Data Eltwise Flatten Input ReLU Reshape Scale Sigmoid Softmax Split".split()
)


def differences(layers: Iterable[PrototxtLayer], model: nn.Module) -> list[str]:
    """A sentence for each difference; none where convolutions, norms, linear layers and poolings agree.

    Sizes, strides, paddings, groups, biases, epsilons and the rounding of poolings are compared, and that
    every such module is in the prototxt. How the layers are connected is not.

    Args:
        layers: of ``read_prototxt``.
        model: a network of ours.
    """
    facts = {path: facts for path, module in model.named_modules() if (facts := _facts(module))}
    found: list[str] = []
    seen = set()
    for layer in layers:
        if layer.type in _SILENT or layer.get("pooling_param.global_pooling"):
            continue
        path = next((path for path in _paths(layer) if path in facts), None)
        compare = _COMPARED.get(layer.type)
        if layer.type == "Pooling" and path is None:
            found += _final(layer)
        elif compare is None or path is None:
            found.append(f"{layer.name}, a {layer.type}, is nothing in the network")
        else:
            seen.add(path)
            found += [
                f"{layer.name}: {key} is {value}, and {facts[path].get(key)} in {path}"
                for key, value in compare(layer).items()
                if facts[path].get(key) != value
            ]
    return [*found, *(f"{path} is no layer of the prototxt" for path in facts if path not in seen)]


def _paths(layer: PrototxtLayer) -> Iterator[str]:
    """The modules that a layer may be."""
    nothing = torch.empty(0)
    if layer.type == "Pooling":
        found = [row.to_ours(layer.name, nothing) for row in POOLINGS]
        yield from (each[0] for each in found if each is not None)
        return
    for layout in LAYOUTS:
        for row in layout.rows:
            each = row.to_ours(f"{layer.name}.weight", nothing)
            if each is not None:
                yield each[0].removesuffix(".weight")


def _pair(layer: PrototxtLayer, message: str, name: str, default: int) -> tuple[int, int]:
    """Caffe's way to give two numbers: one for both, one each, or one under its own name."""
    both = layer.values(f"{message}.{name}") or (default,)
    # "kernel_size" alone, but "kernel_h" and "kernel_w".
    stem = name.removesuffix("_size")
    height, width = (layer.get(f"{message}.{stem}_{side}") for side in "hw")
    return height or both[0], width or both[-1]


def _convolution(layer: PrototxtLayer) -> dict[str, Any]:
    message = "convolution_param"
    return {
        "outputs": layer.get(f"{message}.num_output"),
        "kernel": _pair(layer, message, "kernel_size", 1),
        "stride": _pair(layer, message, "stride", 1),
        "pad": _pair(layer, message, "pad", 0),
        "dilation": layer.get(f"{message}.dilation", 1),
        "groups": layer.get(f"{message}.group", 1),
        "bias": layer.get(f"{message}.bias_term", True),
    }


def _pooling(layer: PrototxtLayer) -> dict[str, Any]:
    message = "pooling_param"
    stride = _pair(layer, message, "stride", 1)
    return {
        "pool": layer.get(f"{message}.pool", "MAX"),
        "kernel": _pair(layer, message, "kernel_size", 1),
        "stride": stride,
        "pad": _pair(layer, message, "pad", 0),
        # Caffe's always does, and at stride 1 there is nothing to round.
        **({} if stride == (1, 1) else {"rounds up": True}),
    }


def _final(layer: PrototxtLayer) -> list[str]:
    """The pooling before the classifier, which is a mean here."""
    kind = layer.get("pooling_param.pool", "MAX")
    return [] if kind == "AVE" else [f"{layer.name}: it takes the {kind}, and the network the mean"]


_COMPARED: Mapping[str, Callable[[PrototxtLayer], dict[str, Any]]] = {
    "Convolution": _convolution,
    "Pooling": _pooling,
    "InnerProduct": lambda layer: {
        "outputs": layer.get("inner_product_param.num_output"),
        "bias": layer.get("inner_product_param.bias_term", True),
    },
    "BatchNorm": lambda layer: {"eps": layer.get("batch_norm_param.eps", 1e-5)},
}


def _facts(module: nn.Module) -> dict[str, Any]:
    """What ours says to the same questions."""
    if isinstance(module, nn.Linear):
        # As the convolution that Caffe has in SE.
        alone = {"kernel": (1, 1), "stride": (1, 1), "pad": (0, 0), "dilation": 1, "groups": 1}
        return {"outputs": module.out_features, "bias": module.bias is not None, **alone}
    if isinstance(module, nn.Conv2d):
        return {
            "outputs": module.out_channels,
            "kernel": module.kernel_size,
            "stride": module.stride,
            "pad": module.padding,
            "dilation": module.dilation[0],
            "groups": module.groups,
            "bias": module.bias is not None,
        }
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return {
            "pool": "MAX" if isinstance(module, nn.MaxPool2d) else "AVE",
            "kernel": _both(module.kernel_size),
            "stride": _both(module.stride),
            "pad": _both(module.padding),
            "rounds up": module.ceil_mode,
        }
    return {"eps": module.eps} if isinstance(module, nn.BatchNorm2d) else {}


def _both(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])

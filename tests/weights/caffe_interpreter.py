"""Caffe's networks computed from their text, in float64: the truth for what is imported from Caffe.

Written from what Caffe's layers compute (their sources in BVLC/caffe, and ``axpy_layer.cpp`` of
hujie-frank/SENet), with nothing of senet but the reader of the text. What it does not know it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from senet.weights.prototxt import PrototxtLayer

Arrays = Mapping[str, Sequence[NDArray[Any]]]

# Fields that say nothing of what a trained layer computes.
_IDLE = {"engine", "weight_filler", "bias_filler", "filler"}


def run(
    layers: Sequence[PrototxtLayer], blobs: Arrays, images: Tensor, keep: Collection[str] = ()
) -> dict[str, Tensor]:
    """The outputs of a network by name, in float64: the tops that no layer takes, and those of ``keep``.

    Args:
        layers: of the text, one of the type "Input" among them.
        blobs: the arrays of each layer, as a ``.caffemodel`` holds them.
        images: (N, C, H, W); the size in the text is not looked at.
        keep: further tops, such as "classifier"; a top that is worked on in place is kept as it ends.
    """
    wanted = set(keep)
    for layer in layers:
        wanted = (wanted - set(layer.bottoms)) | set(layer.tops)
    wanted |= set(keep)
    last = {bottom: index for index, layer in enumerate(layers) for bottom in layer.bottoms}
    tops: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        (top,) = layer.tops
        if layer.type == "Input":
            tops[top] = images.double()
            continue
        arrays = [torch.from_numpy(np.array(blob, np.float64)) for blob in blobs.get(layer.name, ())]
        result = forward(layer, [tops[bottom] for bottom in layer.bottoms], arrays)
        for bottom in layer.bottoms:
            if last[bottom] == index and bottom not in wanted:
                tops.pop(bottom, None)
        tops[top] = result
    return {top: tops[top] for top in wanted}


def forward(layer: PrototxtLayer, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    """The top of a layer."""
    message, compute = _LAYERS[layer.type]
    with _options(layer, message) as options:
        return compute(options, bottoms, blobs)


def random_blobs(layers: Sequence[PrototxtLayer], seed: int) -> dict[str, tuple[NDArray[np.float32], ...]]:
    """Arrays for every layer of a text that has some, such that deep networks stay of order 1.

    Statistics are random too: means of about 0.1, variances of 0.5 to 1.5, both times a factor that is
    not 1. Shapes follow from the text, its size of images included.
    """
    rng = np.random.default_rng(seed)
    # A branch is the smaller, the more of them are added up.
    branches = {layer.bottoms[1] for layer in layers if layer.type == "Axpy"}
    small = 0.7 / max(1, len(branches)) ** 0.5
    blobs: dict[str, tuple[NDArray[np.float32], ...]] = {}
    tops: dict[str, Tensor] = {}
    for layer in layers:
        (top,) = layer.tops
        if layer.type == "Input":
            tops[top] = _only_shape(layer.values("input_param.shape.dim"))
            continue
        bottoms = [tops[bottom] for bottom in layer.bottoms]
        arrays = _random(
            layer, [tuple(bottom.shape) for bottom in bottoms], rng, small if top in branches else 1
        )
        if arrays:
            blobs[layer.name] = tuple(array.astype(np.float32) for array in arrays)
        tops[top] = forward(layer, bottoms, [_only_shape(array.shape) for array in arrays])
    return blobs


def _only_shape(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="meta")


def _random(
    layer: PrototxtLayer, bottoms: list[tuple[int, ...]], rng: np.random.Generator, gain: float
) -> list[NDArray[Any]]:
    entering = bottoms[0][1]
    match layer.type:
        case "Convolution" | "InnerProduct":
            convolution = layer.type == "Convolution"
            message = "convolution_param" if convolution else "inner_product_param"
            width = layer.get(f"{message}.num_output")
            kernel = layer.get(f"{message}.kernel_size", 1)
            inside = (entering // layer.get(f"{message}.group", 1), kernel, kernel)
            shape = (width, *inside) if convolution else (width, int(np.prod(bottoms[0][1:])))
            # More than what keeps the size behind a ReLU: gates make it smaller.
            weight = rng.standard_normal(shape) * np.sqrt((2.5 if convolution else 0.05) / np.prod(shape[1:]))
            bias = [rng.normal(1, 0.5, width)] if layer.get(f"{message}.bias_term", True) else []
            return [weight, *bias]
        case "BatchNorm":
            mean, variance = rng.normal(0, 0.1, entering), rng.uniform(0.5, 1.5, entering)
            factor = rng.uniform(900, 1000)
            return [mean * factor, variance * factor, np.array([factor])]
        case "Scale" if len(bottoms) == 1:
            return [gain * rng.uniform(0.5, 1.5, entering), gain * rng.normal(0, 0.2, entering)]
        case _:
            return []


class _Options:
    """The options of a layer; what is not asked for is not allowed to be there."""

    def __init__(self, fields: Mapping[str, tuple[Any, ...]]) -> None:
        self._fields = fields
        self.unknown = set(fields) - _IDLE

    def all(self, name: str) -> tuple[Any, ...]:
        self.unknown.discard(name)
        return self._fields.get(name, ())

    def get(self, name: str, default: Any) -> Any:
        return (default, *self.all(name))[-1]

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """Of height and width: given once, for each, or by names of their own."""
        both = self.all(name) or (default,)
        short = name.removesuffix("_size")
        return self.get(f"{short}_h", both[0]), self.get(f"{short}_w", both[-1])


@contextmanager
def _options(layer: PrototxtLayer, message: str) -> Iterator[_Options]:
    others = set(layer.parameters) - {message, "param", "phase"}
    options = _Options(layer.get(message, {}) if message else {})
    yield options
    assert not (others | options.unknown), f"{layer.name}: {others | options.unknown} is not known"


def _input_is_output(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    options.get("dropout_ratio", 0.5)
    return bottoms[0]


def _convolution(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    weight, *bias = blobs
    assert len(bias) == options.get("bias_term", True)
    assert weight.shape[0] == options.get("num_output", 0)
    assert tuple(weight.shape[2:]) == options.pair("kernel_size", 0)
    return F.conv2d(
        bottoms[0],
        weight,
        bias[0].flatten() if bias else None,
        stride=options.pair("stride", 1),
        padding=options.pair("pad", 0),
        dilation=options.pair("dilation", 1),
        groups=options.get("group", 1),
    )


def _batch_norm(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    assert options.get("use_global_stats", True)
    mean, variance, factor = (blob.flatten() for blob in blobs)
    options.get("moving_average_fraction", 0.999)
    # A factor of 0 stands for statistics that were never taken.
    scale = torch.where(factor == 0, 0, 1 / factor)
    shape = (1, -1) + (1,) * (bottoms[0].ndim - 2)
    mean, variance = (mean * scale).reshape(shape), (variance * scale).reshape(shape)
    return (bottoms[0] - mean) / torch.sqrt(variance + options.get("eps", 1e-5))


def _scale(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    x, axis = bottoms[0], options.get("axis", 1)
    if len(bottoms) == 2:
        scale, *bias = bottoms[1], *blobs
    else:
        assert options.get("num_axes", 1) == 1
        scale, *bias = (blob.flatten() for blob in blobs)
    assert len(bias) == options.get("bias_term", False)
    assert x.shape[axis : axis + scale.ndim] == scale.shape
    after = (1,) * (x.ndim - axis - scale.ndim)
    x = x * scale.reshape(scale.shape + after)
    return x + bias[0].reshape(scale.shape + after) if bias else x


def _relu(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    return F.leaky_relu(bottoms[0], options.get("negative_slope", 0))


def _sigmoid(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    return torch.sigmoid(bottoms[0])


def _pooling(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    x = bottoms[0]
    whole = options.get("global_pooling", False)
    kernels = tuple(x.shape[2:]) if whole else options.pair("kernel_size", 0)
    strides, pads = options.pair("stride", 1), options.pair("pad", 0)
    average = options.get("pool", "MAX") == "AVE"
    assert average or options.get("pool", "MAX") == "MAX"
    sizes = []
    counts = []
    for extent, kernel, stride, pad in zip(x.shape[2:], kernels, strides, pads, strict=True):
        size = ceil((extent + 2 * pad - kernel) / stride) + 1
        if pad and (size - 1) * stride >= extent + pad:
            size -= 1  # The last window would start in the padding.
        sizes.append(size)
        starts = torch.arange(size, dtype=torch.float64, device=x.device) * stride - pad
        counts.append((starts + kernel).clamp(max=extent + pad) - starts)
    # What hangs over the padding is cut off, and no part of an average.
    over = [
        (size - 1) * stride + kernel - extent - pad
        for size, stride, kernel, extent, pad in zip(sizes, strides, kernels, x.shape[2:], pads, strict=True)
    ]
    x = F.pad(x, (pads[1], over[1], pads[0], over[0]), value=0.0 if average else -torch.inf)
    windows = x.unfold(2, kernels[0], strides[0]).unfold(3, kernels[1], strides[1])
    if not average:
        return windows.amax((-2, -1))
    return windows.sum((-2, -1)) / (counts[0][:, None] * counts[1])


def _inner_product(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    weight, *bias = blobs
    width = options.get("num_output", 0)
    assert (options.get("axis", 1), options.get("transpose", False)) == (1, False)
    assert len(bias) == options.get("bias_term", True)
    return F.linear(bottoms[0].flatten(1), weight.reshape(width, -1), bias[0].flatten() if bias else None)


def _softmax(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    return bottoms[0].softmax(options.get("axis", 1))


def _axpy(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    a, x, y = bottoms
    assert x.shape == y.shape
    return a.reshape(*x.shape[:2], 1, 1) * x + y


def _eltwise(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    kind = options.get("operation", "SUM")
    if kind == "SUM":
        coefficients = options.all("coeff") or (1,) * len(bottoms)
        return sum((c * x for c, x in zip(coefficients, bottoms, strict=True)), torch.zeros(()))
    stacked = torch.stack(bottoms)
    return stacked.prod(0) if kind == "PROD" else stacked.amax(0)


def _concat(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    return torch.cat(bottoms, options.get("axis", 1))


def _reshape(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    dims = options.get("shape", {}).get("dim", ())
    return bottoms[0].reshape([dim or bottoms[0].shape[index] for index, dim in enumerate(dims)])


def _flatten(options: _Options, bottoms: list[Tensor], blobs: list[Tensor]) -> Tensor:
    return bottoms[0].flatten(options.get("axis", 1), options.get("end_axis", -1))


# By type: the message with its options, and what it computes.
_LAYERS: dict[str, tuple[str, Callable[[_Options, list[Tensor], list[Tensor]], Tensor]]] = {
    "Axpy": ("", _axpy),
    "BatchNorm": ("batch_norm_param", _batch_norm),
    "Concat": ("concat_param", _concat),
    "Convolution": ("convolution_param", _convolution),
    "Dropout": ("dropout_param", _input_is_output),
    "Eltwise": ("eltwise_param", _eltwise),
    "Flatten": ("flatten_param", _flatten),
    "InnerProduct": ("inner_product_param", _inner_product),
    "Pooling": ("pooling_param", _pooling),
    "ReLU": ("relu_param", _relu),
    "Reshape": ("reshape_param", _reshape),
    "Scale": ("scale_param", _scale),
    "Sigmoid": ("sigmoid_param", _sigmoid),
    "Softmax": ("softmax_param", _softmax),
}

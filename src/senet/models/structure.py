"""What a network is made of, printed as the paper prints it (Table 1, "Figure 4" of introductions)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from senet.block import SqueezeExcitation
from senet.graph.trace import Graph, trace
from senet.models.layers import Concatenation, ConvNormReLU
from senet.models.network import Network

Size = tuple[int, int]

# Where the line of a block stands among those of its unit, if not at the end, and what is said of it.
_PLACES = {
    "pre": (0, ""),
    "3x3": (-1, ""),
    "post": (99, " after the sum"),
    "identity": (99, " on the shortcut"),
}


@dataclass(frozen=True)
class Part:
    """A layer or a unit, and how many of it follow one another.

    Args:
        stage: k of conv{k}_x, None for the head.
        size: (H, W) of its output.
        lines: its layers in words, such as "conv, 3×3, 64" and "fc, [16, 256]" for an SE block.
        times: how many.
    """

    stage: int | None
    size: Size
    lines: tuple[str, ...]
    times: int = 1


@dataclass(frozen=True)
class Structure:
    """The parts of a network, from the images to the scores.

    Args:
        parts: in order.
    """

    parts: tuple[Part, ...]

    @property
    def rows(self) -> list[dict[str, object]]:
        """A row a part, as JSON can hold it."""
        return [
            {"stage": part.stage, "size": list(part.size), "layers": list(part.lines), "times": part.times}
            for part in self.parts
        ]

    def __str__(self) -> str:
        lines = [f"{'stage':7}{'output':11}layers"]
        stage, size = "", ""
        for part in self.parts:
            now = str(part.stage or ""), f"{part.size[0]} × {part.size[1]}"
            new = now != (stage, size)
            stage, size = now
            for index, line in enumerate(_bracketed(part)):
                left = f"{stage:7}{size:11}" if new and index == 0 else " " * 18
                lines.append(left + line)
        return "\n".join(lines)


def structure(network: Network, image: tuple[int, int, int]) -> Structure:
    """The parts of ``network`` and the sizes of their outputs for images of (C, H, W)."""
    example = torch.empty(1, *image, device="meta")
    graph = trace(network, example, without_memory=next(network.parameters()).device.type != "meta")
    sizes = _sizes(graph)
    found = [
        Part(level.stage, sizes[path], lines)
        for level in network.pyramid_info
        for name in level.modules
        for path, lines in _parts(name, network.get_submodule(name))
    ]
    found += _head(network, sizes)
    groups = (list(group) for _, group in groupby(found, lambda part: (part.stage, part.size, part.lines)))
    return Structure(
        tuple(Part(first.stage, first.size, first.lines, 1 + len(rest)) for first, *rest in groups)
    )


def _sizes(graph: Graph) -> dict[str, Size]:
    """(H, W) of what each module that ran gave, (1, 1) for vectors."""
    sizes = {}
    for call in graph.calls:
        if call.output is not None:
            shape = graph.shapes[call.output]
            sizes[call.module] = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
    return sizes


def _parts(path: str, module: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The units and layers in a module, with their paths; a Sequential is a chain of them."""
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _parts(f"{path}.{name}", child)
        return
    alone = _layer(module.conv if isinstance(module, ConvNormReLU) else module, stride=True)
    if alone:
        lines = [alone]
    else:
        # A child of a unit is a line: one convolution, or a branch of several.
        children = [child for name, child in module.named_children() if name not in ("downsample", "se")]
        branches = [
            branch
            for child in children
            for branch in (child.children() if isinstance(child, Concatenation) else [child])
        ]
        lines = [" → ".join(filter(None, map(_layer, branch.modules()))) for branch in branches]
    lines = [line for line in lines if line]
    se = getattr(module, "se", None)
    if isinstance(se, SqueezeExcitation):
        placement = getattr(module, "placement", None)
        where, after = _PLACES.get(placement.name if placement else "", (len(lines), ""))
        lines.insert(where, f"fc, [{se.fc1.out_features}, {se.channels}]{after}")
    if lines:
        yield path, tuple(lines)


def _layer(module: nn.Module, *, stride: bool = False) -> str:
    """One layer in words; empty for what is none of the paper's lines."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels > 1
        words = ["depthwise conv" if depthwise else "conv", _times(module.kernel_size)]
        words.append(str(module.out_channels))
        words += [f"C={module.groups}"] if module.groups > 1 and not depthwise else []
        steps = module.stride[0]
    elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max pool" if isinstance(module, nn.MaxPool2d) else "average pool"
        words, steps = [kind, _times(module.kernel_size)], int(module.stride)  # type: ignore[arg-type]
    else:
        return ""
    return ", ".join([*words, f"stride {steps}"] if stride and steps > 1 else words)


def _times(kernel: int | tuple[int, ...]) -> str:
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return f"{height}×{width}"


def _head(network: Network, sizes: dict[str, Size]) -> list[Part]:
    """What runs after the last level."""
    in_levels = tuple(f"{module}." for level in network.pyramid_info for module in level.modules)
    after = [
        (name, module)
        for name, module in network.named_modules()
        if name in sizes and not f"{name}.".startswith(in_levels)
    ]
    pools = [
        Part(None, sizes[name], (_layer(module, stride=True),)) for name, module in after if _layer(module)
    ]
    layers = [module for _, module in after if isinstance(module, nn.Linear)]
    words = [f"{layer.out_features}-d fc" for layer in layers]
    if layers[0].in_features == network.pyramid_info[-1].channels:
        words.insert(0, "global average pool")
    return [*pools, Part(None, (1, 1), (", ".join(words),))]


def _bracketed(part: Part) -> list[str]:
    """The lines of a part, in brackets if they are several, and how often they are there."""
    times = f" × {part.times}" if part.times > 1 else ""
    if len(part.lines) == 1:
        return [part.lines[0] + times]
    width = max(len(line) for line in part.lines)
    last = len(part.lines) - 1
    lefts = ["⎡", *"⎢" * (last - 1), "⎣"]
    rights = ["⎤", *"⎥" * (last - 1), "⎦"]
    middle = last // 2
    return [
        f"{left} {line:{width}} {right}{times if index == middle else ''}"
        for index, (left, line, right) in enumerate(zip(lefts, part.lines, rights, strict=True))
    ]

"""Finds an input that a network runs on, from its first convolution and the usual sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._pytree import tree_leaves, tree_map

from senet.errors import TraceError
from senet.graph.trace import Example, Graph, device_of, trace

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# The sizes that networks are made for; those with fixed linear layers take only their own.
_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: tuple((size,) for size in (1024, 16_000, 4096, 256, 128, 64)),
    2: tuple(
        (size, size) for size in (224, 32, 28, 299, 256, 64, 96, 128, 192, 240, 288, 320, 331, 384, 448)
    ),
    3: tuple((frames, size, size) for frames, size in ((16, 112), (16, 224), (8, 32), (32, 32), (64, 64))),
}
# More than one, so that the batch is no dimension of size one among others.
_BATCH = 2


def trace_with(model: nn.Module, example: Example | None) -> tuple[Graph, Example]:
    """The graph of ``model``, on ``example`` or on an input that it is found to run on.

    Returns:
        The graph, and the example: on "meta" where its numbers did not matter.

    Raises:
        TraceError: it does not run on the example, or on any usual one.
    """
    if example is not None:
        try:
            return _traced(model, example), tree_map(_without_numbers, example)
        except TraceError as error:
            if any(leaf.is_meta for leaf in tree_leaves(example) if isinstance(leaf, Tensor)):
                raise error
            try:
                # What it does next may depend on numbers: it gets them.
                return trace(model, example, without_memory=False), example
            except TraceError:
                # Or a user's hook prepares the input.
                return trace(model, example, without_memory=False, with_hooks=True), example
    first: TraceError | None = None
    for candidate in _candidates(model):
        try:
            return _traced(model, candidate), candidate
        except TraceError as error:
            first = first or error
            if isinstance(error.__cause__, DataDependentOutputException | DynamicOutputShapeException):
                numbers = torch.randn(candidate.shape, generator=torch.Generator().manual_seed(0))
                real = numbers.to(device_of(model), candidate.dtype)
                return trace(model, real, without_memory=False), real
    if first is None:
        raise TraceError(
            f"trace({type(model).__name__})",
            found="it has no convolution, whose maps SE would gate",
            do="If it convolves in functions, give example=: a tensor, or a tuple of what its forward takes.",
        )
    raise first


def _traced(model: nn.Module, example: Example) -> Graph:
    """The graph, without memory."""
    tensors = [leaf for leaf in (*model.parameters(), *tree_leaves(example)) if isinstance(leaf, Tensor)]
    if all(tensor.is_meta for tensor in tensors):
        # PyTorch's own shapes are several times as quick, where they do.
        with contextlib.suppress(TraceError):
            return trace(model, example, without_memory=False)
    return trace(model, example)


def _candidates(model: nn.Module) -> Iterator[Tensor]:
    """Inputs to try, on "meta": the size that the network says it is made for before all others."""
    convs = [module for module in model.modules() if isinstance(module, _CONVS)]
    if not convs:
        return
    weight = convs[0].weight
    rank = weight.ndim - 2
    # The first convolution to be made is mostly the first to run; an image has three channels.
    widths = dict.fromkeys([convs[0].in_channels, 3, 1, *sorted({conv.in_channels for conv in convs})[:3]])
    sizes = _SIZES[rank]
    declared = _declared(model)
    if declared and len(declared) == rank + 1:
        widths, sizes = {declared[0]: None, **widths}, (declared[1:], *sizes)
    for size in dict.fromkeys(sizes):
        for channels in widths:
            yield torch.empty(_BATCH, channels, *size, dtype=weight.dtype, device="meta")


def _declared(model: nn.Module) -> tuple[int, ...] | None:
    """The (C, H, W) that timm's networks carry."""
    config = getattr(model, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    return tuple(size) if size else None


def _without_numbers(leaf: Any) -> Any:
    return torch.empty_like(leaf, device="meta") if isinstance(leaf, Tensor) else leaf
